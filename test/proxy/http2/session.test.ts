// Each rule of RFC 9113 that the session keeps by itself, at the level of frames, in memory.
import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { describe, it } from 'node:test'
import { FLAG, FRAME, PREFACE, SETTING } from '../../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../../src/http/h2/hpack.ts'
import { Http2Stream, STREAM_WINDOW } from '../../../src/proxy/http2/stream.ts'
import { eventually } from '../../support/eventually.ts'
import { inMemory, type SeenStream, serveSession } from '../../support/http2-session.ts'
import {
  data,
  frame,
  head,
  type RawHttp2,
  requestFields,
  resetStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../support/raw-http2.ts'

const GET = requestFields()
const POST = requestFields({ ':method': 'POST' })
const NO_ERROR = 0
const PROTOCOL_ERROR = 1
const INTERNAL_ERROR = 2
const FLOW_CONTROL_ERROR = 3
const STREAM_CLOSED = 5
const FRAME_SIZE_ERROR = 6
const REFUSED_STREAM = 7
const COMPRESSION_ERROR = 9
const ENHANCE_YOUR_CALM = 11

const answerOk = ({ stream }: SeenStream): void => {
  stream.respond([':status', '200'])
  stream.end()
}
const pinged = async (raw: RawHttp2): Promise<void> => {
  const known = raw.frames.length
  raw.send(frame(FRAME.ping, 0, 0, Buffer.from('12345678')))
  await eventually('the PING is answered', () =>
    raw.frames.slice(known).some(({ type, flags }) => type === FRAME.ping && flags === FLAG.ack),
  )
}

describe('the preface of an HTTP/2 client', () => {
  it('is answered with our settings and a window', async () => {
    const { raw } = await inMemory()
    await eventually('the window', () => raw.frames.length >= 2)
    const [settings, window] = raw.frames
    assert.equal(settings?.type, FRAME.settings)
    const told = new Map<number, number>()
    for (let at = 0; at < settings!.payload.length; at += 6) {
      told.set(settings!.payload.readUInt16BE(at), settings!.payload.readUInt32BE(at + 2))
    }
    assert.equal(told.get(SETTING.maxConcurrentStreams), 100)
    assert.equal(told.get(SETTING.initialWindowSize), STREAM_WINDOW)
    assert.equal(told.get(SETTING.maxHeaderListSize), 16_384)
    assert.equal(told.get(SETTING.enableConnectProtocol), 1)
    assert.equal(window?.type, FRAME.windowUpdate)
  })

  for (const [what, bytes] of [
    ['another protocol', Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    ['no SETTINGS behind it', Buffer.concat([Buffer.from(PREFACE), head(1, GET)])],
    [
      'an acknowledgement behind it',
      Buffer.concat([Buffer.from(PREFACE), frame(4, 1, 0, Buffer.alloc(0))]),
    ],
  ] as const) {
    it(`ends the connection where it is ${what}`, async () => {
      const [ours, theirs] = duplexPair()
      const { failures, seen } = serveSession(ours)
      theirs.resume()
      theirs.write(bytes)
      await eventually('it is over', () => failures.length === 1)
      assert.deepEqual(failures, ['h2_protocol_error'])
      assert.equal(seen.size, 0)
    })
  }
})

/** Frames behind a POST on stream 1 that is open, the code of the GOAWAY, and what it is called. */
const FATAL: readonly (readonly [string, readonly Buffer[], number, string?])[] = [
  ['HEADERS on stream 0', [head(0, GET)], PROTOCOL_ERROR],
  ['HEADERS on an even stream', [head(2, GET)], PROTOCOL_ERROR],
  ['a stream below one that was opened', [head(5, GET), head(3, GET)], STREAM_CLOSED],
  ['HEADERS behind the end', [data(1, '', true), head(1, ['x-a', 'b'])], STREAM_CLOSED],
  ['DATA behind the end', [data(1, '', true), data(1, 'a')], STREAM_CLOSED],
  ['DATA behind a reset of the client', [resetStreamFrame(1, 8), data(1, 'a')], STREAM_CLOSED],
  ['DATA on stream 0', [data(0, 'a')], PROTOCOL_ERROR],
  ['DATA on an idle stream', [data(3, 'a')], PROTOCOL_ERROR],
  [
    'DATA of only padding that is too long',
    [frame(0, FLAG.padded, 1, Buffer.from([1]))],
    PROTOCOL_ERROR,
  ],
  [
    'empty DATA that says it is padded',
    [frame(0, FLAG.padded, 1, Buffer.alloc(0))],
    PROTOCOL_ERROR,
  ],
  ['HEADERS with more padding than frame', [frame(1, 0xd, 3, Buffer.from([9, 1]))], PROTOCOL_ERROR],
  ['RST_STREAM of an idle stream', [resetStreamFrame(3, 8)], PROTOCOL_ERROR],
  ['RST_STREAM of three bytes', [frame(3, 0, 1, Buffer.alloc(3))], FRAME_SIZE_ERROR],
  ['WINDOW_UPDATE of an idle stream', [windowUpdateFrame(3, 1)], PROTOCOL_ERROR],
  ['WINDOW_UPDATE of five bytes', [frame(8, 0, 1, Buffer.alloc(5))], FRAME_SIZE_ERROR],
  ['a window of nothing', [windowUpdateFrame(0, 0)], PROTOCOL_ERROR],
  ['a window above its limit', [windowUpdateFrame(0, 0x7fffffff)], FLOW_CONTROL_ERROR],
  [
    'a stream window above its limit by settings',
    [windowUpdateFrame(1, 0x7fffffff - 65_535), settingsFrame([[4, 65_536]])],
    FLOW_CONTROL_ERROR,
  ],
  ['a first window above its limit', [settingsFrame([[4, 0x80000000]])], FLOW_CONTROL_ERROR],
  ['a frame size above its limit', [settingsFrame([[5, 0x1000000]])], PROTOCOL_ERROR],
  ['a frame size below its limit', [settingsFrame([[5, 16_383]])], PROTOCOL_ERROR],
  ['ENABLE_PUSH of 2', [settingsFrame([[2, 2]])], PROTOCOL_ERROR],
  ['ENABLE_CONNECT_PROTOCOL of 2', [settingsFrame([[8, 2]])], PROTOCOL_ERROR],
  ['SETTINGS on a stream', [frame(4, 0, 1, Buffer.alloc(0))], PROTOCOL_ERROR],
  ['SETTINGS of seven bytes', [frame(4, 0, 0, Buffer.alloc(7))], FRAME_SIZE_ERROR],
  ['an acknowledgement with settings', [frame(4, 1, 0, Buffer.alloc(6))], FRAME_SIZE_ERROR],
  ['PING on a stream', [frame(6, 0, 1, Buffer.alloc(8))], PROTOCOL_ERROR],
  ['PING of nine bytes', [frame(6, 0, 0, Buffer.alloc(9))], FRAME_SIZE_ERROR],
  ['GOAWAY on a stream', [frame(7, 0, 1, Buffer.alloc(8))], PROTOCOL_ERROR],
  ['GOAWAY of four bytes', [frame(7, 0, 0, Buffer.alloc(4))], FRAME_SIZE_ERROR],
  ['PRIORITY on stream 0', [frame(2, 0, 0, Buffer.alloc(5))], PROTOCOL_ERROR],
  ['PRIORITY of four bytes', [frame(2, 0, 1, Buffer.alloc(4))], FRAME_SIZE_ERROR],
  ['PUSH_PROMISE', [frame(5, 4, 1, Buffer.alloc(8))], PROTOCOL_ERROR],
  ['CONTINUATION without HEADERS', [frame(9, 4, 1, Buffer.alloc(0))], PROTOCOL_ERROR],
  [
    'CONTINUATION of another stream',
    [frame(1, 0, 3, encodeHeaderBlock(GET)), frame(9, 4, 5, Buffer.alloc(0))],
    PROTOCOL_ERROR,
  ],
  [
    'a frame within a header block',
    [frame(1, 0, 3, encodeHeaderBlock(GET)), windowUpdateFrame(0, 1)],
    PROTOCOL_ERROR,
  ],
  ['a frame that is too large', [frame(0, 0, 1, Buffer.alloc(16_385))], FRAME_SIZE_ERROR],
  [
    'a header block with an index that is not there',
    [frame(1, 5, 3, Buffer.from([0xbe]))],
    COMPRESSION_ERROR,
  ],
  [
    'a table larger than we allow',
    [frame(1, 5, 3, Buffer.from([0x3f, 0xff, 0x7f]))],
    COMPRESSION_ERROR,
  ],
  [
    'more than the window of a stream that nobody reads',
    Array.from({ length: 17 }, () => data(1, Buffer.alloc(16_384))),
    FLOW_CONTROL_ERROR,
  ],
]

describe('what costs an HTTP/2 client its connection', () => {
  for (const [what, frames, code] of FATAL) {
    it(`is ${what}`, async () => {
      const { raw, seen, failures, faults } = await inMemory(({ stream }) => stream.pause())
      raw.send(head(1, POST, false))
      await pinged(raw)
      raw.send(...frames)
      await raw.closed()
      assert.equal(raw.goAway, code)
      assert.deepEqual(failures, ['h2_protocol_error'])
      assert.deepEqual(faults, [])
      assert.equal(seen.get(1)?.closed, 1, 'its user learns of it, once')
    })
  }
})

/** Frames on stream 1, a POST that is open: the stream ends with the code, the connection goes on. */
const BREAKS: readonly (readonly [string, readonly Buffer[], number])[] = [
  ['a window of nothing', [windowUpdateFrame(1, 0)], PROTOCOL_ERROR],
  ['a window above its limit', [windowUpdateFrame(1, 0x7fffffff)], FLOW_CONTROL_ERROR],
  ['trailers that are not the end', [head(1, ['x-a', 'b'], false)], PROTOCOL_ERROR],
  ['trailers with a pseudo-header field', [head(1, [':path', '/'])], PROTOCOL_ERROR],
  ['trailers with a name in upper case', [head(1, ['X-A', 'b'])], PROTOCOL_ERROR],
  ['trailers with a line end', [head(1, ['x-a', 'b\nc'])], PROTOCOL_ERROR],
  ['trailers that are too large', [head(1, ['x-a', 'b'.repeat(20_000)])], ENHANCE_YOUR_CALM],
  ['more body than its length', [data(1, 'abcd')], PROTOCOL_ERROR],
  ['less body than its length', [data(1, 'ab', true)], PROTOCOL_ERROR],
  [
    'less body than its length, with trailers',
    [data(1, 'ab'), head(1, ['x-a', 'b'])],
    PROTOCOL_ERROR,
  ],
]

describe('what costs an HTTP/2 client its stream', () => {
  for (const [what, frames, code] of BREAKS) {
    it(`is ${what}`, async () => {
      const { raw, seen, failures } = await inMemory((one) => {
        if (one.stream.id === 1) one.stream.expect(3)
        else answerOk(one)
      })
      raw.send(head(1, POST, false), ...frames, data(1, 'still under way'), head(3, GET))
      assert.equal((await raw.answered(1)).reset, code)
      assert.equal((await raw.answered(3)).status, 200)
      assert.equal(seen.get(1)?.closed, 1)
      assert.equal(seen.get(1)?.trailers, undefined)
      assert.deepEqual(failures, [])
    })
  }

  it('is a fault of ours in its handling, and no other stream or connection pays for it', async () => {
    const { raw, seen, faults } = await inMemory((one) => {
      if (one.stream.id === 1) throw new Error('ours')
      if (one.stream.id === 3) {
        one.streamData = () => {
          throw new Error('ours, too')
        }
      } else answerOk(one)
    })
    raw.send(head(1, POST, false), head(3, POST, false), data(3, 'x'), head(5, GET))
    assert.equal((await raw.answered(1)).reset, INTERNAL_ERROR)
    assert.equal((await raw.answered(3)).reset, INTERNAL_ERROR)
    assert.equal((await raw.answered(5)).status, 200)
    assert.equal(faults.length, 2)
    assert.equal(seen.get(3)?.closed, 1)
  })
})

describe('streams of an HTTP/2 client', () => {
  it('are as many at once as it was told, and the others refused', async () => {
    const { raw, seen } = await inMemory(undefined, { maxStreams: 2 })
    raw.send(head(1, GET), head(3, GET), head(5, GET), data(5, 'under way'))
    assert.equal((await raw.answered(5)).reset, REFUSED_STREAM)
    assert.deepEqual([...seen.keys()], [1, 3])
    answerOk(seen.get(1)!)
    await raw.answered(1)
    raw.send(head(7, GET))
    await eventually('there is room again', () => seen.has(7))
  })

  it('end with NO_ERROR where the answer is complete and the request is not', async () => {
    const { raw, seen } = await inMemory(answerOk)
    raw.send(head(1, POST, false))
    const { status, ended, reset } = await raw.answered(1)
    assert.deepEqual([status, ended], [200, true])
    await eventually('the reset', () => raw.answer(1).reset === NO_ERROR || reset === NO_ERROR)
    raw.send(data(1, 'under way', true))
    await pinged(raw)
    assert.equal(seen.get(1)?.body.length, 0)
    assert.equal(seen.get(1)?.closed, 1)
  })

  it('may have bytes on the way for as many as there may be, when they are answered early', async () => {
    const { raw, seen } = await inMemory(answerOk, { maxStreams: 600 })
    const ids = Array.from({ length: 600 }, (_, i) => 2 * i + 1)
    raw.send(...ids.map((id) => head(id, POST, false)))
    await eventually('all are answered', () => seen.size === ids.length)
    raw.send(...ids.map((id) => data(id, 'on the way')))
    await pinged(raw)
    assert.equal(raw.over, false)
  })

  it('may be half open where they are tunnels', async () => {
    const { raw, seen } = await inMemory((one) => {
      one.stream.allowHalfOpen = true
      answerOk(one)
    })
    raw.send(head(1, POST, false))
    await eventually('our end', () => raw.answer(1).ended)
    raw.send(data(1, 'more'))
    await eventually('it has come', () => seen.get(1)?.body.toString() === 'more')
    assert.equal(raw.answer(1).reset, undefined)
    raw.send(data(1, '', true))
    await eventually('it is closed', () => seen.get(1)?.closed === 1)
    assert.deepEqual(seen.get(1)?.trailers, [])
    assert.equal(raw.answer(1).reset, undefined)
  })

  it('keep what came while nobody took it, in order, with the end behind it', async () => {
    const { raw, seen } = await inMemory(({ stream }) => stream.pause())
    raw.send(head(1, POST, false), data(1, 'abc'), data(1, 'def'), head(1, ['x-sum', '1']))
    await pinged(raw)
    const one = seen.get(1)!
    assert.deepEqual([one.body.length, one.trailers], [0, undefined])
    one.stream.resume()
    assert.equal(one.body.toString(), 'abcdef')
    assert.deepEqual(one.trailers, ['x-sum', '1'])
    assert.equal(one.chunks.length, 1, 'small pieces are kept as one')
  })

  it('keep nothing of what nobody will ask for, and are answered all the same', async () => {
    const { raw, seen } = await inMemory(({ stream }) => {
      stream.pause()
      stream.discard()
    })
    raw.send(head(1, POST, false), data(1, 'abc'), data(1, 'def'))
    await pinged(raw)
    const one = seen.get(1)!
    one.stream.resume()
    assert.equal(one.body.length, 0)
    answerOk(one)
    assert.equal((await raw.answered(1)).status, 200)
  })

  it('get many small pieces that come at once as few, and the end behind them', async () => {
    const { raw, seen } = await inMemory()
    raw.send(head(1, POST, false), ...Array.from({ length: 900 }, () => data(1, 'x')))
    await eventually('all have come', () => seen.get(1)?.body.length === 900)
    const { chunks } = seen.get(1)!
    assert.ok(chunks.length <= 4, `${chunks.length} pieces`)
    raw.send(data(1, 'y'), data(1, 'z', true))
    await eventually('the end', () => seen.get(1)?.trailers !== undefined)
    assert.equal(seen.get(1)?.body.toString(), `${'x'.repeat(900)}yz`)
  })

  it('with a list that is too large are reset, and the table stays right', async () => {
    const served = await inMemory(answerOk)
    const { raw, seen } = served
    const literal = Buffer.concat([
      Buffer.from([0x40, 3]),
      Buffer.from('x-a'),
      Buffer.from([1, 0x62]),
    ])
    const large = Buffer.concat([
      encodeHeaderBlock([...GET, 'x-large', 'y'.repeat(16_000)]),
      encodeHeaderBlock(['x-larger', 'y'.repeat(400)]),
      literal,
    ])
    raw.send(frame(1, 1, 1, large.subarray(0, 10_000)), frame(9, 4, 1, large.subarray(10_000)))
    raw.send(frame(1, 5, 3, Buffer.concat([encodeHeaderBlock(GET), Buffer.from([0xbe])])))
    assert.equal((await raw.answered(1)).reset, ENHANCE_YOUR_CALM)
    assert.equal((await raw.answered(3)).status, 200)
    assert.equal(served.tooLarge, 1)
    assert.deepEqual(seen.get(3)?.fields.slice(-2), ['x-a', 'b'])
  })

  it('take priorities, padding, unknown frames and settings that nobody knows', async () => {
    const { raw, seen } = await inMemory(answerOk)
    const padded = Buffer.concat([
      Buffer.from([2, 0, 0, 0, 0, 9]),
      encodeHeaderBlock(GET),
      Buffer.alloc(2),
    ])
    raw.send(
      frame(0xee, 0xff, 7, Buffer.from('x')),
      settingsFrame([[0xff, 9]]),
      frame(FRAME.priority, 0, 1, Buffer.alloc(5)),
      frame(FRAME.headers, 0x2d, 1, padded),
    )
    assert.equal((await raw.answered(1)).status, 200)
    assert.deepEqual(seen.get(1)?.fields, GET)
  })
})

describe('the windows of an HTTP/2 client', () => {
  const BODY = Buffer.alloc(300_000, 'x')
  const answerBody = ({ stream }: SeenStream): void => {
    stream.respond([':status', '200'])
    stream.write(BODY)
    stream.end()
  }

  it('are kept to, of the connection and of each stream, and shared in turn', async () => {
    const { raw } = await inMemory(answerBody, { credit: false })
    raw.send(head(1, GET), head(3, GET))
    await pinged(raw)
    const sent = (): number => raw.answer(1).body.length + raw.answer(3).body.length
    assert.equal(sent(), 65_535)
    raw.send(windowUpdateFrame(1, 100_000), windowUpdateFrame(3, 100_000))
    await pinged(raw)
    assert.equal(sent(), 65_535, 'there is no window of the connection')
    const before = raw.answer(3).body.length
    raw.send(windowUpdateFrame(0, 65_536))
    await pinged(raw)
    assert.equal(sent(), 131_071)
    assert.ok(raw.answer(3).body.length - before >= 32_768, 'both have had their share')
  })

  it('are used once for all that they grew in a read, not once for each byte', async () => {
    const { raw } = await inMemory(answerBody, { settings: [[4, 0]], credit: false })
    raw.send(head(1, GET))
    await eventually('it has begun', () => raw.answer(1).status === 200)
    raw.send(...Array.from({ length: 500 }, () => windowUpdateFrame(1, 1)))
    await pinged(raw)
    assert.equal(raw.answer(1).body.length, 500)
    const frames = raw.frames.filter(({ type }) => type === FRAME.data)
    assert.ok(frames.length < 10, `${frames.length} frames`)
  })

  it('may fall below nothing, and are then waited for', async () => {
    const { raw } = await inMemory(answerBody, { credit: false })
    raw.send(head(1, GET))
    await pinged(raw)
    raw.send(windowUpdateFrame(0, 1_000_000), settingsFrame([[4, 0]]), windowUpdateFrame(1, 65_535))
    await pinged(raw)
    assert.equal(raw.answer(1).body.length, 65_535)
    raw.send(windowUpdateFrame(1, 7))
    await eventually('seven more', () => raw.answer(1).body.length === 65_542)
  })

  it('are changed once by a frame of settings, however often it says so', async (t) => {
    const { raw, seen } = await inMemory()
    raw.send(head(1, GET), head(3, GET))
    await eventually('both are known', () => seen.size === 2)
    const grow = t.mock.method(Http2Stream.prototype, 'grow')
    const sizes = Array.from({ length: 2_000 }, (_, i) => (i % 2 === 0 ? 0 : 80_000))
    raw.send(settingsFrame(sizes.map((size) => [SETTING.initialWindowSize, size] as const)))
    await pinged(raw)
    assert.deepEqual(
      grow.mock.calls.map(({ arguments: [change] }) => change),
      [80_000 - 65_535, 80_000 - 65_535],
    )
  })

  it('stop whoever writes, and let it go on when they are open again', async () => {
    const { raw, seen } = await inMemory(({ stream }) => stream.respond([':status', '200']), {
      settings: [[4, 0]],
      credit: false,
    })
    raw.send(head(1, GET))
    await eventually('it has begun', () => seen.has(1))
    const one = seen.get(1)!
    assert.equal(one.stream.write(Buffer.alloc(10_000)), true)
    assert.equal(one.stream.write(Buffer.alloc(60_000)), false)
    assert.equal(one.stream.writableNeedDrain, true)
    raw.send(windowUpdateFrame(1, 65_000))
    await eventually('there is room', () => one.drains === 1)
    assert.equal(one.stream.writableNeedDrain, false)
  })

  it('are given back only as what came is taken', async () => {
    const { raw, seen } = await inMemory(({ stream }) => stream.pause())
    const credited = (): number =>
      raw.frames
        .filter(({ type, stream }) => type === FRAME.windowUpdate && stream === 1)
        .reduce((sum, { payload }) => sum + payload.readUInt32BE(0), 0)
    raw.send(
      head(1, POST, false),
      ...Array.from({ length: 12 }, () => data(1, Buffer.alloc(16_384))),
    )
    await pinged(raw)
    assert.equal(credited(), 0)
    seen.get(1)?.stream.resume()
    await eventually('they are given back', () => credited() === 12 * 16_384)
  })

  it('count padding, which is given back with the rest', async () => {
    const { raw, seen } = await inMemory()
    const padded = frame(
      0,
      FLAG.padded,
      1,
      Buffer.concat([Buffer.from([255, 0x61]), Buffer.alloc(255)]),
    )
    raw.send(head(1, POST, false))
    for (const all of [900, 1_800, 2_700]) {
      raw.send(...Array.from({ length: 900 }, () => padded))
      await eventually('all has come', () => seen.get(1)?.body.length === all)
    }
    assert.equal(raw.over, false)
  })

  it('lose nothing of a frame that was under way when they were given back', async () => {
    // The beginning of the last frame uses half of the window; all of the frame is given back for it.
    const { raw, seen } = await inMemory()
    raw.send(head(1, POST, false))
    const frames = Array.from({ length: 8 }, (_, i) => data(1, Buffer.alloc(16_384, 0x61 + i)))
    const last = frames.pop()!
    raw.send(...frames)
    raw.send(last.subarray(0, 1_000))
    const granted = () =>
      raw.frames
        .filter(({ type, stream }) => type === FRAME.windowUpdate && stream === 1)
        .reduce((sum, { payload }) => sum + payload.readUInt32BE(0), 0)
    await eventually('the window is given back', () => granted() === 8 * 16_384)
    seen.get(1)!.stream.pause()
    raw.send(last.subarray(1_000))
    const more = Array.from({ length: 16 }, (_, i) => data(1, Buffer.alloc(16_384, 0x41 + i)))
    raw.send(...more, data(1, '', true))
    await pinged(raw)
    seen.get(1)!.stream.resume()
    await eventually('the end', () => seen.get(1)!.trailers !== undefined)
    const sent = Buffer.concat([...frames, last, ...more].map((one) => one.subarray(9)))
    assert.equal(seen.get(1)!.body.length, sent.length)
    assert.ok(seen.get(1)!.body.equals(sent))
  })
})

describe('the end of an HTTP/2 connection', () => {
  it('names its last stream, ignores later ones, and comes when all have ended', async () => {
    const { raw, seen, session, over } = await inMemory()
    raw.send(head(1, GET), head(3, GET))
    await eventually('both are there', () => seen.size === 2)
    session.leave()
    raw.send(head(5, POST, false), data(5, 'lost'), resetStreamFrame(5, 8))
    await pinged(raw)
    const goAways = raw.frames.filter(({ type }) => type === FRAME.goAway)
    assert.deepEqual(
      goAways.map(({ payload }) => payload.readUInt32BE(0)),
      [3],
    )
    assert.equal(seen.size, 2)
    for (const one of seen.values()) {
      assert.equal(over(), false)
      answerOk(one)
    }
    await raw.closed()
    assert.equal(raw.answer(3).ended, true)
    assert.equal(raw.goAway, NO_ERROR)
  })

  it('never names a later stream than it has named before (section 6.8)', async () => {
    const { raw, seen, session } = await inMemory()
    raw.send(head(1, GET))
    await eventually('it is there', () => seen.size === 1)
    session.leave()
    raw.send(head(3, GET))
    await pinged(raw)
    session.end(PROTOCOL_ERROR)
    await raw.closed()
    const goAways = raw.frames.filter(({ type }) => type === FRAME.goAway)
    assert.deepEqual(
      goAways.map(({ payload }) => payload.readUInt32BE(0)),
      [1, 1],
    )
  })

  it('comes after a GOAWAY of the client, when its streams have ended', async () => {
    const { raw, seen } = await inMemory()
    raw.send(head(1, GET), frame(FRAME.goAway, 0, 0, Buffer.alloc(8)))
    await pinged(raw)
    assert.equal(raw.over, false)
    answerOk(seen.get(1)!)
    await raw.closed()
    assert.equal(raw.answer(1).status, 200)
  })
})

/** Some more than a client may, and some fewer. */
const IDLE: readonly (readonly [string, Buffer])[] = [
  ['PING', frame(FRAME.ping, 0, 0, Buffer.alloc(8))],
  ['SETTINGS', settingsFrame([[4, 1_000]])],
  ['acknowledgements', frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0))],
  ['PRIORITY', frame(FRAME.priority, 0, 9, Buffer.alloc(5))],
  ['unknown frames', frame(0xee, 0, 0, Buffer.alloc(0))],
  ['empty DATA', data(1, '')],
  ['DATA of padding alone', frame(FRAME.data, FLAG.padded, 1, Buffer.from([1, 0]))],
  ['RST_STREAM of a stream that is over', resetStreamFrame(3, 8)],
]

