// One stream of an HTTP/2 client: the request's bytes at the pace of whoever takes them, and the
// answer's within the client's windows (RFC 9113 sections 5.1, 5.2, 8.1).
import type { Fields } from '../../http/fields.ts'
import { ReceiveWindow } from '../h2/receive-window.ts'
import { Flow, type FlowUser, type Growing, type Sending } from '../h2/sending.ts'

/** Who the stream is for at the moment. Nothing is told after `streamClosed`. */
export interface StreamUser {
  /** More of the request's body; the bytes are lent. */
  streamData(bytes: Buffer): void
  /** The request is complete. */
  streamEnd(trailers: Fields): void
  /** After a `write` that returned false: there is room again. */
  streamDrain(): void
  /** It has ended on both sides, or was reset, or its connection is gone. */
  streamClosed(): void
}

/** What a stream asks of its connection. */
export interface StreamOwner {
  readonly sending: Sending
  /** Counts what was read from the socket. */
  readonly reads: number
  /** Calls `handOver` when all that was read has been looked at. */
  later(stream: Http2Stream): void
  /** Gives the client so much of the stream's window again. */
  credit(stream: Http2Stream, bytes: number): void
  /** Sends RST_STREAM and forgets the stream. */
  reset(stream: Http2Stream, code: number): void
  /** The answer is complete. */
  answered(stream: Http2Stream): void
  /** The body is not as long as the head says (section 8.1.1). */
  broken(stream: Http2Stream): void
  /** Its user threw. */
  faulted(stream: Http2Stream, error: unknown): void
}

/** What the client may send of one stream before the workload has taken it. */
export const STREAM_WINDOW = 256 * 1024
const FIRST_HELD_BYTES = 1024
const SMALL_BYTES = 1024
/** Of memory, what is there of a request until it is over, beside its head (measured 2026-11). */
const REQUEST_BYTES = 4 * 1024

export class Http2Stream implements FlowUser, Growing {
  readonly id: number
  /** The head is all of the request: no end of it is told. */
  readonly headOnly: boolean
  readonly begunMs: number
  readonly #owner: StreamOwner
  readonly #headBytes: number
  readonly #flow: Flow
  #user: StreamUser | undefined
  #headersSent = false
  /** No more frames of it in either direction. */
  #closed = false
  #paused = false
  #requestEnded: boolean
  #endTold: boolean
  #answerEnded = false
  /** The client may go on when the answer has ended: a tunnel. */
  allowHalfOpen = false
  #trailers: Fields = []
  #isMalformed = false
  #discarding = false
  /** What Content-Length says is still to come. */
  #lengthLeft: number | undefined
  readonly #window = new ReceiveWindow(STREAM_WINDOW)
  /** What came while nobody took it; merged, so that small pieces cost no more than their bytes. */
  #held: Buffer | undefined
  #heldBytes = 0
  #lastRead = -1

  /** @param headBytes of the request's field list (section 6.5.2), which is kept to its end */
  constructor(
    id: number,
    owner: StreamOwner,
    headOnly: boolean,
    headBytes: number,
    begunMs: number,
  ) {
    this.id = id
    this.begunMs = begunMs
    this.#headBytes = headBytes
    this.headOnly = headOnly
    this.#owner = owner
    this.#flow = new Flow(id, owner.sending, this)
    this.#requestEnded = headOnly
    this.#endTold = headOnly
  }

