// Frames of a client that were changed at random, cut anywhere: the session neither throws nor hangs,
// tells every stream's user of its end, and produces no request that nghttp2 does not see in them.
import assert from 'node:assert/strict'
import http2 from 'node:http2'
import { duplexPair } from 'node:stream'
import fc from 'fast-check'
import {
  FLAG,
  FRAME,
  PREFACE,
  resetStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'
import { readRequestList } from '../../src/http/h2/request.ts'
import { eventually } from '../support/eventually.ts'
import { serveSession } from '../support/http2-session.ts'
import { data, frame, requestFields } from '../support/raw-http2.ts'
import { fuzz } from './campaign.ts'

const LIMITS = {
  headBytes: 16_384,
  headerCount: 100,
  targetBytes: 8_192,
  allowAmbiguousPaths: false,
}
const GET = requestFields()
const POST = requestFields({ ':method': 'POST' })
/** Mostly nothing: one broken request should not be all that a case has. */
const extra = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom<readonly string[]>([], ['x-a', 'b'], ['te', 'trailers']),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom<readonly string[]>(
      ['content-length', '3'],
      ['connection', 'close'],
      ['te', 'gzip'],
      ['X-A', 'b'],
      ['x-a', 'b\n'],
      [':path', '/y'],
      ['host', 'other'],
      ['cookie', 'a=b', 'cookie', 'c=d'],
    ),
  },
)
/** In one frame or two; with an entry for the table, or a reference to the newest one. */
const headers = fc.record({
  more: extra,
  splits: fc.boolean(),
  table: fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom('no', 'adds', 'adds and refers') },
    // To what an earlier block may have added.
    { weight: 1, arbitrary: fc.constant('refers') },
  ),
})
type Headers = typeof headers extends fc.Arbitrary<infer T> ? T : never

function headersOf(
  id: number,
  fields: readonly string[],
  how: Headers,
  endStream: boolean,
): Buffer {
  const block = Buffer.concat([
    encodeHeaderBlock([...fields, ...how.more]),
    how.table.startsWith('adds')
      ? Buffer.from([0x40, 3, ...Buffer.from('x-k'), 1, 0x61 + (id % 20)])
      : NOTHING,
    how.table.endsWith('refers') ? Buffer.from([0xbe]) : NOTHING,
  ])
  const end = endStream ? FLAG.endStream : 0
  if (!how.splits) return frame(FRAME.headers, end | FLAG.endHeaders, id, block)
  const at = Math.floor(block.length / 2)
  return Buffer.concat([
    frame(FRAME.headers, end, id, block.subarray(0, at)),
    frame(FRAME.continuation, FLAG.endHeaders, id, block.subarray(at)),
  ])
}

const NOTHING = Buffer.alloc(0)
const body = fc.oneof(
  fc.constantFrom('', 'a', 'abc', 'y'.repeat(3_000)).map((text) => (id: number) => data(id, text)),
  fc.tuple(fc.nat(20), fc.nat(20)).map(
    ([padding, length]) =>
      (id: number) =>
        frame(
          FRAME.data,
          FLAG.padded,
          id,
          Buffer.concat([Buffer.from([padding]), Buffer.alloc(padding + length, 'p')]),
        ),
  ),
  fc.constant((id: number) => windowUpdateFrame(id, 70_000)),
  fc.constant((id: number) => frame(FRAME.priority, 0, id, Buffer.from([0, 0, 0, 201, 5]))),
)
/** The frames of one request, in their order, whatever comes between them. */
const request = fc
  .record({
    head: headers,
    bodies: fc.option(fc.array(body, { maxLength: 4 }), { nil: undefined }),
    end: fc.constantFrom('data', 'data', 'trailers', 'reset', 'never'),
    trailers: headers,
  })
  .map(({ head, bodies, end, trailers }) => (id: number): Buffer[] => {
    if (bodies === undefined) return [headersOf(id, GET, head, true)]
    const list = [headersOf(id, POST, head, false), ...bodies.map((make) => make(id))]
    if (end === 'data') list.push(data(id, 'z', true))
    if (end === 'trailers') list.push(headersOf(id, ['x-sum', '1'], trailers, true))
    if (end === 'reset') list.push(resetStreamFrame(id, 8))
    return list
  })
