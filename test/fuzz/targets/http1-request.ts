// Whole connections of HTTP/1.1 requests. A head is judged alike whole and in pieces; what is accepted
// is canonical, is forwarded as itself, and llhttp, which stands for the workload, reads the same in it.
import assert from 'node:assert/strict'
import { METHODS } from 'node:http'
import { isFieldValue, isIdentityField, isToken } from '../../../src/field-names.ts'
import { ChunkedDecoder } from '../../../src/http/chunked.ts'
import { removeUntrustedFields } from '../../../src/http/fields.ts'
import { parseRequestHead, type RequestHead } from '../../../src/http/head.ts'
import { requestHeadText } from '../../../src/http/serialise.ts'
import { keptTrailers } from '../../../src/http/trailers.ts'
import { requestsByLlhttp } from '../../http/llhttp.ts'
import { LIMITS } from '../../http/support.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const parse = (bytes: Buffer, start = 0, end = bytes.length, judgedBytes = 0) =>
  parseRequestHead(bytes, start, end, LIMITS, judgedBytes)

export const target: Target = {
  name: 'http1-request',
  runs: 1_500,
  seeds: () => [
    'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'GET /a/b?c=d HTTP/1.1\r\nhost: a.example:8443\r\nAccept: */*\r\nConnection: close\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: u\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    'PUT http://a/b HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx',
    'OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nX-Forwarded-Client-Cert: URI=spiffe://a/b\r\nX_Postern_Id: 1\r\nX-Postern-Id: 2\r\n\r\n',
  ],
  dictionary: [
    ...[
      '\r\n',
      '\n',
      '\r',
      '\0',
      ' ',
      '\t',
      ':',
      ' HTTP/1.1',
      ' HTTP/1.0',
      'http://a',
      '%2e%2e',
      '%2F',
    ],
    ...['..', '//', ';', '\\', '#', '?', 'Transfer-Encoding: chunked\r\n', 'Content-Length: 5\r\n'],
    ...[
      'transfer-encoding',
      'content-length',
      'connection',
      'host',
      'expect',
      'upgrade',
      'chunked',
    ],
    ...[
      '0\r\n\r\n',
      ';a=b',
      '\x0b',
      '\x85',
      '\xa0',
      'Host: b\r\n',
      '\r\n ',
      'x-forwarded-client-cert',
    ],
  ],
  mutators: [linesMutator],
  check: async (input) => {
    const messages = messagesOf(input)
    if (messages.length === 0) return
    if (messages.some(({ head }) => !METHODS.includes(head.method))) return
    const theirs = await requestsByLlhttp(input)
    for (const [i, { head, body, trailers, complete }] of messages.entries()) {
      const other = theirs.messages[i]
      assert.ok(other !== undefined, `only we read message ${i}: ${theirs.refused}`)
      const start = `${head.method} ${head.target}`
      if (!other.start.startsWith(`${head.method} http`)) assert.equal(other.start, start)
      assert.deepEqual(other.fields, head.fields)
      assert.equal(other.body, body)
      assert.equal(other.complete, complete)
      if (complete) assert.deepEqual(keptTrailers([...other.trailers]), trailers)
      if (!head.keepAlive || head.upgrade !== undefined) break
    }
  },
}

function messagesOf(input: Buffer) {
  const messages = []
  for (let at = 0; at < input.length; ) {
    const head = parse(input, at)
    checkPieces(input, at, head)
    if (head === undefined || head.kind === 'rejection') break
    checkHead(head)
    at += head.headBytes
    const message = { head, body: '', trailers: [] as readonly string[], complete: true }
    if (head.body.kind === 'length') {
      message.body = input.toString('latin1', at, Math.min(input.length, at + head.body.length))
      message.complete = message.body.length === head.body.length
      at += message.body.length
    } else if (head.body.kind === 'chunked') {
      const decoder = new ChunkedDecoder({ maxTrailerBytes: 1024, maxTrailerCount: 8 })
      const end = decoder.decode(input, at, input.length, (from, to) => {
        message.body += input.toString('latin1', from, to)
      })
      message.complete = decoder.done
      message.trailers = decoder.trailers
      // llhttp has given out what came before the mistake; how much is not compared.
      if (typeof end !== 'number') break
      at = end
    }
    messages.push(message)
    if (!head.keepAlive || head.upgrade !== undefined || !message.complete) break
  }
  return messages
}

/** However much has arrived: a head that is accepted in the end is refused at no earlier byte. */
function checkPieces(input: Buffer, at: number, whole: ReturnType<typeof parse>): void {
  const step = Math.max(1, (input.length - at) >> 6)
  let judgedBytes = 0
  for (let end = at; end < input.length; end += step) {
    const part = parse(input, at, end)
    // What was looked at before need not be looked at again, up to where the answer is known.
    if (judgedBytes === end - step - at || end === at) {
      assert.deepEqual(parse(input, at, end, judgedBytes), part)
      if (part === undefined) judgedBytes = end - at
    }
    if (part?.kind === 'request') assert.deepEqual(part, whole)
    else if (part?.kind === 'rejection') assert.equal(whole?.kind, 'rejection')
    else if (whole?.kind === 'request') assert.ok(end - at < whole.headBytes)
  }
  // What follows must not be looked at, and nor must what is before.
  if (whole?.kind !== 'request') return
  const alone = Buffer.from(input.subarray(at, at + whole.headBytes))
  assert.deepEqual(parse(alone), whole)
}

function checkHead(head: RequestHead): void {
  assert.ok(isToken(head.method) && head.method === head.method.toUpperCase())
  assert.match(head.target, /^(\*|\/[!-~]*)$/)
  assert.equal(head.query === undefined ? head.path : `${head.path}?${head.query}`, head.target)
  assert.doesNotMatch(head.path, /\/\/|\/\.{1,2}(\/|$)|[;#\\?]|%(?![0-9a-f]{2})|%(2[ef]|5c|00)/i)
  assert.match(head.host, /^[\w.~:[\]-]+$/)
  const names = head.fields.filter((_, i) => i % 2 === 0)
  for (const name of names) assert.ok(isToken(name) && name === name.toLowerCase(), name)
  for (const [i, value] of head.fields.entries()) {
    if (i % 2 === 1) assert.ok(isFieldValue(value) && value === value.trim())
  }
  const kept = removeUntrustedFields(head.fields, { forwardedClientCert: false })
  for (let i = 0; i < kept.length; i += 2) {
    assert.ok(!isIdentityField(kept[i]!.replaceAll(/[^a-z0-9]/g, '-')), `${kept[i]}`)
  }
  const text = requestHeadText(head.method, head.target, kept, head.body)
  const again = parse(Buffer.from(text, 'latin1'))
  assert.ok(again?.kind === 'request', text)
  assert.equal(again.headBytes, text.length)
  const meant = ({ method, target, host, body }: RequestHead) => ({ method, target, host, body })
  assert.deepEqual(meant(again), meant(head))
  const unframed = (fields: readonly string[]) =>
    removeUntrustedFields(fields, { forwardedClientCert: false }).filter(
      (_, i, all) => all[i - (i % 2)] !== 'host',
    )
  assert.deepEqual(unframed(again.fields), unframed(kept))
}
