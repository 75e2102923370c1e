// Everything that can be rotated is rotated at once, again and again, and between two good generations
// every file is broken in every way that files break. Nobody who is served notices; the last good
// generation stays, whoever asks is told so, and the next good one is in force without being asked.
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { appendFile, chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  Authority,
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
} from '../support/pki.ts'
import { reconfigure } from '../support/reconfigure.ts'
import { SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

const ALLOW_ALL = fileURLToPath(new URL('../policy/bundles/allow-all.tar.gz', import.meta.url))

type Files = Record<string, Buffer>

const half = (bytes: Buffer): Buffer => bytes.subarray(0, Math.floor(bytes.length / 2))

/** How files break; what is good is written over it, or `mend` brings it back. */
interface Fault {
  readonly breaks: (directory: string, files: Files) => Promise<unknown>
  /** Before good files are written again. */
  readonly mend?: (directory: string, files: Files) => Promise<unknown>
}

const each = (
  files: Files,
  step: (name: string, bytes: Buffer) => Promise<unknown>,
): Promise<unknown> => Promise.all(Object.entries(files).map(([name, one]) => step(name, one)))

const FAULTS: Readonly<Record<string, Fault>> = {
  empty: {
    breaks: (directory, files) => each(files, (name) => writeFile(join(directory, name), '')),
  },
  'cut off in the middle, and then completed by their writer': {
    breaks: (directory, files) =>
      each(files, (name, bytes) => writeFile(join(directory, name), half(bytes))),
    mend: (directory, files) =>
      each(files, (name, bytes) =>
        appendFile(join(directory, name), bytes.subarray(half(bytes).length)),
      ),
  },
  'full of something else': {
    breaks: (directory, files) =>
      each(files, (name) => writeFile(join(directory, name), 'no such thing\n'.repeat(100))),
  },
  'those of others, key and certificate exchanged': {
    breaks: async (directory, files) => {
      await writeFile(join(directory, 'tls.key'), files['tls.crt'] as Buffer)
      await writeFile(join(directory, 'tls.crt'), files['tls.key'] as Buffer)
    },
  },
  directories: {
    breaks: (directory, files) =>
      each(files, async (name) => {
        await rm(join(directory, name))
        await mkdir(join(directory, name))
      }),
    mend: (directory, files) =>
      each(files, (name) => rm(join(directory, name), { recursive: true })),
  },
  'not to be read': {
    breaks: (directory, files) => each(files, (name) => chmod(join(directory, name), 0)),
    mend: (directory, files) => each(files, (name) => chmod(join(directory, name), 0o600)),
  },
  'gone with their directory, which is put back': {
    breaks: (directory) => rename(directory, `${directory}.away`),
    mend: (directory) => rename(`${directory}.away`, directory),
  },
}

/** Root without the right to read whatever it likes. */
const LIKE_ANYBODY =
  process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search'] : []

describe('everything rotated at once, and broken in between', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  let directory: string
  let files: Files
  let serial = ''
  let round = 0
  let unused: Authority
  let policies: readonly Buffer[]
  let own: readonly IssuedCertificate[]
  let clients: readonly SteadyClient[]

  before(async () => {
    directory = join(await temporaryDirectory(t), 'volume')
    await mkdir(directory)
    authority = await testAuthority()
    unused = await Authority.create({ commonName: 'nobody is issued by this' })
    policies = [await readFile(SAMPLE_POLICY), await readFile(ALLOW_ALL)]
    own = await Promise.all(
      Array.from({ length: 4 }, () => authority.intermediate.issue({ dns: ['localhost'] })),
    )
    await writeGood()
    const path = (name: string): string => join(directory, name)
    sidecar = await startSidecar(t, {
      authority,
      forward: (await startWorkload(t)).url,
      launcher: LIKE_ANYBODY,
      config: {
        identity: { certificate: path('tls.crt'), privateKey: path('tls.key') },
        trust: { bundles: [{ file: path('ca.crt') }], crls: [path('ca.crl')] },
        policy: { bundle: path('bundle.tar.gz') },
        log: { decisions: 'off' },
      },
    })
    const web = await authority.svid('web')
    clients = [
      ...Array.from({ length: 4 }, () => new SteadyClient(t, sidecar, web)),
      new SteadyClient(t, sidecar, web, { keepAlive: false }),
    ]
  })

  /** The next generation of every file, each in place of the one before at once. */
  async function writeGood(): Promise<void> {
    round++
    const certificate = own[round % own.length] as IssuedCertificate
    const { root, intermediate } = authority
    const crl = { revoked: [], number: round }
    serial = certificate.serial
    files = {
      'tls.crt': Buffer.from(certificate.chainPem),
      'tls.key': Buffer.from(certificate.privateKeyPem),
      'ca.crt': Buffer.from(
        root.certificatePem +
          intermediate.certificatePem +
          (round % 2 === 0 ? unused.certificatePem : ''),
      ),
      'ca.crl': Buffer.from((await root.crl(crl)) + (await intermediate.crl(crl))),
      'bundle.tar.gz': policies[round % 2] as Buffer,
    }
    await each(files, async (name, bytes) => {
      await writeFile(join(directory, `.${name}`), bytes)
      await rename(join(directory, `.${name}`), join(directory, name))
    })
  }

  const snapshot = async () => JSON.parse((await sidecar.admin('GET', '/snapshot')).body)

  async function readiness(): Promise<{ status: number; failed: readonly string[] | undefined }> {
    const answer = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    const { details } = (await answer.json()) as { details: { failed_sources?: string[] } }
    return { status: answer.status, failed: details.failed_sources }
  }

  const failures = async (): Promise<number> => {
    const counted = (await sidecar.metrics()).matchAll(
      /^postern_reload_total\{source="\w+",result="failure"\} (\d+)$/gm,
    )
    return [...counted].reduce((sum, [, count]) => sum + Number(count), 0)
  }

  const inForce = (): Promise<unknown> =>
    eventually('the new generation is in force, and nothing is told to fail', async () => {
      const { identity, trust, policy } = await snapshot()
      return (
        identity.serial === serial &&
        trust.bundles[0].certificates.length === 2 + ((round + 1) % 2) &&
        policy.active.digest === hash('sha256', policies[round % 2] as Buffer) &&
        (await readiness()).failed === undefined
      )
    })

  for (const [how, { breaks, mend }] of Object.entries(FAULTS)) {
    it(`keeps the last good generation while its files are ${how}`, async () => {
      await inForce()
      const good = await snapshot()
      const failed = await failures()
      const lines = sidecar.lines.length

      await breaks(directory, files)
      // One file after the other breaks, and a reload may come in between.
      await eventually('it is told', async () => (await readiness()).failed?.includes('identity'))
      assert.equal((await readiness()).status, 200)
      assert.ok((await failures()) > failed)
      await eventually('it is logged', () =>
        sidecar.lines
          .slice(lines)
          .find(({ event, level }) => event === 'reload' && level === 'error'),
      )
      const report = await sidecar.admin('POST', '/reload')
      assert.equal(report.status, 500)
      assert.ok(JSON.parse(report.body).problems.length > 0)
      await Promise.all(clients.map((client) => client.served(2)))
      const now = await snapshot()
      assert.equal(now.identity.serial, good.identity.serial)
      assert.deepEqual(now.policy.active.digest, good.policy.active.digest)

      if (mend !== undefined) {
        await mend(directory, files)
        if (how !== 'directories') await inForce()
      }
      await writeGood()
      await inForce()
    })
  }

  it('changes the configuration with all files, and keeps both when the new one is wrong', async () => {
    for (const headerCount of [90, 80]) {
      await reconfigure(sidecar, { log: { decisions: 'off', level: 'info' }, alow: [] })
      await writeGood()
      assert.equal((await sidecar.admin('POST', '/reload')).status, 500)
      await eventually('the files go into force all the same', async () => {
        return (await snapshot()).identity.serial === serial
      })
      const inbound = {
        listen: '127.0.0.1:0',
        forward: /forward: (\S+)/.exec(await readFile(sidecar.files.config, 'utf8'))?.[1],
        limits: { headerCount },
      }
      await reconfigure(sidecar, { alow: undefined, inbound })
      await writeGood()
      assert.equal((await sidecar.admin('POST', '/reload')).status, 200)
      assert.match((await sidecar.admin('GET', '/config')).body, new RegExp(`: ${headerCount}\\n`))
      await inForce()
    }
  })

  it('has the newest in force when reloads are asked for faster than they are done', async () => {
    const reports: Promise<{ status: number; body: string }>[] = []
    for (let i = 0; i < 20; i++) {
      await writeGood()
      reports.push(sidecar.admin('POST', '/reload'))
      if (i % 5 === 0) sidecar.signal('SIGHUP')
    }
    const last = (await Promise.all(reports)).at(-1)
    assert.equal(last?.status, 200)
    // Whoever asks last is told when what they wrote is in force; not a look later.
    assert.equal((await snapshot()).identity.serial, serial)
  })

  it('has failed no request and closed no connection', async () => {
    for (const client of clients) await client.unharmed()
    for (const reason of ['error', 'peer_invalid', 'upstream', 'drain', 'idle']) {
      const series = `postern_connections_closed_total{reason="${reason}"}`
      assert.equal(await sidecar.metric(series), 0, reason)
    }
  })
})
