import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { parseRequestHead } from '../../src/http/head.ts'
import { SEED } from '../support/randomness.ts'
import { accepted, bytes, LIMITS, request } from './support.ts'

const TYPICAL = [
  'POST /v1/orders?limit=2 HTTP/1.1',
  'Host: Orders.example:8443',
  'User-Agent: test  (a; b)',
  'X-EMPTY:',
  'Accept: \t a/b, c/d\t ',
  'Content-Length: 3',
  '',
  'abc',
].join('\r\n')

it('reads a head and says where the body begins', () => {
  assert.deepEqual(accepted(TYPICAL), {
    kind: 'request',
    protocol: 'HTTP/1.1',
    method: 'POST',
    target: '/v1/orders?limit=2',
    path: '/v1/orders',
    query: 'limit=2',
    host: 'Orders.example:8443',
    minorVersion: 1,
    fields: [
      ...['host', 'Orders.example:8443'],
      ...['user-agent', 'test  (a; b)'],
      ...['x-empty', ''],
      ...['accept', 'a/b, c/d'],
      ...['content-length', '3'],
    ],
    body: { kind: 'length', length: 3 },
    keepAlive: true,
    expectContinue: false,
    upgrade: undefined,
    headBytes: TYPICAL.length - 3,
  })
})

it('reads a head in the middle of a buffer and looks at nothing outside of it', () => {
  const head = bytes(TYPICAL)
  const buffer = Buffer.concat([bytes('GET / HTTP/1.1\r\n\r\n'), head, bytes('\r\n\r\n')])
  const start = 18
  const whole = parseRequestHead(buffer, start, buffer.length, LIMITS)
  assert.deepEqual(whole, parseRequestHead(head, 0, head.length, LIMITS))
  const cut = start + TYPICAL.length - 4
  assert.equal(parseRequestHead(buffer, start, cut, LIMITS), undefined)
})

it('keeps the connection as RFC 9112 section 9.3 says', () => {
  const keeps = (version: string, connection: string) =>
    accepted(`GET / HTTP/${version}\r\nHost: a\r\n${connection}\r\n`).keepAlive
  assert.equal(keeps('1.1', ''), true)
  assert.equal(keeps('1.1', 'Connection: close\r\n'), false)
  assert.equal(keeps('1.1', 'Connection: Keep-Alive, CLOSE\r\n'), false)
  assert.equal(keeps('1.1', 'Connection: keep-alive\r\nConnection: close\r\n'), false)
  assert.equal(keeps('1.1', 'Connection: , x-a ,\r\n'), true)
  assert.equal(keeps('1.0', ''), false)
  assert.equal(keeps('1.0', 'Connection: Keep-Alive\r\n'), true)
  assert.equal(keeps('1.0', 'Connection: keep-alive, close\r\n'), false)
})

it('refuses at once what can no longer become a request', () => {
  for (const text of ['\x16\x03\x01', 'GET / HTTP/1.1\n', 'GET / FTP/1.1\r\n', 'G\0', ' ', '\r']) {
    assert.equal(request(text), 'bad_request_line', JSON.stringify(text))
  }
  assert.equal(request('GET / HTTP/1.1 and more'), 'bad_request_line')
  assert.equal(request('GET /../a HTTP/1.1\r\nHost:'), 'ambiguous_path')
  assert.equal(request('GET / HTTP/1.1\r\nHost: a\r\nX: a\rb'), 'bad_header')
})

it('waits for the rest of any beginning of a good head', () => {
  for (let length = 0; length < TYPICAL.length - 3; length++) {
    assert.equal(request(TYPICAL.slice(0, length)), undefined, String(length))
  }
})

it('never accepts a beginning of a head that it refuses', () => {
  const noise = fc.constantFrom('\r', '\n', '\0', ' ', ':', '\t', '\x7f', '\xff', 'x', '')
  fc.assert(
    fc.property(fc.nat(TYPICAL.length), noise, fc.nat(1), (at, insert, overwrite) => {
      const text = TYPICAL.slice(0, at) + insert + TYPICAL.slice(at + overwrite)
      const whole = request(text)
      for (let length = 0; length <= text.length; length++) {
        const part = request(text.slice(0, length))
        if (part === undefined) continue
        // Once it has judged, more bytes do not change the judgement.
        if (typeof part === 'string') assert.equal(typeof whole, 'string', text)
        else return assert.deepEqual(part, whole)
      }
    }),
    { numRuns: 150 },
  )
})

it('judges a head alike whether or not what came before was looked at', () => {
  const piece = fc.constantFrom(
    ...['GET / HTTP/1.1', 'GET /%zz HTTP/1.1', 'Host: a', 'x: y', ' ', ':', '\0'],
    ...['\r\n', '\r\n', '\r\n', '\r', '\n', '\r\n\r\n'],
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(9)), (pieces, steps) => {
      const buffer = bytes(`GET / HTTP/1.1\r\n${pieces.join('')}`)
      let judgedBytes = 0
      for (let end = 0, i = 0; end < buffer.length; i++) {
        end = Math.min(buffer.length, end + 1 + (steps[i] ?? 0))
        const whole = parseRequestHead(buffer, 0, end, LIMITS)
        assert.deepEqual(parseRequestHead(buffer, 0, end, LIMITS, judgedBytes), whole)
        if (whole !== undefined) return
        judgedBytes = end
      }
    }),
    { seed: SEED, numRuns: 2_000 },
  )
})
