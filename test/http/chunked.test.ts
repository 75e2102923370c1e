import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  CHUNK_END,
  ChunkedDecoder,
  encodeChunkHeader,
  encodeTrailers,
  LAST_CHUNK,
} from '../../src/http/chunked.ts'
import { bytes } from './support.ts'

const LIMITS = { maxTrailerBytes: 1024, maxTrailerCount: 8 }

/** The code, or what came out and how much was left; cut into pieces at the given places. */
function decode(text: string, cuts: readonly number[] = [], limits = LIMITS) {
  const decoder = new ChunkedDecoder(limits)
  const buffer = bytes(text)
  const joining = { decoder: new ChunkedDecoder(limits), buffer: bytes(text) }
  let data = ''
  let start = 0
  for (const end of [...cuts.toSorted((a, b) => a - b), buffer.length]) {
    const before = data.length
    const consumed = decoder.decode(buffer, start, end, (from, to) => {
      assert.ok(start <= from && from < to && to <= end)
      data += buffer.toString('latin1', from, to)
    })
    const joined = joining.decoder.decodeJoined(joining.buffer, start, end)
    if (joined.kind === 'data') {
      const { from, to } = joined
      assert.equal(joining.buffer.toString('latin1', from, to), data.slice(before))
      assert.equal(joined.consumed, consumed)
      assert.deepEqual(joining.buffer.subarray(joined.consumed), buffer.subarray(joined.consumed))
    } else assert.deepEqual(joined, consumed)
    if (typeof consumed !== 'number') return consumed.code
    if (decoder.done) return { data, trailers: decoder.trailers, left: text.slice(consumed) }
    assert.equal(consumed, end)
    start = end
  }
  return { data, incomplete: true }
}

it('reads chunks, drops extensions, and leaves the next message alone', () => {
  assert.deepEqual(decode('3;a=b\r\nabc\r\n00A;q;r=1\r\n0123456789\r\n0\r\n\r\nGET /'), {
    data: 'abc0123456789',
    trailers: [],
    left: 'GET /',
  })
})

it('reads a body without data, also where no trailer is allowed', () => {
  const none = { maxTrailerBytes: 0, maxTrailerCount: 0 }
  assert.deepEqual(decode(LAST_CHUNK, [], none), { data: '', trailers: [], left: '' })
  assert.equal(decode('0\r\na: b\r\n\r\n', [], none), 'bad_trailer')
})

it('takes the largest size that 13 digits can say', () => {
  assert.deepEqual(decode('fffffffffffff\r\nx'), { data: 'x', incomplete: true })
  assert.deepEqual(decode('0000000000001\r\nx\r\n0\r\n\r\n'), { data: 'x', trailers: [], left: '' })
})