  get headersSent(): boolean {
    return this.#headersSent
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Its body was not as long as its head says. */
  get isMalformed(): boolean {
    return this.#isMalformed
  }

  /** The client does not take what there is of the answer. */
  get isUnread(): boolean {
    return this.#flow.waitingBytes > 0 || this.#owner.sending.outbox.full
  }

  /** The client has sent END_STREAM. */
  get requestEnded(): boolean {
    return this.#requestEnded
  }

  /** What it keeps of memory: the request, and what a side does not take. */
  get heldBytes(): number {
    const request = this.#discarding ? 0 : REQUEST_BYTES + this.#headBytes
    return request + (this.#held?.length ?? 0) + this.#flow.waitingBytes
  }

  // The answer.

  inform(fields: Fields): void {
    if (!this.#closed && !this.#headersSent) this.#sendHeaders(fields)
  }

  respond(fields: Fields): void {
    if (this.#closed || this.#headersSent) return
    this.#headersSent = true
    this.#sendHeaders(fields)
  }

  /** @param bytes are lent. @returns false when enough waits; `streamDrain` follows */
  write(bytes: Buffer, start = 0, end = bytes.length): boolean {
    return this.#closed || this.#flow.write(bytes, start, end)
  }

  end(trailers: Fields = []): void {
    if (!this.#closed) this.#flow.end(trailers)
  }

  /** Ends it at once, whatever is still to be sent. */
  reset(code: number): void {
    if (!this.#closed) this.#owner.reset(this, code)
  }

  get writable(): boolean {
    return !this.#closed && !this.#flow.ending
  }

  get writableNeedDrain(): boolean {
    return this.#flow.full
  }

  // The request.

  /** Hands over what came meanwhile. Undefined: nobody takes it, and the client has to wait. */
  set user(user: StreamUser | undefined) {
    this.#user = user
    if (user !== undefined) this.handOver()
  }

  get user(): StreamUser | undefined {
    return this.#user
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.handOver()
  }

  /** Nobody will ask for the request or what comes of it: it takes no memory, and the client its window only. */
  discard(): void {
    this.#discarding = true
  }

  /** @param length of the body, where the head says one */
  expect(length: number | undefined): void {
    this.#lengthLeft = length
  }

  // What the connection says.

  /**
   * A frame begins; its padding counts against the window, too (section 6.9).
   * @returns false where it is more than the window allows
   */
  accepts(length: number): boolean {
    return this.#window.take(length)
  }

  data(bytes: Buffer, start: number, end: number): void {
    if (this.#lengthLeft !== undefined) {
      this.#lengthLeft -= end - start
      if (this.#lengthLeft < 0) return this.#broken()
    }
    if (this.#discarding) return
    // An answer of ours is under way, and nobody will ever ask for these.
    if (this.#user === undefined && this.#flow.ending) return
    if (this.#user === undefined || this.#paused) return this.#hold(bytes, start, end)
    // Many small frames that come at once are one piece: each piece costs us more than its bytes.
    const again = this.#lastRead === this.#owner.reads
    this.#lastRead = this.#owner.reads
    if (this.#held !== undefined || (again && end - start < SMALL_BYTES)) {
      this.#owner.later(this)
      return this.#hold(bytes, start, end)
    }
    this.#tell(this.#user, bytes.subarray(start, end))
  }

  ended(trailers: Fields): void {
    if ((this.#lengthLeft ?? 0) !== 0) return this.#broken()
    this.#requestEnded = true
    this.#trailers = trailers
    this.handOver()
  }

  /** Gives what came meanwhile to whoever takes it now, and the end behind it. */
  handOver(): void {
    if (this.#paused) return
    const held = this.#held
    if (held !== undefined && this.#user !== undefined) {
      const bytes = held.subarray(0, this.#heldBytes)
      this.#held = undefined
      this.#heldBytes = 0
      this.#tell(this.#user, bytes)
    } else this.#credit()
    // Whoever took that may have paused, or left it to somebody else.
    const user = this.#user
    if (user === undefined || this.#paused || this.#closed) return
    if (!this.#requestEnded || this.#endTold || this.#held !== undefined) return
    this.#endTold = true
    try {
      user.streamEnd(this.#trailers)
    } catch (error) {
      this.#owner.faulted(this, error)
    }
    if (this.#answerEnded && !this.#closed) this.#owner.answered(this)
  }

  grow(change: number): boolean {
    return this.#flow.grow(change)
  }

  /** Called once, by the connection, after it has forgotten the stream. */
  close(): void {
    this.#closed = true
    this.#flow.stop()
    this.#held = undefined
    this.#heldBytes = 0
    const user = this.#user
    this.#user = undefined
    user?.streamClosed()
  }

  flowDrained(): void {
    try {
      this.#user?.streamDrain()
    } catch (error) {
      this.#owner.faulted(this, error)
    }
  }

  flowEnded(): void {
    this.#answerEnded = true
    // Half open, it ends when the client's end was told.
    if (this.#endTold || !this.allowHalfOpen) this.#owner.answered(this)
  }

  #broken(): void {
    this.#isMalformed = true
    this.#owner.broken(this)
  }

  #sendHeaders(fields: Fields): void {
    const { outbox, maxFrameBytes } = this.#owner.sending
    outbox.headers(this.id, fields, false, maxFrameBytes)
  }

  #tell(user: StreamUser, bytes: Buffer): void {
    try {
      user.streamData(bytes)
    } catch (error) {
      return this.#owner.faulted(this, error)
    }
    this.#credit()
  }

  #hold(bytes: Buffer, start: number, end: number): void {
    const length = this.#heldBytes + end - start
    const held = this.#held
    if (held === undefined || held.length < length) {
      // More than a window where it was given back for a frame of which not all had come.
      const room = Math.min(STREAM_WINDOW, Math.max(2 * this.#heldBytes, FIRST_HELD_BYTES))
      this.#held = Buffer.allocUnsafeSlow(Math.max(room, length))
      held?.copy(this.#held, 0, 0, this.#heldBytes)
    }
    bytes.copy(this.#held!, this.#heldBytes, start, end)
    this.#heldBytes = length
  }

  /** Gives the client its window back once half of it is used, unless nobody takes what comes. */
  #credit(): void {
    if (this.#paused || this.#held !== undefined || this.#user === undefined) return
    if (this.#closed || this.#requestEnded) return
    const due = this.#window.due()
    if (due > 0) this.#owner.credit(this, due)
  }
}
