import assert from 'node:assert/strict'
import { STATUS_CODES } from 'node:http'
import { it } from 'node:test'
import fc from 'fast-check'
import { ERRORS } from '../../src/errors.ts'
import { removeHopByHop, removeUntrustedFields } from '../../src/http/fields.ts'
import { reasonPhrase, requestHeadText, responseHeadText } from '../../src/http/serialise.ts'
import { accepted, request, response } from './support.ts'

const NONE = { kind: 'none' } as const
const CHUNKED = { kind: 'chunked' } as const
const CLOSE = { kind: 'close' } as const

it('writes a request head with Host first, our own fields and canonical framing last', () => {
  const fields = ['accept', '*/*', 'host', 'a:1', 'content-length', '99', 'connection', 'x']
  assert.equal(
    requestHeadText('PUT', '/b?c', fields, { kind: 'length', length: 3 }, ['x-a', 'b']),
    'PUT /b?c HTTP/1.1\r\nhost: a:1\r\naccept: */*\r\nx-a: b\r\ncontent-length: 3\r\n\r\n',
  )
  assert.equal(
    requestHeadText('PUT', '/', ['host', 'a', 'transfer-encoding', 'x'], CHUNKED, [], 'close'),
    'PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n',
  )
  assert.equal(
    requestHeadText('GET', '/', ['host', 'a'], NONE, [], 'upgrade'),
    'GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
  )
})

it('says close to a client only where the connection does not go on', () => {
  const empty = { kind: 'length', length: 0 } as const
  const text = (connection: 'keep-alive' | 'close', minorVersion: 0 | 1) =>
    responseHeadText(200, 'OK', [], empty, connection, minorVersion)
  const head = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n'
  assert.equal(text('keep-alive', 1), `${head}\r\n`)
  assert.equal(text('close', 1), `${head}connection: close\r\n\r\n`)
  assert.equal(text('keep-alive', 0), `${head}connection: keep-alive\r\n\r\n`)
  assert.equal(text('close', 0), `${head}connection: close\r\n\r\n`)
  assert.equal(
    responseHeadText(101, 'x', [], NONE, 'upgrade', 1),
    'HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
  )
})

it('never sends chunked to an HTTP/1.0 client, and closes after a body without length', () => {
  for (const [body, minor] of [
    [CHUNKED, 0],
    [CLOSE, 0],
    [CLOSE, 1],
  ] as const) {
    assert.equal(
      responseHeadText(200, 'OK', ['content-length', '5', 'a', 'b'], body, 'keep-alive', minor),
      'HTTP/1.1 200 OK\r\na: b\r\nconnection: close\r\n\r\n',
    )
  }
})

it('keeps the length that an answer without body tells, except where none is allowed', () => {
  const text = (status: number) =>
    responseHeadText(status, '', ['content-length', '5'], NONE, 'keep-alive', 1)
  assert.equal(text(200), 'HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n')
  assert.equal(text(304), 'HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n')
  assert.equal(text(204), 'HTTP/1.1 204 \r\n\r\n')
  assert.equal(text(103), 'HTTP/1.1 103 \r\n\r\n')
})

it('has a reason phrase for every status of the error table but the one that is never sent', () => {
  const without = Object.values(ERRORS).filter(({ http }) => reasonPhrase(http) === '')
  assert.deepEqual(without, [ERRORS.client_closed])
})

it('has the reason phrases that Node.js knows, under the names that RFC 9110 gives them', () => {
  const older: Readonly<Record<string, string>> = {
    413: 'Content Too Large',
    422: 'Unprocessable Content',
  }
  // A joke, two that were never registered, and one that is obsolete.
  const left = new Set(['418', '509', '510'])
  for (const [status, phrase] of Object.entries(STATUS_CODES)) {
    if (left.has(status)) continue
    assert.equal(reasonPhrase(Number(status)), older[status] ?? phrase, status)
  }
})

const name = fc.constantFrom('accept', 'X-A', 'x-b', 'Connection', 'Keep-Alive', 'TE', 'x_y')
const value = fc.constantFrom('', 'a', 'b, c', 'x-a', 'close', 'x  y', '"q"')
const fieldLines = fc.array(fc.tuple(name, value).map(([n, v]) => `${n}: ${v}\r\n`))

it('writes request heads that it reads back as the same request', () => {
  const framing = fc.constantFrom('', 'Content-Length: 5\r\n', 'Transfer-Encoding: CHUNKED\r\n')
  fc.assert(
    fc.property(fieldLines, framing, (lines, frame) => {
      const text = `PATCH /a?b HTTP/1.1\r\n${lines.join('')}${frame}Host: h\r\n\r\n`
      const head = request(text)
      if (typeof head !== 'object') return
      const fields = removeUntrustedFields(head.fields, { forwardedClientCert: false })
      const again = accepted(requestHeadText(head.method, head.target, fields, head.body))
      assert.deepEqual(
        { method: again.method, target: again.target, body: again.body },
        { method: head.method, target: head.target, body: head.body },
      )
      assert.deepEqual(
        removeUntrustedFields(again.fields, { forwardedClientCert: false }).toSorted(),
        fields.toSorted(),
      )
    }),
    { numRuns: 500 },
  )
})

it('writes response heads that it reads back as the same answer', () => {
  const framing = fc.constantFrom('', 'Content-Length: 5\r\n', 'Transfer-Encoding: CHUNKED\r\n')
  fc.assert(
    fc.property(
      fieldLines,
      framing,
      fc.constantFrom(200, 204, 304, 404),
      (lines, frame, status) => {
        const head = response(`HTTP/1.1 ${status} x\r\n${lines.join('')}${frame}\r\n`)
        if (typeof head !== 'object') return
        const fields = removeHopByHop(head.fields)
        const again = response(
          responseHeadText(status, head.reason, fields, head.body, 'keep-alive', 1),
        )
        if (typeof again !== 'object') assert.fail(again)
        assert.deepEqual(again.body, head.body)
        assert.equal(again.status, status)
        assert.equal(again.reason, head.reason)
      },
    ),
    { numRuns: 500 },
  )
})
