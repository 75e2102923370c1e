import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import net from 'node:net'
import { type TestContext, test } from 'node:test'
import { type Download, type DownloadRequest, download } from '../../src/control/bundle-download.ts'
import { testAuthority } from '../support/pki.ts'
import { type Answer, type BundleHost, bundleHost } from './bundle-host.ts'

const BYTES = Buffer.from('these would be the bytes of a bundle')
const QUICK = { headMs: 150, silenceMs: 150, totalMs: 600 }

function fetched(host: BundleHost, more: Partial<DownloadRequest> = {}): Promise<Download> {
  const request = {
    url: host.url,
    etag: undefined,
    waitMs: 0,
    maxBytes: 1_000,
    ca: Buffer.from(host.ca),
  }
  return download({ ...request, ...more }, new AbortController().signal, QUICK)
}

const said = (outcome: Download) => (outcome.kind === 'failed' ? outcome.what : outcome.kind)

async function answering(t: TestContext, answer: Answer): Promise<BundleHost> {
  const host = await bundleHost(t)
  host.answer = answer
  return host
}

test('asks as OPA does: for snapshots, with what it has, with its token', async (t) => {
  const host = await bundleHost(t)
  host.serve(BYTES, '"v1"')
  const first = await fetched(host)
  assert.deepEqual(first, { kind: 'bundle', bytes: BYTES, etag: '"v1"', longPolls: false })
  assert.equal(host.requests[0]?.['prefer'], 'modes=snapshot')
  assert.equal(host.requests[0]?.['if-none-match'], undefined)
  assert.equal(host.requests[0]?.['authorization'], undefined)
  const second = await fetched(host, { etag: '"v1"', token: 'abc', waitMs: 1_500 })
  assert.deepEqual(second, { kind: 'not_modified', longPolls: false })
  assert.equal(host.requests[1]?.['prefer'], 'modes=snapshot;wait=2')
  assert.equal(host.requests[1]?.['if-none-match'], '"v1"')
  assert.equal(host.requests[1]?.['authorization'], 'Bearer abc')
})

test('knows by the content type that a server holds requests back', async (t) => {
  const host = await answering(t, (_, response) =>
    response.writeHead(200, { 'content-type': 'application/vnd.openpolicyagent.bundles' }).end('x'),
  )
  const outcome = await fetched(host)
  assert.equal(outcome.kind === 'bundle' && outcome.longPolls, true)
})

test('shows its client certificate', async (t) => {
  const host = await bundleHost(t)
  host.serve(BYTES, '"v1"')
  const client = await (await testAuthority()).svid('web')
  const certificate = Buffer.from(client.chainPem)
  const privateKey = Buffer.from(client.privateKeyPem)
  assert.equal((await fetched(host, { certificate, privateKey })).kind, 'bundle')
  assert.match(host.clientCertificates.join(), /sa\/web/)
  const broken = await fetched(host, { certificate, privateKey: Buffer.from('no key') })
  assert.match(said(broken), /cannot be asked/)
})

test('believes the configured authority only', async (t) => {
  const host = await bundleHost(t)
  host.serve(BYTES, '"v1"')
  const other = await bundleHost(t)
  assert.match(said(await fetched(host, { ca: Buffer.from(other.ca) })), /cannot be asked/)
  const { ca: _, ...withoutCa } = { url: host.url, etag: undefined, waitMs: 0, maxBytes: 9, ca: 0 }
  const system = await download(withoutCa, new AbortController().signal, QUICK)
  assert.match(said(system), /cannot be asked/)
  const byAddress = host.url.replace('localhost', '127.0.0.1')
  assert.match(said(await fetched(host, { url: byAddress })), /cannot be asked/)
  assert.equal(host.requests.length, 0)
})

test('follows no environment: neither a proxy nor a switch that turns verification off', async (t) => {
  const host = await bundleHost(t)
  host.serve(BYTES, '"v1"')
  const before = { ...process.env }
  t.after(() => {
    process.env = before
  })
  process.env['HTTPS_PROXY'] = process.env['https_proxy'] = 'http://127.0.0.1:9'
  process.env['NODE_USE_ENV_PROXY'] = '1'
  assert.equal((await fetched(host)).kind, 'bundle')
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
  const other = await bundleHost(t)
  assert.match(said(await fetched(host, { ca: Buffer.from(other.ca) })), /cannot be asked/)
})

