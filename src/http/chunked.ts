// The chunked transfer coding (RFC 9112 section 7.1), read incrementally and written. Promises the
// same data and the same end however the bytes are cut into buffers; extensions are never passed on.
import { TOKEN_CHARACTERS, VALUE_CHARACTERS } from '../field-names.ts'
import { parseFieldSection } from './field-section.ts'
import type { Fields } from './fields.ts'
import { type Rejection, rejection } from './rejection.ts'
import { keptTrailers } from './trailers.ts'

export interface TrailerLimits {
  /** The field lines of the trailer section, with the empty line after them. */
  readonly maxTrailerBytes: number
  readonly maxTrailerCount: number
}

export interface JoinedData {
  readonly kind: 'data'
  /** Where the bytes are now. */
  readonly from: number
  readonly to: number
  /** The index after the last byte consumed. */
  readonly consumed: number
}

export class ChunkedDecoder {
  readonly #limits: TrailerLimits
  #state: State = SIZE
  /** Bytes of data of this chunk that are still to come. */
  #left = 0
  #sizeDigits = 0
  #extensionBytes = 0
  #inToken = false
  /** The trailer section so far. */
  #trailer: Buffer = NOTHING
  #trailerBytes = 0
  #trailers: Fields = []

  constructor(limits: TrailerLimits) {
    this.#limits = limits
  }

  /** Whether the body, with its trailer section, has ended. */
  get done(): boolean {
    return this.#state === DONE
  }

  /** Those that may be passed on; empty until `done`. */
  get trailers(): Fields {
    return this.#trailers
  }

