// A client of node:http2 that does whatever the protocol allows: requests of any shape, resets at any
// point, settings that change in the middle, bytes that are cut anywhere. Each stream ends once, and
// with what both sides have sent.
import assert from 'node:assert/strict'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { H2_ERROR } from '../../../src/http/h2/frames.ts'
import { eventually } from '../../support/eventually.ts'
import { type SeenStream, type ServedSession, serveSession } from '../../support/http2-session.ts'

interface Plan {
  readonly request: readonly number[]
  readonly requestTrailers: boolean
  readonly interim: number
  readonly answer: readonly number[]
  readonly trailers: boolean
  readonly readsFirst: boolean
  readonly pauses: boolean
  readonly resets: 'client' | 'server' | undefined
}

const sizes = fc.array(fc.constantFrom(0, 1, 2, 97, 1_009, 16_384, 16_385, 70_001), {
  maxLength: 5,
})
const plan: fc.Arbitrary<Plan> = fc.record({
  request: sizes,
  requestTrailers: fc.boolean(),
  interim: fc.nat(2),
  answer: sizes,
  trailers: fc.boolean(),
  readsFirst: fc.boolean(),
  pauses: fc.boolean(),
  resets: fc.option(fc.constantFrom('client', 'server'), { nil: undefined, freq: 5 }),
})
const settings = fc.record({
  initialWindowSize: fc.constantFrom(1, 1_000, 65_535, 1_000_000),
  maxFrameSize: fc.constantFrom(16_384, 20_000, 1_000_000),
  headerTableSize: fc.constantFrom(0, 100, 4_096),
})

const total = (pieces: readonly number[]): number => pieces.reduce((sum, size) => sum + size, 0)
/** Bytes that say where they belong. */
const bytesOf = (seed: number, from: number, length: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (seed * 31 + from + i) % 251))

function* pieces(chunk: Buffer, lengths: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < chunk.length; i++) {
    const length = lengths[i % lengths.length]!
    yield chunk.subarray(at, at + length)
    at += length
  }
}

function answerAs(seen: SeenStream, complete: boolean, plans: readonly Plan[]): void {
  const path = seen.fields[seen.fields.indexOf(':path') + 1]!
  const n = Number(path.slice(1))
  const one = plans[n]!
  const { stream } = seen
  const answer = (): void => {
    for (let i = 0; i < one.interim; i++) stream.inform([':status', '103', 'x-i', String(i)])
    stream.respond([':status', '200', 'x-n', String(n)])
    let sent = 0
    let next = 0
    const more = (): void => {
      while (next < one.answer.length) {
        const bytes = bytesOf(n, sent, one.answer[next++]!)
        sent += bytes.length
        if (one.resets === 'server' && next === one.answer.length) {
          return stream.reset(H2_ERROR.internal)
        }
        if (!stream.write(bytes)) return
      }
      stream.end(one.trailers ? ['x-sum', String(n)] : [])
    }
    seen.onDrain = more
    more()
  }
  if (one.pauses) {
    stream.pause()
    setImmediate(() => stream.resume())
  }
  if (!one.readsFirst || complete) return answer()
  const { streamEnd } = seen
  seen.streamEnd = (trailers) => {
    streamEnd.call(seen, trailers)
    answer()
  }
}

interface Got {
  status: number
  readonly chunks: Buffer[]
  trailers: unknown
  interim: number
  closed: boolean
  code: number
}

function ask(session: http2.ClientHttp2Session, n: number, one: Plan): Got {
  const got: Got = {
    status: 0,
    chunks: [],
    trailers: undefined,
    interim: 0,
    closed: false,
    code: 0,
  }
  const bare = one.request.length === 0 && !one.requestTrailers
  const stream = session.request(
    { ':method': bare ? 'GET' : 'POST', ':path': `/${n}`, 'x-fill': 'f'.repeat((n * 977) % 5_000) },
    { endStream: bare, waitForTrailers: one.requestTrailers },
  )
  stream.on('headers', () => got.interim++)
  stream.on('response', (headers) => {
    got.status = Number(headers[':status'])
    if (one.resets === 'client') stream.close(H2_ERROR.cancel)
  })
  stream.on('trailers', (headers) => {
    got.trailers = headers['x-sum']
  })
  stream.on('data', (chunk: Buffer) => got.chunks.push(chunk))
  stream.on('error', () => {})
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-end': '1' }))
  stream.on('close', () => {
    got.closed = true
    got.code = stream.rstCode ?? 0
  })
  if (bare) return got
  let sent = 0
  for (const size of one.request) {
    stream.write(bytesOf(n, sent, size))
    sent += size
  }
  stream.end()
  return got
}

describe('a client of node:http2 that does whatever HTTP/2 allows', () => {
  it('has each stream end once, with what both sides have sent', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(plan, { minLength: 1, maxLength: 12 }),
        settings,
        settings,
        // Some 100 KB in pieces of a byte take as long as all else together.
        fc
          .array(fc.constantFrom(1, 2, 8, 9, 10, 100, 1_000, 65_536), { maxLength: 8 })
          .map((lengths) => [...lengths, 1_000]),
        async (plans, first, second, lengths) => {
          const served: ServedSession[] = []
          const server = net.createServer((socket) => {
            const answer = (seen: SeenStream, complete: boolean) => answerAs(seen, complete, plans)
            served.push(serveSession(socket, answer, { cut: (chunk) => pieces(chunk, lengths) }))
          })
          await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
          const { port } = server.address() as AddressInfo
          const session = http2.connect(`http://127.0.0.1:${port}`, { settings: first })
          const broken: Error[] = []
          session.on('error', (error) => broken.push(error))
          try {
            const got = plans.map((one, n) => ask(session, n, one))
            setImmediate(() => !session.destroyed && session.settings(second))
            await eventually('all streams are over', () => got.every(({ closed }) => closed))
            const [one] = served
            await eventually('for us, too', () => one?.session.streams === 0)
            assert.deepEqual(broken, [], 'the client says that we broke the protocol')
            assert.deepEqual(one?.faults, [])
            assert.deepEqual(one?.failures, [])
            for (const [n, reply] of got.entries()) check(n, plans[n]!, reply)
            for (const seen of one?.seen.values() ?? []) checkSeen(seen, plans)
          } finally {
            session.destroy()
            server.close()
          }
        },
      ),
      { numRuns: 60, interruptAfterTimeLimit: 8_000 },
    )
  })
})

function check(n: number, one: Plan, got: Got): void {
  const body = Buffer.concat(got.chunks)
  assert.deepEqual(body, bytesOf(n, 0, body.length), 'bytes of another answer, or out of order')
  if (one.resets === 'client') return
  if (one.resets === 'server' && one.answer.length > 0) {
    return assert.equal(got.code, H2_ERROR.internal)
  }
  assert.equal(got.code, 0)
  assert.equal(got.status, 200)
  assert.equal(got.interim, one.interim)
  assert.equal(body.length, total(one.answer))
  assert.equal(got.trailers, one.trailers ? String(n) : undefined)
}

function checkSeen(seen: SeenStream, plans: readonly Plan[]): void {
  assert.equal(seen.closed, 1)
  const n = Number(seen.fields[seen.fields.indexOf(':path') + 1]!.slice(1))
  const one = plans[n]!
  const { body } = seen
  assert.deepEqual(body, bytesOf(n, 0, body.length))
  if (seen.trailers === undefined) return
  assert.equal(body.length, total(one.request), 'an end that is none')
  assert.deepEqual(seen.trailers, one.requestTrailers ? ['x-end', '1'] : [])
}
