// Where the frames of a WebSocket end (RFC 6455 section 5.2), found in its bytes as they pass, so that
// a frame of our own can go between two of them and nowhere else. Keeps a few numbers, no bytes.

/** A longer one cannot be counted; the place is lost then, and no boundary ever found again. */
const MOST_PAYLOAD_BYTES = Number.MAX_SAFE_INTEGER
const CLOSE = 0x8
const FINAL_CLOSE = 0x88
const MASK_BYTES = 4

/** Status codes of a close frame (section 7.4.1). */
export const CLOSE_CODE = { goingAway: 1001, policyViolation: 1008 } as const
export type CloseCode = (typeof CLOSE_CODE)[keyof typeof CLOSE_CODE]

export class WebSocketFrames {
  /** Of the header that is being read; 0 between frames and inside a payload. */
  #headerRead = 0
  #headerBytes = 2
  #lengthEnd = 2
  #length = 0
  #payloadLeft = 0
  #closing = false
  #lost = false

  /** Between two frames: what is written now stands by itself. */
  get atBoundary(): boolean {
    return this.#headerRead === 0 && this.#payloadLeft === 0 && !this.#lost
  }

  /** The sender has begun a close frame: no frame may follow it (section 5.5.1). */
  get closing(): boolean {
    return this.#closing
  }

  /**
   * Takes note of bytes that pass.
   * @param untilBoundary stop behind the first frame that ends in them
   * @returns index after what was taken
   */
  take(bytes: Buffer, start: number, end: number, untilBoundary = false): number {
    let at = start
    while (at < end && !this.#lost) {
      if (this.#payloadLeft > 0) {
        const length = Math.min(this.#payloadLeft, end - at)
        this.#payloadLeft -= length
        at += length
      } else this.#header(bytes[at++]!)
      if (untilBoundary && this.atBoundary) return at
    }
    return end
  }

  #header(byte: number): void {
    const place = this.#headerRead++
    if (place === 0) {
      if ((byte & 0x0f) === CLOSE) this.#closing = true
      this.#length = 0
      this.#headerBytes = 2
    } else if (place === 1) {
      const length = byte & 0x7f
      const extended = length === 127 ? 8 : length === 126 ? 2 : 0
      this.#headerBytes += extended + ((byte & 0x80) !== 0 ? MASK_BYTES : 0)
      this.#lengthEnd = 2 + extended
      if (extended === 0) this.#length = length
    } else if (place < this.#lengthEnd) {
      this.#length = this.#length * 256 + byte
      if (this.#length > MOST_PAYLOAD_BYTES) this.#lost = true
    }
    if (this.#headerRead < this.#headerBytes) return
    this.#headerRead = 0
    this.#payloadLeft = this.#length
  }
}

/** As a server sends it: in one piece and not masked (sections 5.1 and 5.5.1). */
export function closeFrame(code: CloseCode): Buffer {
  return Buffer.from([FINAL_CLOSE, 2, code >> 8, code & 0xff])
}
