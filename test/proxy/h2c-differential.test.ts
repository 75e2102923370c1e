// Calls to a workload of node:http2 that does whatever the protocol allows: answers of any shape, resets
// at any point, settings that change in the middle. Each call ends once, and as the workload meant.
import assert from 'node:assert/strict'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Fields } from '../../src/http/fields.ts'
import type { AnswerHead, CallRequest, UpgradeUser } from '../../src/proxy/call.ts'
import { H2cPool } from '../../src/proxy/h2c/pool.ts'
import { Turn } from '../../src/proxy/turn.ts'
import { eventually } from '../support/eventually.ts'

interface Plan {
  readonly method: 'GET' | 'POST' | 'HEAD'
  readonly request: readonly number[]
  readonly requestTrailers: boolean
  readonly interim: number
  readonly answer: readonly number[]
  readonly declared: boolean
  readonly trailers: boolean
  /** Bytes of the answer after which the workload resets; undefined: never. */
  readonly resetAfter: number | undefined
  readonly readsFirst: boolean
  readonly pauses: boolean
  readonly abandons: boolean
  /** The workload cuts the whole connection in the middle of this answer, and every other on it. */
  readonly cuts: boolean
}

const sizes = fc.array(fc.constantFrom(0, 1, 2, 97, 1_009, 16_384, 16_385, 70_001), {
  maxLength: 6,
})
const plan: fc.Arbitrary<Plan> = fc.record({
  method: fc.constantFrom('GET', 'POST', 'HEAD'),
  request: sizes,
  requestTrailers: fc.boolean(),
  interim: fc.nat(3),
  answer: sizes,
  declared: fc.boolean(),
  trailers: fc.boolean(),
  resetAfter: fc.option(fc.nat(100_000), { nil: undefined, freq: 4 }),
  readsFirst: fc.boolean(),
  pauses: fc.boolean(),
  abandons: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  cuts: fc.integer({ min: 0, max: 24 }).map((n) => n === 0),
})
const settings = fc.record({
  initialWindowSize: fc.constantFrom(1, 1_000, 65_535, 1_000_000),
  maxFrameSize: fc.constantFrom(16_384, 20_000, 1_000_000),
  headerTableSize: fc.constantFrom(0, 100, 4_096),
  maxConcurrentStreams: fc.constantFrom(1, 3, 100),
})

const total = (pieces: readonly number[]): number => pieces.reduce((sum, size) => sum + size, 0)
/** Bytes that say where they belong. */
const bytesOf = (seed: number, from: number, length: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (seed * 31 + from + i) % 251))

class Observer implements UpgradeUser {
  callUpgraded(): void {
    assert.fail('nobody asked for it')
  }
  head: AnswerHead | undefined
  interim = 0
  readonly chunks: Buffer[] = []
  trailers: Fields | undefined
  failure: string | undefined
  ends = 0
  onData = (): void => {}
  onDrain = (): void => {}
  callInterim(): void {
    assert.equal(this.head, undefined)
    this.interim++
  }
  callHead(head: AnswerHead): void {
    assert.equal(this.head, undefined)
    this.head = head
  }
  callData(buffer: Buffer, start: number, end: number): void {
    assert.ok(this.head !== undefined && this.ends === 0)
    this.chunks.push(Buffer.from(buffer.subarray(start, end)))
    this.onData()
  }
  callEnd(trailers: Fields): void {
    this.ends++
    this.trailers = trailers
  }
  callDrain(): void {
    this.onDrain()
  }
  callFailed(code: string, repeatable: string): void {
    this.ends++
    this.failure = `${code} ${repeatable}`
  }
}

function serve(
  server: http2.Http2Server,
  plans: readonly Plan[],
  received: Map<number, Buffer>,
): void {
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    const n = Number(String(headers[':path']).slice(1))
    const one = plans[n]!
    stream.on('error', () => {})
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    const answer = (): void => {
      if (stream.destroyed || stream.headersSent) return
      for (let i = 0; i < one.interim; i++) stream.additionalHeaders({ ':status': 103 })
      const length = total(one.answer)
      const bodiless = one.method === 'HEAD'
      stream.respond(
        { ':status': 200, ...(one.declared ? { 'content-length': length } : {}) },
        { waitForTrailers: one.trailers && !bodiless, endStream: bodiless },
      )
      if (bodiless) return
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-n': String(n) }))
      let sent = 0
      for (const size of one.answer) {
        if (one.resetAfter !== undefined && sent + size >= one.resetAfter) {
          // Not close(): that ends the answer first, as if it were complete.
          return void stream.destroy(new Error('as planned'))
        }
        if (one.cuts && sent > 0) return stream.session?.destroy()
        stream.write(bytesOf(n, sent, size))
        sent += size
      }
      stream.end()
    }
    stream.on('end', () => {
      received.set(n, Buffer.concat(chunks))
      answer()
    })
    if (!one.readsFirst) setImmediate(answer)
  })
}

