import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ResponseHead } from '../../src/http/response.ts'
import { response } from './support.ts'

const answer = (status: string, ...lines: string[]) =>
  `${[`HTTP/1.1 ${status}`, ...lines].join('\r\n')}\r\n\r\n`

const read = (text: string, to?: Parameters<typeof response>[1]): ResponseHead => {
  const head = response(text, to)
  if (typeof head !== 'object') assert.fail(`not accepted: ${head}`)
  return head
}

it('reads a head and says where the body begins', () => {
  const text = answer('200 All Right', 'Content-Length: 3', 'Set-Cookie: a', 'SET-COOKIE: b')
  assert.deepEqual(read(`${text}abc`), {
    kind: 'response',
    status: 200,
    reason: 'All Right',
    minorVersion: 1,
    fields: ['content-length', '3', 'set-cookie', 'a', 'set-cookie', 'b'],
    body: { kind: 'length', length: 3 },
    keepAlive: true,
    headBytes: text.length,
  })
})

it('waits for the rest of any beginning of a good head', () => {
  const text = answer('204 No Content', 'X: y')
  for (let i = 0; i < text.length; i++) assert.equal(response(text.slice(0, i)), undefined)
})

it('refuses at once what is not HTTP/1.x', () => {
  assert.equal(response('SSH-2.0-x'), 'not HTTP/1.x')
  assert.equal(response('\r\n'), 'not HTTP/1.x')
  assert.equal(response('HTTP/2'), 'not HTTP/1.x')
})

it('takes a status line without reason, with or without the space before it', () => {
  assert.equal(read(answer('200 ')).reason, '')
  assert.equal(read(answer('200')).reason, '')
  assert.equal(read(answer('200 \xe9 \t!')).reason, '\xe9 \t!')
})

describe('refuses a status line', () => {
  const lines = ['20 OK', '2000 OK', '099 x', '600 x', '2x0 OK', '200\tOK', '200 a\rb', '200 a\0']
  for (const line of [...lines, '200\nX: y', '+20 OK', ' 200 OK']) {
    it(JSON.stringify(line), () => assert.equal(response(answer(line)), 'malformed status line'))
  }
  it('of another version', () => {
    assert.equal(response('HTTP/1.2 200 OK\r\n\r\n'), 'malformed status line')
    assert.equal(response('HTTP/1.1\r\n\r\n'), 'malformed status line')
  })
})

it('takes the bytes of other alphabets in values, and hands them on unchanged', () => {
  const [, value] = read(answer('200 OK', 'Content-Disposition: \xc3\xa9')).fields
  assert.equal(value, '\xc3\xa9')
})

it('refuses loose line breaks, folds and control characters in fields', () => {
  for (const line of ['X: a\rb', 'X: a\nY: b', 'X: a\0', 'X : a', ': a', 'x', ' X: a', 'X: \x7f']) {
    assert.equal(response(answer('200 OK', line)), 'malformed field', JSON.stringify(line))
  }
})

it('keeps to its limits', () => {
  const text = answer('200 OK', 'A: b', 'C: d')
  assert.equal(response(text, {}, { headerCount: 1 }), 'too many fields')
  assert.equal(response(text, {}, { headBytes: text.length - 1 }), 'head too large')
  assert.equal(response('HTTP/1.1 200 OK', {}, { headBytes: 10 }), 'head too large')
})

describe('where the body ends (RFC 9112 section 6.3)', () => {
  const framed = (lines: string[], to = {}, status = '200 OK') => read(answer(status, ...lines), to)
  it('has no body for HEAD, 1xx, 204 and 304, whatever the fields say', () => {
    const length = ['Content-Length: 5']
    assert.deepEqual(framed(length, { method: 'HEAD' }).body, { kind: 'none' })
    for (const status of [
      '100 Continue',
      '103 Early Hints',
      '204 No Content',
      '304 Not Modified',
    ]) {
      assert.deepEqual(framed(length, {}, status).body, { kind: 'none' })
      assert.deepEqual(framed(['Transfer-Encoding: chunked'], {}, status).body, { kind: 'none' })
    }
  })
  it('reads chunked, a length, or until the connection closes', () => {
    assert.deepEqual(framed(['Transfer-Encoding: chunked']).body, { kind: 'chunked' })
    assert.deepEqual(framed(['Content-Length: 0']).body, { kind: 'length', length: 0 })
    const unframed = framed([])
    assert.deepEqual(unframed.body, { kind: 'close' })
    assert.equal(unframed.keepAlive, false)
  })
  const refused: [string, string[]][] = [
    ['content-length with transfer-encoding', ['Content-Length: 5', 'Transfer-Encoding: chunked']],
    ['content-length with transfer-encoding', ['Transfer-Encoding: chunked', 'Content-Length: 5']],
    ['repeated content-length', ['Content-Length: 5', 'Content-Length: 6']],
    ['repeated content-length', ['Content-Length: 5', 'Content-Length: 5']],
    ['repeated transfer-encoding', ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked']],
    ['transfer-encoding other than chunked', ['Transfer-Encoding: gzip, chunked']],
    ['transfer-encoding other than chunked', ['Transfer-Encoding: identity']],
    ['malformed content-length', ['Content-Length: +5']],
    ['malformed content-length', ['Content-Length: 5, 5']],
    ['malformed content-length', ['Content-Length:']],
  ]
  for (const [what, lines] of refused) {
    it(`refuses ${lines.join(' and ')}`, () => {
      assert.equal(response(answer('200 OK', ...lines)), what)
      assert.equal(response(answer('200 OK', ...lines), { method: 'HEAD' }), what)
    })
  }
  it('refuses a transfer coding in HTTP/1.0', () => {
    const text = 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
    assert.equal(response(text), 'transfer-encoding in HTTP/1.0')
  })
})

it('keeps the connection as RFC 9112 section 9.3 says', () => {
  const keeps = (version: string, ...lines: string[]) =>
    read(`${[`HTTP/${version} 204 x`, ...lines].join('\r\n')}\r\n\r\n`).keepAlive
  assert.equal(keeps('1.1'), true)
  assert.equal(keeps('1.1', 'Connection: x', 'Connection: Close'), false)
  assert.equal(keeps('1.0'), false)
  assert.equal(keeps('1.0', 'Connection: Keep-Alive'), true)
})

it('refuses an interim answer in HTTP/1.0', () => {
  assert.equal(response('HTTP/1.0 100 Continue\r\n\r\n'), 'interim answer in HTTP/1.0')
})

it('takes 101 only where an upgrade was asked for', () => {
  const text = answer('101 Switching Protocols', 'Connection: upgrade', 'Upgrade: websocket')
  assert.equal(response(text), '101 without being asked')
  const head = read(text, { upgrade: true })
  assert.equal(head.status, 101)
  assert.deepEqual(head.body, { kind: 'none' })
})
