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
  FRAME_HEADER_BYTES,
  goAwayFrame,
  H2_ERROR,
  headersFrames,
  MAX_FRAME_BYTES,
  MAX_WINDOW,
  PREFACE,
  pingAckFrame,
  pingFrame,
  readFrameHeader,
  readUint31,
  resetStreamFrame,
  SETTING,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../http/h2/frames.ts'
import {
  type DecodeLimits,
  EMPTY_TABLE,
  encodeHeaderBlock,
  HpackDecoder,
} from '../../http/h2/hpack.ts'
import type { Repeatable } from '../call.ts'
import type { Turn } from '../turn.ts'
import type { H2cCall } from './call.ts'

export interface SessionOptions {
  readonly address: Address
  readonly limits: () => DecodeLimits
  readonly turn: Turn
  readonly nowMs: () => number
  /** Something threw that is ours; the connection it happened on is ended. */
  readonly fault: (error: unknown) => void
}

/** What the pool hears. */
export interface SessionEvents {
  /** A stream has ended, or the workload allows more of them: waiting calls may go. */
  vacancy(session: H2cSession): void
  closed(session: H2cSession): void
}

/** What one stream may have on its way to a client that reads slowly. */
export const STREAM_WINDOW = 256 * 1024
/** Of all streams together: large, so that a client that does not read holds up nobody else. */
const CONNECTION_WINDOW = 16 * 1024 * 1024
const LAST_STREAM_ID = 2 ** 31 - 1
/** Header blocks come in CONTINUATION frames without end unless somebody counts. */
const MAX_BLOCK_BYTES = 256 * 1024
/** PING, SETTINGS and empty frames between two frames that bring something. */
const MAX_IDLE_FRAMES = 1_000
/** Who gives a call up sooner than that says nothing about the workload. */
const SILENCE_MS = 500

export class H2cSession {
  readonly socket: net.Socket
  readonly openedMs: number
  idleSinceMs: number
  connecting = true
  /** What calls read: the workload's settings, and the room of the connection. */
  maxFrameBytes = MAX_FRAME_BYTES
  initialWindow = DEFAULT_WINDOW
  sendWindow = DEFAULT_WINDOW
  /** True from the second call on: the workload may be about to close. */
  reused = false
  maxStreams: number
  readonly #options: SessionOptions
  readonly #events: SessionEvents
  readonly #decoder = new HpackDecoder()
  readonly #streams = new Map<number, H2cCall>()
  /** Calls that wait for room in the connection's window, in turn. */
  readonly #blocked = new Set<H2cCall>()
  #nextStream = 1
  #goneAway = false
  #closed = false
  #unacknowledged = 0
  #idleFrames = 0
  #sawSettings = false
  /** When something was last read; undefined: never. */
  #heardMs: number | undefined
  /** A sign of life was asked for and has not come. */
  #silent = false
  /** The workload has changed the size of its table, and waits for us to say so too. */
  #tableChanged = false
  // The frame that is being read.
  #part: Buffer | undefined
  #dataStream = 0
  #dataLeft = 0
  #paddingLeft = 0
  #dataEnds = false
  #block: { stream: number; endStream: boolean; parts: Buffer[]; bytes: number } | undefined