for (const [name, answer, expected] of [
  ['a fault', (_, r) => r.writeHead(500).end('secret'), /answered 500$/],
  ['no entry', (_, r) => r.writeHead(401).end(), /answered 401: it does not let us in/],
  ['no such bundle', (_, r) => r.writeHead(404).end(), /answered 404: it has no such bundle/],
  ['no content', (_, r) => r.writeHead(204).end(), /answered 204/],
  ['a part', (_, r) => r.writeHead(206).end('x'), /answered 206/],
  ['nothing', (_, r) => r.writeHead(200).end(), /answered with nothing/],
  ['304 unasked', (_, r) => r.writeHead(304).end(), /was not asked for that/],
  [
    'another address',
    (_, r) => r.writeHead(302, { location: 'https://evil.example/x' }).end(),
    /answered 302 with another address \("https:\/\/evil.example\/x"\)/,
  ],
  [
    'a length beyond the limit',
    (_, r) => r.writeHead(200, { 'content-length': 1_001 }).write('x'),
    /more than 1000 bytes/,
  ],
  [
    'more than the limit',
    (_, r) => r.writeHead(200).end(Buffer.alloc(100_000)),
    /more than 1000 bytes/,
  ],
  ['without end', (_, r) => flood(r), /more than 1000 bytes/],
  ['less than it says', (_, r) => cutOff(r, { 'content-length': 100 }), /cannot be asked|cut off/],
  ['half a chunk', (_, r) => cutOff(r, {}), /cannot be asked|cut off/],
  ['no head', () => {}, /gave no answer within 150 ms/],
  ['silence', (_, r) => r.writeHead(200).write('x'), /fell silent/],
  ['a trickle', (_, r) => trickle(r), /took longer than 600 ms/],
] as const satisfies readonly (readonly [string, Answer, RegExp])[]) {
  test(`a server that answers with ${name} is a failure with a reason`, async (t) => {
    const host = await answering(t, answer)
    assert.match(said(await fetched(host)), expected)
  })
}

test('an answer that is no HTTP, and one that is cut off in the handshake, are failures', async (t) => {
  const server = net.createServer((socket) =>
    socket.on('error', () => {}).end('220 mail ready\r\n'),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const { port } = server.address() as net.AddressInfo
  for (const scheme of ['http', 'https']) {
    const request = {
      url: `${scheme}://127.0.0.1:${port}/`,
      etag: undefined,
      waitMs: 0,
      maxBytes: 9,
    }
    const outcome = await download(request, new AbortController().signal, QUICK)
    assert.match(said(outcome), /cannot be asked/)
  }
})

test('an ETag that is none is not sent back', async (t) => {
  for (const etag of ['v1', '"a b"', `"${'x'.repeat(300)}"`, '"a', 'w/"a"']) {
    const host = await answering(t, (_, r) => r.writeHead(200, { etag }).end('x'))
    const outcome = await fetched(host)
    assert.deepEqual(
      [outcome.kind, outcome.kind === 'bundle' && outcome.etag],
      ['bundle', undefined],
    )
  }
})

test('ends when it is told to', async (t) => {
  const host = await answering(t, () => {})
  const controller = new AbortController()
  const request = {
    url: host.url,
    etag: undefined,
    waitMs: 0,
    maxBytes: 9,
    ca: Buffer.from(host.ca),
  }
  const outcome = download(request, controller.signal)
  controller.abort()
  assert.equal((await outcome).kind, 'failed')
})

function cutOff(response: ServerResponse, headers: Record<string, number>) {
  response.writeHead(200, headers).write('x')
  setImmediate(() => response.destroy())
}

function flood(response: ServerResponse): void {
  response.writeHead(200)
  const more = () => {
    while (!response.destroyed && response.write(Buffer.alloc(1_000)));
  }
  response.on('drain', more)
  more()
}

function trickle(response: ServerResponse): void {
  response.writeHead(200)
  const timer = setInterval(() => response.write('x'), 20)
  response.on('close', () => clearInterval(timer))
}