describe('calls to a workload that does whatever HTTP/2 allows', () => {
  it('end once, with what the workload has sent', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(plan, { minLength: 1, maxLength: 12 }),
        settings,
        settings,
        async (plans, first, second) => {
          const server = http2.createServer({ settings: first })
          const sessions = new Set<http2.ServerHttp2Session>()
          const received = new Map<number, Buffer>()
          const broken: Error[] = []
          server.on('sessionError', (error) => broken.push(error))
          server.on('session', (session) => {
            sessions.add(session)
            setImmediate(() => !session.destroyed && session.settings(second))
          })
          serve(server, plans, received)
          await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
          const faults: unknown[] = []
          const pool = new H2cPool({
            address: {
              kind: 'tcp',
              host: '127.0.0.1',
              port: (server.address() as AddressInfo).port,
            },
            limits: () => ({ listBytes: 65_536, count: 200 }),
            turn: new Turn(),
            nowMs: () => 0,
            fault: (error) => faults.push(error),
            maxConnections: 3,
            connectTimeoutMs: 5_000,
            opened: () => {},
          })
          try {
            const users = plans.map((one, n) => {
              const user = new Observer()
              const withBody = one.method === 'POST'
              const request: CallRequest = {
                method: one.method,
                target: `/${n}`,
                authority: 'a',
                scheme: 'https',
                fields: ['x-n', String(n)],
                body: withBody ? { kind: 'chunked' } : { kind: 'none' },
                expectContinue: false,
              }
              const call = pool.call(user, request)
              call.begin()
              if (withBody) {
                let sent = 0
                for (const size of one.request) {
                  call.write(bytesOf(n, sent, size))
                  sent += size
                }
                call.end(one.requestTrailers ? ['x-sum', '1'] : [])
              }
              if (one.pauses) {
                user.onData = () => {
                  call.pause()
                  setImmediate(() => call.resume())
                }
              }
              if (one.abandons) {
                setImmediate(() => {
                  if (user.ends === 0) call.abandon()
                  user.ends++
                })
              }
              return user
            })
            await eventually('all calls are over', () => users.every(({ ends }) => ends > 0))
            assert.deepEqual(faults, [])
            assert.deepEqual(broken, [], 'the workload says that we broke the protocol')
            const cut = plans.some(({ cuts }) => cuts)
            for (const [n, user] of users.entries()) check(plans[n]!, n, user, received.get(n), cut)
          } finally {
            pool.close()
            for (const session of sessions) session.destroy()
            server.close()
          }
        },
      ),
      { numRuns: 60, interruptAfterTimeLimit: 7_000 },
    )
  })
})

function check(
  one: Plan,
  n: number,
  user: Observer,
  request: Buffer | undefined,
  cut: boolean,
): void {
  const body = Buffer.concat(user.chunks)
  assert.deepEqual(body, bytesOf(n, 0, body.length), 'bytes of another answer, or out of order')
  if (one.abandons) return
  const length = one.method === 'HEAD' ? 0 : total(one.answer)
  if (user.failure !== undefined) {
    // Refused before the workload's settings were known; or reset as planned.
    if (user.failure === 'upstream_reset always' || cut) return
    assert.ok(one.resetAfter !== undefined && one.method !== 'HEAD', user.failure)
    assert.equal(user.failure, 'upstream_reset never')
    return
  }
  assert.equal(body.length, length)
  assert.equal(user.interim, one.interim)
  assert.equal(user.ends, 1)
  const trailers = one.trailers && one.method !== 'HEAD' ? ['x-n', String(n)] : []
  assert.deepEqual(user.trailers, trailers)
  if (one.readsFirst && one.method === 'POST') {
    assert.deepEqual(request, bytesOf(n, 0, total(one.request)))
  }
}
