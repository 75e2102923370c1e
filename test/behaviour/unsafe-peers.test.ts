// Clients without a certificate and clients without TLS, where an option lets them in: the policy
// decides about them without a name, nothing takes them for somebody, and who they are can be seen.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import http2 from 'node:http2'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, type TestAuthority, testAuthority, WEB } from '../support/pki.ts'
import { reconfigure } from '../support/reconfigure.ts'
import {
  call,
  connectRaw,
  spawnPostern,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const BUNDLE = fileURLToPath(new URL('../policy/bundles/unnamed-peers.tar.gz', import.meta.url))
const POLICY = { bundle: BUNDLE }
const FORGED = { 'x-forwarded-client-cert': `URI=${WEB}`, 'client-cert': ':AAAA:' }

interface Scene {
  readonly sidecar: TestSidecar
  readonly workload: Workload
  readonly authority: TestAuthority
  readonly web: IssuedCertificate
}

async function scene(
  t: Cleanup,
  inbound: Record<string, unknown>,
  more: Record<string, unknown> = { policy: POLICY },
): Promise<Scene> {
  const authority = await testAuthority()
  const workload = await startWorkload(t)
  const sidecar = await startSidecar(t, {
    authority,
    forward: workload.url,
    config: { inbound, ...more },
  })
  return { sidecar, workload, authority, web: await authority.svid('web') }
}

/** What a plain-text client is answered; '' when the connection ends without a word. */
function plain(sidecar: TestSidecar, request: string): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const socket = net.connect(sidecar.port, '127.0.0.1', () => socket.write(request, 'latin1'))
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
  })
}
const get = (path: string, fields = ''): string =>
  `GET ${path} HTTP/1.1\r\nhost: localhost\r\n${fields}connection: close\r\n\r\n`

const refused = (promise: Promise<{ status: number }>): Promise<boolean> =>
  promise.then(
    ({ status }) => status === 403,
    () => true,
  )