describe('refuses', () => {
  const malformed = {
    'a size that is no number': 'x\r\n',
    'an empty size': '\r\n',
    'a size with a sign': '+3\r\nabc\r\n',
    'a size with 0x': '0x3\r\nabc\r\n',
    'a space before the size': ' 3\r\nabc\r\n',
    'a space after the size': '3 \r\nabc\r\n',
    'an underscore in the size': '1_0\r\n',
    'a size of 14 digits': '00000000000003\r\n',
    'a size that wraps around 2^64': '10000000000000003\r\n',
    'a bare LF after the size': '3\nabc\r\n',
    'a bare CR after the size': '3\rabc\r\n',
    'CR and something else than LF after the size': '3\rXabc\r\n0\r\n\r\n',
    'CR and something else than LF after data': '3\r\nabc\rX0\r\n\r\n',
    'a quoted extension': '3;a="b"\r\nabc\r\n',
    'a space in an extension': '3; a\r\nabc\r\n',
    'an extension without name': '3;\r\nabc\r\n',
    'an extension with an empty value': '3;a=\r\nabc\r\n',
    'an extension with two values': '3;a=b=c\r\nabc\r\n',
    'a bare LF in an extension': '3;a\nabc\r\n',
    'a bare CR in an extension': '3;a\rb\r\nabc\r\n',
    'a NUL in an extension': '3;\0\r\nabc\r\n',
    'an extension that is too long': `3;${'a'.repeat(256)}\r\nabc\r\n`,
    'data longer than its size': '3\r\nabcd\r\n',
    'data shorter than its size': '3\r\nab\r\n0\r\n\r\n',
    'a bare LF after data': '3\r\nabc\n0\r\n\r\n',
    'a bare CR after data': '3\r\nabc\r0\r\n\r\n',
    'no CRLF after data': '3\r\nabc0\r\n\r\n',
  }
  for (const [name, text] of Object.entries(malformed)) {
    it(name, () => assert.equal(decode(text), 'bad_chunk'))
  }
  const trailers = {
    'a trailer with a bare LF': '0\r\na: b\n\r\n',
    'a trailer section that a bare LF ends': '0\r\na: b\r\n\n',
    'a last chunk that a bare LF ends': '0\r\n\n',
    'a trailer without colon': '0\r\nabc\r\n\r\n',
    'a trailer with a bare CR': '0\r\na: b\rc: d\r\n\r\n',
    'a folded trailer': '0\r\na: b\r\n c\r\n\r\n',
    'a trailer with obs-text': '0\r\na: \xe9\r\n\r\n',
    'too many trailers': `0\r\n${'a: b\r\n'.repeat(9)}\r\n`,
    'trailers that are too long': `0\r\na: ${'b'.repeat(1024)}\r\n\r\n`,
    'trailers that never end': `0\r\na: ${'b'.repeat(2000)}`,
  }
  for (const [name, text] of Object.entries(trailers)) {
    it(name, () => assert.equal(decode(text), 'bad_trailer'))
  }
  const names = ['Content-Length', 'Transfer-Encoding', 'Host', 'Connection', 'Authorization']
  for (const name of [
    ...names,
    'Content-Type',
    'Content-Encoding',
    'Trailer',
    'Expect',
    'Cookie',
  ]) {
    it(`a trailer named ${name}`, () => {
      assert.equal(decode(`0\r\n${name}: 5\r\n\r\n`), 'bad_trailer')
    })
  }
})

it('drops identity from trailers in every spelling and keeps the rest', () => {
  const lines = ['X-Forwarded-Client-Cert: a', 'x_forwarded.client_cert: b', 'X-Postern-Peer: c']
  const text = `0\r\n${[...lines, 'Client-Cert: d', 'Content-MD5: e'].join('\r\n')}\r\n\r\n`
  assert.deepEqual(decode(text), { data: '', trailers: ['content-md5', 'e'], left: '' })
})

const body = fc.record({
  chunks: fc.array(fc.string({ minLength: 1, maxLength: 20 }), { maxLength: 5 }),
  extension: fc.constantFrom('', ';a', ';a=b;c'),
  trailers: fc.constantFrom([], ['grpc-status', '0'], ['a', 'b', 'c', '']),
})

function encode({
  chunks,
  extension,
  trailers,
}: typeof body extends fc.Arbitrary<infer T> ? T : never) {
  const parts = chunks.map((chunk) => {
    const size = encodeChunkHeader(Buffer.byteLength(chunk)).replace('\r', `${extension}\r`)
    return size + Buffer.from(chunk).toString('latin1') + CHUNK_END
  })
  return parts.join('') + (trailers.length === 0 ? LAST_CHUNK : `0\r\n${encodeTrailers(trailers)}`)
}

it('reads back what it writes, however that is cut', () => {
  fc.assert(
    fc.property(body, fc.array(fc.nat(200)), (given, cuts) => {
      const text = encode(given)
      const inside = cuts.map((cut) => cut % (text.length + 1))
      const data = Buffer.from(given.chunks.join('')).toString('latin1')
      assert.deepEqual(decode(`${text}left`, inside), {
        data,
        trailers: given.trailers,
        left: 'left',
      })
    }),
    { numRuns: 500 },
  )
})

it('judges a damaged body the same way whole and byte by byte', () => {
  const noise = fc.constantFrom('\r', '\n', '\0', ' ', ':', ';', '0', '1', 'f', 'g', 'x', '')
  fc.assert(
    fc.property(body, fc.nat(), noise, fc.nat(2), (given, place, insert, overwrite) => {
      const text = encode(given)
      const at = place % (text.length + 1)
      const damaged = text.slice(0, at) + insert + text.slice(at + overwrite)
      const everywhere = Array.from({ length: damaged.length + 1 }, (_, i) => i)
      assert.deepEqual(decode(damaged, everywhere), decode(damaged))
    }),
    { numRuns: 1500 },
  )
})