  /** @param maxStreams assumed until the workload says */
  constructor(
    options: SessionOptions,
    readBuffer: Buffer,
    maxStreams: number,
    events: SessionEvents,
  ) {
    this.#options = options
    this.maxStreams = maxStreams
    this.#events = events
    this.openedMs = options.nowMs()
    this.idleSinceMs = this.openedMs
    const { address } = options
    const target =
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }
    this.socket = net.connect({
      ...target,
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: (length: number): boolean => {
          this.#guarded(() => this.#read(readBuffer, length))
          return true
        },
      },
    })
    this.socket.on('connect', () => {
      this.connecting = false
    })
    this.socket.on('drain', () => this.#guarded(() => this.#writable()))
    this.socket.on('error', () => {})
    this.socket.on('end', () => this.close())
    this.socket.on('close', () => this.close())
    this.send(Buffer.from(PREFACE, 'latin1'))
    this.send(
      settingsFrame([
        [SETTING.enablePush, 0],
        [SETTING.initialWindowSize, STREAM_WINDOW],
        [SETTING.maxHeaderListSize, options.limits().listBytes],
      ]),
    )
    this.send(windowUpdateFrame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
  }

  /** Another call may begin here. */
  get vacant(): boolean {
    return this.usable && !this.#silent && this.#streams.size < this.maxStreams
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

  get calls(): number {
    return this.#streams.size
  }

  /** @returns the id of the stream that is now the call's */
  open(call: H2cCall): number {
    const id = this.#nextStream
    this.#nextStream += 2
    if (id > 1) this.reused = true
    this.#streams.set(id, call)
    return id
  }

  /** Writes a frame; the frames of one turn of the loop leave together. */
  send(frame: Buffer): boolean {
    this.#options.turn.hold(this.socket)
    return this.socket.write(frame)
  }

  sendHeaders(id: number, fields: Fields, last: boolean): void {
    let block = encodeHeaderBlock(fields)
    // RFC 7541 section 4.2: at the start of the next block, though we put nothing into the table.
    if (this.#tableChanged) block = Buffer.concat([EMPTY_TABLE, block])
    this.#tableChanged = false
    this.send(headersFrames(block, id, last, this.maxFrameBytes))
  }

  /** The stream has ended on both sides, or is of no interest any more. */
  left(id: number): void {
    const call = this.#streams.get(id)
    if (call === undefined) return
    this.#streams.delete(id)
    this.#blocked.delete(call)
    if (this.#streams.size > 0) return this.#events.vacancy(this)
    this.idleSinceMs = this.#options.nowMs()
    if (this.#goneAway) this.close()
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
    this.send(pingFrame())
  }

  reset(id: number, code: number): void {
    if (!this.#closed) this.send(resetStreamFrame(id, code))
    this.left(id)
  }

  /** The call has something to send and the connection has no room. */
  block(call: H2cCall): void {
    this.#blocked.add(call)
  }

  /** Gives the workload `bytes` of stream window again. */
  credit(id: number, bytes: number): void {
    if (!this.#closed) this.send(windowUpdateFrame(id, bytes))
  }

  /** Ends the connection; the calls on it learn `code`. */
  close(code: ErrorCode = 'upstream_reset'): void {
    if (this.#closed) return
    this.#closed = true
    const refused = this.connecting
    this.socket.destroy()
    const calls = [...this.#streams.values()]
    this.#streams.clear()
    this.#blocked.clear()
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
    let bytes = buffer
    let at = 0
    let end = length
    if (this.#part !== undefined) {
      bytes = Buffer.concat([this.#part, buffer.subarray(0, length)])
      end = bytes.length
      this.#part = undefined
    }
    while (at < end && !this.#closed) {
      if (this.#dataLeft + this.#paddingLeft > 0) {
        at = this.#readData(bytes, at, end)
        continue
      }
      if (end - at < FRAME_HEADER_BYTES) break
      const frame = readFrameHeader(bytes, at)
      if (frame.length > MAX_FRAME_BYTES) return this.#fail(H2_ERROR.frameSize)
      if (this.#block !== undefined && frame.type !== FRAME.continuation) {
        return this.#fail(H2_ERROR.protocol)
      }
      if (!this.#sawSettings && frame.type !== FRAME.settings) return this.#fail(H2_ERROR.protocol)
      // The bytes of a body are passed on as they come; every other frame is read whole.
      if (frame.type === FRAME.data) {
        const padded = (frame.flags & FLAG.padded) !== 0
        if (padded && end - at < FRAME_HEADER_BYTES + 1) break
        const padding = padded ? bytes[at + FRAME_HEADER_BYTES]! : 0
        if (this.#neverOpened(frame.stream) || (padded && padding >= frame.length)) {
          return this.#fail(H2_ERROR.protocol)
        }
        this.#dataStream = frame.stream
        this.#paddingLeft = padding
        this.#dataLeft = frame.length - padding - (padded ? 1 : 0)
        this.#dataEnds = (frame.flags & FLAG.endStream) !== 0
        at += FRAME_HEADER_BYTES + (padded ? 1 : 0)
        this.#received(frame.length)
        if (padded) this.#streams.get(frame.stream)?.padding(padding + 1)
        if (frame.length === 0 && !this.#dataEnds && this.#countIdle()) return
        if (frame.length === 0 || this.#dataLeft + this.#paddingLeft === 0) this.#dataDone()
        continue
      }
      if (end - at < FRAME_HEADER_BYTES + frame.length) break
      const payload = at + FRAME_HEADER_BYTES
      at = payload + frame.length
      this.#control(bytes, payload, at, frame.type, frame.flags, frame.stream)
    }
    if (at < end && !this.#closed) this.#part = Buffer.from(bytes.subarray(at, end))
  }

  #readData(bytes: Buffer, at: number, end: number): number {
    const length = Math.min(this.#dataLeft, end - at)
    if (length > 0) {
      this.#dataLeft -= length
      this.#to(this.#dataStream, (call) => call.data(bytes, at, at + length))
    }
    const padding = this.#dataLeft === 0 ? Math.min(this.#paddingLeft, end - at - length) : 0
    this.#paddingLeft -= padding
    if (this.#dataLeft + this.#paddingLeft === 0) this.#dataDone()
    return at + length + padding
  }

  #dataDone(): void {
    if (this.#dataEnds) this.#to(this.#dataStream, (call) => call.ended([]))
    this.#dataEnds = false
  }

  /** The connection's window is given back at once: what a stream holds is bounded by its own. */
  #received(bytes: number): void {
    if (bytes > 0) this.#idleFrames = 0
    this.#unacknowledged += bytes
    if (this.#unacknowledged < CONNECTION_WINDOW / 2) return
    this.send(windowUpdateFrame(0, this.#unacknowledged))
    this.#unacknowledged = 0
  }

  #control(
    bytes: Buffer,
    start: number,
    end: number,
    type: number,
    flags: number,
    stream: number,
  ): void {
    switch (type) {
      case FRAME.headers:
        return this.#headers(bytes, start, end, flags, stream)
      case FRAME.continuation:
        return this.#continuation(bytes, start, end, flags, stream)
      case FRAME.resetStream: {
        if (end - start !== 4 || this.#neverOpened(stream)) return this.#fail(H2_ERROR.protocol)
        const code = bytes.readUInt32BE(start)
        return this.#to(stream, (call) => {
          this.left(stream)
          call.wasReset(code)
        })
      }
      case FRAME.settings:
        return this.#settings(bytes, start, end, flags, stream)
      case FRAME.ping:
        if (end - start !== 8 || stream !== 0) return this.#fail(H2_ERROR.frameSize)
        if ((flags & FLAG.ack) !== 0 || this.#countIdle()) return
        this.send(pingAckFrame(bytes.subarray(start, end)))
        return
      case FRAME.goAway:
        if (end - start < 8 || stream !== 0) return this.#fail(H2_ERROR.frameSize)
        return this.#goAway(readUint31(bytes, start))
      case FRAME.windowUpdate:
        if (end - start !== 4) return this.#fail(H2_ERROR.frameSize)
        return this.#windowUpdate(stream, readUint31(bytes, start))
      case FRAME.pushPromise:
        // We said that we take none (section 8.4).
        return this.#fail(H2_ERROR.protocol)
      default:
        // PRIORITY is deprecated, and unknown types are to be ignored (section 4.1).
        this.#countIdle()
    }
  }

  #headers(bytes: Buffer, from: number, to: number, flags: number, stream: number): void {
    let start = from
    let end = to
    if ((flags & FLAG.padded) !== 0) {
      end -= bytes[start] ?? 0
      start++
    }
    if ((flags & FLAG.priority) !== 0) start += 5
    if (start > end || this.#neverOpened(stream)) {
      return this.#fail(H2_ERROR.protocol)
    }
    this.#idleFrames = 0
    const part = Buffer.from(bytes.subarray(start, end))
    this.#block = {
      stream,
      endStream: (flags & FLAG.endStream) !== 0,
      parts: [part],
      bytes: part.length,
    }
    if ((flags & FLAG.endHeaders) !== 0) this.#blockDone()
  }

  #continuation(bytes: Buffer, start: number, end: number, flags: number, stream: number): void {
    const block = this.#block
    if (block === undefined || block.stream !== stream) return this.#fail(H2_ERROR.protocol)
    block.parts.push(Buffer.from(bytes.subarray(start, end)))
    block.bytes += end - start
    if (block.bytes > MAX_BLOCK_BYTES || block.parts.length > MAX_IDLE_FRAMES) {
      return this.#fail(H2_ERROR.enhanceYourCalm)
    }
    if ((flags & FLAG.endHeaders) !== 0) this.#blockDone()
  }

  #blockDone(): void {
    const { stream, endStream, parts } = this.#block!
    this.#block = undefined
    // Also for a stream that nobody waits for: the table has to stay right.
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    const decoded = this.#decoder.decode(bytes, this.#options.limits())
    if (decoded.kind === 'bad_block') return this.#fail(H2_ERROR.compression)
    this.#to(stream, (call) => call.headers(decoded.fields, decoded.tooLarge, endStream))
  }

  #settings(bytes: Buffer, start: number, end: number, flags: number, stream: number): void {
    const length = end - start
    const ack = (flags & FLAG.ack) !== 0
    if (stream !== 0 || length % 6 !== 0 || (ack && length > 0)) {
      return this.#fail(H2_ERROR.frameSize)
    }
    if (ack) return
    if (this.#sawSettings && this.#countIdle()) return
    this.#sawSettings = true
    for (let at = start; at < end; at += 6) {
      const value = bytes.readUInt32BE(at + 2)
      switch ((bytes[at]! << 8) | bytes[at + 1]!) {
        case SETTING.headerTableSize:
          this.#tableChanged = true
          break
        case SETTING.maxConcurrentStreams:
          this.maxStreams = value
          break
        case SETTING.initialWindowSize: {
          if (value > MAX_WINDOW) return this.#fail(H2_ERROR.flowControl)
          const change = value - this.initialWindow
          this.initialWindow = value
          for (const call of [...this.#streams.values()]) {
            this.#tell(call, () => call.window(change))
          }
          break
        }
        case SETTING.maxFrameSize:
          if (value < MAX_FRAME_BYTES || value > 0xffffff) return this.#fail(H2_ERROR.protocol)
          this.maxFrameBytes = value
          break
      }
    }
    this.send(settingsAckFrame())
    this.#events.vacancy(this)
  }

  /** Calls above `last` were not looked at (section 6.8), and may go to another connection. */
  #goAway(last: number): void {
    this.#goneAway = true
    for (const [id, call] of [...this.#streams]) {
      if (id <= last) continue
      this.left(id)
      this.#tell(call, () => call.sessionClosed('upstream_reset', 'always'))
    }
    if (this.#streams.size === 0) this.close()
  }

  #windowUpdate(stream: number, increment: number): void {
    if (stream !== 0) {
      if (this.#neverOpened(stream)) return this.#fail(H2_ERROR.protocol)
      return this.#to(stream, (call) => {
        if (increment === 0) call.misbehaved(H2_ERROR.protocol)
        else call.window(increment)
      })
    }
    this.sendWindow += increment
    if (increment === 0 || this.sendWindow > MAX_WINDOW) return this.#fail(H2_ERROR.flowControl)
    this.#writable()
  }

  /** Stream 0, an idle stream (RFC 9113 section 5.1), or one that only a server could open. */
  #neverOpened(stream: number): boolean {
    return stream % 2 === 0 || stream >= this.#nextStream
  }

  #writable(): void {
    for (const call of [...this.#blocked]) {
      if (this.sendWindow <= 0 || this.socket.writableNeedDrain) return
      this.#blocked.delete(call)
      this.#tell(call, () => call.flush())
    }
  }

  /** @returns true when the connection was ended for it */
  #countIdle(): boolean {
    if (++this.#idleFrames <= MAX_IDLE_FRAMES) return false
    this.#fail(H2_ERROR.enhanceYourCalm)
    return true
  }

  #fail(code: number): void {
    if (this.#closed) return
    this.socket.write(goAwayFrame(0, code))
    this.#options.turn.release(this.socket)
    this.close('upstream_bad_response')
  }

  #guarded(step: () => void): void {
    try {
      step()
    } catch (error) {
      this.#options.fault(error)
      this.close('internal')
    }
  }

  #to(stream: number, what: (call: H2cCall) => void): void {
    const call = this.#streams.get(stream)
    if (call !== undefined) this.#tell(call, () => what(call))
  }

  /** A fault in what one call does with it ends that call, and none of the others. */
  #tell(call: H2cCall, what: () => void): void {
    try {
      what()
    } catch (error) {
      this.#options.fault(error)
      call.faulted()
    }
  }
}
