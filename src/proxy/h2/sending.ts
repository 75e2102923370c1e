// What one HTTP/2 connection may send (RFC 9113 section 5.2): the windows of the connection and of its
// streams, and whose turn it is. A stream that is behind waits; it never keeps another from its turn.
import type { Fields } from '../../http/fields.ts'
import {
  DEFAULT_WINDOW,
  H2_ERROR,
  MAX_FRAME_BYTES,
  MAX_WINDOW,
  SETTING,
} from '../../http/h2/frames.ts'
import { ownCopy } from '../../http/kept-bytes.ts'
import type { Outbox } from './outbox.ts'

/** What waits for the peer's window before the writer is asked to stop. */
const HIGH_WATER_BYTES = 64 * 1024
/** From here on there is room again. */
const LOW_WATER_BYTES = 16 * 1024
const SMALL_BYTES = 1024
const TAIL_BYTES = 4096

/** What a flow tells the stream that it is of. */
export interface FlowUser {
  /** There is room again. */
  flowDrained(): void
  /** END_STREAM has been written. */
  flowEnded(): void
}

export interface Growing {
  /** @returns false where its window is above what the peer may give (section 6.9.1) */
  grow(change: number): boolean
}

export class Sending {
  readonly outbox: Outbox
  /** The peer's settings. */
  maxFrameBytes = MAX_FRAME_BYTES
  initialWindow = DEFAULT_WINDOW
  window = DEFAULT_WINDOW
  /** Flows that have something to send and, of their own, a window for it; in turn. */
  readonly #waiting = new Set<Flow>()

  constructor(outbox: Outbox) {
    this.outbox = outbox
  }

  /** A setting of the peer, as it concerns what it is sent. @returns an error code, or none */
  setting(name: number, value: number, streams: Iterable<Growing>): number {
    switch (name) {
      case SETTING.headerTableSize:
        this.outbox.tableChanged = true
        break
      case SETTING.initialWindowSize: {
        if (value > MAX_WINDOW) return H2_ERROR.flowControl
        const change = value - this.initialWindow
        this.initialWindow = value
        if (change === 0) break
        for (const stream of streams) if (!stream.grow(change)) return H2_ERROR.flowControl
        break
      }
      case SETTING.maxFrameSize:
        if (value < MAX_FRAME_BYTES || value > 0xffffff) return H2_ERROR.protocol
        this.maxFrameBytes = value
    }
    return H2_ERROR.none
  }

  /** @returns false where the window is above what the peer may give */
  grow(change: number): boolean {
    this.window += change
    return this.window <= MAX_WINDOW
  }

  wait(flow: Flow): void {
    this.#waiting.add(flow)
  }

  forget(flow: Flow): void {
    this.#waiting.delete(flow)
  }

  /** Sends a frame of each flow in turn, until there is no room or nothing to send. */
  pump(): void {
    // A set goes on to what is added behind.
    for (const flow of this.#waiting) {
      if (this.window <= 0 || this.outbox.full) return
      this.#waiting.delete(flow)
      flow.sendFrame()
    }
  }
}

/** The bytes of one stream on their way to the peer. */
export class Flow implements Growing {
  readonly #id: number
  readonly #sending: Sending
  /** Who hears of it. */
  user: FlowUser
  #window: number
  #waiting: Buffer[] = []
  waitingBytes = 0
  /** Where small pieces are gathered, the last of those that wait, and how much of it is used. */
  #tail: Buffer | undefined
  #tailBytes = 0
  #trailers: Fields | undefined
  #ending = false
  #full = false
  #over = false

  constructor(id: number, sending: Sending, user: FlowUser) {
    this.#id = id
    this.#sending = sending
    this.user = user
    this.#window = sending.initialWindow
  }

  /** Whoever writes has written all. */
  get ending(): boolean {
    return this.#ending
  }

  get full(): boolean {
    return this.#full
  }

