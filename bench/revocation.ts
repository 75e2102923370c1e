// `npm run bench:revocation`: what a new CRL costs a data thread that has many connections open. The
// longest pause of its event loop and the time until the last connection has been looked at, with
// peers of our own making; then, with real connections, what another client feels of it.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { DenyEntry } from '../src/config/config.ts'
import { readCertificate } from '../src/identity/certificate.ts'
import type { TrustMaterial } from '../src/identity/material.ts'
import type { VerifiedPeer } from '../src/identity/peer.ts'
import { packSerials } from '../src/identity/serials.ts'
import { PeerVerifier } from '../src/identity/verifier.ts'
import { sweep } from '../src/proxy/sweep.ts'
import {
  altNames,
  CA,
  commonName,
  type Forged,
  forge,
  forgeCrl,
  integer,
  revoked,
  uriName,
} from '../test/identity/forge.ts'
import { bundleOf, trustOf } from '../test/identity/trust-material.ts'
import type { Cleanup } from '../test/support/cleanup.ts'
import { eventually } from '../test/support/eventually.ts'
import { temporaryDirectory, testAuthority } from '../test/support/pki.ts'
import { connectRaw, startSidecar } from '../test/support/sidecar.ts'
import { startWorkload } from '../test/support/workload.ts'

const HELP = `Usage: npm run bench:revocation -- [options]

  --peers N        peers with a certificate of their own, without sockets (default 10000)
  --entries N      serial numbers in the CRL (default 100000)
  --connections N  real connections, half of them to be revoked (default 1000)`

interface Setup {
  readonly before: TrustMaterial
  readonly leaves: readonly Uint8Array[]
}

interface Case {
  readonly what: string
  readonly trust: TrustMaterial
}

interface Result {
  readonly longestPauseMs: number
  /** The same in processor time of the thread: without what other processes took from it. */
  readonly longestWorkMs: number
  readonly usualPauseMs: number
  readonly untilLastMs: number
  readonly looked: number
  readonly refused: number
}

if (isMainThread) await main()
else await dataThread(workerData as Setup)

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      peers: { type: 'string', default: '10000' },
      entries: { type: 'string', default: '100000' },
      connections: { type: 'string', default: '1000' },
      help: { type: 'boolean', default: false },
    },
  })
  if (options.help) return console.log(HELP)
  if (options.peers !== '0') await withoutSockets(Number(options.peers), Number(options.entries))
  const connections = Number(options.connections)
  if (connections > 0) await withSockets(connections, Number(options.entries))
  process.exit()
}

function padding(entries: number): string[] {
  return Array.from({ length: entries }, (_, at) => (0x7000_0000_0000 + at).toString(16))
}

async function withoutSockets(peers: number, entries: number): Promise<void> {
  const root = forge({ subject: commonName('root'), extensions: [CA] })
  const other = forge({ subject: commonName('other'), extensions: [CA] })
  const bundles = [bundleOf([root, other])]
  const serialOf = (at: number): string => (0x1000_0000 + at).toString(16)
  const leaves = Array.from({ length: peers }, (_, at) =>
    forge({
      key: root.key,
      issuer: root,
      serial: integer(serialOf(at)),
      extensions: [altNames(uriName(`spiffe://example.org/ns/${at % 100}/sa/${at}`))],
    }),
  )
  const crl = (issuer: Forged): Buffer => forgeCrl({ issuer })
  const before = trustOf(bundles, { crls: [crl(root), crl(other)] })
  const after = (at: number, more: Partial<TrustMaterial>): TrustMaterial => ({
    ...before,
    generation: at,
    ...more,
  })
  const long = (name: string, serials: readonly string[]) =>
    before.crls.map((one) =>
      one.issuer === name
        ? { ...one, revokedSerials: packSerials([...padding(entries), ...serials]) }
        : one,
    )
  const half = leaves.flatMap((_, at) => (at % 2 === 0 ? serialOf(at) : []))
  const deny = (pattern: string): DenyEntry => ({
    where: 'revoked.yaml:1',
    what: { kind: 'spiffe_id', pattern },
  })
  const patterns = Array.from({ length: 1_000 }, (_, at) => deny(`spiffe://example.org/**/x${at}`))
  const cases: Case[] = [
    { what: 'CRL of another authority', trust: after(2, { crls: long('CN=other', []) }) },
    { what: 'CRL of their authority', trust: after(2, { crls: long('CN=root', []) }) },
    { what: 'CRL with every second', trust: after(2, { crls: long('CN=root', half) }) },
    {
      what: 'deny list, one entry',
      trust: after(2, { denied: [deny('spiffe://example.org/ns/7/**')] }),
    },
    { what: 'deny list, 1000 patterns', trust: after(2, { denied: patterns }) },
    { what: 'another root', trust: after(2, { bundleGeneration: 2 }) },
  ]
  console.log(`${peers} peers, CRLs of ${entries} entries, no sockets:`)
  for (const { what, trust } of cases) {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { before, leaves: leaves.map(({ der }) => new Uint8Array(der)) } satisfies Setup,
    })
    await once(worker, 'message')
    worker.postMessage(trust)
    const [result] = (await once(worker, 'message')) as [Result]
    await worker.terminate()
    console.log(
      `  ${what.padEnd(26)} longest pause ${result.longestPauseMs.toFixed(1).padStart(6)} ms, ` +
        `(work ${result.longestWorkMs.toFixed(1)} ms; before ${result.usualPauseMs.toFixed(1)} ms), last peer after ${result.untilLastMs.toFixed(0).padStart(5)} ms, ` +
        `${result.looked} looked at, ${result.refused} refused`,
    )
  }
}

function threadMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1_000
}

/** Everything that a data thread does with a snapshot that concerns its peers. */
async function dataThread({ before, leaves }: Setup): Promise<void> {
  const clock = { nowMs: () => Date.now(), monotonicMs: () => performance.now() }
  const first = new PeerVerifier(before)
  let verifier = first
  let looked = 0
  let refused = 0
  let lastMs = 0
  const connections = leaves.map((der) => {
    const peer = first.verify([new X509Certificate(der)], Date.now())
    if (peer.kind === 'rejection') throw new Error(peer.detail)
    return {
      peer: peer as VerifiedPeer,
      verifyAgain(nowMs: number): void {
        looked++
        const again = verifier.recheck(this.peer, nowMs)
        if (again.kind === 'peer') this.peer = again
        else refused++
        lastMs = performance.now()
      },
      guarded(step: (connection: never) => void): void {
        step(this as never)
      },
    }
  })
  // Turns of the event loop, as a request would get them; a pause is a long one.
  let [longestPauseMs, longestWorkMs] = [0, 0]
  let [turnedAtMs, workedMs] = [performance.now(), threadMs()]
  const turn = (): void => {
    const [nowMs, workMs] = [performance.now(), threadMs()]
    longestPauseMs = Math.max(longestPauseMs, nowMs - turnedAtMs)
    longestWorkMs = Math.max(longestWorkMs, workMs - workedMs)
    ;[turnedAtMs, workedMs] = [nowMs, workMs]
    setImmediate(turn)
  }
  const settle = (): Promise<unknown> => new Promise((resolve) => setTimeout(resolve, 1_000))
  await settle()
  turn()
  await new Promise((resolve) => setImmediate(resolve))
  ;[longestPauseMs, longestWorkMs] = [0, 0]
  await settle()
  const usualPauseMs = longestPauseMs
  ;[longestPauseMs, longestWorkMs] = [0, 0]
  parentPort?.once('message', (trust: TrustMaterial) => {
    const beganMs = performance.now()
    lastMs = beganMs
    verifier = new PeerVerifier(trust, first)
    sweep(connections, verifier, clock)
    setTimeout(() => {
      const untilLastMs = lastMs - beganMs
      parentPort?.postMessage({
        longestPauseMs,
        longestWorkMs,
        usualPauseMs,
        untilLastMs,
        looked,
        refused,
      } satisfies Result)
    }, 5_000)
  })
  parentPort?.postMessage('ready')
}

async function withSockets(count: number, entries: number): Promise<void> {
  const endings: (() => unknown)[] = []
  const t: Cleanup = { after: (ending: () => unknown) => void endings.unshift(ending) } as Cleanup
  try {
    const directory = await temporaryDirectory(t)
    const authority = await testAuthority()
    const crlFile = join(directory, 'ca.crl')
    // Forged by hand: the library takes a minute for 100,000 entries.
    const { certificatePem, privateKeyPem } = authority.intermediate
    const reading = readCertificate(new X509Certificate(certificatePem))
    if (reading.kind === 'unreadable') throw new Error(reading.what)
    const issuer = { key: createPrivateKey(privateKeyPem), subject: reading.subjectDer }
    const crlOf = (serials: readonly string[], ageMs: number): Buffer =>
      forgeCrl({
        issuer,
        entries: serials.map((serial) => revoked(serial)),
        thisUpdate: new Date(Date.now() - ageMs),
      })
    const publish = (bytes: Buffer): Promise<void> => writeFile(crlFile, bytes)
    await publish(crlOf([], 60_000))
    await writeFile(
      join(directory, 'ca.crt'),
      authority.root.certificatePem + authority.intermediate.certificatePem,
    )
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      authority,
      forward: workload.url,
      config: {
        trust: { bundles: [{ file: join(directory, 'ca.crt') }], crls: [crlFile] },
        log: { decisions: 'off' },
      },
    })
    const [good, bad] = [await authority.svid('good'), await authority.svid('bad')]
    const open = []
    for (let at = 0; at < count; at++) {
      open.push(await connectRaw(t, sidecar, at % 2 === 0 ? bad : good))
    }
    const probe = await connectRaw(t, sidecar, good)
    let slowestMs = 0
    let probing = true
    const probes = (async () => {
      for (let seen = 0; probing; ) {
        const beganMs = performance.now()
        probe.write('GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n')
        seen = probe.received().length
        while (probe.received().length === seen) await new Promise((next) => setImmediate(next))
        slowestMs = Math.max(slowestMs, performance.now() - beganMs)
      }
    })()
    await new Promise((resolve) => setTimeout(resolve, 500))
    slowestMs = 0
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    const usualMs = slowestMs
    const crl = crlOf([...padding(entries), bad.serial], 1_000)
    // The probe was held up by making the CRL.
    await new Promise((resolve) => setTimeout(resolve, 200))
    slowestMs = 0
    await publish(crl)
    const writtenMs = performance.now()
    await eventually(
      'all are cut',
      async () =>
        (await sidecar.metric('postern_revocations_enforced_total{what="revoked"}')) >= count / 2,
      60_000,
    )
    const tookMs = performance.now() - writtenMs
    probing = false
    await probes
    console.log(
      `${count} connections, CRL of ${entries} entries: ${count / 2} cut ${tookMs.toFixed(0)} ms after the file; ` +
        `slowest request meanwhile ${slowestMs.toFixed(1)} ms (before: ${usualMs.toFixed(1)} ms)`,
    )
  } finally {
    for (const ending of endings) await ending()
  }
}