const anywhere = fc.oneof(
  fc.constant(settingsFrame([])),
  fc.constantFrom(0, 1, 70_000).map((value) => settingsFrame([[4, value]])),
  fc.constantFrom(0, 100, 8_192).map((value) => settingsFrame([[1, value]])),
  fc.constant(windowUpdateFrame(0, 70_000)),
  fc.constant(frame(FRAME.ping, 0, 0, Buffer.alloc(8))),
  fc.uint8Array({ maxLength: 20 }).map((bytes) => frame(0xee, 0xff, 1, bytes)),
  // Whatever it is.
  fc
    .tuple(fc.nat(12), fc.nat(255), fc.nat(9), fc.uint8Array({ maxLength: 20 }))
    .map(([type, flags, id, bytes]) => frame(type, flags, id, bytes)),
)
/** Requests on streams 1, 3, 5..., interleaved as `order` says, with other frames between them. */
const frames = fc
  .tuple(
    fc.array(request, { minLength: 1, maxLength: 6 }),
    fc.array(fc.nat(5), { minLength: 1, maxLength: 30 }),
    fc.array(fc.tuple(fc.nat(20), anywhere), { maxLength: 3 }),
  )
  .map(([requests, order, others]) => {
    const queues = requests.map((make, i) => make(2 * i + 1))
    const list: Buffer[] = []
    let opened = 0
    for (let i = 0; queues.some(({ length }) => length > 0); i++) {
      // Streams open in the order of their numbers.
      let at = order[i % order.length]! % Math.min(queues.length, opened + 1)
      if (queues[at]!.length === 0) at = queues.findIndex(({ length }) => length > 0)
      opened = Math.max(opened, at + 1)
      list.push(queues[at]!.shift()!)
    }
    for (const [at, other] of others) list.splice(Math.min(at, list.length), 0, other)
    return list
  })
/** Where, and what the byte there becomes. */
const mutations = fc.array(fc.tuple(fc.integer({ min: 0, max: 4_000 }), fc.nat(255)), {
  maxLength: 2,
})

function mutated(bytes: Buffer, changes: readonly (readonly [number, number])[]): Buffer {
  const out = Buffer.from(bytes)
  for (const [where, byte] of changes) if (out.length > 0) out[(where * 7_919) % out.length] = byte
  return out
}

interface Reference {
  /** `1 :method GET :path /x ...` for each request that a server of node:http2 is told of. */
  readonly seen: ReadonlySet<string>
  /** It ends a connection for some things that cost a stream alone: of later ones it knows nothing. */
  readonly lastKnown: number
}

async function seenByNghttp2(bytes: Buffer): Promise<Reference> {
  const seen = new Set<string>()
  let lastKnown = 0
  const [ours, theirs] = duplexPair()
  const session = http2.performServerHandshake(ours, {
    settings: { enableConnectProtocol: true, maxHeaderListSize: LIMITS.headBytes },
    maxHeaderListPairs: LIMITS.headerCount,
  })
  session.on('error', () => {})
  let frames = 0
  session.on('stream', (stream: http2.ServerHttp2Stream, _headers, _flags, list: string[]) => {
    stream.on('error', () => {}).resume()
    lastKnown = Math.max(lastKnown, stream.id ?? 0)
    seen.add(`${stream.id} ${list.join(' ')}`)
  })
  theirs.on('error', () => {}).on('data', () => frames++)
  theirs.write(bytes)
  // All is in memory: when nothing has moved for some turns, nothing will.
  for (let quiet = 0, before = -1; quiet < QUIET_TURNS && !session.destroyed; ) {
    await new Promise(setImmediate)
    const now = frames + seen.size
    quiet = now === before ? quiet + 1 : 0
    before = now
  }
  if (!session.destroyed) lastKnown = Number.POSITIVE_INFINITY
  session.destroy()
  theirs.destroy()
  return { seen, lastKnown }
}

const QUIET_TURNS = 20

fuzz(
  'frames that were changed at random',
  { runs: 300 },
  fc.asyncProperty(
    frames,
    mutations,
    fc.array(fc.constantFrom(1, 3, 9, 10, 50, 1_000), { minLength: 1, maxLength: 6 }),
    fc.constantFrom('reads', 'pauses', 'answers'),
    async (list, changes, lengths, how) => {
      const bytes = Buffer.concat([
        Buffer.from(PREFACE, 'latin1'),
        settingsFrame([]),
        mutated(Buffer.concat(list), changes),
      ])
      const [ours, theirs] = duplexPair()
      const requests: string[] = []
      const served = serveSession(
        ours,
        ({ stream, fields }, complete) => {
          const one = readRequestList(fields, complete, LIMITS)
          if (one.kind === 'request') requests.push(`${stream.id} ${fields.join(' ')}`)
          if (how === 'pauses') stream.pause()
          if (how !== 'answers') return
          stream.respond([':status', '200'])
          stream.write(Buffer.alloc(100_000))
          stream.end()
        },
        {
          *cut(chunk) {
            for (let at = 0, i = 0; at < chunk.length; i++) {
              const length = lengths[i % lengths.length]!
              yield chunk.subarray(at, at + length)
              at += length
            }
          },
        },
      )
      theirs.on('error', () => {}).resume()
      let ended = false
      theirs.on('end', () => {
        ended = true
      })
      theirs.write(bytes)
      theirs.end()
      await eventually('it is over', () => ended)
      served.session.closed()
      assert.deepEqual(served.faults, [])
      assert.equal(served.session.streams, 0)
      for (const one of served.seen.values()) assert.equal(one.closed, 1)
      assert.ok(served.failures.length <= 1)
      const reference = await seenByNghttp2(bytes)
      const known = requests.filter((one) => Number.parseInt(one, 10) <= reference.lastKnown)
      const invented = known.filter((one) => !reference.seen.has(one))
      assert.deepEqual(invented, [])
    },
  ),
)