  /**
   * Sends the bytes, which are lent, or keeps a copy of what cannot be sent now.
   * @returns false when enough waits; `flowDrained` follows
   */
  write(bytes: Buffer, start: number, end: number): boolean {
    if (this.#over || this.#ending || start === end) return !this.#full
    let from = start
    if (this.waitingBytes === 0) {
      while (from < end) {
        const room = this.#room()
        if (room <= 0) break
        const to = Math.min(end, from + room)
        this.#sent(to - from)
        this.#sending.outbox.data(this.#id, bytes, from, to, false)
        from = to
      }
      if (from === end) return true
    }
    this.#keep(bytes.subarray(from, end))
    this.waitingBytes += end - from
    if (this.#window > 0) this.#sending.wait(this)
    // Whoever was asked to stop is told when to go on, whatever is written meanwhile.
    if (this.waitingBytes >= HIGH_WATER_BYTES) this.#full = true
    return !this.#full
  }

  /** No more follows, but these trailers. */
  end(trailers: Fields): void {
    if (this.#over || this.#ending) return
    this.#ending = true
    if (trailers.length > 0) this.#trailers = trailers
    if (this.waitingBytes === 0) this.#finish()
  }

  grow(change: number): boolean {
    this.#window += change
    if (this.#window > 0 && this.waitingBytes > 0) this.#sending.wait(this)
    return this.#window <= MAX_WINDOW
  }

  /** Nothing is sent any more. */
  stop(): void {
    this.#over = true
    this.#waiting = []
    this.#tail = undefined
    this.waitingBytes = 0
    this.#sending.forget(this)
  }

  /** At most one frame of what waits, where the windows allow it. */
  sendFrame(): void {
    if (this.#over) return
    const first = this.#waiting[0]
    const room = this.#room()
    if (first === undefined || room <= 0) {
      if (first !== undefined && this.#window > 0) this.#sending.wait(this)
      return
    }
    const length = Math.min(first.length, room)
    const last = this.#ending && length === this.waitingBytes && this.#trailers === undefined
    if (length === first.length) this.#waiting.shift()
    else this.#waiting[0] = first.subarray(length)
    this.waitingBytes -= length
    this.#sent(length)
    this.#sending.outbox.data(this.#id, first, 0, length, last)
    if (last) return this.#ended()
    if (this.waitingBytes > 0) {
      if (this.#window > 0) this.#sending.wait(this)
    } else if (this.#ending) return this.#finish()
    if (!this.#full || this.waitingBytes > LOW_WATER_BYTES) return
    this.#full = false
    this.user.flowDrained()
  }

  /** Small pieces are put together: each would cost more than its bytes. */
  #keep(bytes: Buffer): void {
    const { length } = bytes
    if (length >= SMALL_BYTES) {
      this.#tail = undefined
      this.#waiting.push(ownCopy(bytes))
      return
    }
    const last = this.#waiting.length - 1
    const fits = last >= 0 && this.#tail !== undefined && this.#tailBytes + length <= TAIL_BYTES
    if (!fits || this.#tail === undefined) {
      this.#tail = Buffer.allocUnsafeSlow(TAIL_BYTES)
      bytes.copy(this.#tail, 0)
      this.#tailBytes = length
      this.#waiting.push(this.#tail.subarray(0, length))
      return
    }
    const start = this.#tailBytes - this.#waiting[last]!.length
    bytes.copy(this.#tail, this.#tailBytes)
    this.#tailBytes += length
    this.#waiting[last] = this.#tail.subarray(start, this.#tailBytes)
  }

  #room(): number {
    const { outbox, window, maxFrameBytes } = this.#sending
    return outbox.full ? 0 : Math.min(this.#window, window, maxFrameBytes, MAX_FRAME_BYTES)
  }

  #sent(bytes: number): void {
    this.#window -= bytes
    this.#sending.window -= bytes
  }

  #finish(): void {
    const { outbox, maxFrameBytes } = this.#sending
    if (this.#trailers !== undefined) outbox.headers(this.#id, this.#trailers, true, maxFrameBytes)
    else if (!outbox.endLast(this.#id)) outbox.data(this.#id, NOTHING, 0, 0, true)
    this.#ended()
  }

  #ended(): void {
    this.#over = true
    this.#sending.forget(this)
    this.user.flowEnded()
  }
}

const NOTHING = Buffer.alloc(0)
