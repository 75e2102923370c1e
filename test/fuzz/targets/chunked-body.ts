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
    for (let i = 0; i < whole.trailers.length; i += 2) {
      assert.ok(!isIdentityField(whole.trailers[i]!.replaceAll(/[^a-z0-9]/g, '-')))
    }
    const { data, trailers } = whole
    const chunk = data === '' ? '' : encodeChunkHeader(data.length) + data + CHUNK_END
    const written = Buffer.from(`${chunk}0\r\n${encodeTrailers(trailers)}`, 'latin1')
    assert.deepEqual(decoded(written, written.length), { ...whole, consumed: written.length })
  },
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
