// Responses read by this codec and by llhttp, as differential-request.test.ts does for requests: where
// both accept they agree; where only we refuse, the reason is listed and visible in the bytes.
import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { ChunkedDecoder } from '../../src/http/chunked.ts'
import { parseResponseHead } from '../../src/http/response.ts'
import { keptTrailers } from '../../src/http/trailers.ts'
import { DIFFERENTIAL_CASES, isLooseChunkLine, responseByLlhttp } from './llhttp.ts'
import { bytes, LIMITS } from './support.ts'

interface Disagreement {
  readonly reason: string
  /** Whether that reason is there to see in the bytes of the connection. */
  readonly evidence: (text: string) => boolean
}

/** What we refuse and llhttp accepts, by what we say is wrong. */
const STRICTER: Readonly<Record<string, readonly Disagreement[]>> = {
  'malformed status line': [
    {
      reason: 'a surplus line break is the rest of an earlier answer that was framed wrongly',
      evidence: (text) => /(^|\r\n\r\n)[\r\n]/.test(text),
    },
    {
      reason: 'control characters have no business in a reason',
      evidence: (text) => /^HTTP\/1\.[01] \d{3} [^\r\n]*[^\t\r\n\x20-\x7e\x80-\xff]/m.test(text),
    },
    {
      reason: 'RFC 9110 section 15 knows five classes of status',
      evidence: (text) => /^HTTP\/1\.[01] [06-9]\d\d/m.test(text),
    },
    {
      reason: 'versions that we do not speak',
      evidence: (text) => /^HTTP\/(0\.9|2\.0) /m.test(text),
    },
  ],
  'not HTTP/1.x': [
    { reason: 'as above, while the head is incomplete', evidence: (text) => /^[\r\n]/.test(text) },
  ],
  'malformed field': [
    {
      reason: 'llhttp takes "chunked" with a space after it for chunked, but not with a tab',
      evidence: (text) => /^transfer-encoding:[^\r\n]*[ \t]\r/im.test(text),
    },
  ],
  'malformed content-length': [
    {
      reason: 'a leading zero is octal to some; and no length beyond 2^53 is meant seriously',
      evidence: (text) => /^content-length:[ \t]*(0\d|\d{16})/im.test(text),
    },
  ],
  'transfer-encoding in HTTP/1.0': [
    {
      reason: 'faulty framing (RFC 9112 section 6.1)',
      evidence: (text) => /^HTTP\/1\.0/m.test(text) && /^transfer-encoding:/im.test(text),
    },
  ],
  'transfer-encoding other than chunked': [
    {
      reason: 'the client has not offered another coding, and we could not pass one on',
      evidence: (text) => /^transfer-encoding:(?![ \t]*chunked[ \t]*\r)/im.test(text),
    },
  ],
  'repeated transfer-encoding': [
    {
      reason: 'a transfer coding that is said twice is applied twice, or once',
      evidence: (text) => (text.match(/^transfer-encoding:/gim) ?? []).length > 1,
    },
  ],
  bad_chunk: [
    {
      reason:
        'an extension is a token, or two with = between (RFC 9112 section 7.1.1); quotes hide line ends',
      evidence: (text) => text.split('\n').some(isLooseChunkLine),
    },
  ],
  bad_trailer: [
    { reason: 'obs-text has no agreed alphabet', evidence: (text) => /[\x80-\xff]/.test(text) },
  ],
}

const STATUSES = [
  '200 OK',
  '200 OK',
  '200',
  '204 No Content',
  '304 Not Modified',
  '404 \xe9',
  '500 ',
]
const LINES = [
  'Date: Mon, 02 Nov 2026 10:00:00 GMT',
  'Set-Cookie: a=b',
  'Content-Type: text/plain',
  'Connection: keep-alive',
  'Connection: close',
  'X-Empty:',
  'Content-Disposition: \xc3\xa9',
]
const BODIES = [
  ['', ''],
  ['', 'until the end'],
  ['Content-Length: 0\r\n', ''],
  ['Content-Length: 3\r\n', 'abc'],
  ['Content-Length: 03\r\n', 'abc'],
  ['Content-Length: 3\r\nContent-Length: 3\r\n', 'abc'],
  ['Content-Length: 3\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'],
  ['Transfer-Encoding: chunked\r\n', '0\r\n\r\n'],
  ['Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\n'],
  ['Transfer-Encoding: chunked\r\n', '1\r\na\r\n0\r\nX-T: u\r\nContent-Md5: v\r\n\r\n'],
  ['Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'],
  ['Transfer-Encoding: identity\r\n', 'abc'],
] as const

