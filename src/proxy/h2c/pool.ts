// The HTTP/2 connections to the workload: as few as carry the calls, one more when all of them have
// as many streams as the workload allows, and none for longer than it is of use. Calls for which there
// is no stream wait, clients in turn.
import type { ErrorCode } from '../../errors.ts'
import type { Call, CallRequest, UpgradeUser } from '../call.ts'
import { Copies } from '../copies.ts'
import type { Line } from '../fair-line.ts'
import { UpstreamShares } from '../upstream-shares.ts'
import { type CallOwner, H2cCall } from './call.ts'
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

export class H2cPool implements CallOwner {
  readonly #options: H2cPoolOptions
  readonly #sessions = new Set<H2cSession>()
  readonly #shares = new UpstreamShares<H2cCall>()
  /** Those that wait are served before whoever comes now. */
  #nextIsDue = false
  /** What the workload allowed last holds for the next connection until it says something else. */
  #maxStreams = ASSUMED_STREAMS
  readonly #readMemory = {
    buffer: Buffer.allocUnsafeSlow(READ_BUFFER_BYTES),
    kept: new Copies(),
  }

  constructor(options: H2cPoolOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#sessions.size
  }

  /** Those that wait for a stream. */
  get queue(): Line {
    return this.#shares.line
  }

  /** @param client whom the stream counts for, where there are not enough for everybody */
  call(user: UpgradeUser, request: CallRequest, client = ''): Call {
    return new H2cCall(user, request, client, this)
  }

  tick(): void {
    const nowMs = this.#options.nowMs()
    const { connectTimeoutMs } = this.#options
    for (const session of this.#sessions) {
      if (session.connecting && nowMs - session.openedMs >= connectTimeoutMs) {
        session.close('upstream_connect_timeout')
      } else if (session.calls === 0) {
        const idleMs = session.silent ? connectTimeoutMs : IDLE_MS
        if (nowMs - session.idleSinceMs >= idleMs) session.close()
      }
    }
    this.#shares.expire(nowMs - connectTimeoutMs, (call) => this.#tell(call, 'upstream_busy'))
  }

  close(): void {
    for (const session of this.#sessions) session.close()
  }

  /** Starts the call now, or as soon as a stream comes free. */
  begin(call: H2cCall): void {
    const { client } = call
    const { free, all, vacant } = this.#streams()
    const may = !this.#nextIsDue && this.#shares.mayTake(client, free, all)
    if (may) this.#start(call, vacant ?? this.#open())
    else this.#shares.wait({ user: call, client, sinceMs: this.#options.nowMs() })
  }

  forget(call: H2cCall): void {
    this.#shares.forget(call)
  }

  #start(call: H2cCall, session: H2cSession): void {
    this.#shares.took(call.client)
    call.start(session)
  }

  #open(): H2cSession {
    const session = new H2cSession(this.#options, this.#readMemory, this.#maxStreams, {
      vacancy: (one) => {
        this.#maxStreams = one.maxStreams
        this.#nextSoon()
      },
      left: ({ client }) => this.#shares.gaveBack(client),
      closed: (one) => {
        this.#sessions.delete(one)
        this.#options.opened(-1)
        this.#nextSoon()
      },
    })
    this.#sessions.add(session)
    this.#options.opened(1)
    return session
  }

  /**
   * Not within the event that has made room: a client that goes, or is cut, takes back one after the
   * other what it has asked for, and the last of that is not to be sent in place of the first.
   */
  #nextSoon(): void {
    if (this.#nextIsDue || this.#shares.line.waiting === 0) return
    this.#nextIsDue = true
    queueMicrotask(() => {
      this.#nextIsDue = false
      try {
        this.#next()
      } catch (error) {
        this.#options.fault(error)
      }
    })
  }

  #next(): void {
    while (this.#shares.line.waiting > 0) {
      const { free, all, vacant } = this.#streams()
      const next = this.#shares.next(free, all)
      if (next === undefined) return
      this.#start(next.user, vacant ?? this.#open())
    }
  }

  /**
   * `free` out of `all` that there may be, those of connections that are still to be opened among
   * them; where no connection has a vacant one, one may be opened unless none is free. Worn ones are
   * better than none: who wears them all out would keep the workload from everybody.
   */
  #streams(): { readonly free: number; readonly all: number; readonly vacant?: H2cSession } {
    let vacant: H2cSession | undefined
    let worn: H2cSession | undefined
    let used = 0
    let freeOfWorn = 0
    // A workload that allows none may allow the next connection some: only that tells.
    const unopened = Math.max(0, this.#options.maxConnections - this.#sessions.size)
    let free = unopened * Math.max(1, this.#maxStreams)
    for (const session of this.#sessions) {
      used += session.calls
      if (!session.vacant) continue
      const more = session.maxStreams - session.calls
      if (session.worn) {
        worn ??= session
        freeOfWorn += more
      } else {
        vacant ??= session
        free += more
      }
    }
    if (free === 0 && worn !== undefined) {
      return { free: freeOfWorn, all: freeOfWorn + used, vacant: worn }
    }
    return { free, all: free + used, ...(vacant && { vacant }) }
  }

  #tell(call: H2cCall, code: ErrorCode): void {
    try {
      call.sessionClosed(code, 'never')
    } catch (error) {
      this.#options.fault(error)
    }
  }
}
