// A client that speaks HTTP/2, or something else: whatever bytes it sends, in whatever pieces, each stream
// ends once, what is handed on as a request can be one, and nothing throws.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { isToken } from '../../../src/field-names.ts'
import {
  FLAG,
  FRAME,
  goAwayFrame,
  PREFACE,
  pingFrame,
  resetStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../../src/http/h2/hpack.ts'
import { readRequestList } from '../../../src/http/h2/request.ts'
import { serveSession } from '../../support/http2-session.ts'
import { data, frame, head, requestFields } from '../../support/raw-http2.ts'
import { framesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const LIMITS = {
  headBytes: 16_384,
  headerCount: 100,
  targetBytes: 8_192,
  allowAmbiguousPaths: false,
}
const START = settingsFrame([])
const POST = requestFields({ ':method': 'POST' })
const BLOCK = encodeHeaderBlock(requestFields())
const WEB_SOCKET = [
  ...[':method', 'CONNECT', ':protocol', 'websocket', ':scheme', 'https'],
  ...[':authority', 'localhost', ':path', '/socket', 'sec-websocket-version', '13'],
]

/** Frames behind the preface. */
export const target: Target = {
  name: 'http2-client',
  runs: 400,
  seeds: () =>
    [
      [START, head(1, requestFields())],
      [START, head(1, POST, false), data(1, 'some'), data(1, 'more', true), head(3, POST, false)],
      [START, head(1, [...POST, 'content-length', '4'], false), data(1, 'some', true)],
      [
        START,
        head(1, POST, false),
        data(1, 'some'),
        head(1, ['x-sum', '1']),
        resetStreamFrame(1, 8),
      ],
      [START, head(1, WEB_SOCKET, false), data(1, 'frames'), data(1, '', true)],
      [
        settingsFrame([
          [1, 0],
          [4, 0],
          [5, 16_384],
        ]),
        frame(FRAME.headers, FLAG.endStream, 1, BLOCK.subarray(0, 5)),
        frame(FRAME.continuation, FLAG.endHeaders, 1, BLOCK.subarray(5)),
        windowUpdateFrame(1, 70_000),
        windowUpdateFrame(0, 2 ** 31 - 1),
      ],
      [START, pingFrame(), frame(FRAME.priority, 0, 1, Buffer.alloc(5)), goAwayFrame(0, 0)],
      [Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')],
    ].map((frames) => Buffer.concat(frames)),
  dictionary: [
    '\0\0\0\x04\0\0\0\0\0',
    '\0\0\0\0\x01\0\0\0\x01',
    '\0\0\0\x09\x04\0\0\0\x01',
    '\x82\x87\x84',
    '\0\x40\x01',
    '\xff\xff\xff\xff',
  ],
  mutators: [framesMutator],
  check: async (input) => {
    for (const piece of [Number.POSITIVE_INFINITY, 7]) await assertServed(input, piece)
  },
}

async function assertServed(input: Buffer, piece: number): Promise<void> {
  const [ours, theirs] = duplexPair()
  const served = serveSession(
    ours,
    ({ stream, fields }, complete) => {
      const request = readRequestList(fields, complete, LIMITS)
      if (request.kind === 'request') assertRequest(request.fields)
      if (stream.id % 4 === 1) stream.pause()
      stream.respond([':status', '200'])
      stream.write(Buffer.alloc(70_000))
      stream.end()
    },
    {
      *cut(chunk) {
        for (let at = 0; at < chunk.length; at += piece) yield chunk.subarray(at, at + piece)
      },
    },
  )
  const ended = once(theirs, 'end')
  theirs.resume()
  theirs.end(Buffer.concat([Buffer.from(PREFACE, 'latin1'), input]))
  await ended
  served.session.closed()
  assert.deepEqual(served.faults, [])
  assert.equal(served.session.streams, 0)
  for (const { closed } of served.seen.values()) assert.equal(closed, 1)
  assert.ok(served.failures.length <= 1)
}

function assertRequest(fields: readonly string[]): void {
  for (let i = 0; i < fields.length; i += 2) {
    assert.ok(isToken(fields[i]!))
    assert.doesNotMatch(fields[i + 1]!, /[\0\r\n]/)
  }
}