describe('what brings nothing', () => {
  for (const [what, one] of IDLE) {
    it(`is counted, and is a flood in the end: ${what}`, async () => {
      const { raw, failures, seen } = await inMemory()
      raw.send(head(1, POST, false), head(3, GET), resetStreamFrame(3, 8))
      raw.send(...Array.from({ length: 900 }, () => one))
      await eventually('nothing is wrong yet', () => seen.size === 2)
      await pinged(raw)
      assert.deepEqual(failures, [])
      raw.send(...Array.from({ length: 200 }, () => one))
      await raw.closed()
      assert.equal(raw.goAway, ENHANCE_YOUR_CALM)
      assert.deepEqual(failures, ['h2_flood'])
    })
  }

  it('is forgiven with time, and with what brings something', async () => {
    let nowMs = 0
    const { raw, failures } = await inMemory(answerOk, { nowMs: () => nowMs })
    const pings = Array.from({ length: 900 }, () => IDLE[0]![1])
    raw.send(...pings)
    await pinged(raw)
    for (let id = 1; id < 150; id += 2) raw.send(head(id, GET))
    await raw.answered(149)
    raw.send(...pings)
    await pinged(raw)
    nowMs += 60_000
    raw.send(...pings)
    await pinged(raw)
    assert.deepEqual(failures, [])
  })
})

