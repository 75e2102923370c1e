import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer as createPlainServer, type RequestListener } from 'node:http'
import { createServer, type ServerOptions } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net'
import { join } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { explain } from '../../src/cli/call/explain.ts'
import { PkiDirectory } from '../../src/cli/pki/directory.ts'
import { type CommandResult, postern } from '../support/command.ts'
import { Authority, ORDERS, temporaryDirectory, WEB } from '../support/pki.ts'

const cleanup: (() => unknown)[] = []
after(async () => {
  for (const one of cleanup) await one()
})

let dir: string
let pki: PkiDirectory
let identity: { readonly cert: string; readonly key: string }

before(async () => {
  dir = join(await temporaryDirectory({ after: (fn) => cleanup.push(fn as () => unknown) }), 'pki')
  pki = await PkiDirectory.create(dir, {
    trustDomain: 'example.org',
    keyType: 'ec-p256',
    lifetimeMs: 86_400_000,
  })
  const { chainPem, privateKeyPem } = await pki.issueInMemory(ORDERS, 3_600_000)
  identity = { cert: chainPem, key: privateKeyPem }
})

const echo: RequestListener = async (request, response) => {
  let body = ''
  for await (const chunk of request) body += chunk
  const { subjectaltname } = (request.socket as TLSSocket).getPeerCertificate()
  const { method, url, headers } = request
  response.setHeader('x-kind', ['a', 'b'])
  response.end(JSON.stringify({ method, url, headers, body, client: subjectaltname }))
}

const inDirectory = (name: string): Promise<string> => readFile(join(dir, name), 'utf8')