const answer = fc
  .record({
    interim: fc.constantFrom(
      '',
      '',
      '',
      'HTTP/1.1 100 Continue\r\n\r\n',
      'HTTP/1.1 103 x\r\nA: b\r\n\r\n',
    ),
    version: fc.constantFrom('1.1', '1.1', '1.1', '1.0'),
    status: fc.constantFrom(...STATUSES),
    lines: fc.array(fc.constantFrom(...LINES), { maxLength: 3 }),
    body: fc.constantFrom(...BODIES),
  })
  .map(({ interim, version, status, lines, body }) => {
    const fields = lines.map((line) => `${line}\r\n`).join('')
    return `${interim}HTTP/${version} ${status}\r\n${fields}${body[0]}\r\n${body[1]}`
  })

const damage = fc.record({
  place: fc.nat(),
  insert: fc.constantFrom(
    ...['\r', '\n', '\r\n', '\0', ' ', '\t', ':', ',', ';', '\x0b', '\x7f', '\x80', '\xff'],
    ...['0', '5', '-', '_', '"', 'a', 'chunked', 'Content-Length: 5\r\n', ''],
  ),
  overwrite: fc.nat(2),
})

it('agrees with llhttp about every answer, or has a listed reason to be stricter', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(answer, fc.array(damage, { maxLength: 2 }), fc.constantFrom('GET', 'GET', 'HEAD')),
      async ([whole, damages, method]) => {
        let text = whole
        for (const { place, insert, overwrite } of damages) {
          const at = place % (text.length + 1)
          text = text.slice(0, at) + insert + text.slice(at + overwrite)
        }
        await compare(text, method)
      },
    ),
    DIFFERENTIAL_CASES,
  )
})

async function compare(text: string, method: string): Promise<void> {
  const ours = responseByUs(text, method)
  const theirs = await responseByLlhttp(bytes(text), method)
  const shown = () => JSON.stringify({ text, method, ours, theirs }, undefined, 1)
  const [other] = theirs.messages

  if (ours.refused === undefined && ours.message !== undefined) {
    assert.ok(other !== undefined, shown())
    assert.equal(other.start, ours.message.start, shown())
    assert.deepEqual(other.fields, ours.message.fields, shown())
    assert.equal(other.body, ours.message.body, shown())
    assert.equal(other.complete, ours.message.complete, shown())
    assert.deepEqual(keptTrailers([...other.trailers]), ours.message.trailers, shown())
    return
  }
  if (ours.refused === undefined) {
    assert.equal(other, undefined, shown())
    return
  }
  if (ours.message !== undefined) assert.ok(other?.body.startsWith(ours.message.body), shown())
  if (other === undefined || (ours.message !== undefined && !other.complete)) return
  assert.ok(
    STRICTER[ours.refused]?.some(({ evidence }) => evidence(text)),
    `${ours.refused} without a listed reason: ${shown()}`,
  )
}

function responseByUs(text: string, method: string) {
  const buffer = bytes(text)
  let at = 0
  for (;;) {
    const head = parseResponseHead(buffer, at, buffer.length, { method, upgrade: false }, LIMITS)
    if (head === undefined) return {}
    if (head.kind === 'bad_response') return { refused: head.what }
    at += head.headBytes
    if (head.status < 200) continue
    const message = {
      start: `${head.status} ${head.reason}`,
      fields: head.fields,
      body: '',
      trailers: [] as readonly string[],
      complete: true,
    }
    if (head.body.kind === 'close') message.body = buffer.toString('latin1', at)
    if (head.body.kind === 'length') {
      message.body = buffer.toString('latin1', at, Math.min(at + head.body.length, buffer.length))
      message.complete = message.body.length === head.body.length
    }
    if (head.body.kind === 'chunked') {
      const decoder = new ChunkedDecoder({ maxTrailerBytes: 1024, maxTrailerCount: 8 })
      const end = decoder.decode(buffer, at, buffer.length, (from, to) => {
        message.body += buffer.toString('latin1', from, to)
      })
      message.complete = decoder.done
      message.trailers = decoder.trailers
      if (typeof end !== 'number') return { message, refused: end.code }
    }
    return { message }
  }
}