  /**
   * Reads `buffer` from `start`.
   *
   * @param onData is given each range of body bytes inside `buffer`.
   * @returns the index after the last byte consumed, `end` unless the body is done; or `bad_chunk` or
   *   `bad_trailer`, after which the decoder must not be used again.
   */
  decode(
    buffer: Buffer,
    start: number,
    end: number,
    onData: (from: number, to: number) => void,
  ): number | Rejection {
    let i = start
    while (i < end) {
      const byte = buffer[i]!
      switch (this.#state) {
        case SIZE: {
          const digit = hexDigit(byte)
          if (digit !== -1) {
            if (++this.#sizeDigits > MAX_SIZE_DIGITS) return rejection('bad_chunk')
            this.#left = this.#left * 16 + digit
          } else if (this.#sizeDigits === 0) return rejection('bad_chunk')
          else if (byte === CR) this.#state = SIZE_LF
          else if (byte === SEMICOLON) this.#state = EXTENSION_NAME
          else return rejection('bad_chunk')
          i++
          break
        }
        case EXTENSION_NAME:
        case EXTENSION_VALUE:
          if (++this.#extensionBytes > MAX_EXTENSION_BYTES) return rejection('bad_chunk')
          if (TOKEN_CHARACTERS[byte] === 1) this.#inToken = true
          else if (!this.#inToken) return rejection('bad_chunk')
          else {
            this.#inToken = false
            if (byte === CR) this.#state = SIZE_LF
            else if (byte === SEMICOLON) this.#state = EXTENSION_NAME
            else if (byte === EQUALS && this.#state === EXTENSION_NAME) {
              this.#state = EXTENSION_VALUE
            } else return rejection('bad_chunk')
          }
          i++
          break
        case SIZE_LF:
          if (byte !== LF) return rejection('bad_chunk')
          this.#state = this.#left === 0 ? TRAILER : DATA
          this.#sizeDigits = 0
          this.#extensionBytes = 0
          i++
          break
        case DATA: {
          const to = this.#left < end - i ? i + this.#left : end
          onData(i, to)
          this.#left -= to - i
          if (this.#left === 0) this.#state = DATA_CR
          i = to
          break
        }
        case DATA_CR:
          if (byte !== CR) return rejection('bad_chunk')
          this.#state = DATA_LF
          i++
          break
        case DATA_LF:
          if (byte !== LF) return rejection('bad_chunk')
          this.#state = SIZE
          i++
          break
        case TRAILER: {
          const refused = this.#takeTrailerByte(byte)
          if (refused !== undefined) return refused
          i++
          break
        }
        case DONE:
          return i
      }
    }
    return i
  }

  /**
   * As `decode`, and moves the body's bytes together, over the framing between them: passed on one by one,
   * chunks of a byte take three hundred times themselves where nobody takes them.
   */
  decodeJoined(buffer: Buffer, start: number, end: number): JoinedData | Rejection {
    let [from, to] = [start, start]
    const consumed = this.decode(buffer, start, end, (rangeStart, rangeEnd) => {
      if (from === to) [from, to] = [rangeStart, rangeEnd]
      else {
        buffer.copyWithin(to, rangeStart, rangeEnd)
        to += rangeEnd - rangeStart
      }
    })
    return typeof consumed === 'number' ? { kind: 'data', from, to, consumed } : consumed
  }

  /** Collected until the empty line, because a field can be cut anywhere. Rare and short. */
  #takeTrailerByte(byte: number): Rejection | undefined {
    // Two more, so that a body without trailers ends also where the limit is 0.
    if (this.#trailerBytes === this.#limits.maxTrailerBytes + 2) return rejection('bad_trailer')
    if (this.#trailerBytes === this.#trailer.length) this.#growTrailer()
    const trailer = this.#trailer
    const length = ++this.#trailerBytes
    trailer[length - 1] = byte
    if (byte !== LF) return undefined
    if (trailer[length - 2] !== CR) return rejection('bad_trailer')
    const atEmptyLine = length === 2 || trailer[length - 3] === LF
    return atEmptyLine ? this.#endTrailers() : undefined
  }

  #growTrailer(): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(FIRST_TRAILER_BYTES, 2 * this.#trailerBytes))
    this.#trailer.copy(larger)
    this.#trailer = larger
  }

  #endTrailers(): Rejection | undefined {
    const bytes = this.#trailer.subarray(0, this.#trailerBytes)
    this.#trailer = NOTHING
    const fields = parseFieldSection(
      bytes,
      0,
      bytes.toString('latin1', 0, bytes.length - 2),
      0,
      this.#limits.maxTrailerCount,
      VALUE_CHARACTERS,
    )
    const kept = typeof fields === 'string' ? undefined : keptTrailers(fields)
    if (kept === undefined) return rejection('bad_trailer')
    this.#trailers = kept
    this.#state = DONE
    return undefined
  }
}

/** What goes before a chunk of `length` bytes; not for 0, which would end the body. */
export function encodeChunkHeader(length: number): string {
  return `${length.toString(16)}\r\n`
}

/** What goes after the bytes of a chunk. */
export const CHUNK_END = '\r\n'

/** Ends a body without trailers. */
export const LAST_CHUNK = '0\r\n\r\n'

/** The trailer section with its empty line; goes after `0\r\n` and ends the body. */
export function encodeTrailers(fields: readonly string[]): string {
  let text = ''
  for (let i = 0; i < fields.length; i += 2) text += `${fields[i]}: ${fields[i + 1]}\r\n`
  return `${text}\r\n`
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const letter = byte | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}

const CR = 13
const LF = 10
const SEMICOLON = 0x3b
const EQUALS = 0x3d

const NOTHING = Buffer.alloc(0)
/** A body without trailers has two. */
const FIRST_TRAILER_BYTES = 64

/** 13 digits are 52 bits: every size is a safe integer. */
const MAX_SIZE_DIGITS = 13
/**
 * Nobody uses chunk extensions, and what hides in one is read by some recipients and not by others:
 * so `;name` and `;name=value` of tokens only (no quoted string, no white space), bounded, and dropped
 * (RFC 9112 section 7.1.1).
 */
const MAX_EXTENSION_BYTES = 256

type State =
  | typeof SIZE
  | typeof EXTENSION_NAME
  | typeof EXTENSION_VALUE
  | typeof SIZE_LF
  | typeof DATA
  | typeof DATA_CR
  | typeof DATA_LF
  | typeof TRAILER
  | typeof DONE
const SIZE = 0
const EXTENSION_NAME = 1
const EXTENSION_VALUE = 2
const SIZE_LF = 3
const DATA = 4
const DATA_CR = 5
const DATA_LF = 6
const TRAILER = 7
const DONE = 8
