// Cuts bytes into HTTP/2 frames (RFC 9113 section 4) and joins header blocks, for either side of a
// connection. Holds what a frame may look like on its own; what it means is its user's.
import { KeptBytes, type Memory, ownCopy } from '../kept-bytes.ts'
import { FLAG, FRAME, FRAME_HEADER_BYTES, H2_ERROR, MAX_FRAME_BYTES, readUint31 } from './frames.ts'

/** Hears what was read. Everything but `data` returns an error code that ends the connection, or none. */
export interface FrameUser {
  /** DATA begins; `length` counts against the windows, `padding` of it brings nothing. */
  dataBegins(stream: number, length: number, padding: number, endStream: boolean): number
  /** Bytes of it, lent, as they come. */
  data(stream: number, bytes: Buffer, start: number, end: number): void
  /** The last frame of the stream's body is complete. */
  dataEnds(stream: number): void
  /** A header block is complete; the bytes are lent. */
  headers(stream: number, bytes: Buffer, start: number, end: number, endStream: boolean): number
  /** Any other frame, whole; PUSH_PROMISE and unknown types too. */
  control(
    type: number,
    flags: number,
    stream: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): number
}

export interface ReaderLimits {
  /** Of a header block, as it is sent. */
  readonly blockBytes: number
  /** CONTINUATION frames come without end unless somebody counts. */
  readonly blockFrames: number
}

interface Block {
  readonly stream: number
  readonly endStream: boolean
  readonly parts: Buffer[]
  bytes: number
}

export class FrameReader {
  readonly #user: FrameUser
  readonly #limits: () => ReaderLimits
  /** What must come first: section 3.4. */
  readonly #preface: Buffer
  #prefaceRead = 0
  #sawSettings = false
  #reading = false
  /** What is left of the bytes so far. */
  #part: Buffer | undefined
  readonly #kept: KeptBytes
  #held = false
  #stopped = false
  #stream = 0
  #dataLeft = 0
  #paddingLeft = 0
  #dataEnds = false
  #block: Block | undefined
  /** Of frames and header blocks that were whole. */
  #whole = 0

  /**
   * @param preface what comes before the first frame; empty from a server
   * @param memory for what is left of bytes until more have come
   */
  constructor(user: FrameUser, limits: () => ReaderLimits, preface: Buffer, memory: Memory) {
    this.#user = user
    this.#kept = new KeptBytes(memory)
    this.#limits = limits
    this.#preface = preface
  }

