import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import http2 from 'node:http2'
import net from 'node:net'
import { after, describe, it } from 'node:test'
import type { Fields } from '../../src/http/fields.ts'
import { FLAG, FRAME, settingsFrame, writeFrameHeader } from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'
import type { AnswerHead, Call, CallRequest, UpgradeUser } from '../../src/proxy/call.ts'
import { H2cPool } from '../../src/proxy/h2c/pool.ts'
import { Turn } from '../../src/proxy/turn.ts'
import { eventually as poll } from '../support/eventually.ts'

const REQUEST: CallRequest = {
  method: 'POST',
  target: '/a?b=c',
  authority: 'svc.test',
  scheme: 'https',
  fields: ['x-one', '1', 'x-two', 'ü'],
  body: { kind: 'chunked' },
  expectContinue: false,
}

const begun = (pool: H2cPool, user: UpgradeUser, request: CallRequest): Call => {
  const call = pool.call(user, request)
  call.begin()
  return call
}

/** Keeps what an answer brought; reads slowly when told to. */
class Recorder implements UpgradeUser {
  callUpgraded(): void {
    assert.fail('nobody asked for it')
  }
  head: AnswerHead | undefined
  readonly interim: number[] = []
  readonly chunks: Buffer[] = []
  trailers: Fields | undefined
  failure: string | undefined
  drains = 0
  onData = (): void => {}
  callInterim({ status }: AnswerHead): void {
    this.interim.push(status)
  }
  callHead(head: AnswerHead): void {
    this.head = head
  }
  callData(buffer: Buffer, start: number, end: number): void {
    this.chunks.push(Buffer.from(buffer.subarray(start, end)))
    this.onData()
  }
  callEnd(trailers: Fields): void {
    this.trailers = trailers
  }
  callDrain(): void {
    this.drains++
  }
  callFailed(code: string, repeatable: string): void {
    this.failure = `${code} ${repeatable}`
  }
  get body(): Buffer {
    return Buffer.concat(this.chunks)
  }
  get over(): boolean {
    return this.trailers !== undefined || this.failure !== undefined
  }
}

/** Until `check` does not throw any more. */
const eventually = async (check: () => void): Promise<void> => {
  await poll('what is checked', () => {
    try {
      check()
      return true
    } catch {
      return false
    }
  })
}

const closers: (() => void)[] = []
after(() => {
  for (const close of closers) close()
})

async function poolTo(server: net.Server | http2.Http2Server, maxConnections = 10) {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  const state = { open: 0, faults: [] as unknown[] }
  const pool = new H2cPool({
    address: { kind: 'tcp', host: '127.0.0.1', port },
    limits: () => ({ listBytes: 65_536, count: 200 }),
    turn: new Turn(),
    nowMs: () => Date.now(),
    fault: (error) => state.faults.push(error),
    maxConnections,
    connectTimeoutMs: 5_000,
    opened: (change) => {
      state.open += change
    },
  })
  closers.push(() => {
    pool.close()
    server.close()
  })
  return { pool, state }
}

const over = (user: Recorder): Promise<void> =>
  eventually(() => assert.ok(user.over, 'the call is not over'))

