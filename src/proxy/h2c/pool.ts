// The HTTP/2 connections to the workload: as few as carry the calls, one more when all of them have
// as many streams as the workload allows, and none for longer than it is of use.
import type { ErrorCode } from '../../errors.ts'
import type { Call, CallRequest, UpgradeUser } from '../call.ts'
import { H2cCall } from './call.ts'
import { H2cSession, type SessionOptions } from './session.ts'

export interface H2cPoolOptions extends SessionOptions {
  readonly maxConnections: number
  readonly connectTimeoutMs: number
  /** Called with +1 and -1. */
  readonly opened: (change: 1 | -1) => void
}

const READ_BUFFER_BYTES = 64 * 1024
const IDLE_MS = 60_000
/** RFC 9113 section 6.5.2 recommends no less than that. */
const ASSUMED_STREAMS = 100

export class H2cPool {
  readonly #options: H2cPoolOptions
  readonly #sessions = new Set<H2cSession>()
  readonly #queue: { readonly call: H2cCall; readonly sinceMs: number }[] = []
  /** What the workload allowed last holds for the next connection until it says something else. */
  #maxStreams = ASSUMED_STREAMS
  /** Reads are handed over synchronously; whoever keeps bytes copies them. */
  readonly #readBuffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES)

  constructor(options: H2cPoolOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#sessions.size
  }

  call(user: UpgradeUser, request: CallRequest): Call {
    return new H2cCall(user, request, (call) => this.#begin(call))
  }

  tick(): void {
    const nowMs = this.#options.nowMs()
    for (const session of this.#sessions) {
      if (session.connecting && nowMs - session.openedMs >= this.#options.connectTimeoutMs) {
        session.close('upstream_connect_timeout')
      } else if (session.calls === 0) {
        const idleMs = session.silent ? this.#options.connectTimeoutMs : IDLE_MS
        if (nowMs - session.idleSinceMs >= idleMs) session.close()
      }
    }
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      if (!first.call.over && nowMs - first.sinceMs < this.#options.connectTimeoutMs) break
      this.#queue.shift()
      this.#tell(first.call, 'upstream_busy')
    }
  }

  close(): void {
    for (const session of this.#sessions) session.close()
  }

  /** Now, or as soon as a stream comes free. */
  #begin(call: H2cCall): void {
    const session = this.#vacant()
    if (session === undefined) this.#queue.push({ call, sinceMs: this.#options.nowMs() })
    else call.start(session)
  }

  #vacant(): H2cSession | undefined {
    for (const session of this.#sessions) if (session.vacant) return session
    if (this.#sessions.size >= this.#options.maxConnections) return undefined
    const session = new H2cSession(this.#options, this.#readBuffer, this.#maxStreams, {
      vacancy: (one) => {
        this.#maxStreams = one.maxStreams
        this.#next()
      },
      closed: (one) => {
        this.#sessions.delete(one)
        this.#options.opened(-1)
        // Not within the event that closed it: its calls learn of that first.
        if (this.#queue.length > 0) setImmediate(() => this.#next())
      },
    })
    this.#sessions.add(session)
    this.#options.opened(1)
    return session
  }

  #next(): void {
    while (this.#queue.length > 0) {
      const session = this.#vacant()
      if (session === undefined) return
      const waiting = this.#queue.shift()
      waiting?.call.start(session)
    }
  }

  #tell(call: H2cCall, code: ErrorCode): void {
    try {
      call.sessionClosed(code, 'never')
    } catch (error) {
      this.#options.fault(error)
    }
  }
}
