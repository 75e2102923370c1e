// The server's side of one HTTP/2 connection (RFC 9113): settings, streams and their states, both
// sides' windows. What a request is, and whether it goes anywhere, is not decided here. Whatever the
// client does wrong ends a stream or this connection; whatever brings nothing is counted.
import type { Duplex } from 'node:stream'
import type { Fields } from '../../http/fields.ts'
import { areRequestTrailers } from '../../http/h2/fields.ts'
import {
  DEFAULT_WINDOW,
  FLAG,
  FRAME,
  goAwayFrame,
  H2_ERROR,
  MAX_WINDOW,
  nameOfError,
  PREFACE,
  pingAckFrame,
  pingFrame,
  readUint31,
  resetStreamFrame,
  SETTING,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../http/h2/frames.ts'
import { type DecodeLimits, HpackDecoder } from '../../http/h2/hpack.ts'
import { FrameReader, type FrameUser } from '../../http/h2/reader.ts'
import { type Memory, UNSHARED } from '../../http/kept-bytes.ts'
import { Budget } from '../budget.ts'
import { Outbox } from '../h2/outbox.ts'
import { ReceiveWindow } from '../h2/receive-window.ts'
import { Sending } from '../h2/sending.ts'
import type { Turn } from '../turn.ts'
import { Http2Stream, STREAM_WINDOW, type StreamOwner } from './stream.ts'

export interface SessionOptions {
  readonly maxStreams: number
  readonly tolerance?: Tolerance
  /** What the client is told of a header list, and trailers are held to. */
  readonly maxListBytes: number
  /** Of a head that is read at all; more is a reset. */
  readonly listLimits: DecodeLimits
  /** For frames that have come in part. */
  readonly memory?: Memory
  readonly turn: Turn
  /** Runs `goOn` when others have had their turn. */
  readonly later: (goOn: () => void) => void
  readonly nowMs: () => number
  /** Something threw that is ours; the stream it happened on is reset. */
  readonly fault: (error: unknown) => void
}

/** How often a client may do what ends only a stream. */
export interface Tolerance {
  /**
   * Resets by the client of requests that have just begun (CVE-2023-44487), and those for what it did
   * (CVE-2025-8671). Each request that was answered is good for one.
   */
  readonly resetBurst: number
  readonly resetsPerSecond: number
  /**
   * Heads that cannot be taken, in the life of a connection. Streams that a client opens before it
   * knows how many it may have are among them.
   */
  readonly invalid: number
}

/** So many of clients whose calls are cancelled, or have short deadlines; Envoy takes 500, too. */
const TOLERANCE: Tolerance = { resetBurst: 500, resetsPerSecond: 50, invalid: 1_000 }
/** A request that is older when its client gives it up has cost what any other does. */
const JUST_BEGUN_MS = 1_000

/** `h2_flood`: nothing was wrong but the number. */
export type SessionFailure = 'h2_flood' | 'h2_protocol_error'

export interface SessionEvents {
  /** @param fields the header list as received, pseudo-header fields among them */
  sessionRequest(stream: Http2Stream, fields: Fields, endStream: boolean): void
  /** A header list that is larger than any that is read; its stream is reset. */
  sessionTooLarge(): void
  /** @param detail what it was, for the log */
  sessionFailed(code: SessionFailure, detail: string): void
  /** It has said its last. */
  sessionOver(): void
}

const MAX_STREAM_ID = 2 ** 31 - 1
/** Its answer comes behind all that the client had sent when it heard that we leave. */
const LEAVE_PING = Buffer.from('leaving.', 'latin1')
const UNENDING_HEAD = 'a header block that does not end, or is too large'
/** Given back as bytes come: it bounds what is on its way, the streams' windows what is held. */
const CONNECTION_WINDOW = 1024 * 1024
/** Frames that bring nothing; each that brings something, in either direction, is good for some. */
const IDLE_BURST = 1_000
const IDLE_PER_SECOND = 20
const IDLE_PER_FRAME = 10
const BLOCK_EXTRA_BYTES = 64 * 1024
const MOST_BLOCK_FRAMES = 64
/**
 * Streams that we ended first: their client may not have known when it sent more of them. So many, and
 * as many as it may have open: all of those may be answered before their bodies have come.
 */
const LEAST_REMEMBERED = 256
/** Then others have their turn: frames that bring nothing, of which a request takes as long as eight. */
const FRAMES_PER_TURN = 128
const FRAMES_PER_REQUEST = 8
/** Of what the client has not read: then nothing more is read of it. */
const MOST_WAITING_BYTES = 256 * 1024

export class Http2Session implements FrameUser, StreamOwner {
  readonly sending: Sending
  readonly #socket: Duplex
  readonly #options: SessionOptions
  readonly #events: SessionEvents
  readonly #reader: FrameReader
  readonly #decoder = new HpackDecoder()
  readonly #streams = new Map<number, Http2Stream>()
  readonly #endedByUs = new Set<number>()
  readonly #tolerance: Tolerance
  readonly #resets: Budget
  readonly #idle: Budget
  #invalid = 0
  #lastStream = 0
  /** We have said that no more streams are wanted. */
  #announced = false
  /** The last stream that we said we take. */
  #leaving: number | undefined
  #clientLeaves = false
  #over = false
  readonly #window = new ReceiveWindow(CONNECTION_WINDOW)
  reads = 0
  readonly #later = new Set<Http2Stream>()
  #framesThisTurn = 0
  /** For its turn to go on. */
  #waits = false
  /** What there was too much of. */
  #flood: string | undefined

  constructor(socket: Duplex, options: SessionOptions, events: SessionEvents) {
    this.#socket = socket
    this.#options = options
    this.#events = events
    this.sending = new Sending(new Outbox(socket, options.turn))
    const nowMs = options.nowMs()
    this.#tolerance = options.tolerance ?? TOLERANCE
    const { resetBurst, resetsPerSecond } = this.#tolerance
    this.#resets = new Budget(resetBurst, resetsPerSecond, nowMs)
    this.#idle = new Budget(IDLE_BURST, IDLE_PER_SECOND, nowMs)
    const { maxListBytes } = options
    const blocks = { blockBytes: BLOCK_EXTRA_BYTES + maxListBytes, blockFrames: MOST_BLOCK_FRAMES }
    const preface = Buffer.from(PREFACE, 'latin1')
    this.#reader = new FrameReader(this, () => blocks, preface, options.memory ?? UNSHARED)
    const { outbox } = this.sending
    outbox.push(
      settingsFrame([
        [SETTING.maxConcurrentStreams, options.maxStreams],
        [SETTING.initialWindowSize, STREAM_WINDOW],
        [SETTING.maxHeaderListSize, maxListBytes],
        [SETTING.enableConnectProtocol, 1],
      ]),
    )
    outbox.push(windowUpdateFrame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
  }

  get over(): boolean {
    return this.#over
  }

  get streams(): number {
    return this.#streams.size
  }

  /** What it keeps of memory: requests, what there is of the next, and what a side does not take. */
  get heldBytes(): number {
    let bytes = this.sending.outbox.waitingBytes + this.#reader.heldBytes
    for (const stream of this.#streams.values()) bytes += stream.heldBytes
    return bytes
  }

  /** As `FrameReader.unfinished`. */
  get unfinished(): number | undefined {
    return this.#reader.unfinished
  }

  // The socket.

  read(chunk: Buffer): void {
    if (this.#over) return
    this.reads++
    this.#after(this.#reader.read(chunk))
  }

  writable(): void {
    this.sending.pump()
    if (this.#reader.held && !this.#over) this.#goOn()
  }

  /** The socket is gone. */
  closed(): void {
    this.#over = true
    this.#reader.stop()
    this.#closeStreams()
  }

  // Ending.

  /**
   * No more streams are wanted; those that are on their way are taken, until the client has heard of it, and
   * `leave` follows (section 6.8).
   */
  announceLeave(): void {
    if (this.#over || this.#announced || this.#leaving !== undefined) return
    this.#announced = true
    this.sending.outbox.push(goAwayFrame(MAX_STREAM_ID, H2_ERROR.none))
    this.sending.outbox.push(pingFrame(LEAVE_PING))
  }

  /** No more streams are taken; those that are open go on to their end. */
  leave(): void {
    if (this.#over || this.#leaving !== undefined) return
    this.#leaving = this.#lastStream
    this.sending.outbox.push(goAwayFrame(this.#leaving, H2_ERROR.none))
    this.#endIfDone()
  }

  /** Ends it now, with its streams. */
  end(code: number): void {
    if (this.#over) return
    this.#over = true
    this.#reader.stop()
    this.sending.outbox.push(goAwayFrame(this.#leaving ?? this.#lastStream, code))
    this.sending.outbox.end()
    this.#closeStreams()
    this.#events.sessionOver()
  }

  /** Sends now what was to leave at the end of the turn. */
  flush(): void {
    this.sending.outbox.flush()
  }

  // What streams ask for.

  later(stream: Http2Stream): void {
    this.#later.add(stream)
  }

  credit(stream: Http2Stream, bytes: number): void {
    this.sending.outbox.push(windowUpdateFrame(stream.id, bytes))
  }

  reset(stream: Http2Stream, code: number): void {
    if (!this.#streams.has(stream.id)) return
    this.sending.outbox.push(resetStreamFrame(stream.id, code))
    if (!stream.requestEnded) this.#remember(stream.id)
    this.#forget(stream)
  }

  answered(stream: Http2Stream): void {
    this.#idle.give(IDLE_PER_FRAME)
    this.#resets.give(1)
    // The rest of the request is of no use (section 8.1), and the stream must not stay open for it.
    if (!stream.requestEnded) return this.reset(stream, H2_ERROR.none)
    this.#forget(stream)
  }

  faulted(stream: Http2Stream, error: unknown): void {
    this.#options.fault(error)
    this.reset(stream, H2_ERROR.internal)
  }

  /** What the client sent of its body is not what its head says. */
  broken(stream: Http2Stream): void {
    this.reset(stream, H2_ERROR.protocol)
    this.#countReset()
  }

  /** The head is malformed; nothing has begun. */
  malformed(stream: Http2Stream): void {
    this.reset(stream, H2_ERROR.protocol)
    this.#countInvalid()
  }

  // Frames.

  dataBegins(id: number, length: number, padding: number, endStream: boolean): number {
    if (!this.#window.take(length)) return H2_ERROR.flowControl
    const due = this.#window.due()
    if (due > 0) this.sending.outbox.push(windowUpdateFrame(0, due))
    const stream = this.#streams.get(id)
    if (length === padding && !endStream && this.#countIdle() !== H2_ERROR.none) {
      return H2_ERROR.enhanceYourCalm
    }
    if (stream === undefined) return this.#onClosed(id, H2_ERROR.streamClosed)
    if (stream.requestEnded) return H2_ERROR.streamClosed
    if (!stream.accepts(length)) return H2_ERROR.flowControl
    if (length > padding) this.#idle.give(IDLE_PER_FRAME)
    return H2_ERROR.none
  }

  data(id: number, bytes: Buffer, start: number, end: number): void {
    const stream = this.#streams.get(id)
    if (stream === undefined) return
    stream.data(bytes, start, end)
  }

  dataEnds(id: number): void {
    this.#streams.get(id)?.ended([])
  }

  headers(id: number, bytes: Buffer, start: number, end: number, endStream: boolean): number {
    const { listLimits, maxListBytes, maxStreams } = this.#options
    // Also of a stream that nobody looks at: the table has to stay right.
    const block = this.#decoder.decode(bytes, listLimits, start, end)
    if (block.kind === 'bad_block') return H2_ERROR.compression
    const open = this.#streams.get(id)
    if (open !== undefined) {
      if (open.requestEnded) return H2_ERROR.streamClosed
      const tooLarge = block.tooLarge || block.listBytes > maxListBytes
      this.#takeTrailers(open, block.fields, tooLarge, endStream)
      return this.#verdict()
    }
    if (id % 2 === 0) return H2_ERROR.protocol
    if (id <= this.#lastStream) return this.#onClosed(id, H2_ERROR.streamClosed)
    this.#lastStream = id
    // Section 6.8: it knows that these are lost.
    if (this.#leaving !== undefined) {
      return this.#countIdle()
    }
    if (this.#streams.size >= maxStreams) return this.#refuse(id, H2_ERROR.refusedStream)
    if (block.tooLarge) {
      this.#events.sessionTooLarge()
      return this.#refuse(id, H2_ERROR.enhanceYourCalm)
    }
    this.#idle.give(IDLE_PER_FRAME)
    const stream = new Http2Stream(id, this, endStream, block.listBytes, this.#options.nowMs())
    this.#streams.set(id, stream)
    this.#took(FRAMES_PER_REQUEST)
    try {
      this.#events.sessionRequest(stream, block.fields, endStream)
    } catch (error) {
      this.faulted(stream, error)
    }
    return this.#verdict()
  }

  control(
    type: number,
    flags: number,
    id: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): number {
    const length = end - start
    switch (type) {
      case FRAME.resetStream:
        if (length !== 4) return H2_ERROR.frameSize
        return this.#wasReset(id)
      case FRAME.settings:
        return this.#settings(bytes, start, end, flags, id)
      case FRAME.ping:
        if (length !== 8) return H2_ERROR.frameSize
        if (id !== 0) return H2_ERROR.protocol
        if ((flags & FLAG.ack) === 0) {
          this.sending.outbox.push(pingAckFrame(bytes.subarray(start, end)))
        } else if (this.#announced && LEAVE_PING.equals(bytes.subarray(start, end))) this.leave()
        return this.#countIdle()
      case FRAME.goAway:
        if (length < 8) return H2_ERROR.frameSize
        if (id !== 0) return H2_ERROR.protocol
        this.#clientLeaves = true
        this.#endIfDone()
        return this.#countIdle()
      case FRAME.windowUpdate:
        if (length !== 4) return H2_ERROR.frameSize
        return this.#windowUpdate(id, readUint31(bytes, start))
      case FRAME.pushPromise:
        return H2_ERROR.protocol
      case FRAME.priority:
        if (id === 0) return H2_ERROR.protocol
        if (length !== 5) return H2_ERROR.frameSize
        return this.#countIdle()
      default:
        // Section 4.1: unknown types are to be ignored.
        return this.#countIdle()
    }
  }

  #after(code: number): void {
    if (code !== H2_ERROR.none) return this.#fail(code)
    if (this.#flood !== undefined) return this.#fail(H2_ERROR.enhanceYourCalm)
    if (this.#over) return
    for (const stream of this.#later) {
      this.#later.delete(stream)
      stream.handOver()
    }
    // What windows have opened meanwhile is used once, however often they did.
    this.sending.pump()
    this.#framesThisTurn = 0
    if (this.sending.outbox.waitingBytes > MOST_WAITING_BYTES) this.#reader.hold()
    if (!this.#reader.held) return
    this.#socket.pause()
    if (this.#waits) return
    this.#waits = true
    this.#options.later(() => {
      this.#waits = false
      this.#goOn()
    })
  }

  /** Others have had their turn; or the client has read something. */
  #goOn(): void {
    if (this.#over || !this.#reader.held) return
    // `writable` follows.
    if (this.sending.outbox.waitingBytes > MOST_WAITING_BYTES) return
    try {
      const code = this.#reader.release()
      if (!this.#reader.held) this.#socket.resume()
      this.#after(code)
    } catch (error) {
      this.#options.fault(error)
      this.end(H2_ERROR.internal)
    }
  }

  #takeTrailers(stream: Http2Stream, fields: Fields, tooLarge: boolean, endStream: boolean): void {
    // Section 8.1: trailers are the end.
    if (!endStream || tooLarge || !areRequestTrailers(fields)) {
      stream.reset(tooLarge ? H2_ERROR.enhanceYourCalm : H2_ERROR.protocol)
      return this.#countReset()
    }
    stream.ended(fields)
  }

  #refuse(id: number, code: number): number {
    this.sending.outbox.push(resetStreamFrame(id, code))
    this.#remember(id)
    this.#countInvalid()
    return this.#verdict()
  }

  #wasReset(id: number): number {
    const stream = this.#streams.get(id)
    if (stream === undefined) {
      if (this.#neverOpened(id)) return H2_ERROR.protocol
      return this.#countIdle()
    }
    // One that waits for its turn is kept in line, and nobody has had anything of it.
    const isWaiting = stream.user === undefined
    this.#forget(stream)
    const ageMs = this.#options.nowMs() - stream.begunMs
    if ((ageMs < JUST_BEGUN_MS || isWaiting) && !stream.headersSent) this.#countReset()
    return this.#verdict()
  }

  #settings(bytes: Buffer, start: number, end: number, flags: number, id: number): number {
    const length = end - start
    const ack = (flags & FLAG.ack) !== 0
    if (id !== 0) return H2_ERROR.protocol
    if (length % 6 !== 0 || (ack && length > 0)) return H2_ERROR.frameSize
    if (ack) return this.#countIdle()
    let window = this.sending.initialWindow
    for (let at = start; at < end; at += 6) {
      const name = (bytes[at]! << 8) | bytes[at + 1]!
      const value = bytes.readUInt32BE(at + 2)
      if (name === SETTING.initialWindowSize) window = value
      const code = this.#setting(name, value)
      if (code !== H2_ERROR.none) return code
    }
    // Once: a frame has room for thousands of them, and each concerns all streams.
    const { initialWindowSize } = SETTING
    const code = this.sending.setting(initialWindowSize, window, this.#streams.values())
    if (code !== H2_ERROR.none) return code
    this.sending.outbox.push(settingsAckFrame())
    return this.#countIdle()
  }

  #setting(name: number, value: number): number {
    const isSwitch = name === SETTING.enablePush || name === SETTING.enableConnectProtocol
    if (isSwitch && value > 1) return H2_ERROR.protocol
    if (name !== SETTING.initialWindowSize) return this.sending.setting(name, value, [])
    return value > MAX_WINDOW ? H2_ERROR.flowControl : H2_ERROR.none
  }

  #windowUpdate(id: number, increment: number): number {
    if (id === 0) {
      if (increment === 0) return H2_ERROR.protocol
      return this.sending.grow(increment) ? H2_ERROR.none : H2_ERROR.flowControl
    }
    const stream = this.#streams.get(id)
    if (stream === undefined) return this.#neverOpened(id) ? H2_ERROR.protocol : H2_ERROR.none
    if (increment > 0 && stream.grow(increment)) return H2_ERROR.none
    stream.reset(increment === 0 ? H2_ERROR.protocol : H2_ERROR.flowControl)
    this.#countReset()
    return this.#verdict()
  }

  /** Something came for a stream that is not open. */
  #onClosed(id: number, code: number): number {
    if (this.#neverOpened(id)) return H2_ERROR.protocol
    // Section 5.1: what was sent before our RST_STREAM was read.
    return this.#endedByUs.has(id) || this.#isLost(id) ? H2_ERROR.none : code
  }

  #isLost(id: number): boolean {
    return this.#leaving !== undefined && id > this.#leaving
  }

  /** Stream 0, an idle stream (section 5.1), or one that only a server could open. */
  #neverOpened(id: number): boolean {
    return id % 2 === 0 || id > this.#lastStream
  }

  #remember(id: number): void {
    this.#endedByUs.add(id)
    if (this.#endedByUs.size <= LEAST_REMEMBERED + this.#options.maxStreams) return
    for (const oldest of this.#endedByUs) {
      this.#endedByUs.delete(oldest)
      return
    }
  }

  #forget(stream: Http2Stream): void {
    if (!this.#streams.delete(stream.id)) return
    this.#later.delete(stream)
    this.#close(stream)
    this.#endIfDone()
  }

  #close(stream: Http2Stream): void {
    try {
      stream.close()
    } catch (error) {
      this.#options.fault(error)
    }
  }

  #closeStreams(): void {
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    this.#later.clear()
    for (const stream of streams) this.#close(stream)
  }

  #endIfDone(): void {
    const leaves = this.#leaving !== undefined || this.#clientLeaves
    if (!leaves || this.#streams.size > 0 || this.#over) return
    this.#over = true
    this.#reader.stop()
    this.sending.outbox.end()
    this.#events.sessionOver()
  }

  // Counting.

  #verdict(): number {
    return this.#flood === undefined ? H2_ERROR.none : H2_ERROR.enhanceYourCalm
  }

  #countIdle(): number {
    this.#took(1)
    if (!this.#idle.take(this.#options.nowMs())) this.#flood ??= 'frames that bring nothing'
    return this.#verdict()
  }

  #took(frames: number): void {
    this.#framesThisTurn += frames
    if (this.#framesThisTurn >= FRAMES_PER_TURN) this.#reader.hold()
  }

  /** A request that had begun was ended by the client, or for what it did. */
  #countReset(): void {
    if (!this.#resets.take(this.#options.nowMs())) this.#flood ??= 'requests that were reset'
  }

  #countInvalid(): void {
    if (++this.#invalid > this.#tolerance.invalid) this.#flood ??= 'requests that cannot be taken'
  }

  #fail(code: number): void {
    if (this.#over) return
    const flood = code === H2_ERROR.enhanceYourCalm
    const detail = flood ? (this.#flood ?? UNENDING_HEAD) : nameOfError(code)
    this.#events.sessionFailed(flood ? 'h2_flood' : 'h2_protocol_error', detail)
    this.end(code)
  }
}
