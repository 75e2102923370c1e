// The workload's end of a tunnel: here a connection of its own, in h2c/ a stream of one.
import { waitingBytesOf } from './small-pieces.ts'
import type { Turn } from './turn.ts'
import type { UpstreamConnection, UpstreamUser } from './upstream.ts'

/** What a tunnel hears of it; nothing after `upstreamFailed` or `upstreamFault`. */
export interface WorkloadEndUser {
  /** Bytes `start..end` of `buffer`, which is reused right after: copy what is kept. */
  upstreamData(buffer: Buffer, start: number, end: number): void
  upstreamDrain(): void
  /** The workload will send no more. */
  upstreamEnd(): void
  /** It is gone: as it should, where both sides had ended. */
  upstreamFailed(): void
  /** What the tunnel did with it threw; it is gone. */
  upstreamFault(): void
}

export interface WorkloadEnd {
  /** From now on `user` hears of it. Called once. */
  begin(user: WorkloadEndUser): void
  /** @param bytes are lent. @returns false when enough waits to be sent; `upstreamDrain` follows */
  write(bytes: Buffer): boolean
  /** Of what was written, and has not left. */
  readonly waitingBytes: number
  /** The client will send no more. */
  end(): void
  pause(): void
  resume(): void
  /** Both sides have ended and the client is gone: reset it when it has taken nothing for so long. */
  expire(afterMs: number): void
  /** The workload sees that the bytes it got are not all. */
  reset(): void
  destroy(): void
}

/** A connection that nothing else is sent on any more. */
export class ConnectionEnd implements WorkloadEnd, UpstreamUser {
  readonly #connection: UpstreamConnection
  readonly #turn: Turn
  readonly #early: Buffer | undefined
  #user: WorkloadEndUser | undefined

  /** @param early what the workload has sent already */
  constructor(connection: UpstreamConnection, turn: Turn, early?: Buffer) {
    this.#connection = connection
    this.#turn = turn
    this.#early = early
  }

  begin(user: WorkloadEndUser): void {
    this.#user = user
    this.#connection.user = this
    this.#connection.socket.resume()
    const early = this.#early
    if (early !== undefined && early.length > 0) user.upstreamData(early, 0, early.length)
  }

  write(bytes: Buffer): boolean {
    const { socket, copies } = this.#connection
    this.#turn.hold(socket)
    return copies.write(socket, '', bytes, 0, bytes.length, '') || this.#turn.relieve(socket)
  }

  get waitingBytes(): number {
    return waitingBytesOf(this.#connection.socket)
  }

  end(): void {
    this.#connection.socket.end()
  }

  pause(): void {
    this.#connection.socket.pause()
  }

  resume(): void {
    this.#connection.socket.resume()
  }

  expire(afterMs: number): void {
    const { socket } = this.#connection
    this.#turn.release(socket)
    socket.setTimeout(afterMs, () => this.#connection.reset())
  }

  reset(): void {
    this.#turn.release(this.#connection.socket)
    this.#connection.reset()
  }

  destroy(): void {
    this.#connection.destroy()
  }

  // What the connection says.

  upstreamData(buffer: Buffer, start: number, end: number): void {
    this.#user?.upstreamData(buffer, start, end)
  }

  upstreamDrain(): void {
    this.#user?.upstreamDrain()
  }

  upstreamEnd(): void {
    this.#user?.upstreamEnd()
  }

  upstreamFailed(): void {
    this.#user?.upstreamFailed()
  }

  upstreamFault(): void {
    this.#user?.upstreamFault()
  }

  upstreamReady(): void {}
  upstreamConnectTimeout(): void {}
  upstreamBusy(): void {}
}
