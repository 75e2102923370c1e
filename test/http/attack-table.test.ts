// One named test for each known way to make two HTTP/1.1 recipients disagree about a request.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { removeUntrustedFields } from '../../src/http/fields.ts'
import { accepted, request, withFields } from './support.ts'

const refuses = (name: string, code: string, text: string) =>
  it(name, () => assert.equal(request(text), code))

describe('framing', () => {
  const framing = (name: string, code: string, ...lines: string[]) =>
    refuses(`refuses ${name}`, code, withFields(...lines))
  framing('CL then TE', 'bad_framing', 'Content-Length: 5', 'Transfer-Encoding: chunked')
  framing('TE then CL', 'bad_framing', 'Transfer-Encoding: chunked', 'Content-Length: 5')
  framing('differing CL', 'bad_framing', 'Content-Length: 5', 'Content-Length: 6')
  framing('equal CL twice', 'bad_framing', 'Content-Length: 5', 'content-length: 5')
  framing('a list of CL', 'bad_framing', 'Content-Length: 5, 5')
  framing('a signed CL', 'bad_framing', 'Content-Length: +5')
  framing('a negative CL', 'bad_framing', 'Content-Length: -5')
  framing('a hexadecimal CL', 'bad_framing', 'Content-Length: 0x5')
  framing('a fractional CL', 'bad_framing', 'Content-Length: 5.0')
  framing('an exponent CL', 'bad_framing', 'Content-Length: 5e1')
  framing('an empty CL', 'bad_framing', 'Content-Length:')
  framing('a CL with a space inside', 'bad_framing', 'Content-Length: 5 5')
  framing('a CL with a leading zero', 'bad_framing', 'Content-Length: 05')
  framing('a CL beyond 2^53', 'bad_framing', 'Content-Length: 9007199254740992')
  framing('a CL beyond 2^64', 'bad_framing', 'Content-Length: 18446744073709551621')
  framing('TE twice', 'bad_framing', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')
  framing('xchunked', 'unsupported_encoding', 'Transfer-Encoding: xchunked')
  framing('chunked, identity', 'unsupported_encoding', 'Transfer-Encoding: chunked, identity')
  framing('gzip, chunked', 'unsupported_encoding', 'Transfer-Encoding: gzip, chunked')
  framing('quoted chunked', 'unsupported_encoding', 'Transfer-Encoding: "chunked"')
  framing('chunked with a parameter', 'unsupported_encoding', 'Transfer-Encoding: chunked;a=b')
  framing('chunked, chunked', 'unsupported_encoding', 'Transfer-Encoding: chunked, chunked')
  framing('identity', 'unsupported_encoding', 'Transfer-Encoding: identity')
  framing('an empty TE', 'unsupported_encoding', 'Transfer-Encoding:')
  framing('VT before chunked', 'bad_header', 'Transfer-Encoding: \x0bchunked')
  framing('a tab after chunked', 'bad_header', 'Transfer-Encoding: chunked\t')
  framing('a space before the colon of TE', 'bad_header', 'Transfer-Encoding : chunked')
  refuses(
    'refuses TE in HTTP/1.0',
    'bad_framing',
    'POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
  )
  it('takes the largest safe CL, and chunked in any letter case', () => {
    assert.deepEqual(accepted(withFields('Content-Length: 9007199254740991')).body, {
      kind: 'length',
      length: 9007199254740991,
    })
    assert.equal(accepted(withFields('tRANSFER-eNCODING: Chunked')).body.kind, 'chunked')
  })
})

describe('field lines', () => {
  refuses(
    'refuses a first field with a leading space',
    'bad_header',
    'GET / HTTP/1.1\r\n Host: a\r\n\r\n',
  )
  refuses('refuses obs-fold', 'bad_header', withFields('X: a', ' b'))
  refuses('refuses obs-fold with a tab', 'bad_header', withFields('X: a', '\tb'))
  refuses('refuses a bare LF after a field', 'bad_header', withFields('X: a\nY: b'))
  refuses('refuses a bare CR in a value', 'bad_header', withFields('X: a\rY: b'))
  refuses('refuses CR CR LF', 'bad_header', withFields('X: a\r'))
  refuses('refuses NUL in a value', 'bad_header', withFields('X: a\0b'))
  refuses('refuses DEL in a value', 'bad_header', withFields('X: a\x7fb'))
  refuses('refuses obs-text in a value', 'bad_header', withFields('X: caf\xe9'))
  refuses('refuses an empty name', 'bad_header', withFields(': a'))
  refuses('refuses a line without a colon', 'bad_header', withFields('nocolon'))
  refuses('refuses a space before the colon', 'bad_header', withFields('X : a'))
  refuses('refuses a tab before the colon', 'bad_header', withFields('X\t: a'))
  refuses('refuses a separator in a name', 'bad_header', withFields('X(a): a'))
  refuses('refuses a non-ASCII name', 'bad_header', withFields('X\xe9: a'))
  refuses('refuses a head that only bare LFs would end', 'bad_request_line', 'GET / HTTP/1.1\n\n')
  refuses(
    'refuses bare LFs at once, without waiting for CRLF CRLF',
    'bad_header',
    'GET / HTTP/1.1\r\nHost: a\nX: b\n\n',
  )
})

describe('request line', () => {
  const line = (name: string, code: string, text: string) =>
    refuses(`refuses ${name}`, code, `${text}\r\nHost: a\r\n\r\n`)
  line('HTTP/0.9', 'bad_request_line', 'GET /')
  line('HTTP/2.0', 'unsupported_version', 'GET / HTTP/2.0')
  line('HTTP/1.2', 'unsupported_version', 'GET / HTTP/1.2')
  line('the HTTP/2 preface', 'unsupported_version', 'PRI * HTTP/2.0')
  line('a lower-case protocol name', 'bad_request_line', 'GET / http/1.1')
  line('HTTP/1.10', 'bad_request_line', 'GET / HTTP/1.10')
  line('HTTP/01.1', 'bad_request_line', 'GET / HTTP/01.1')
  line('another protocol', 'bad_request_line', 'GET / RTSP/1.0')
  line('two spaces after the method', 'bad_request_line', 'GET  / HTTP/1.1')
  line('two spaces before the version', 'bad_request_line', 'GET /  HTTP/1.1')
  line('a space after the version', 'bad_request_line', 'GET / HTTP/1.1 ')
  line('a tab as separator', 'bad_request_line', 'GET\t/\tHTTP/1.1')
  line('a leading CRLF', 'bad_request_line', '\r\nGET / HTTP/1.1')
  line('a leading LF', 'bad_request_line', '\nGET / HTTP/1.1')
  line('a leading space', 'bad_request_line', ' GET / HTTP/1.1')
  line('a bare CR in it', 'bad_request_line', 'GET / HTTP/1.1\rX: a')
  line('a method that is no token', 'bad_request_line', 'G(T / HTTP/1.1')
  line('a method longer than any', 'bad_request_line', `${'A'.repeat(33)} / HTTP/1.1`)
  line('CONNECT', 'unsupported_method', 'CONNECT a:443 HTTP/1.1')
  line('TRACE, which would echo identity', 'unsupported_method', 'TRACE / HTTP/1.1')
  line('a lower-case method', 'unsupported_method', 'delete / HTTP/1.1')
  line('GET *', 'bad_target', 'GET * HTTP/1.1')
  it('passes on a method that it does not know', () => {
    assert.equal(accepted('M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n').method, 'M-SEARCH')
  })
})

describe('Host', () => {
  const host = (name: string, ...lines: string[]) =>
    refuses(
      `refuses ${name}`,
      'bad_host',
      `${['GET / HTTP/1.1', ...lines, 'Accept: x'].join('\r\n')}\r\n\r\n`,
    )
  host('a missing Host')
  host('two Host fields', 'Host: a', 'Host: b')
  host('two equal Host fields', 'Host: a', 'hOST: a')
  host('a list of hosts', 'Host: a, b')
  host('an empty Host', 'Host:')
  host('user information', 'Host: user@a')
  host('a path', 'Host: a/b')
  host('a scheme', 'Host: http://a')
  host('a port that is no number', 'Host: a:b')
  host('an empty port', 'Host: a:')
  host('a port beyond 65535', 'Host: a:65536')
  host('a port alone', 'Host: :80')
  host('a percent-encoded name', 'Host: a%2eb')
  host('an IPv6 address without brackets', 'Host: ::1')
  host('an unclosed bracket', 'Host: [::1')
  host('characters after a bracket', 'Host: [::1]a')
  host('an IPv6 zone', 'Host: [fe80::1%25eth0]')
  refuses('refuses HTTP/1.0 without Host', 'bad_host', 'GET / HTTP/1.0\r\n\r\n')
  for (const good of ['a', 'A.b-c_d~e', 'a:0', 'a:65535', '127.0.0.1:80', '[::1]', '[::1]:8443']) {
    it(`takes ${good}`, () => {
      assert.equal(accepted(`GET / HTTP/1.1\r\nHost: ${good}\r\n\r\n`).host, good)
    })
  }
})

describe('absolute-form', () => {
  const absolute = (target: string) => request(`GET ${target} HTTP/1.1\r\nHost: a:80\r\n\r\n`)
  it('refuses an authority other than Host', () => {
    assert.equal(absolute('http://evil/x'), 'bad_host')
    assert.equal(absolute('http://a/x'), 'bad_host')
    assert.equal(absolute('http://a:80@evil/x'), 'bad_host')
  })
  it('refuses other schemes and an empty authority', () => {
    assert.equal(absolute('ftp://a:80/x'), 'bad_target')
    assert.equal(absolute('http:///x'), 'bad_target')
    assert.equal(absolute('a:80'), 'bad_target')
    assert.equal(absolute('//a:80/x'), 'ambiguous_path')
  })
  it('goes on in origin-form', () => {
    const head = accepted('GET HTTP://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n')
    assert.equal(head.target, '/x?y')
    assert.equal(head.path, '/x')
    assert.equal(head.query, 'y')
  })
})

describe('repeated fields', () => {
  for (const name of ['Authorization', 'Content-Type', 'Expect', 'Upgrade']) {
    refuses(
      `refuses ${name} twice`,
      'duplicate_header',
      withFields(`${name}: 100-continue`, `${name.toLowerCase()}: 100-continue`),
    )
  }
})

describe('names', () => {
  it('takes __proto__ for a name like any other, and does not pass it on', () => {
    const { fields } = accepted(withFields('__proto__: x', 'constructor: y'))
    assert.deepEqual(fields, ['host', 'a', '__proto__', 'x', 'constructor', 'y'])
    assert.deepEqual(removeUntrustedFields(fields, { forwardedClientCert: false }), [
      'host',
      'a',
      'constructor',
      'y',
    ])
  })
  it('drops identity in every spelling, however often it is sent', () => {
    const { fields } = accepted(
      withFields(
        'X-Forwarded-Client-Cert: Hash=1',
        'x-forwarded-CLIENT-cert: Hash=2',
        'X_Forwarded_Client_Cert: Hash=3',
        'Client-Cert: :a:',
        'Client-Cert-Chain: :a:',
        'X-Postern-Peer: a',
        'X-Envoy-Auth-Partial-Body: true',
      ),
    )
    assert.deepEqual(removeUntrustedFields(fields, { forwardedClientCert: false }), ['host', 'a'])
  })
})

describe('Connection', () => {
  const protectedNames = [
    'host',
    'content-length',
    'Transfer-Encoding',
    'expect',
    'authorization',
    'cookie',
    'content-type',
    'x-forwarded-client-cert',
    'Client-Cert',
    'x-postern-peer',
  ]
  for (const name of protectedNames) {
    refuses(
      `refuses to drop ${name}`,
      'bad_connection_header',
      withFields(`Connection: close, ${name}`),
    )
  }
  refuses(
    'refuses one that is spread over two fields',
    'bad_connection_header',
    withFields('Connection: close', 'Connection: host'),
  )
  refuses(
    'refuses an element that is no token',
    'bad_connection_header',
    withFields('Connection: a b'),
  )
})

describe('Expect', () => {
  refuses('refuses any other expectation', 'unsupported_expectation', withFields('Expect: 200-ok'))
  refuses(
    'refuses a list of expectations',
    'unsupported_expectation',
    withFields('Expect: 100-continue, 100-continue'),
  )
  it('reports 100-continue where a body follows', () => {
    const body = 'Content-Length: 1'
    assert.equal(accepted(withFields('Expect: 100-Continue', body)).expectContinue, true)
    assert.equal(accepted(withFields('Expect: 100-continue')).expectContinue, false)
    assert.equal(
      accepted(withFields('Expect: 100-continue', 'Content-Length: 0')).expectContinue,
      false,
    )
    const old = `POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n${body}\r\n\r\n`
    assert.equal(accepted(old).expectContinue, false)
  })
})

describe('Upgrade', () => {
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
  const version = 'Sec-WebSocket-Version: 13'
  const get = (...lines: string[]) =>
    `${['GET / HTTP/1.1', 'Host: a', ...lines].join('\r\n')}\r\n\r\n`
  const good = ['Connection: keep-alive, Upgrade', 'Upgrade: WebSocket', key, version]
  const bad = (name: string, text: string) => refuses(`refuses ${name}`, 'bad_upgrade', text)

  it('takes a WebSocket handshake', () => {
    assert.equal(accepted(get(...good)).upgrade, 'websocket')
    assert.equal(accepted(get(...good, 'Content-Length: 0')).upgrade, 'websocket')
  })
  it('ignores h2c and drops everything that belongs to it', () => {
    const head = accepted(
      get('Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'),
    )
    assert.equal(head.upgrade, undefined)
    assert.equal(head.keepAlive, true)
    assert.deepEqual(removeUntrustedFields(head.fields, { forwardedClientCert: false }), [
      'host',
      'a',
    ])
  })
  bad('a handshake with POST', get(...good).replace('GET', 'POST'))
  bad('a handshake in HTTP/1.0', get(...good).replace('HTTP/1.1', 'HTTP/1.0'))
  bad('a handshake with a body', get(...good, 'Content-Length: 5'))
  bad('a handshake with a chunked body', get(...good, 'Transfer-Encoding: chunked'))
  bad('a handshake without Connection: upgrade', get(...good.slice(1)))
  bad('a handshake without key', get(...good.toSpliced(2, 1)))
  bad('a handshake with two keys', get(...good, key))
  bad('a handshake with a short key', get(...good.toSpliced(2, 1, 'Sec-WebSocket-Key: dGhl')))
  bad('a handshake without version', get(...good.slice(0, 3)))
  bad('a handshake with another version', get(...good.slice(0, 3), 'Sec-WebSocket-Version: 8'))
})

describe('limits', () => {
  const get = (target: string, rest = '') => `GET ${target} HTTP/1.1\r\nHost: a\r\n${rest}\r\n`
  it('refuses a head that is too long, complete or not', () => {
    const long = get('/', `X: ${'x'.repeat(200)}\r\n`)
    assert.equal(request(long, { headBytes: 200 }), 'head_too_large')
    assert.equal(request(long.slice(0, 201), { headBytes: 200 }), 'head_too_large')
    assert.equal(request(long.slice(0, 200), { headBytes: 200 }), undefined)
    assert.equal(accepted(long, { headBytes: long.length }).headBytes, long.length)
  })
  it('refuses a target that is too long, complete or not', () => {
    const long = get(`/${'x'.repeat(100)}`)
    assert.equal(request(long, { targetBytes: 100 }), 'target_too_long')
    assert.equal(request(long.slice(0, 105), { targetBytes: 100 }), 'target_too_long')
    assert.equal(request(long, { targetBytes: 100, headBytes: 50 }), 'target_too_long')
    assert.equal(accepted(long, { targetBytes: 101 }).target.length, 101)
  })
  it('refuses too many fields', () => {
    const text = get('/', 'a: b\r\n'.repeat(9))
    assert.equal(request(text, { headerCount: 9 }), 'too_many_headers')
    assert.equal(accepted(text, { headerCount: 10 }).fields.length, 20)
  })
})