  /** Nothing is read any more. */
  stop(): void {
    this.#stopped = true
    this.#part = undefined
    this.#block = undefined
    // In the middle of a frame its bytes are still looked at.
    if (!this.#reading) this.#kept.drop()
  }

  /** Keeps what is left after the frame that is being told. */
  hold(): void {
    this.#held = true
  }

  get held(): boolean {
    return this.#held
  }

  /** Of memory, for frames and header blocks that are not complete, and for what waits behind them. */
  get heldBytes(): number {
    return this.#kept.memoryBytes + (this.#block?.bytes ?? 0)
  }

  /** Another number for each frame or header block that has begun and is not whole; undefined: there is none. */
  get unfinished(): number | undefined {
    // It may be whole, and wait for us.
    if (this.#held) return undefined
    const inPreface = this.#prefaceRead > 0 && this.#prefaceRead < this.#preface.length
    const isPart = this.#part !== undefined || this.#block !== undefined
    return isPart || inPreface ? this.#whole : undefined
  }

  /** Goes on with what was kept. */
  release(): number {
    this.#held = false
    const part = this.#part
    if (part === undefined) return H2_ERROR.none
    this.#part = undefined
    return this.#frames(part, 0, part.length)
  }

  /** @returns the error code that ends the connection, or none */
  read(chunk: Buffer, length = chunk.length): number {
    let at = 0
    while (this.#prefaceRead < this.#preface.length) {
      if (at === length) return H2_ERROR.none
      if (chunk[at++] !== this.#preface[this.#prefaceRead++]) return H2_ERROR.protocol
    }
    const part = this.#part
    if (part === undefined) return this.#frames(chunk, at, length)
    this.#part = undefined
    const whole = this.#kept.append(part, chunk.subarray(at, length))
    return this.#frames(whole, 0, whole.length)
  }

  #frames(bytes: Buffer, start: number, end: number): number {
    this.#reading = true
    const error = this.#cut(bytes, start, end)
    this.#reading = false
    if (this.#part === undefined) this.#kept.drop()
    return error
  }

  #cut(bytes: Buffer, start: number, end: number): number {
    let at = start
    while (at < end && !this.#stopped && !this.#held) {
      if (this.#dataLeft + this.#paddingLeft > 0) {
        at = this.#data(bytes, at, end)
        continue
      }
      if (end - at < FRAME_HEADER_BYTES) break
      const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!
      const type = bytes[at + 3]!
      const flags = bytes[at + 4]!
      const stream = readUint31(bytes, at + 5)
      if (length > MAX_FRAME_BYTES) return H2_ERROR.frameSize
      if (!this.#sawSettings) {
        if (type !== FRAME.settings || (flags & FLAG.ack) !== 0) return H2_ERROR.protocol
        this.#sawSettings = true
      }
      const block = this.#block
      if (block !== undefined && (type !== FRAME.continuation || stream !== block.stream)) {
        return H2_ERROR.protocol
      }
      const payload = at + FRAME_HEADER_BYTES
      // The bytes of a body are passed on as they come; every other frame is read whole.
      if (type === FRAME.data) {
        const padded = (flags & FLAG.padded) !== 0
        if (padded && length > 0 && end === payload) break
        const padding = !padded ? undefined : length === 0 ? 0 : bytes[payload]
        const error = this.#beginData(stream, length, padding, flags)
        if (error !== H2_ERROR.none) return error
        at = payload + (padded ? 1 : 0)
        if (this.#dataLeft + this.#paddingLeft === 0) this.#endData()
        this.#whole++
        continue
      }
      if (end - payload < length) break
      at = payload + length
      const error =
        type === FRAME.headers
          ? this.#headers(stream, flags, bytes, payload, at)
          : type === FRAME.continuation
            ? this.#continuation(flags, bytes, payload, at)
            : this.#user.control(type, flags, stream, bytes, payload, at)
      if (error !== H2_ERROR.none) return error
      if (this.#block === undefined) this.#whole++
    }
    if (at < end && !this.#stopped) this.#part = this.#kept.keep(bytes.subarray(at, end))
    return H2_ERROR.none
  }

  #beginData(stream: number, length: number, padding: number | undefined, flags: number): number {
    const prefix = padding === undefined ? 0 : 1
    // Section 6.1: padding that leaves no room for itself.
    if (stream === 0 || prefix + (padding ?? 0) > length) return H2_ERROR.protocol
    this.#stream = stream
    this.#paddingLeft = padding ?? 0
    this.#dataLeft = length - this.#paddingLeft - prefix
    this.#dataEnds = (flags & FLAG.endStream) !== 0
    return this.#user.dataBegins(stream, length, this.#paddingLeft + prefix, this.#dataEnds)
  }

  #data(bytes: Buffer, at: number, end: number): number {
    const length = Math.min(this.#dataLeft, end - at)
    this.#dataLeft -= length
    if (length > 0) this.#user.data(this.#stream, bytes, at, at + length)
    const padding = this.#dataLeft === 0 ? Math.min(this.#paddingLeft, end - at - length) : 0
    this.#paddingLeft -= padding
    if (this.#dataLeft + this.#paddingLeft === 0) this.#endData()
    return at + length + padding
  }

  #endData(): void {
    if (!this.#dataEnds) return
    this.#dataEnds = false
    this.#user.dataEnds(this.#stream)
  }

  #headers(stream: number, flags: number, bytes: Buffer, from: number, to: number): number {
    let start = from
    let end = to
    if ((flags & FLAG.padded) !== 0) {
      if (start === end) return H2_ERROR.frameSize
      end -= bytes[start]!
      start++
    }
    if ((flags & FLAG.priority) !== 0) start += PRIORITY_BYTES
    if (stream === 0 || start > end) return H2_ERROR.protocol
    const endStream = (flags & FLAG.endStream) !== 0
    if ((flags & FLAG.endHeaders) !== 0) {
      return this.#user.headers(stream, bytes, start, end, endStream)
    }
    const part = ownCopy(bytes, start, end)
    this.#block = { stream, endStream, parts: [part], bytes: part.length }
    return H2_ERROR.none
  }

  #continuation(flags: number, bytes: Buffer, start: number, end: number): number {
    const block = this.#block
    if (block === undefined) return H2_ERROR.protocol
    const limits = this.#limits()
    block.bytes += end - start
    block.parts.push(ownCopy(bytes, start, end))
    if (block.bytes > limits.blockBytes || block.parts.length > limits.blockFrames) {
      return H2_ERROR.enhanceYourCalm
    }
    if ((flags & FLAG.endHeaders) === 0) return H2_ERROR.none
    this.#block = undefined
    const whole = Buffer.concat(block.parts)
    return this.#user.headers(block.stream, whole, 0, whole.length, block.endStream)
  }
}

const PRIORITY_BYTES = 5
