// One HTTP/2 connection to the workload, with prior knowledge (RFC 9113 section 3.3): reads frames,
// keeps both sides' windows and settings, and hands what belongs to a stream to its call. Whatever
// the workload does wrong ends the connection and the calls on it, never the thread.
import net from 'node:net'
import type { Address } from '../../config/config.ts'
import type { ErrorCode } from '../../errors.ts'
import type { Fields } from '../../http/fields.ts'
import {
  DEFAULT_WINDOW,
  FLAG,
  FRAME,
  goAwayFrame,
  H2_ERROR,
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
import { FrameReader, type FrameUser, type ReaderLimits } from '../../http/h2/reader.ts'
import type { Memory } from '../../http/kept-bytes.ts'
import type { Repeatable } from '../call.ts'
import { Outbox } from '../h2/outbox.ts'
import { ReceiveWindow } from '../h2/receive-window.ts'
import { type Growing, Sending } from '../h2/sending.ts'
import type { Turn } from '../turn.ts'

export interface SessionOptions {
  readonly address: Address
  readonly limits: () => DecodeLimits
  readonly turn: Turn
  readonly nowMs: () => number
  /** Something threw that is ours; the connection it happened on is ended. */
  readonly fault: (error: unknown) => void
  /** A connection could not be opened; what the system says about it. */
  readonly unreachable?: (detail: string) => void
}

/** Of all sessions of a pool. */
export interface ReadMemory {
  /** Reads are handed over synchronously; whoever keeps bytes copies them. */
  readonly buffer: Buffer
  /** For frames that have come in part. */
  readonly kept: Memory
}

/** What the pool hears. */
export interface SessionEvents {
  /** A stream has ended, or the workload allows more of them: waiting calls may go. */
  vacancy(session: H2cSession): void
  /** A call that was started here is over, or its stream is. Told before there is a vacancy. */
  left(stream: SessionStream): void
  closed(session: H2cSession): void
}

/** Whoever has a stream of the session: a call, or a tunnel. */
export interface SessionStream extends Growing {
  /** The principal that it is for. */
  readonly client: string
  /** DATA begins; padding counts against the window, too (section 6.9). */
  frame(length: number): void
  data(buffer: Buffer, start: number, end: number): void
  headers(fields: Fields, tooLarge: boolean, endStream: boolean): void
  /** END_STREAM came without trailers. */
  ended(trailers: Fields): void
  wasReset(code: number): void
  /** What came cannot be passed on: the stream is to be reset. */
  /** @param what is wrong, for the log */
  misbehaved(code: number, what: string): void
  /** The connection is gone, or there never was one. */
  sessionClosed(code: ErrorCode, repeatable: Repeatable): void
  /** What its user did threw. */
  faulted(): void
}

/** A call that is to become a stream. */
export interface Startable extends SessionStream {
  start(session: H2cSession): void
  /** The session has no stream for it after all. */
  startElsewhere(): void
}

/** What one stream may have on its way to a client that reads slowly. */
export const STREAM_WINDOW = 256 * 1024
/** Of all streams together: large, so that a client that does not read holds up nobody else. */
const CONNECTION_WINDOW = 16 * 1024 * 1024
const LAST_STREAM_ID = 2 ** 31 - 1
/** PING, SETTINGS and empty frames between two frames that bring something. */
const MAX_IDLE_FRAMES = 1_000
/**
 * Clients that take calls back are no reason for the workload to close the connection of all others, as it
 * does with a client that resets many streams: Netty after 200 within half a minute, nghttp2 and so Node.js
 * after 1,000 (CVE-2023-44487). Those that are still open then, some 100, may be reset as well.
 */
const MOST_RESETS = 100
/** Who gives a call up sooner than that says nothing about the workload. */
const SILENCE_MS = 500
const LEAST_BLOCK_BYTES = 256 * 1024
const BLOCK_EXTRA_BYTES = 64 * 1024
/** A server sends SETTINGS first, and nothing before it. */
const NO_PREFACE = Buffer.alloc(0)

const blockLimits = ({ listBytes }: DecodeLimits): ReaderLimits => ({
  blockBytes: Math.max(LEAST_BLOCK_BYTES, BLOCK_EXTRA_BYTES + listBytes),
  blockFrames: MAX_IDLE_FRAMES,
})

export class H2cSession implements FrameUser {
  readonly socket: net.Socket
  readonly openedMs: number
  idleSinceMs: number
  connecting = true
  readonly sending: Sending
  /** True from the second call on: the workload may be about to close. */
  reused = false
  maxStreams: number
  readonly #options: SessionOptions
  readonly #events: SessionEvents
  readonly #decoder = new HpackDecoder()
  readonly #streams = new Map<number, SessionStream>()
  #nextStream = 1
  #goneAway = false
  /** RST_STREAM frames that were sent. */
  #resets = 0
  #closed = false
  readonly #window = new ReceiveWindow(CONNECTION_WINDOW)
  #idleFrames = 0
  #sawSettings = false
  #connectProtocol = false
  /** Calls that wait for the first SETTINGS. */
  readonly #unsettled = new Set<Startable>()
  /** When something was last read; undefined: never. */
  #heardMs: number | undefined
  /** A sign of life was asked for and has not come. */
  #silent = false
  readonly #reader: FrameReader

  /** @param maxStreams assumed until the workload says */
  constructor(
    options: SessionOptions,
    memory: ReadMemory,
    maxStreams: number,
    events: SessionEvents,
  ) {
    this.#options = options
    this.maxStreams = maxStreams
    this.#events = events
    const limits = (): ReaderLimits => blockLimits(options.limits())
    this.#reader = new FrameReader(this, limits, NO_PREFACE, memory.kept)
    this.openedMs = options.nowMs()
    this.idleSinceMs = this.openedMs
    const { address } = options
    const target =
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }
    this.socket = net.connect({
      ...target,
      noDelay: true,
      onread: {
        buffer: memory.buffer,
        callback: (length: number): boolean => {
          this.#guarded(() => this.#read(memory.buffer, length))
          return true
        },
      },
    })
    this.socket.on('connect', () => {
      this.connecting = false
    })
    this.socket.on('drain', () => this.#guarded(() => this.sending.pump()))
    this.socket.on('error', (error) => {
      if (this.connecting) options.unreachable?.(error.message)
    })
    this.socket.on('end', () => this.close())
    this.socket.on('close', () => this.close())
    const outbox = new Outbox(this.socket, options.turn)
    this.sending = new Sending(outbox)
    outbox.push(Buffer.from(PREFACE, 'latin1'))
    outbox.push(
      settingsFrame([
        [SETTING.enablePush, 0],
        [SETTING.initialWindowSize, STREAM_WINDOW],
        [SETTING.maxHeaderListSize, options.limits().listBytes],
      ]),
    )
    outbox.push(windowUpdateFrame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
  }

  /** Another call may begin here. */
  get vacant(): boolean {
    return this.usable && !this.#silent && this.calls < this.maxStreams
  }

  get silent(): boolean {
    return this.#silent
  }

  get nowMs(): number {
    return this.#options.nowMs()
  }

  get usable(): boolean {
    return !this.#closed && !this.#goneAway && this.#nextStream < LAST_STREAM_ID
  }

  /** Of those where there is a choice, another is to be taken; what has begun here goes on. */
  get worn(): boolean {
    return this.#resets >= MOST_RESETS
  }

  get calls(): number {
    return this.#streams.size + this.#unsettled.size
  }

  /** @returns the id of the stream that is now the call's */
  open(stream: SessionStream): number {
    const id = this.#nextStream
    this.#nextStream += 2
    if (id > 1) this.reused = true
    this.#streams.set(id, stream)
    return id
  }

  /** The stream is somebody else's from now on. */
  handOver(id: number, stream: SessionStream): void {
    this.#streams.set(id, stream)
  }

  /** Whether the workload takes WebSockets (RFC 8441 section 3); undefined until it has said so. */
  get takesWebSockets(): boolean | undefined {
    return this.#sawSettings ? this.#connectProtocol : undefined
  }

  /** Starts the call when the workload has said what it takes. */
  startLater(call: Startable): void {
    this.#unsettled.add(call)
  }

  /** The call will not be a stream of this session. */
  decline(call: Startable): void {
    this.#unsettled.delete(call)
    this.#events.left(call)
  }

  /** Nor does it wait for that any more: another may. */
  withdraw(call: Startable): void {
    this.decline(call)
    this.#events.vacancy(this)
  }

  /** The stream has ended on both sides, or is of no interest any more. */
  left(id: number): void {
    const call = this.#streams.get(id)
    if (call === undefined) return
    this.#streams.delete(id)
    this.#events.left(call)
    if (this.calls > 0) return this.#events.vacancy(this)
    this.idleSinceMs = this.#options.nowMs()
    if (this.worn && !this.#closed) this.#goAwayWith(H2_ERROR.none)
    if (this.#goneAway || this.worn) this.close()
    else this.#events.vacancy(this)
  }

  /**
   * A call that began at `sinceMs` was given up. Where nothing was heard since, no other begins here
   * before something is: a connection can be dead though the workload is not.
   */
  gaveUp(sinceMs: number): void {
    if (this.#closed || this.#silent || this.nowMs - sinceMs < SILENCE_MS) return
    if (this.#heardMs !== undefined && this.#heardMs > sinceMs) return
    this.#silent = true
    this.sending.outbox.push(pingFrame())
  }

  reset(id: number, code: number): void {
    if (!this.#closed) {
      this.#resets++
      this.sending.outbox.push(resetStreamFrame(id, code))
    }
    this.left(id)
  }

  /** Gives the workload `bytes` of stream window again. */
  credit(id: number, bytes: number): void {
    if (!this.#closed) this.sending.outbox.push(windowUpdateFrame(id, bytes))
  }

  /** Ends the connection; the calls on it learn `code`. */
  close(code: ErrorCode = 'upstream_reset'): void {
    if (this.#closed) return
    this.#closed = true
    const refused = this.connecting
    this.#reader.stop()
    this.socket.destroy()
    const calls = [...this.#streams.values(), ...this.#unsettled]
    this.#streams.clear()
    this.#unsettled.clear()
    for (const call of calls) this.#events.left(call)
    this.#events.closed(this)
    const told = refused && code === 'upstream_reset' ? 'upstream_refused' : code
    const repeatable: Repeatable = !refused && this.reused ? 'if_idempotent' : 'never'
    for (const call of calls) this.#tell(call, () => call.sessionClosed(told, repeatable))
  }

  // Reading.

  #read(buffer: Buffer, length: number): void {
    this.#heardMs = this.nowMs
    if (this.#silent) {
      this.#silent = false
      this.#events.vacancy(this)
    }
    const code = this.#reader.read(buffer, length)
    if (code !== H2_ERROR.none) return this.#fail(code)
    if (!this.#closed) this.sending.pump()
  }

  dataBegins(id: number, length: number, padding: number, endStream: boolean): number {
    if (this.#neverOpened(id)) return H2_ERROR.protocol
    if (!this.#window.take(length)) return H2_ERROR.flowControl
    // Given back at once: what a stream holds is bounded by its own window.
    const due = this.#window.due()
    if (due > 0) this.sending.outbox.push(windowUpdateFrame(0, due))
    if (length > 0) this.#idleFrames = 0
    this.#to(id, (stream) => stream.frame(length))
    return length === padding && !endStream ? this.#countIdle() : H2_ERROR.none
  }

  data(id: number, bytes: Buffer, start: number, end: number): void {
    this.#to(id, (stream) => stream.data(bytes, start, end))
  }

  dataEnds(id: number): void {
    this.#to(id, (stream) => stream.ended([]))
  }

  headers(id: number, bytes: Buffer, start: number, end: number, endStream: boolean): number {
    if (this.#neverOpened(id)) return H2_ERROR.protocol
    this.#idleFrames = 0
    // Also for a stream that nobody waits for: the table has to stay right.
    const decoded = this.#decoder.decode(bytes, this.#options.limits(), start, end)
    if (decoded.kind === 'bad_block') return H2_ERROR.compression
    this.#to(id, (stream) => stream.headers(decoded.fields, decoded.tooLarge, endStream))
    return H2_ERROR.none
  }

  control(
    type: number,
    flags: number,
    id: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): number {
    switch (type) {
      case FRAME.resetStream: {
        if (end - start !== 4 || this.#neverOpened(id)) return H2_ERROR.protocol
        const code = bytes.readUInt32BE(start)
        this.#to(id, (call) => {
          this.left(id)
          call.wasReset(code)
        })
        return H2_ERROR.none
      }
      case FRAME.settings:
        return this.#settings(bytes, start, end, flags, id)
      case FRAME.ping:
        if (end - start !== 8 || id !== 0) return H2_ERROR.frameSize
        if ((flags & FLAG.ack) !== 0) return H2_ERROR.none
        this.sending.outbox.push(pingAckFrame(bytes.subarray(start, end)))
        return this.#countIdle()
      case FRAME.goAway:
        if (end - start < 8 || id !== 0) return H2_ERROR.frameSize
        this.#goAway(readUint31(bytes, start))
        return H2_ERROR.none
      case FRAME.windowUpdate:
        if (end - start !== 4) return H2_ERROR.frameSize
        return this.#windowUpdate(id, readUint31(bytes, start))
      case FRAME.pushPromise:
        // We said that we take none (section 8.4).
        return H2_ERROR.protocol
      default:
        // PRIORITY is deprecated, and unknown types are to be ignored (section 4.1).
        return this.#countIdle()
    }
  }

  #settings(bytes: Buffer, start: number, end: number, flags: number, id: number): number {
    const length = end - start
    const ack = (flags & FLAG.ack) !== 0
    if (id !== 0 || length % 6 !== 0 || (ack && length > 0)) return H2_ERROR.frameSize
    if (ack) return H2_ERROR.none
    const first = !this.#sawSettings
    const code = first ? H2_ERROR.none : this.#countIdle()
    this.#sawSettings = true
    if (code !== H2_ERROR.none) return code
    const calls = [...this.#streams.values()]
    for (let at = start; at < end; at += 6) {
      const name = (bytes[at]! << 8) | bytes[at + 1]!
      const value = bytes.readUInt32BE(at + 2)
      if (name === SETTING.maxConcurrentStreams) this.maxStreams = value
      if (name === SETTING.enableConnectProtocol) {
        // Once offered it cannot be taken back.
        if (value > 1 || value < Number(this.#connectProtocol)) return H2_ERROR.protocol
        this.#connectProtocol = value === 1
      }
      const wrong = this.sending.setting(name, value, calls)
      if (wrong !== H2_ERROR.none) return wrong
    }
    this.sending.outbox.push(settingsAckFrame())
    if (first) this.#startUnsettled()
    this.#events.vacancy(this)
    return H2_ERROR.none
  }

  #startUnsettled(): void {
    for (const call of this.#unsettled) {
      this.#unsettled.delete(call)
      // They came by what was assumed. Now it is known, and said that it is.
      if (this.#streams.size < this.maxStreams) this.#tell(call, () => call.start(this))
      else {
        this.#events.left(call)
        this.#tell(call, () => call.startElsewhere())
      }
    }
  }

  /** Calls above `last` were not looked at (section 6.8), and may go to another connection. */
  #goAway(last: number): void {
    this.#goneAway = true
    for (const [id, call] of [...this.#streams]) {
      if (id <= last) continue
      this.left(id)
      this.#tell(call, () => call.sessionClosed('upstream_reset', 'always'))
    }
    for (const call of this.#unsettled) {
      this.decline(call)
      this.#tell(call, () => call.sessionClosed('upstream_reset', 'always'))
    }
    if (this.#streams.size === 0) this.close()
  }

  #windowUpdate(id: number, increment: number): number {
    if (id === 0) {
      return increment > 0 && this.sending.grow(increment) ? H2_ERROR.none : H2_ERROR.flowControl
    }
    if (this.#neverOpened(id)) return H2_ERROR.protocol
    this.#to(id, (call) => {
      if (increment === 0) call.misbehaved(H2_ERROR.protocol, 'a malformed WINDOW_UPDATE')
      else if (!call.grow(increment))
        call.misbehaved(H2_ERROR.flowControl, 'a window that is too large')
    })
    return H2_ERROR.none
  }

  /** Stream 0, an idle stream (RFC 9113 section 5.1), or one that only a server could open. */
  #neverOpened(stream: number): boolean {
    return stream % 2 === 0 || stream >= this.#nextStream
  }

  #countIdle(): number {
    return ++this.#idleFrames > MAX_IDLE_FRAMES ? H2_ERROR.enhanceYourCalm : H2_ERROR.none
  }

  #fail(code: number): void {
    if (this.#closed) return
    this.#goAwayWith(code)
    this.close('upstream_bad_response')
  }

  #goAwayWith(code: number): void {
    this.sending.outbox.push(goAwayFrame(0, code))
    this.sending.outbox.flush()
  }

  /** What its user does with the call threw. */
  faulted(stream: SessionStream, error: unknown): void {
    this.#options.fault(error)
    stream.faulted()
  }

  #guarded(step: () => void): void {
    try {
      step()
    } catch (error) {
      this.#options.fault(error)
      this.close('internal')
    }
  }

  #to(id: number, what: (stream: SessionStream) => void): void {
    const stream = this.#streams.get(id)
    if (stream === undefined) return
    this.#tell(stream, () => what(stream))
  }

  /** A fault in what one call does with it ends that call, and none of the others. */
  #tell(stream: SessionStream, what: () => void): void {
    try {
      what()
    } catch (error) {
      this.faulted(stream, error)
    }
  }
}