describe('a call to a workload that speaks HTTP/2', () => {
  it('brings the request with its fields, body and trailers, and the answer with its own', async () => {
    const server = http2.createServer()
    let seen: http2.IncomingHttpHeaders = {}
    let seenTrailers: http2.IncomingHttpHeaders = {}
    server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
      seen = headers
      stream.on('trailers', (trailers) => {
        seenTrailers = trailers
      })
      stream.additionalHeaders({ ':status': 103, link: '</x>' })
      stream.respond({ ':status': 201, 'x-big': 'y'.repeat(20_000) }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      stream.pipe(stream)
    })
    const { pool, state } = await poolTo(server)
    const user = new Recorder()
    const call = begun(pool, user, {
      ...REQUEST,
      fields: [...REQUEST.fields, 'x-long', 'z'.repeat(40_000)],
    })
    call.write(Buffer.from('hello '))
    call.write(Buffer.from('world'))
    call.end(['x-checksum', 'abc'])
    await over(user)
    assert.equal(user.failure, undefined)
    assert.deepEqual(user.interim, [103])
    assert.equal(user.head?.status, 201)
    assert.equal(user.body.toString(), 'hello world')
    assert.deepEqual(user.trailers, ['grpc-status', '0'])
    assert.equal(seen[':path'], '/a?b=c')
    assert.equal(seen[':authority'], 'svc.test')
    assert.equal(seen['x-two'], 'ü')
    assert.equal(seen['te'], 'trailers')
    assert.equal(seen['x-long']?.length, 40_000)
    assert.equal(seenTrailers['x-checksum'], 'abc')
    assert.deepEqual(state.faults, [])
  })

  it('moves large bodies both ways at once, in pieces of every size, with equal checksums', async () => {
    const server = http2.createServer({
      settings: { initialWindowSize: 1_000, maxFrameSize: 20_000 },
    })
    server.on('stream', (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
    })
    const { pool, state } = await poolTo(server)
    await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        const body = randomBytes(1_500_000 + n)
        const user = new Recorder()
        const call = begun(pool, user, REQUEST)
        let at = 0
        let paused = false
        const more = (): void => {
          while (at < body.length) {
            const length = Math.min(body.length - at, 1 + ((at * 7919) % 40_009))
            const flowing = call.write(body.subarray(at, at + length))
            at += length
            if (!flowing) return
          }
          call.end([])
        }
        user.callDrain = more
        // A reader that stops now and then, so that windows close.
        user.onData = () => {
          if (paused || user.chunks.length % 13 !== 0) return
          paused = true
          call.pause()
          setImmediate(() => {
            paused = false
            call.resume()
          })
        }
        more()
        await over(user)
        assert.equal(user.failure, undefined)
        const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
        assert.equal(sum(user.body), sum(body))
      }),
    )
    assert.equal(state.open, 1, 'eight calls share one connection')
    assert.deepEqual(state.faults, [])
  })

  it('takes no more of the answer than the window while its user has no room', async () => {
    const server = http2.createServer()
    let sent = 0
    server.on('stream', (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ':status': 200 })
      const piece = Buffer.alloc(16_384)
      const write = (): void => {
        while (!stream.destroyed && sent < 50_000_000) {
          sent += piece.length
          if (!stream.write(piece)) return void stream.once('drain', write)
        }
      }
      write()
    })
    const { pool } = await poolTo(server)
    const user = new Recorder()
    const call = begun(pool, user, { ...REQUEST, body: { kind: 'none' } })
    call.pause()
    let before = -1
    await eventually(() => {
      const now = user.body.length
      const stands = now > 0 && now === before
      before = now
      assert.ok(stands, 'bytes still come')
    })
    assert.ok(user.body.length <= 256 * 1024, `${user.body.length} bytes came`)
    call.resume()
    await eventually(() => assert.ok(user.body.length > 1_000_000))
    call.abandon()
  })

  it('opens another connection when one has all the streams it may, and queues beyond that', async () => {
    const server = http2.createServer({ settings: { maxConcurrentStreams: 2 } })
    const waiting: http2.ServerHttp2Stream[] = []
    server.on('stream', (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ':status': 200 })
      waiting.push(stream)
    })
    const { pool, state } = await poolTo(server, 2)
    // The first tells us the settings.
    const first = new Recorder()
    begun(pool, first, { ...REQUEST, body: { kind: 'none' } })
    await eventually(() => assert.equal(waiting.length, 1))
    const users = Array.from({ length: 5 }, () => new Recorder())
    for (const user of users) begun(pool, user, { ...REQUEST, body: { kind: 'none' } })
    await eventually(() => {
      assert.ok(waiting.length >= 4)
      for (const stream of waiting) if (!stream.destroyed) stream.end()
      assert.ok([first, ...users].every((user) => user.over))
    })
    assert.equal(users.filter((user) => user.failure !== undefined).length, 0)
    assert.ok(state.open <= 2)
  })

  it('is not cut off with the connection of those that were taken back', async () => {
    const server = http2.createServer()
    const streams: http2.ServerHttp2Stream[] = []
    let begun = 0
    server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
      stream.on('error', () => {})
      begun++
      if (headers[':path'] === '/stays') streams.push(stream)
    })
    const { pool } = await poolTo(server, 8)
    const stays = new Recorder()
    const ask = (target: string, user = new Recorder()): Call => {
      const call = pool.call(user, { ...REQUEST, target, body: { kind: 'none' } })
      call.begin()
      return call
    }
    ask('/stays', stays)
    await eventually(() => assert.equal(streams.length, 1))
    // nghttp2 ends the connection of a client that resets more than 1,000 at once.
    for (let i = 1; i <= 20; i++) {
      const calls = Array.from({ length: 90 }, () => ask('/goes'))
      await eventually(() => assert.equal(begun, 1 + 90 * i))
      for (const call of calls) call.abandon()
    }
    streams[0]?.respond({ ':status': 200 })
    streams[0]?.end('answer')
    await over(stays)
    assert.deepEqual([stays.failure, String(stays.body)], [undefined, 'answer'])
  })

  it('begins on a connection with many resets where there can be no other', async () => {
    const server = http2.createServer()
    const streams: http2.ServerHttp2Stream[] = []
    server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
      stream.on('error', () => {})
      if (headers[':path'] === '/ask') stream.respond({ ':status': 200 }, { endStream: true })
      else streams.push(stream)
    })
    const { pool, state } = await poolTo(server, 1)
    const ask = (target: string, user = new Recorder()): Call => {
      const call = pool.call(user, { ...REQUEST, target, body: { kind: 'none' } })
      call.begin()
      return call
    }
    ask('/stays')
    for (let i = 1; i <= 3; i++) {
      const calls = Array.from({ length: 50 }, () => ask('/goes'))
      await eventually(() => assert.equal(streams.length, 1 + 50 * i))
      for (const call of calls) call.abandon()
    }
    const asked = new Recorder()
    ask('/ask', asked)
    await over(asked)
    assert.deepEqual([asked.failure, asked.head?.status, state.open], [undefined, 200, 1])
  })

  it('has streams for clients in turn, and the last eighth for those that hold few', async () => {
    const server = http2.createServer({ settings: { maxConcurrentStreams: 8 } })
    const streams: http2.ServerHttp2Stream[] = []
    const asked: string[] = []
    server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
      stream.on('error', () => {})
      streams.push(stream)
      asked.push(String(headers[':path']))
    })
    const { pool } = await poolTo(server, 2)
    const ask = (client: string, user = new Recorder()): Call => {
      const request: CallRequest = { ...REQUEST, target: `/${client}`, body: { kind: 'none' } }
      const call = pool.call(user, request, client)
      call.begin()
      return call
    }
    const answer = (from: number, to: number): void => {
      for (const stream of streams.slice(from, to)) {
        stream.respond({ ':status': 200 }, { endStream: true })
      }
    }
    const waiting = (): number[] => [pool.queue.waiting, pool.queue.clients]
    // The first tells us the settings.
    const first = new Recorder()
    ask('first', first)
    await eventually(() => assert.equal(asked.length, 1))
    answer(0, 1)
    await over(first)
    const hog = Array.from({ length: 40 }, () => ask('hog'))
    await eventually(() => assert.equal(asked.length, 15))
    for (const client of ['a', 'b', 'c', 'd']) ask(client)
    await eventually(() => assert.deepEqual(asked.slice(15).sort(), ['/a', '/b']))
    assert.deepEqual(waiting(), [28, 3])
    for (const call of hog.slice(-20)) call.abandon()
    assert.deepEqual(waiting(), [8, 3])
    answer(1, 2)
    await eventually(() => assert.deepEqual(asked.slice(17), ['/c']))
    answer(2, 3)
    await eventually(() => assert.deepEqual(asked.slice(18), ['/d']))
    // Two come free, and they are the last.
    answer(3, 5)
    // And two more, which are for whoever waits.
    answer(5, 7)
    await eventually(() => assert.deepEqual(asked.slice(19), ['/hog', '/hog']))
    assert.deepEqual(waiting(), [4, 1])
  })

  for (const headerTableSize of [0, 100]) {
    it(`goes on where the workload keeps a header table of ${headerTableSize} bytes`, async () => {
      const server = http2.createServer({ settings: { headerTableSize } })
      server.on('stream', (stream: http2.ServerHttp2Stream) => {
        stream.respond({ ':status': 200 })
        stream.end()
        stream.session?.settings({ headerTableSize: headerTableSize / 2 })
      })
      const { pool, state } = await poolTo(server)
      for (let i = 0; i < 4; i++) {
        const user = new Recorder()
        begun(pool, user, { ...REQUEST, body: { kind: 'none' } })
        await over(user)
        assert.equal(user.failure, undefined)
      }
      assert.equal(state.open, 1)
    })
  }

  it('says whether a request that failed may be sent again', async () => {
    const server = http2.createServer()
    server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
      stream.on('error', () => {})
      if (headers[':path'] === '/refused') stream.close(http2.constants.NGHTTP2_REFUSED_STREAM)
      else if (headers[':path'] === '/reset') stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
      else stream.session?.destroy()
    })
    const { pool } = await poolTo(server)
    for (const [target, failure] of [
      ['/refused', 'upstream_reset always'],
      ['/reset', 'upstream_reset never'],
      ['/close', 'upstream_reset if_idempotent'],
      ['/close', 'upstream_reset never'],
    ] as const) {
      const user = new Recorder()
      begun(pool, user, { ...REQUEST, target, body: { kind: 'none' } })
      await over(user)
      assert.equal(user.failure, failure, target)
    }
  })

  it('says that nobody listens', async () => {
    const server = net.createServer()
    const { pool } = await poolTo(server)
    await new Promise((resolve) => server.close(resolve))
    const user = new Recorder()
    begun(pool, user, REQUEST)
    await over(user)
    assert.equal(user.failure, 'upstream_refused never')
  })

  it('ends one call, and no other, when its user throws', async () => {
    const server = http2.createServer()
    const streams: http2.ServerHttp2Stream[] = []
    server.on('stream', (stream: http2.ServerHttp2Stream) => {
      streams.push(stream)
      stream.respond({ ':status': 200 })
    })
    const { pool, state } = await poolTo(server)
    const [bad, good] = [new Recorder(), new Recorder()]
    bad.callData = () => {
      throw new Error('a fault of ours')
    }
    for (const user of [bad, good]) begun(pool, user, { ...REQUEST, body: { kind: 'none' } })
    await eventually(() => assert.equal(streams.length, 2))
    for (const stream of streams) stream.end('x')
    await over(bad)
    await over(good)
    assert.equal(bad.failure, 'internal never')
    assert.equal(good.body.toString(), 'x')
    assert.equal(state.faults.length, 1)
  })
})

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const out = Buffer.alloc(9 + payload.length)
  writeFrameHeader(out, payload.length, type, flags, stream)
  payload.copy(out, 9)
  return out
}