describe('inbound.unsafeOptionalPeer', () => {
  const t = suiteCleanup()
  let s: Scene
  before(async () => {
    s = await scene(t, { unsafeOptionalPeer: true })
  })

  it('asks the policy about a client without a certificate, without a principal', async () => {
    const { status, body } = await call(s.sidecar, undefined, { path: '/public', headers: FORGED })
    assert.equal(status, 200)
    const { headers } = JSON.parse(body) as { headers: Record<string, string> }
    assert.equal(headers['x-seen'], 'https|nobody')
    assert.equal(headers['x-forwarded-client-cert'], undefined)
    assert.equal(headers['client-cert'], undefined)
    assert.equal((await call(s.sidecar, undefined, { path: '/private' })).status, 403)
  })

  it('changes nothing for a client with a certificate', async () => {
    const { status, body } = await call(s.sidecar, s.web, { path: '/private' })
    assert.equal(status, 200)
    const { headers } = JSON.parse(body) as { headers: Record<string, string> }
    assert.equal(headers['x-seen'], `https|${WEB}`)
    assert.match(headers['x-forwarded-client-cert'] ?? '', new RegExp(`URI=${WEB}$`))
  })

  it('refuses a certificate that is not accepted: expired, of a stranger, for servers alone', async () => {
    const past = new Date(Date.now() - 3_600_000)
    const seen = s.workload.seen.length
    for (const bad of [
      await s.authority.svid('web', { notBefore: new Date(0), notAfter: past }),
      await (await testAuthority()).svid('web'),
      await s.authority.svid('web', { usages: ['serverAuth'] }),
    ]) {
      assert.ok(await refused(call(s.sidecar, bad, { path: '/public' })))
    }
    assert.equal(s.workload.seen.length, seen)
  })

  it('takes no resumed session without a certificate for one with it, nor the other way round', async () => {
    let resumed = 0
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      for (const [first, second] of [
        [undefined, s.web],
        [s.web, undefined],
      ] as const) {
        const one = await connectRaw(t, s.sidecar, first, { maxVersion })
        one.write(get('/public'))
        await one.until(/x-seen/)
        // With its ticket, which has come before the answer.
        const session = one.socket.getSession()
        assert.ok(session)
        const two = await connectRaw(t, s.sidecar, second, { maxVersion, session })
        two.write(get('/private'))
        const [, status] = await two.until(/^HTTP\/1\.1 (\d+)/)
        // The session is what counts: whoever began it without a certificate has no name in it.
        if (two.socket.isSessionReused()) resumed++
        const named = two.socket.isSessionReused() ? first : second
        assert.equal(status, named === undefined ? '403' : '200', `${maxVersion} ${status}`)
      }
    }
    assert.equal(resumed, 4)
  })

  it('is the same over HTTP/2', async () => {
    const session = http2.connect(`https://127.0.0.1:${s.sidecar.port}`, {
      ca: s.authority.root.certificatePem,
      servername: 'localhost',
    })
    t.after(() => session.destroy())
    const status = (path: string) =>
      new Promise<unknown>((resolve, reject) => {
        const stream = session.request({ ':path': path })
        stream.on('response', (headers) => resolve(headers[':status'])).on('error', reject)
        stream.resume()
      })
    assert.equal(await status('/public'), 200)
    assert.equal(await status('/private'), 403)
  })

  it('shows that it is used, how often, and by which addresses', async () => {
    assert.equal(
      await s.sidecar.metric('postern_unsafe_options{option="inbound.unsafeOptionalPeer"}'),
      1,
    )
    const used = 'postern_unsafe_requests_total{kind="no_certificate"}'
    const count = await s.sidecar.metric(used)
    await call(s.sidecar, undefined, { path: '/public?mark' })
    assert.equal(await s.sidecar.metric(used), count + 1)
    await call(s.sidecar, s.web, { path: '/public' })
    assert.equal(await s.sidecar.metric(used), count + 1)
    // Also where only denied requests are logged, which is the default.
    const line = await s.sidecar.logged('access', { unsafe: 'no_certificate', status: 200 })
    assert.match(String(line['remote_address']), /^127\.0\.0\.1:\d+$/)
    assert.equal(line['principal'], '')
    assert.equal(await s.sidecar.metric('postern_unsafe_requests_total{kind="plaintext"}'), 0)
  })

  it('does not let plain text in', async () => {
    assert.doesNotMatch(await plain(s.sidecar, get('/public')), /200/)
  })

  it('ends open connections of such clients when it is taken away', async () => {
    const client = await connectRaw(t, s.sidecar, undefined)
    client.write('GET /public HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await client.until(/x-seen/)
    const named = await connectRaw(t, s.sidecar, s.web)
    await reconfigure(s.sidecar, {
      inbound: { listen: '127.0.0.1:0', forward: s.workload.url },
    })
    s.sidecar.signal('SIGHUP')
    await client.closed
    const cut = await s.sidecar.logged('connection_cut')
    assert.equal(cut['code'], 'peer_no_certificate')
    assert.ok(await refused(call(s.sidecar, undefined, { path: '/public' })))
    named.write(get('/private'))
    assert.equal((await named.until(/^HTTP\/1\.1 (\d+)/))[1], '200')
    await eventually(
      'the metric has gone',
      async () =>
        (await s.sidecar.metric('postern_unsafe_options{option="inbound.unsafeOptionalPeer"}')) ===
        0,
    )
  })
})

