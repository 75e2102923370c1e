// Chunked bodies, which are judged alike however they are cut, and written anew as the same body.
import assert from 'node:assert/strict'
import { isIdentityField } from '../../../src/field-names.ts'
import {
  CHUNK_END,
  ChunkedDecoder,
  encodeChunkHeader,
  encodeTrailers,
} from '../../../src/http/chunked.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const LIMITS = { maxTrailerBytes: 1024, maxTrailerCount: 8 }

export const target: Target = {
  name: 'chunked-body',
  runs: 15_000,
  seeds: () => [
    '0\r\n\r\n',
    '3;a=b\r\nabc\r\n00A;q;r=1\r\n0123456789\r\n0\r\n\r\nGET /',
    '1\r\na\r\n0\r\nX-T: u\r\nContent-Md5: v\r\n\r\nleft',
    'fffffffffffff\r\nx',
    '1\r\na\r\n0\r\nX-Forwarded-Client-Cert: b\r\ngrpc-status: 0\r\n\r\n',
  ],
  dictionary: [
    '\r\n',
    '\n',
    '\r',
    '0\r\n\r\n',
    ';',
    '=',
    '0x',
    'fffffffffffff',
    'Host: a\r\n',
    'x_y: z\r\n',
  ],
  mutators: [linesMutator],
  check: (input) => {
    const whole = decoded(input, input.length)
    for (const step of [1, 2, 3, 7]) assert.deepEqual(decoded(input, step), whole)
    if (typeof whole !== 'object' || !whole.done) return
    assert.deepEqual({ data: whole.data, consumed: whole.consumed }, asWritten(input))
    for (let i = 0; i < whole.trailers.length; i += 2) {
      assert.ok(!isIdentityField(whole.trailers[i]!.replaceAll(/[^a-z0-9]/g, '-')))
    }
    const { data, trailers } = whole
    const chunk = data === '' ? '' : encodeChunkHeader(data.length) + data + CHUNK_END
    const written = Buffer.from(`${chunk}0\r\n${encodeTrailers(trailers)}`, 'latin1')
    assert.deepEqual(decoded(written, written.length), { ...whole, consumed: written.length })
  },
}

/** The grammar of RFC 9112 section 7.1 with extensions of tokens, told plainly; -1: something else. */
function asWritten(input: Buffer) {
  const text = input.toString('latin1')
  let data = ''
  let at = 0
  const next = (line: RegExp): RegExpExecArray | null => {
    const found = new RegExp(line, 'iy')
    found.lastIndex = at
    const match = found.exec(text)
    if (match !== null) at += match[0].length
    return match
  }
  for (;;) {
    const size = next(/([0-9a-f]{1,13})(;[!#$%&'*+.^`|~\w-]+(=[!#$%&'*+.^`|~\w-]+)?)*\r\n/)
    if (size === null) return { data, consumed: -1 }
    const length = Number.parseInt(size[1]!, 16)
    if (length === 0) break
    data += text.slice(at, at + length)
    at += length
    if (next(/\r\n/) === null) return { data, consumed: -1 }
  }
  while (next(/[!#$%&'*+.^`|~\w-]+:[\t -~]*\r\n/) !== null);
  return { data, consumed: next(/\r\n/) === null ? -1 : at }
}

/** The code, or what came out, of pieces of `step` bytes. */
function decoded(input: Buffer, step: number) {
  const decoder = new ChunkedDecoder(LIMITS)
  let data = ''
  let at = 0
  while (at < input.length && !decoder.done) {
    const end = Math.min(input.length, at + step)
    const consumed = decoder.decode(input, at, end, (from, to) => {
      assert.ok(at <= from && from < to && to <= end)
      data += input.toString('latin1', from, to)
    })
    if (typeof consumed !== 'number') return consumed.code
    assert.ok(consumed === end || decoder.done)
    at = consumed
  }
  return { data, done: decoder.done, trailers: decoder.trailers, consumed: at }
}
