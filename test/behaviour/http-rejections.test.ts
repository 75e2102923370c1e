import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import type { ErrorCode } from '../../src/errors.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { get, ok, openClient, startScriptedWorkload } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

const request = (lines: string, rest = ''): string => `${lines}\r\n\r\n${rest}`
const HOST = 'Host: localhost'
const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n'

/** What is refused at its head, or with the first bytes of its body that are in the same flight. */
const REFUSED: readonly (readonly [
  what: string,
  bytes: string,
  status: number,
  code: ErrorCode,
])[] = [
  [
    'both lengths, Content-Length first',
    request(
      `POST / HTTP/1.1\r\n${HOST}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked`,
      `0\r\n\r\n${SMUGGLED}`,
    ),
    400,
    'bad_framing',
  ],
  [
    'both lengths, Transfer-Encoding first',
    request(
      `POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding: chunked\r\nContent-Length: 60`,
      `0\r\n\r\n${SMUGGLED}`,
    ),
    400,
    'bad_framing',
  ],
  [
    'two equal lengths',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nContent-Length: 2\r\nContent-Length: 2`, 'ab'),
    400,
    'bad_framing',
  ],
  [
    'two lengths in a list',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nContent-Length: 2, 2`, 'ab'),
    400,
    'bad_framing',
  ],
  [
    'a signed length',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nContent-Length: +2`, 'ab'),
    400,
    'bad_framing',
  ],
  [
    'gzip under chunked',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding: gzip, chunked`, '0\r\n\r\n'),
    501,
    'unsupported_encoding',
  ],
  [
    'a coding that only looks like chunked',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding: xchunked`, '0\r\n\r\n'),
    501,
    'unsupported_encoding',
  ],
  [
    'chunked in HTTP/1.0',
    request(`POST / HTTP/1.0\r\n${HOST}\r\nTransfer-Encoding: chunked`, '0\r\n\r\n'),
    400,
    'bad_framing',
  ],
  [
    'a folded line',
    request(`GET / HTTP/1.1\r\n${HOST}\r\nX-A: b\r\n Transfer-Encoding: chunked`),
    400,
    'bad_header',
  ],
  [
    'a space before the colon',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding : chunked`, '0\r\n\r\n'),
    400,
    'bad_header',
  ],
  ['a bare LF between lines', `GET / HTTP/1.1\r\n${HOST}\nX-A: b\r\n\r\n`, 400, 'bad_header'],
  ['bare LFs alone', `GET / HTTP/1.1\n${HOST}\n\n`, 400, 'bad_request_line'],
  ['a NUL in a value', request(`GET / HTTP/1.1\r\n${HOST}\r\nX-A: a\0b`), 400, 'bad_header'],
  ['a bare CR in a value', request(`GET / HTTP/1.1\r\n${HOST}\r\nX-A: a\rb`), 400, 'bad_header'],
  ['obs-text in a value', request(`GET / HTTP/1.1\r\n${HOST}\r\nX-A: \xe9`), 400, 'bad_header'],
  ['no Host', request('GET / HTTP/1.1'), 400, 'bad_host'],
  ['two Hosts', request(`GET / HTTP/1.1\r\n${HOST}\r\nHost: elsewhere`), 400, 'bad_host'],
  ['a list of Hosts', request('GET / HTTP/1.1\r\nHost: a, b'), 400, 'bad_host'],
  [
    'a target that names another host',
    request(`GET http://elsewhere/ HTTP/1.1\r\n${HOST}`),
    400,
    'bad_host',
  ],
  [
    'an encoded dot segment',
    request(`GET /x/%2e%2e/admin HTTP/1.1\r\n${HOST}`),
    400,
    'ambiguous_path',
  ],
  ['a dot segment', request(`GET /x/../admin HTTP/1.1\r\n${HOST}`), 400, 'ambiguous_path'],
  ['an empty segment', request(`GET //admin HTTP/1.1\r\n${HOST}`), 400, 'ambiguous_path'],
  ['an encoded slash', request(`GET /x%2fadmin HTTP/1.1\r\n${HOST}`), 400, 'ambiguous_path'],
  ['a path parameter', request(`GET /admin;x HTTP/1.1\r\n${HOST}`), 400, 'ambiguous_path'],
  ['a fragment', request(`GET /x#y HTTP/1.1\r\n${HOST}`), 400, 'bad_target'],
  [
    'CONNECT',
    request('CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443'),
    501,
    'unsupported_method',
  ],
  ['TRACE', request(`TRACE / HTTP/1.1\r\n${HOST}`), 501, 'unsupported_method'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505, 'unsupported_version'],
  ['HTTP/1.2', request(`GET / HTTP/1.2\r\n${HOST}`), 505, 'unsupported_version'],
  ['HTTP/0.9', 'GET /\r\n\r\n', 400, 'bad_request_line'],
  ['an empty line before the request', `\r\n${get('/')}`, 400, 'bad_request_line'],
  [
    'two spaces in the request line',
    request(`GET  / HTTP/1.1\r\n${HOST}`),
    400,
    'bad_request_line',
  ],
  [
    'a head that is too long',
    request(`GET / HTTP/1.1\r\n${HOST}\r\nX-A: ${'a'.repeat(33 * 1024)}`),
    431,
    'head_too_large',
  ],
  [
    'too many fields',
    request(`GET / HTTP/1.1\r\n${HOST}${'\r\nX-A: b'.repeat(100)}`),
    431,
    'too_many_headers',
  ],
  [
    'a target that is too long',
    request(`GET /${'a'.repeat(9 * 1024)} HTTP/1.1\r\n${HOST}`),
    414,
    'target_too_long',
  ],
  [
    'a body that is too long by its length',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nContent-Length: 65537`, 'a'.repeat(100)),
    413,
    'body_too_large',
  ],
  [
    'a Connection that lists Host',
    request(`GET / HTTP/1.1\r\n${HOST}\r\nConnection: host`),
    400,
    'bad_connection_header',
  ],
  [
    'a Connection that lists an identity field',
    request(`GET / HTTP/1.1\r\n${HOST}\r\nConnection: x-forwarded-client-cert`),
    400,
    'bad_connection_header',
  ],
  [
    'an expectation that nobody knows',
    request(`POST / HTTP/1.1\r\n${HOST}\r\nContent-Length: 1\r\nExpect: 200-ok`, 'a'),
    417,
    'unsupported_expectation',
  ],
  [
    'two Authorizations',
    request(`GET / HTTP/1.1\r\n${HOST}\r\nAuthorization: a\r\nAuthorization: b`),
    400,
    'duplicate_header',
  ],
  [
    'a WebSocket handshake without a key',
    request(`GET / HTTP/1.1\r\n${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket`),
    400,
    'bad_upgrade',
  ],
  [
    'a bad chunk that came with its head',
    request(
      `POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding: chunked`,
      `5\r\nhelloX\r\n${SMUGGLED}`,
    ),
    400,
    'bad_chunk',
  ],
  [
    'a bad trailer that came with its head',
    request(
      `POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding: chunked`,
      `0\r\nContent-Length: 3\r\n\r\n${SMUGGLED}`,
    ),
    400,
    'bad_trailer',
  ],
  [
    'a chunked body that is too long and came with its head',
    request(
      `POST / HTTP/1.1\r\n${HOST}\r\nTransfer-Encoding: chunked`,
      `10001\r\n${'a'.repeat(0x10001)}\r\n0\r\n\r\n`,
    ),
    413,
    'body_too_large',
  ],
]

describe('a request that cannot be trusted', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, { line }) => {
      socket.write(ok(line))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { limits: { bodyBytes: '64KiB' } } },
    })
    web = await sidecar.authority.svid('web')
  })

  for (const [what, bytes, status, code] of REFUSED) {
    it(`is refused and reaches nobody: ${what}`, async () => {
      const series = `postern_requests_rejected_total{code="${code}"}`
      const counted = await sidecar.metric(series)
      const heard = workload.received.join().length
      const client = await openClient(t, sidecar, web)
      client.send(bytes + SMUGGLED)
      const answer = await client.answer()
      const { error, id } = JSON.parse(String(answer.body))
      assert.deepEqual([answer.status, error], [status, code])
      assert.deepEqual(answer.values('x-postern-decision-id'), [id])
      assert.deepEqual(answer.values('connection'), ['close'])
      assert.equal(await client.ended, '', 'no second answer')
      const head = workload.received.join().slice(heard)
      // A body that turns bad later may have let its head through; never more than that.
      if (!what.endsWith('came with its head')) assert.equal(head, '')
      assert.doesNotMatch(head, /smuggled/)
      assert.equal(await sidecar.metric(series), counted + 1)
    })
  }

  it('does not keep the next one from being served', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/fine'))
    assert.equal((await client.answer()).status, 200)
  })

  it('may be about the server as a whole (OPTIONS *)', async () => {
    const client = await openClient(t, sidecar, web)
    client.send('OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n')
    assert.equal(String((await client.answer()).body), 'OPTIONS * HTTP/1.1')
  })

  it('may name this host in its target, and goes on in origin-form', async () => {
    const client = await openClient(t, sidecar, web)
    client.send('GET http://localhost/a?b=c HTTP/1.1\r\nhost: localhost\r\n\r\n')
    assert.equal(String((await client.answer()).body), 'GET /a?b=c HTTP/1.1')
  })
})
