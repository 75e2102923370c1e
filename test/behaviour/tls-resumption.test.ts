// What a TLS session is worth after the fact: resuming skips OpenSSL's verification, so every row
// of "meanwhile ... happened" has to end in a full handshake or a refusal, never at the workload.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type IssuedCertificate,
  spiffeId,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  WEB,
  writeFiles,
} from '../support/pki.ts'
import { reconfigure } from '../support/reconfigure.ts'
import { connectRaw, type RawClient, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const
type Version = (typeof VERSIONS)[number]

interface Stand {
  readonly sidecar: TestSidecar
  readonly workload: Workload
  readonly authority: TestAuthority
  /** A second root in the trust bundle, which a test can take out again. */
  readonly other: TestAuthority
  setCrl(...serials: string[]): Promise<void>
  /** Replaces the deny list; without arguments by an empty one. */
  deny(...spiffeIds: string[]): Promise<void>
  setTrust(...authorities: TestAuthority[]): Promise<void>
}

describe('a resumed session', () => {
  for (const workers of [1, 2]) {
    describe(`with ${workers} data thread${workers > 1 ? 's' : ''}`, () => {
      let stand: Stand
      let withCrls: Stand
      const t = suiteCleanup()
      before(async () => {
        stand = await startStand(t, workers, false)
        withCrls = await startStand(t, workers, true)
      })
      for (const version of VERSIONS) {
        it(`has the identity of the certificate it began with (${version})`, (test) =>
          resumesAsItself(test, stand, version))
        it(`is the same whatever certificate the client has configured (${version})`, (test) =>
          ignoresOtherCertificates(test, stand, version))
        it(`does not become a peer when it began without a certificate (${version})`, (test) =>
          staysNobody(test, stand, version))
        it(`does not become a peer when its certificate was refused (${version})`, (test) =>
          staysRefused(test, stand, version))
        it(`does not outlive the certificate (${version})`, (test) => expires(test, stand, version))
        it(`does not outlive a CRL that lists the certificate (${version})`, (test) =>
          revoked(test, withCrls, version))
        it(`does not outlive an entry of the deny list (${version})`, (test) =>
          denied(test, stand, version))
        it(`does not outlive the authority in the trust bundle (${version})`, (test) =>
          untrusted(test, stand, version))
        it(`is no way around a changed configuration (${version})`, (test) =>
          reconfigured(test, stand, version))
      }
    })
  }
})

async function resumesAsItself(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const web = await stand.authority.svid('web')
  const session = await sessionOf(t, stand, web, version)
  const resumedBefore = await stand.sidecar.metric('postern_tls_resumed_total')
  const resumed = await resuming(t, stand, web, version, session)
  assert.equal(await principalOf(resumed, stand), WEB)
  await eventually('the resumption is counted', async () => {
    return (await stand.sidecar.metric('postern_tls_resumed_total')) > resumedBefore
  })
}

async function ignoresOtherCertificates(t: TestContext, stand: Stand, version: Version) {
  const session = await sessionOf(t, stand, await stand.authority.svid('web'), version)
  const stranger = await stand.authority.svid('stranger')
  for (const certificate of [stranger, undefined]) {
    const resumed = await resuming(t, stand, certificate, version, session)
    assert.equal(await principalOf(resumed, stand), WEB)
  }
}

async function staysNobody(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const session = await sessionOfRefused(t, stand, undefined, version)
  await refusedWhenResuming(t, stand, {
    certificate: undefined,
    version,
    session,
    resumes: true,
    code: 'peer_no_certificate',
  })
}

async function staysRefused(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const strangers = await testAuthority()
  const web = await strangers.svid('web')
  const session = await sessionOfRefused(t, stand, web, version)
  await refusedWhenResuming(t, stand, {
    certificate: web,
    version,
    session,
    resumes: true,
    code: 'peer_untrusted',
  })
}

async function expires(t: TestContext, stand: Stand, version: Version): Promise<void> {
  // To the second: that is what certificates count in.
  const notAfter = new Date(Math.ceil(Date.now() / 1000) * 1000 + 1_000)
  const web = await stand.authority.svid('web', { notAfter })
  const session = await sessionOf(t, stand, web, version)
  await eventually('the certificate has expired', () => Date.now() > notAfter.getTime() + 1)
  await refusedWhenResuming(t, stand, {
    certificate: web,
    version,
    session,
    resumes: true,
    code: 'peer_expired',
  })
}

async function revoked(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const web = await stand.authority.svid('web')
  const session = await sessionOf(t, stand, web, version)
  await inForce(stand, () => stand.setCrl(web.serial))
  await refusedWhenResuming(t, stand, {
    certificate: web,
    version,
    session,
    resumes: false,
    code: 'peer_revoked',
  })
}

async function denied(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const name = `denied-${randomUUID()}`
  const web = await stand.authority.svid(name)
  const session = await sessionOf(t, stand, web, version)
  await inForce(stand, () => stand.deny(spiffeId(name)))
  await refusedWhenResuming(t, stand, {
    certificate: web,
    version,
    session,
    resumes: false,
    code: 'peer_deny_listed',
  })
}

async function untrusted(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const web = await stand.other.svid('web')
  const session = await sessionOf(t, stand, web, version)
  await inForce(stand, () => stand.setTrust(stand.authority))
  await refusedWhenResuming(t, stand, {
    certificate: web,
    version,
    session,
    resumes: false,
    code: 'peer_untrusted',
  })
  await inForce(stand, () => stand.setTrust(stand.authority, stand.other))
}

/** Any new generation has new ticket keys, so that what follows is a full handshake. */
async function reconfigured(t: TestContext, stand: Stand, version: Version): Promise<void> {
  const web = await stand.authority.svid('web')
  const session = await sessionOf(t, stand, web, version)
  let before = ''
  await inForce(stand, async () => {
    before = await reconfigure(stand.sidecar, { allow: [{ uri: spiffeId('nobody') }] })
  })
  for (let i = 0; i < ATTEMPTS; i++) {
    const client = await connect(t, stand, web, version, session)
    assert.equal(client.socket.isSessionReused(), false)
    client.write(get('/denied'))
    await client.until(/^HTTP\/1.1 403 [\s\S]*"error":"denied"/)
    client.socket.destroy()
  }
  await inForce(stand, () => writeFile(stand.sidecar.files.config, before))
}

/** Leaves come from an intermediate that only a bundle for CRLs has: as a rule clients send it. */
async function startStand(t: Cleanup, workers: number, crls: boolean): Promise<Stand> {
  const [authority, other] = [await testAuthority(), await testAuthority()]
  const directory = await temporaryDirectory(t)
  const setTrust = async (...authorities: TestAuthority[]): Promise<void> => {
    const text = authorities.map(({ root, intermediate }) =>
      crls ? root.certificatePem + intermediate.certificatePem : root.certificatePem,
    )
    await writeFiles(directory, { 'ca.crt': text.join('') })
  }
  const setCrl = async (...serials: string[]): Promise<void> => {
    const revoked = serials.map((serial) => ({ serial }))
    await writeFiles(directory, { 'ca.crl': await authority.intermediate.crl({ revoked }) })
  }
  const deny = async (...spiffeIds: string[]): Promise<void> => {
    const entries = spiffeIds.map((id) => ({ spiffeId: id }))
    await writeFiles(directory, { 'revoked.yaml': JSON.stringify(entries) })
  }
  await setTrust(authority, other)
  await setCrl()
  await deny()
  const workload = await startWorkload(t)
  const sidecar = await startSidecar(t, {
    forward: workload.url,
    authority,
    config: {
      trust: {
        bundles: [{ file: join(directory, 'ca.crt') }],
        ...(crls && { crls: [join(directory, 'ca.crl')] }),
        revoked: join(directory, 'revoked.yaml'),
      },
      inbound: { limits: { handshakeFailuresPerAddress: 100_000 } },
      workers,
    },
  })
  return { sidecar, workload, authority, other, setCrl, setTrust, deny }
}

/** Makes a change and waits until every data thread has it. */
async function inForce({ sidecar }: Stand, change: () => Promise<unknown>): Promise<void> {
  const readiness = async (): Promise<Record<string, number>> => {
    const answer = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    return ((await answer.json()) as { details: Record<string, number> }).details
  }
  const before = (await readiness())['generation'] ?? 0
  await change()
  await sidecar.admin('POST', '/reload')
  await eventually('the change is in force', async () => {
    const { generation = 0, applied_generation: applied } = await readiness()
    return generation > before && applied === generation
  })
}

const connect = (
  t: TestContext,
  stand: Stand,
  certificate: IssuedCertificate | undefined,
  version: Version,
  session?: Buffer,
): Promise<RawClient> =>
  connectRaw(t, stand.sidecar, certificate, {
    minVersion: version,
    maxVersion: version,
    ...(session && { session }),
  })

/** What a client may keep of its connection: the ticket that is there after an answer has been read. */
async function ticketOf(client: RawClient, answer: RegExp): Promise<Buffer> {
  let ticket: Buffer | undefined
  client.socket.on('session', (received: Buffer) => {
    ticket = received
  })
  client.write(get('/'))
  await client.until(answer)
  ticket ??= client.socket.getSession()
  client.socket.destroy()
  assert.ok(ticket)
  return ticket
}

const sessionOf = async (
  t: TestContext,
  stand: Stand,
  certificate: IssuedCertificate,
  version: Version,
): Promise<Buffer> => ticketOf(await connect(t, stand, certificate, version), /^HTTP\/1.1 200 /)

const sessionOfRefused = async (
  t: TestContext,
  stand: Stand,
  certificate: IssuedCertificate | undefined,
  version: Version,
): Promise<Buffer> => ticketOf(await connect(t, stand, certificate, version), /^HTTP\/1.1 403 /)

/** A connection that did resume. Data threads share no ticket keys: the other one begins anew. */
async function resuming(
  t: TestContext,
  stand: Stand,
  certificate: IssuedCertificate | undefined,
  version: Version,
  session: Buffer,
): Promise<RawClient> {
  for (let i = 0; i < 50; i++) {
    const client = await connect(t, stand, certificate, version, session)
    if (client.socket.isSessionReused()) return client
    client.socket.destroy()
  }
  assert.fail('no session was resumed')
}

/** Whom the workload is told about. */
async function principalOf(client: RawClient, { workload }: Stand): Promise<string | undefined> {
  const path = `/${randomUUID()}`
  client.write(get(path))
  await client.until(/^HTTP\/1.1 200 /)
  client.socket.destroy()
  const request = workload.seen.find(({ url }) => url === path)
  return /URI=([^;,]+)$/.exec(String(request?.headers['x-forwarded-client-cert']))?.[1]
}

/** On every data thread, so with a few attempts; `resumes`: where the session itself is still good. */
async function refusedWhenResuming(
  t: TestContext,
  stand: Stand,
  attempt: {
    readonly certificate: IssuedCertificate | undefined
    readonly version: Version
    readonly session: Buffer
    readonly resumes: boolean
    readonly code: string
  },
): Promise<void> {
  const path = `/${randomUUID()}`
  let resumed = 0
  for (let i = 0; i < ATTEMPTS || (attempt.resumes && resumed === 0 && i < 50); i++) {
    const client = await connect(t, stand, attempt.certificate, attempt.version, attempt.session)
    if (client.socket.isSessionReused()) resumed++
    client.write(get(path))
    await client.until(new RegExp(`^HTTP/1.1 403 [\\s\\S]*"error":"${attempt.code}"`))
    await client.closed
  }
  assert.equal(resumed > 0, attempt.resumes)
  assert.ok(stand.workload.seen.every(({ url }) => url !== path))
}

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`
const ATTEMPTS = 6