describe('inbound.unsafePlaintext', () => {
  const t = suiteCleanup()
  let s: Scene
  before(async () => {
    s = await scene(t, { unsafePlaintext: true, forwardedClientCert: 'always_forward_only' })
  })

  it('takes HTTP on the port of TLS, and marks it for the policy', async () => {
    const fields = `x-forwarded-client-cert: URI=${WEB}\r\n`
    const answer = await plain(s.sidecar, get('/public', fields))
    assert.match(answer, /^HTTP\/1\.1 200 /)
    assert.match(answer, /"x-seen":"http\|nobody"/)
    // Not even where the option passes on what clients say of themselves.
    assert.doesNotMatch(answer, /x-forwarded-client-cert/)
    assert.match(await plain(s.sidecar, get('/private')), /^HTTP\/1\.1 403 /)
  })

  it('keeps connections, reads slowly written requests, and pipelines', async () => {
    const socket = net.connect(s.sidecar.port, '127.0.0.1')
    t.after(() => socket.destroy())
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
    })
    const answers = () => text.match(/HTTP\/1\.1 200/g)?.length ?? 0
    socket.write('G')
    socket.write('ET /public HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await eventually('the first answer', () => answers() === 1)
    socket.write('GET /public HTTP/1.1\r\nhost: localhost\r\n\r\n'.repeat(3))
    await eventually('three more', () => answers() === 4)
  })

  it('goes on with TLS beside it, and demands a certificate there', async () => {
    const { status, body } = await call(s.sidecar, s.web, { path: '/private' })
    assert.equal(status, 200)
    assert.match(body, /"x-seen":"https\|spiffe:/)
    assert.ok(await refused(call(s.sidecar, undefined, { path: '/public' })))
  })

  it('takes a ClientHello that comes byte by byte', async () => {
    const raw = net.connect(s.sidecar.port, '127.0.0.1')
    const relay = net.createServer((client) => {
      client.on('data', (chunk: Buffer) => {
        for (const byte of chunk) raw.write(Buffer.of(byte))
      })
      raw.on('data', (chunk: Buffer) => client.write(chunk))
      raw.setNoDelay(true)
      client.on('error', () => {})
    })
    await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve))
    t.after(() => {
      raw.destroy()
      relay.close()
    })
    const { port } = relay.address() as net.AddressInfo
    const socket = tls.connect({ ...s.sidecar.clientOptions(s.web), port } as tls.ConnectionOptions)
    t.after(() => socket.destroy())
    const answer = new Promise<string>((resolve, reject) => {
      socket.once('data', (chunk: Buffer) => resolve(chunk.toString('latin1')))
      socket.once('error', reject)
    })
    socket.write(get('/private'))
    assert.match(await answer, /^HTTP\/1\.1 200 /)
  })

  it('answers malformed requests as ever, and cuts what is neither', async () => {
    assert.match(await plain(s.sidecar, 'GET /public\r\n\r\n'), /^HTTP\/1\.1 400 /)
    assert.match(
      await plain(s.sidecar, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      /^HTTP\/1\.1 (400|505) /,
    )
    assert.doesNotMatch(await plain(s.sidecar, '\0'.repeat(64)), /HTTP/)
    assert.equal((await call(s.sidecar, s.web)).status, 200)
  })

  it('lets go of clients that come and leave without a word', async () => {
    const series = 'postern_handshakes_total{result="failure",reason="client_closed"}'
    const before = await s.sidecar.metric(series)
    for (let i = 0; i < 20; i++) {
      const socket = net.connect(s.sidecar.port, '127.0.0.1', () => socket.end())
      await new Promise((resolve) => socket.on('close', resolve))
    }
    await eventually('all have gone', async () => (await s.sidecar.metric(series)) === before + 20)
    await eventually(
      'nobody is left',
      async () => (await s.sidecar.metric('postern_connections_open')) <= 1,
    )
  })

  it('ends open connections when it is taken away', async () => {
    const socket = net.connect(s.sidecar.port, '127.0.0.1')
    t.after(() => socket.destroy())
    const closed = new Promise((resolve) => socket.on('close', resolve))
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
    })
    socket.on('error', () => {})
    socket.write('GET /public HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await eventually('an answer', () => /x-seen/.test(text))
    const before = await reconfigure(s.sidecar, {
      inbound: { listen: '127.0.0.1:0', forward: s.workload.url },
    })
    s.sidecar.signal('SIGHUP')
    await closed
    await writeFile(s.sidecar.files.config, before)
    s.sidecar.signal('SIGHUP')
    await eventually('it is back', async () =>
      /^HTTP\/1\.1 200/.test(await plain(s.sidecar, get('/public'))),
    )
  })

  it('shows who still uses it', async () => {
    const option = 'postern_unsafe_options{option="inbound.unsafePlaintext"}'
    assert.equal(await s.sidecar.metric(option), 1)
    assert.ok((await s.sidecar.metric('postern_unsafe_requests_total{kind="plaintext"}')) >= 5)
    const line = await s.sidecar.logged('access', { unsafe: 'plaintext', status: 200 })
    assert.match(String(line['remote_address']), /^127\.0\.0\.1:\d+$/)
    assert.equal(await s.sidecar.metric('postern_connections_older_identity'), 0)
  })
})

describe('allow rules', () => {
  const t = suiteCleanup()

  it('never admit a client without a certificate, not even the rule for all', async () => {
    const { sidecar, web } = await scene(
      t,
      { unsafeOptionalPeer: true, unsafePlaintext: true },
      { policy: POLICY, allow: [{ all: true }] },
    )
    assert.equal((await call(sidecar, undefined, { path: '/public' })).status, 403)
    assert.match(await plain(sidecar, get('/public')), /^HTTP\/1\.1 403 /)
    assert.equal((await call(sidecar, web, { path: '/public' })).status, 200)
  })

  it('alone leave nobody to admit them: that is told', async () => {
    for (const flag of ['--unsafe-optional-peer', '--unsafe-plaintext']) {
      const child = spawnPostern(t, [
        ...['run', flag, '--allow-all', '--forward', 'http://127.0.0.1:1'],
        ...['--cert', 'a', '--key', 'b', '--ca', 'c'],
      ])
      assert.equal(await child.exited, 2)
      assert.match(child.errors(), new RegExp(`${flag}.*no effect without a policy`))
    }
  })
})