describe('resets', () => {
  for (const [what, broken] of [
    ['that a client sends', (id: number) => resetStreamFrame(id, 8)],
    ['that it makes us send', (id: number) => windowUpdateFrame(id, 0)],
  ] as const) {
    it(`${what} are a flood when there are too many at a time`, async () => {
      let nowMs = 0
      const { raw, failures, seen } = await inMemory(undefined, { nowMs: () => nowMs })
      let id = 1
      const some = (count: number): Buffer[] =>
        Array.from({ length: count }, () => {
          const one = Buffer.concat([head(id, POST, false), broken(id)])
          id += 2
          return one
        })
      raw.send(...some(450))
      await pinged(raw)
      nowMs += 10_000
      raw.send(...some(450))
      await pinged(raw)
      assert.deepEqual(failures, [])
      raw.send(...some(450))
      await raw.closed()
      assert.deepEqual(failures, ['h2_flood'])
      assert.ok(seen.size < 1_350)
      for (const one of seen.values()) assert.equal(one.closed, 1)
    })
  }

  const ids = (count: number, from = 0): number[] =>
    Array.from({ length: count }, (_, i) => 2 * (from + i) + 1)

  it('of requests that have waited for a second are not, however many', async () => {
    let nowMs = 0
    const { raw, failures } = await inMemory(undefined, { nowMs: () => nowMs })
    for (let round = 0; round < 12; round++) {
      const some = ids(90, 90 * round)
      raw.send(...some.map((id) => head(id, POST, false)))
      await pinged(raw)
      nowMs += 1_000
      raw.send(...some.map((id) => resetStreamFrame(id, 8)))
      await pinged(raw)
    }
    assert.deepEqual(failures, [])
  })

  it('of requests that wait for their turn are, however long they have', async () => {
    let nowMs = 0
    const { raw, failures } = await inMemory(
      ({ stream }) => {
        stream.user = undefined
      },
      { nowMs: () => nowMs },
    )
    for (let round = 0; round < 12 && failures.length === 0; round++) {
      const some = ids(90, 90 * round)
      raw.send(...some.map((id) => head(id, POST, false)))
      nowMs += 1_000
      raw.send(...some.map((id) => resetStreamFrame(id, 8)))
      await Promise.race([pinged(raw), raw.closed()])
    }
    assert.deepEqual(failures, ['h2_flood'])
  })

  it('of requests whose answer has begun are not, nor where as many requests are answered', async () => {
    const { raw, failures } = await inMemory((one) => {
      if (one.fields.includes('/answered')) return answerOk(one)
      if (one.fields.includes('/begun')) one.stream.respond([':status', '200'])
    })
    const to = (path: string): string[] => requestFields({ ':path': path })
    const begun = ids(600)
    for (const id of begun) {
      raw.send(head(id, to('/begun')))
      await eventually('it has begun', () => raw.answer(id).status === 200)
      raw.send(resetStreamFrame(id, 8))
    }
    await pinged(raw)
    for (const [i, id] of ids(1_400, 600).entries()) {
      if (i % 2 === 0) raw.send(head(id, to('/answered')))
      else raw.send(head(id, to('/given/up')), resetStreamFrame(id, 8))
      if (i % 100 === 99) await pinged(raw)
    }
    await pinged(raw)
    assert.deepEqual(failures, [])
  })

  it('of heads that cannot be taken are a flood after a thousand', async () => {
    const { raw, failures } = await inMemory(undefined, { maxStreams: 1 })
    raw.send(...Array.from({ length: 1_001 }, (_, i) => head(2 * i + 1, GET)))
    await pinged(raw)
    assert.deepEqual(failures, [])
    raw.send(head(2_005, GET))
    await raw.closed()
    assert.deepEqual(failures, ['h2_flood'])
  })
})

