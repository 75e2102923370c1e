// What a workload answers, which may be anything. What is accepted ends where llhttp, which stands for
// the client, sees the end, and what is written for the client is read as the same answer.
import assert from 'node:assert/strict'
import { isToken } from '../../../src/field-names.ts'
import { ChunkedDecoder } from '../../../src/http/chunked.ts'
import { removeHopByHop } from '../../../src/http/fields.ts'
import { parseResponseHead, type ResponseHead } from '../../../src/http/response.ts'
import { responseHeadText } from '../../../src/http/serialise.ts'
import { keptTrailers } from '../../../src/http/trailers.ts'
import { responseByLlhttp } from '../../http/llhttp.ts'
import { LIMITS } from '../../http/support.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const TO = { upgrade: false } as const

export const target: Target = {
  name: 'http1-response',
  runs: 1_200,
  seeds: () => [
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
    'HTTP/1.1 204\r\n\r\n',
    'HTTP/1.0 200 OK\r\nX-Postern-A: b\r\n\r\nuntil the end',
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close, x-a\r\n\r\n1\r\na\r\n0\r\nX-T: u\r\n\r\n',
    'HTTP/1.1 404 N\xfct f\xf6und\r\nContent-Disposition: a; filename="\xc3\xbc"\r\nContent-Length: 0\r\n\r\n',
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
      'HTTP/1.1',
      'HTTP/1.0',
      ' 101 ',
      ' 199 ',
      ' 600 ',
    ],
    ...[
      'Transfer-Encoding: chunked\r\n',
      'Content-Length: 5\r\n',
      'chunked',
      'Connection: close\r\n',
    ],
    ...[
      '0\r\n\r\n',
      ';a=b',
      '\x0b',
      '\x7f',
      '\xff',
      'gzip, chunked',
      '+1',
      '0x1',
      'Upgrade: h2c\r\n',
    ],
  ],
  mutators: [linesMutator],
  check: async (input) => {
    for (const method of ['GET', 'HEAD']) {
      const ours = read(input, method)
      if (ours === undefined) continue
      const [theirs] = (await responseByLlhttp(input, method)).messages
      assert.ok(theirs !== undefined, 'only we read it')
      assert.equal(theirs.start, `${ours.head.status} ${ours.head.reason}`)
      assert.deepEqual(theirs.fields, ours.head.fields)
      assert.equal(theirs.body, ours.body)
      assert.equal(theirs.complete, ours.complete)
      if (ours.complete) assert.deepEqual(keptTrailers([...theirs.trailers]), ours.trailers)
    }
  },
}

function read(input: Buffer, method: string) {
  let at = 0
  let head: ResponseHead
  do {
    const next = parseResponseHead(input, at, input.length, { method, ...TO }, LIMITS)
    checkPieces(input, at, method, next)
    if (next?.kind !== 'response') return undefined
    checkHead(next, method)
    // Behind an interim answer that says close llhttp reads nothing; we read the final one.
    if (next.status < 200 && !next.keepAlive) return undefined
    at += next.headBytes
    head = next
  } while (head.status < 200)
  const message = { head, body: '', trailers: [] as readonly string[], complete: true }
  if (head.body.kind === 'close') message.body = input.toString('latin1', at)
  if (head.body.kind === 'length') {
    message.body = input.toString('latin1', at, Math.min(at + head.body.length, input.length))
    message.complete = message.body.length === head.body.length
  }
  if (head.body.kind === 'chunked') {
    const decoder = new ChunkedDecoder({ maxTrailerBytes: 1024, maxTrailerCount: 8 })
    const end = decoder.decode(input, at, input.length, (from, to) => {
      message.body += input.toString('latin1', from, to)
    })
    if (typeof end !== 'number') return undefined
    message.complete = decoder.done
    message.trailers = decoder.trailers
  }
  return message
}

function checkPieces(
  input: Buffer,
  at: number,
  method: string,
  whole: ReturnType<typeof parseResponseHead>,
): void {
  const step = Math.max(1, (input.length - at) >> 6)
  for (let end = at; end < input.length; end += step) {
    const part = parseResponseHead(input, at, end, { method, ...TO }, LIMITS)
    if (part?.kind === 'response') assert.deepEqual(part, whole)
    else if (part?.kind === 'bad_response') assert.equal(whole?.kind, 'bad_response')
    else if (whole?.kind === 'response') assert.ok(end - at < whole.headBytes)
  }
}

function checkHead(head: ResponseHead, method: string): void {
  assert.ok(head.status >= 100 && head.status <= 599 && head.status !== 101)
  for (let i = 0; i < head.fields.length; i += 2) {
    assert.ok(isToken(head.fields[i]!) && head.fields[i] === head.fields[i]!.toLowerCase())
    assert.doesNotMatch(head.fields[i + 1]!, /[\0-\x08\n-\x1f\x7f]/)
  }
  assert.doesNotMatch(head.reason, /[\0-\x08\n-\x1f\x7f]/)
  const kept = removeHopByHop(head.fields)
  assert.ok(kept.every((name, i) => i % 2 === 1 || !name.startsWith('x-postern-')))
  if (head.status < 200) return
  const text = responseHeadText(head.status, head.reason, kept, head.body, 'keep-alive', 1)
  const bytes = Buffer.from(text, 'latin1')
  const again = parseResponseHead(bytes, 0, bytes.length, { method, ...TO }, LIMITS)
  assert.ok(again?.kind === 'response', text)
  assert.equal(again.headBytes, bytes.length)
  assert.deepEqual([again.status, again.reason, again.body], [head.status, head.reason, head.body])
}