const block = (...fields: string[]): Buffer => encodeHeaderBlock(fields)
const OK = frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200'))

/** What a workload may say that is wrong, after its settings; RFC 9113 sections 4, 6 and 8. */
const WRONG: readonly (readonly [string, Buffer])[] = [
  ['DATA before the head', frame(FRAME.data, 0, 1, Buffer.from('x'))],
  ['DATA on a stream that was never opened', frame(FRAME.data, 0, 9, Buffer.from('x'))],
  ['DATA on an even stream', frame(FRAME.data, 0, 2, Buffer.from('x'))],
  ['RST_STREAM of a stream that was never opened', frame(FRAME.resetStream, 0, 9, Buffer.alloc(4))],
  [
    'a window for a stream that was never opened',
    frame(FRAME.windowUpdate, 0, 9, Buffer.from([0, 0, 0, 1])),
  ],
  ['DATA on stream 0', frame(FRAME.data, 0, 0, Buffer.from('x'))],
  ['DATA with more padding than frame', frame(FRAME.data, FLAG.padded, 1, Buffer.from([9, 1]))],
  ['a head without status', frame(FRAME.headers, FLAG.endHeaders, 1, block('a', 'b'))],
  [
    'status behind a field',
    frame(FRAME.headers, FLAG.endHeaders, 1, block('a', 'b', ':status', '200')),
  ],
  [
    'two statuses',
    frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200', ':status', '200')),
  ],
  ['status 99', frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '99'))],
  ['status 101', frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '101'))],
  [
    'an interim answer that ends',
    frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, 1, block(':status', '103')),
  ],
  [
    'a name in upper case',
    frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200', 'A', 'b')),
  ],
  [
    'connection',
    frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200', 'connection', 'x')),
  ],
  [
    'a line feed in a value',
    frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200', 'a', 'b\nc')),
  ],
  [
    'two lengths',
    frame(
      FRAME.headers,
      FLAG.endHeaders,
      1,
      block(':status', '200', 'content-length', '1', 'content-length', '1'),
    ),
  ],
  [
    'a length that is not kept',
    Buffer.concat([
      frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200', 'content-length', '3')),
      frame(FRAME.data, FLAG.endStream, 1, Buffer.from('xx')),
    ]),
  ],
  [
    'more than the length',
    Buffer.concat([
      frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200', 'content-length', '1')),
      frame(FRAME.data, 0, 1, Buffer.from('xx')),
    ]),
  ],
  [
    'a second head',
    Buffer.concat([OK, frame(FRAME.headers, FLAG.endHeaders, 1, block(':status', '200'))]),
  ],
  [
    'pseudo-fields in trailers',
    Buffer.concat([
      OK,
      frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, 1, block(':status', '200')),
    ]),
  ],
  ['an even stream', frame(FRAME.headers, FLAG.endHeaders, 2, block(':status', '200'))],
  [
    'a stream that was never opened',
    frame(FRAME.headers, FLAG.endHeaders, 9, block(':status', '200')),
  ],
  ['PUSH_PROMISE', frame(FRAME.pushPromise, FLAG.endHeaders, 1, Buffer.alloc(4))],
  ['CONTINUATION without HEADERS', frame(FRAME.continuation, 0, 1, Buffer.alloc(0))],
  [
    'a frame inside a header block',
    Buffer.concat([
      frame(FRAME.headers, 0, 1, block(':status', '200')),
      frame(FRAME.ping, 0, 0, Buffer.alloc(8)),
    ]),
  ],
  ['a broken header block', frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.from([0x80]))],
  ['a frame that is too large', frame(FRAME.data, 0, 1, Buffer.alloc(16_385))],
  ['PING of seven bytes', frame(FRAME.ping, 0, 0, Buffer.alloc(7))],
  ['WINDOW_UPDATE of nothing', frame(FRAME.windowUpdate, 0, 1, Buffer.alloc(4))],
  ['a window above its limit', frame(FRAME.windowUpdate, 0, 0, Buffer.from([0x7f, 255, 255, 255]))],
  [
    'a thousand PINGs',
    Buffer.concat(Array.from({ length: 1_100 }, () => frame(FRAME.ping, 0, 0, Buffer.alloc(8)))),
  ],
  [
    'a thousand empty DATA frames',
    Buffer.concat([
      OK,
      ...Array.from({ length: 1_100 }, () => frame(FRAME.data, 0, 1, Buffer.alloc(0))),
    ]),
  ],
  [
    'header blocks without end',
    Buffer.concat([
      frame(FRAME.headers, 0, 1, Buffer.alloc(0)),
      ...Array.from({ length: 1_100 }, () => frame(FRAME.continuation, 0, 1, Buffer.alloc(0))),
    ]),
  ],
  ['no settings first', Buffer.alloc(0)],
]

describe('a workload that breaks the protocol', () => {
  for (const [what, bytes] of WRONG) {
    it(`is cut off, and its call fails: ${what}`, async () => {
      const server = net.createServer((socket) => {
        socket.on('error', () => {})
        const settings =
          what === 'no settings first'
            ? frame(FRAME.ping, 0, 0, Buffer.alloc(8))
            : settingsFrame([])
        socket.once('data', () => {
          // One byte at a time at the front, so that every frame is cut somewhere.
          const all = Buffer.concat([settings, bytes])
          for (let i = 0; i < Math.min(all.length, 30); i++) socket.write(all.subarray(i, i + 1))
          socket.write(all.subarray(30))
        })
      })
      const { pool, state } = await poolTo(server)
      const user = new Recorder()
      begun(pool, user, { ...REQUEST, body: { kind: 'none' } })
      await over(user)
      assert.equal(user.failure, 'upstream_bad_response never')
      assert.equal(user.trailers, undefined)
      assert.deepEqual(state.faults, [])
    })
  }
})