async function listen(t: TestContext, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

const serve = async (
  t: TestContext,
  options: ServerOptions = {},
  handler: RequestListener = echo,
): Promise<string> =>
  `https://${await listen(t, createServer({ ...identity, ca: await pki.readBundle(), requestCert: true, ...options }, handler))}`

const call = (...args: string[]): Promise<CommandResult> =>
  postern(['call', '--dir', dir, '--as', WEB, ...args])

function assertFailure(result: CommandResult, exitCode: 1 | 2, text: RegExp): void {
  assert.equal(result.exitCode, exitCode, result.stderr)
  assert.equal(result.stdout, '')
  assert.match(result.stderr, text)
  assert.doesNotMatch(result.stderr, /\n\s+at /)
}

test('calls with the identity that was asked for, and prints status and body', async (t) => {
  const { exitCode, stdout, stderr } = await call(`${await serve(t)}/api/orders?q=1`)
  assert.deepEqual([exitCode, stderr], [0, '200 OK\n'])
  const seen = JSON.parse(stdout)
  assert.deepEqual([seen.method, seen.url, seen.client], ['GET', '/api/orders?q=1', `URI:${WEB}`])
})

test('sends method, headers and body as given, and prints headers with -i', async (t) => {
  const { stdout } = await call(
    ...['-i', '-X', 'PUT', '-d', 'päyload', '-H', 'X-One: 1', '-H', 'x-one:2', '-H', 'Host: other'],
    await serve(t),
  )
  const [head = '', body = ''] = stdout.split('\n\n')
  assert.match(head, /^x-kind: a\nx-kind: b$/m)
  const seen = JSON.parse(body)
  assert.deepEqual(
    [seen.method, seen.body, seen.headers['x-one'], seen.headers.host],
    ['PUT', 'päyload', '1, 2', 'other'],
  )
  assert.equal(seen.headers['content-length'], String(Buffer.byteLength('päyload')))
})

test('ends with 0 on any response, and with 1 for a refusal only when asked', async (t) => {
  const url = await serve(t, {}, (_, response) => response.writeHead(403).end('no'))
  const plain = await call(url)
  assert.deepEqual([plain.exitCode, plain.stdout, plain.stderr], [0, 'no', '403 Forbidden\n'])
  assert.equal((await call('--fail', url)).exitCode, 1)
})

test('accepts the server that was named, and no other one', async (t) => {
  const url = await serve(t)
  assert.equal((await call('--server-id', ORDERS, url)).exitCode, 0)
  assertFailure(
    await call('--server-id', `${ORDERS}2`, url),
    1,
    /not the server that was asked for: its certificate is for .*sa\/orders, not for .*sa\/orders2/,
  )
})

test('accepts a server without SPIFFE ID for its own host only', async (t) => {
  const intermediate = await Authority.load({
    certificatePem: await inDirectory('intermediate.crt'),
    privateKeyPem: await inDirectory('intermediate.key'),
    chainPem: await inDirectory('intermediate.crt'),
  })
  const named = async (names: { dns?: string[]; ips?: string[] }): Promise<ServerOptions> => {
    const { chainPem, privateKeyPem } = await intermediate.issue(names)
    return { cert: chainPem, key: privateKeyPem }
  }
  assert.equal((await call(await serve(t, await named({ ips: ['127.0.0.1'] })))).exitCode, 0)
  const other = await serve(t, await named({ dns: ['other.example'] }))
  assertFailure(await call(other), 1, /is for other\.example, not for 127\.0\.0\.1/)
})

test('refuses a server of another CA', async (t) => {
  const stranger = await (await Authority.create()).issue({ uris: [ORDERS] })
  const strange = { cert: stranger.chainPem, key: stranger.privateKeyPem }
  assertFailure(await call(await serve(t, strange)), 1, /server's certificate was not accepted/)
})

test('explains a server that refuses the certificate', async (t) => {
  const ca = (await Authority.create()).certificatePem
  const url = await serve(t, { ca, rejectUnauthorized: true })
  assertFailure(await call(url), 1, /refused the certificate|refused the handshake/)
})

// The key of the server is ECDSA, so that it has no cipher to offer.
test('names the alert with which a server ends the handshake', async (t) => {
  const url = await serve(t, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES128-GCM-SHA256' })
  assertFailure(
    await call(url),
    1,
    /the server refused the handshake: handshake failure \(alert 40\)\n.*no cipher/,
  )
})

test('says what to do about each alert that a server refuses a client with', async () => {
  const told = (alert: string, number: number) =>
    explain(
      new Error(
        `error:0A000418:SSL routines:read:tlsv1 alert ${alert}:x.c:9:SSL alert number ${number}`,
      ),
      new URL('https://orders.example'),
      true,
      1_000,
    )
  for (const [alert, number, remedy] of [
    ['unknown ca', 48, /add the ca\.crt/],
    ['certificate expired', 45, /clocks/],
    ['certificate required', 116, /wants a client certificate/],
    ['no application protocol', 120, /ALPN/],
    ['something new', 250, /the log of the server/],
  ] as const) {
    const problem = told(alert, number)
    assert.equal(problem.what, `the server refused the handshake: ${alert} (alert ${number})`)
    assert.match(problem.remedy, remedy)
  }
})

test('tells an expired certificate of the server from one of another CA', async (t) => {
  const intermediate = await Authority.load({
    certificatePem: await inDirectory('intermediate.crt'),
    privateKeyPem: await inDirectory('intermediate.key'),
    chainPem: await inDirectory('intermediate.crt'),
  })
  const { chainPem, privateKeyPem } = await intermediate.issue({
    uris: [ORDERS],
    notBefore: new Date(Date.now() - 7_200_000),
    notAfter: new Date(Date.now() - 3_600_000),
  })
  const expired = await call(await serve(t, { cert: chainPem, key: privateKeyPem }))
  assertFailure(expired, 1, /was not accepted: .*\n.*it has expired: renew it/)
})

test('explains a refusal that Postern answered, and no other answer', async (t) => {
  const answer = async (body: string, status = 403) =>
    call(await serve(t, {}, (_, response) => response.writeHead(status).end(body)))
  const refused = await answer('{"error":"peer_deny_listed","id":"4711"}')
  assert.equal(refused.stdout, '{"error":"peer_deny_listed","id":"4711"}')
  assert.match(
    refused.stderr,
    /^403 Forbidden\npostern: peer_deny_listed: The deny list .*\n {2}use another identity.*\n {2}its log has it under 4711\n$/,
  )
  for (const body of ['{"error":"constructor"}', '{"error":["denied"]}', 'null', 'no', '{']) {
    assert.equal((await answer(body)).stderr, '403 Forbidden\n')
  }
  assert.equal((await answer('{"error":"denied"}', 200)).stderr, '200 OK\n')
})

test('explains a port where nothing listens, plain HTTP, and a server that hangs', async (t) => {
  const closed = createTcpServer()
  const address = await listen(t, closed)
  await new Promise((done) => closed.close(done))
  assertFailure(await call(`https://${address}`), 1, /connection refused: nothing listens there/)

  const plain = await listen(t, createPlainServer(echo))
  assertFailure(await call(`https://${plain}`), 1, /does not speak TLS on this port/)

  const silent = await serve(t, {}, () => {})
  assertFailure(await call('--timeout', '1', silent), 1, /no answer within 1 s/)
})

test('says so when the server breaks off in the middle of the body', async (t) => {
  const url = await serve(t, {}, (_, response) => {
    response.writeHead(200, { 'content-length': '10' })
    response.write('half', () => response.destroy())
  })
  const result = await call(url)
  assert.equal(result.exitCode, 1)
  assert.match(result.stderr, /^200 OK\nerror: https:.*/)
})

test('refuses wrong usage', async () => {
  const url = 'https://127.0.0.1:1'
  assertFailure(await call('http://127.0.0.1:1'), 2, /Write https:/)
  assertFailure(await call('-H', 'no colon', url), 2, /name: value/)
  assertFailure(await call('-H', 'a: b\r\nc: d', url), 2, /name: value/)
  assertFailure(await call('-X', 'GE T', url), 2, /Write a method/)
  assertFailure(await call('--timeout', '0', url), 2, /number of seconds/)
  assertFailure(await call('--as', 'web', url), 2, /Write a SPIFFE ID/)
  assertFailure(await call('--as', 'spiffe://a.org/x', url), 2, /not in the trust domain of the CA/)
  assertFailure(await postern(['call', url]), 2, /--as <id>' not specified/)
  assertFailure(await call('--dir', `${dir}-none`, url), 1, /holds no development CA/)
})
