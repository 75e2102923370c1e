// A peer that stops being acceptable is cut whatever it is doing; all others go on.
import assert from 'node:assert/strict'
import { hash, X509Certificate } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openSession } from '../support/http2.ts'
import {
  Authority,
  type IssuedCertificate,
  spiffeId,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
} from '../support/pki.ts'
import {
  call,
  connectRaw,
  type RawClient,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'

/** From the change of a file, or the end of a certificate, to the last cut. */
const ENFORCED_WITHIN_MS = 1_000
/** For a machine that is busy with other tests, and for clocks that count in seconds. */
const GENEROSITY_MS = 1_500

const WEBSOCKET =
  'GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`

/** Answers at once, never (`/hold`), slowly (`/drip`), or switches to an echo. */
async function startPatientWorkload(t: Pick<TestContext, 'after'>) {
  const paths: string[] = []
  const server = http.createServer((request, response) => {
    paths.push(request.url ?? '')
    if (request.url === '/drip') response.write('drop by drop')
    else if (request.url !== '/hold') response.end('fine')
  })
  server.on('upgrade', (_, socket) => {
    socket.on('error', () => {})
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n',
    )
    socket.pipe(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, paths }
}

/** What one peer has open. */
interface Activities {
  readonly idle: RawClient
  readonly waiting: RawClient
  readonly streaming: RawClient
  readonly tunnel: RawClient
}

describe('enforcement on open connections', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  let other: Authority
  let good: IssuedCertificate
  let undisturbed: Activities
  let crlFile: string
  let trustFile: string
  let denyFile: string
  let workload: Awaited<ReturnType<typeof startPatientWorkload>>
  let number = 1

  before(async () => {
    const directory = await temporaryDirectory(t)
    crlFile = join(directory, 'ca.crl')
    trustFile = join(directory, 'ca.crt')
    denyFile = join(directory, 'revoked.yaml')
    authority = await testAuthority()
    other = await Authority.create({ commonName: 'the other authority' })
    workload = await startPatientWorkload(t)
    await writeTrust(other)
    await writeCrl()
    await writeFile(denyFile, '[]')
    sidecar = await startSidecar(t, {
      authority,
      forward: workload.url,
      config: { trust: { bundles: [{ file: trustFile }], crls: [crlFile], revoked: denyFile } },
    })
    good = await authority.svid('good')
    undisturbed = await open(good)
  })

  async function writeTrust(...more: readonly Authority[]): Promise<void> {
    const all = [authority.root, authority.intermediate, ...more]
    await writeFile(trustFile, all.map(({ certificatePem }) => certificatePem).join(''))
  }

  async function writeCrl(...serials: readonly string[]): Promise<void> {
    const revoked = serials.map((serial) => ({ serial }))
    number++
    await writeFile(
      crlFile,
      (await authority.root.crl({ revoked: [], number })) +
        (await authority.intermediate.crl({ revoked, number })) +
        (await other.crl({ revoked: [], number })),
    )
  }

  async function open(client: IssuedCertificate): Promise<Activities> {
    const [idle, waiting, streaming, tunnel] = (await Promise.all(
      Array.from({ length: 4 }, () => connectRaw(t, sidecar, client)),
    )) as [RawClient, RawClient, RawClient, RawClient]
    idle.write(get('/first'))
    await idle.until(/fine/)
    const held = workload.paths.filter((path) => path === '/hold').length
    waiting.write(get('/hold'))
    streaming.write(get('/drip'))
    await streaming.until(/drop by drop/)
    tunnel.write(WEBSOCKET)
    await tunnel.until(/101 Switching/)
    tunnel.write('ping')
    await tunnel.until(/ping/)
    await eventually(
      'the request waits',
      () => workload.paths.filter((path) => path === '/hold').length > held,
    )
    return { idle, waiting, streaming, tunnel }
  }

  async function stillOpen(activities: Activities): Promise<void> {
    const seen = activities.idle.received().length
    activities.idle.write(get('/again'))
    await eventually('another answer', () => activities.idle.received().length > seen)
    const echoed = activities.tunnel.received().length
    activities.tunnel.write('pong')
    await eventually('the echo', () => activities.tunnel.received().length > echoed)
    for (const { socket } of [activities.waiting, activities.streaming]) {
      assert.equal(socket.readableEnded || socket.destroyed, false)
    }
  }

  const enforced = (what: string): Promise<number> =>
    sidecar.metric(`postern_revocations_enforced_total{what="${what}"}`)

  /** Everything that `activities` has open is cut because of `what`, at most so long after `sinceMs`. */
  async function allCut(
    activities: Activities,
    what: string,
    before: number,
    sinceMs: number,
  ): Promise<void> {
    await Promise.all(Object.values(activities).map((one: RawClient) => one.closed))
    assert.equal(await enforced(what), before + 4)
    const cuts = await eventually('the cuts are logged', () => {
      const lines = sidecar.lines.filter(
        ({ event, code }) => event === 'connection_cut' && code === `peer_${what}`,
      )
      return lines.length >= 4 ? lines.slice(-4) : undefined
    })
    for (const { time } of cuts) {
      const tookMs = Date.parse(String(time)) - sinceMs
      assert.ok(tookMs <= ENFORCED_WITHIN_MS + GENEROSITY_MS, `${tookMs} ms`)
    }
    // Who waits for an answer is told why there is none.
    const told = activities.waiting.received()
    assert.match(told, /^HTTP\/1\.1 403 [\s\S]*\r\nconnection: close\r\n/)
    assert.equal(JSON.parse(told.slice(told.indexOf('\r\n\r\n'))).error, `peer_${what}`)
    await stillOpen(undisturbed)
  }

  async function refused(client: IssuedCertificate): Promise<void> {
    const forwarded = workload.paths.length
    await eventually('new connections are refused', async () => {
      const reply = await call(sidecar, client, { path: '/after' }).catch((error: Error) => error)
      return reply instanceof Error || reply.status === 403
    })
    assert.equal(workload.paths.slice(forwarded).includes('/after'), false)
  }

  it('cuts a revoked peer', async () => {
    const bad = await authority.svid('bad')
    const activities = await open(bad)
    const before = await enforced('revoked')
    const sinceMs = Date.now()
    await writeCrl(bad.serial)
    await allCut(activities, 'revoked', before, sinceMs)
    await refused(bad)
  })

  it('cuts a peer whose authority has left the trust bundle', async () => {
    const stranger = await other.issue({ uris: [spiffeId('stranger')] })
    const activities = await open(stranger)
    const before = await enforced('untrusted')
    const sinceMs = Date.now()
    await writeTrust()
    await allCut(activities, 'untrusted', before, sinceMs)
    await refused(stranger)
    await writeTrust(other)
    await eventually(
      'it is trusted again',
      async () => (await call(sidecar, stranger).catch(() => undefined))?.status === 200,
    )
  })

  it('cuts a peer when its certificate expires', async () => {
    // Validity counts in whole seconds.
    const notAfter = new Date((Math.ceil(Date.now() / 1000) + 2) * 1000)
    const brief = await authority.svid('brief', { notAfter })
    const activities = await open(brief)
    const before = await enforced('expired')
    await allCut(activities, 'expired', before, notAfter.getTime())
    await refused(brief)
  })

  for (const [by, entryFor] of [
    ['its SPIFFE ID', () => 'spiffeId: spiffe://example.org/ns/default/sa/denied'],
    ['a pattern', () => 'spiffeId: spiffe://example.org/**/denied'],
    [
      'issuer and serial',
      ({ certificatePem, serial }: IssuedCertificate) =>
        `issuer: "${new X509Certificate(certificatePem).issuer.replaceAll('\n', ', ')}"\n  serial: "${serial}"`,
    ],
    [
      'its key',
      ({ certificatePem }: IssuedCertificate) => {
        const key = new X509Certificate(certificatePem).publicKey
        return `spki: sha256:${hash('sha256', key.export({ type: 'spki', format: 'der' }))}`
      },
    ],
  ] as const) {
    it(`cuts a peer that the deny list names by ${by}, and says by which entry`, async () => {
      const bad = await authority.svid('denied')
      const activities = await open(bad)
      const before = await enforced('deny_listed')
      const sinceMs = Date.now()
      await writeFile(denyFile, `# locked out\n- ${entryFor(bad)}\n  reason: by ${by}\n`)
      await allCut(activities, 'deny_listed', before, sinceMs)
      const cut = await sidecar.logged('connection_cut', { serial: bad.serial })
      assert.match(String(cut['detail']), new RegExp(`revoked\\.yaml:2: by ${by}`))
      await refused(bad)
      await writeFile(denyFile, '[]')
      await eventually(
        'it is let in again',
        async () => (await call(sidecar, bad).catch(() => undefined))?.status === 200,
      )
    })
  }

  /** An HTTP/2 connection with a request that waits; `end` tells what it was answered. */
  async function openWaiting(client: IssuedCertificate) {
    const session = await openSession(t, sidecar, client)
    const held = workload.paths.filter((path) => path === '/hold').length
    const stream = session.request({ ':path': '/hold' })
    const statuses: unknown[] = []
    stream.on('response', (headers) => statuses.push(headers[':status'])).resume()
    stream.on('error', () => {})
    session.on('error', () => {})
    await eventually(
      'the request waits',
      () => workload.paths.filter((path) => path === '/hold').length > held,
    )
    const end = async (): Promise<unknown[]> => {
      await eventually('the connection ends', () => session.destroyed && stream.destroyed)
      return statuses
    }
    return { end }
  }

  it('cuts an HTTP/2 connection with its streams', async () => {
    const waiting = await openWaiting(await authority.svid('denied'))
    const before = await enforced('deny_listed')
    await writeFile(denyFile, `- spiffeId: ${spiffeId('denied')}`)
    assert.deepEqual(await waiting.end(), [403])
    assert.equal(await enforced('deny_listed'), before + 1)
    await writeFile(denyFile, '[]')
    await stillOpen(undisturbed)
  })

  it('cuts an HTTP/2 connection when the certificate expires', async () => {
    const notAfter = new Date((Math.ceil(Date.now() / 1000) + 2) * 1000)
    const waiting = await openWaiting(await authority.svid('brief', { notAfter }))
    const before = await enforced('expired')
    assert.deepEqual(await waiting.end(), [403])
    assert.ok(Date.now() >= notAfter.getTime())
    assert.equal(await enforced('expired'), before + 1)
  })

  it('refuses a request that comes with the revocation, and forwards nothing of it', async () => {
    const bad = await authority.svid('racing')
    const client = await connectRaw(t, sidecar, bad)
    client.write(get('/first'))
    await client.until(/fine/)
    const before = await enforced('revoked')
    await writeCrl(bad.serial)
    await sidecar.logged('connection_cut', { serial: bad.serial })
    client.write(get('/after'))
    await client.closed
    const [, ...answers] = client.received().split('HTTP/1.1 ').slice(1)
    for (const answer of answers) assert.match(answer, /^403 /)
    assert.equal(workload.paths.includes('/after'), false)
    assert.equal(await enforced('revoked'), before + 1)
  })

  it('cuts peers of an authority whose CRL is no longer current', async () => {
    const third = await Authority.create({ commonName: 'an authority with a short CRL' })
    const stranger = await third.issue({ uris: [spiffeId('third')] })
    await writeTrust(other, third)
    const nextUpdate = new Date((Math.ceil(Date.now() / 1000) + 3) * 1000)
    await writeCrl()
    const crls = await readFile(crlFile, 'utf8')
    await writeFile(crlFile, crls + (await third.crl({ revoked: [], nextUpdate })))
    await eventually(
      'it is trusted',
      async () => (await call(sidecar, stranger).catch(() => undefined))?.status === 200,
    )
    const activities = await open(stranger)
    const before = await enforced('revocation_unknown')
    await allCut(activities, 'revocation_unknown', before, nextUpdate.getTime())
    await refused(stranger)
  })
})