describe('header blocks', () => {
  it('in more frames, or larger ones, than anybody needs are a flood', async () => {
    for (const piece of [Buffer.alloc(0), Buffer.alloc(16_384, 0x82)]) {
      const { raw, failures, seen } = await inMemory()
      raw.send(frame(FRAME.headers, 1, 1, encodeHeaderBlock(GET)))
      raw.send(...Array.from({ length: 100 }, () => frame(FRAME.continuation, 0, 1, piece)))
      await raw.closed()
      assert.equal(raw.goAway, ENHANCE_YOUR_CALM)
      assert.deepEqual(failures, ['h2_flood'])
      assert.equal(seen.size, 0)
    }
  })
})

describe('a client that sends much at once', () => {
  it('lets others have their turn, and loses nothing', async () => {
    const turns = new Set<number>()
    let turn = 0
    const { raw, seen } = await inMemory((one) => {
      turns.add(turn)
      answerOk(one)
    })
    const beat = (): void => {
      turn++
      if (seen.size < 500) setImmediate(beat)
    }
    setImmediate(beat)
    raw.send(...Array.from({ length: 500 }, (_, i) => head(2 * i + 1, GET)))
    await raw.answered(999)
    assert.ok(turns.size >= 10, `${turns.size} turns`)
    for (let id = 1; id < 1_000; id += 2) assert.equal(raw.answer(id).status, 200)
  })

  it('lets others have their turn if it brings nothing, too, and goes on once in each', async () => {
    const waiting: (() => void)[] = []
    const { raw } = await inMemory(answerOk, { later: (goOn) => waiting.push(goOn) })
    const acks = (): number => raw.frames.filter(({ type }) => type === FRAME.ping).length
    const sent = Array.from({ length: 300 }, () => frame(FRAME.ping, 0, 0, Buffer.alloc(8)))
    // Several pieces while it waits are no more turns.
    for (let i = 0; i < 3; i++) raw.send(Buffer.concat(sent))
    let turns = 0
    await eventually('all are answered', () => {
      assert.ok(waiting.length <= 1, `${waiting.length} turns at once`)
      const goOn = waiting.shift()
      if (goOn !== undefined) turns++
      goOn?.()
      return acks() === 900
    })
    assert.ok(turns >= 6, `${turns} turns`)
  })

  it('and does not read is not read from either', async () => {
    const { raw, seen } = await inMemory(({ stream }) => {
      stream.respond([':status', '200', 'x-large', 'y'.repeat(4_000)])
      stream.end()
    })
    raw.socket.pause()
    const count = 2_000
    for (let i = 0; i < count; i++) raw.send(head(2 * i + 1, GET))
    let before = -1
    let same = 0
    await eventually('we stop', () => {
      same = seen.size === before && before > 0 ? same + 1 : 0
      before = seen.size
      return same > 10
    })
    assert.ok(seen.size < 400, `${seen.size} were read`)
    raw.socket.resume()
    await eventually('all are answered', () => seen.size === count)
  })
})
