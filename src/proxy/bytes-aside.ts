// Bytes that wait for a moment, next to those of others in the same memory. With a Buffer for each, V8
// would copy a thousand objects at each scavenge, keep them when nobody needs them any more, and mark
// the heap the sooner.

const PIECE_BYTES = 64 * 1024
/** What is left of bytes stays where it is until it is less than this part of them. */
const LEAST_PART = 1 / 4
/** What is larger has memory of its own. */
export const MOST_ASIDE_BYTES = PIECE_BYTES / 8

/** The memory of a thread for such; a piece of it is free when nothing waits in it. */
export class SharedPieces {
  #piece = NOTHING
  #used = 0
  /** Nobody else writes where somebody's bytes are: what is in them may stay there. */
  readonly #pieces = new WeakSet<ArrayBufferLike>()

  /** Whether the bytes are what is left of those at `at`, and may stay where they are. */
  holds(bytes: Buffer, at: BytesAside): boolean {
    return bytes.length >= at.cameWith * LEAST_PART && this.#pieces.has(bytes.buffer)
  }

  /** Copies at most `MOST_ASIDE_BYTES`, unless they are here, to where `at` says from then on. */
  put(bytes: Buffer, at: BytesAside): void {
    const { length } = bytes
    if (this.holds(bytes, at)) return at.stay(bytes)
    if (this.#used + length > this.#piece.length) {
      this.#piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
      this.#pieces.add(this.#piece.buffer)
      this.#used = 0
    }
    const start = this.#used
    this.#used += bytes.copy(this.#piece, start)
    at.are(this.#piece, start, this.#used)
  }
}

/** The bytes of one connection; made once, used again. */
export class BytesAside {
  #memory: Buffer | undefined
  #start = 0
  #end = 0
  #cameWith = 0

  /** How many there were when they were copied. */
  get cameWith(): number {
    return this.#cameWith
  }

  are(memory: Buffer, start: number, end: number): void {
    this.#memory = memory
    this.#start = start
    this.#end = end
    this.#cameWith = end - start
  }

  /** What is left of them is where they were. */
  stay(rest: Buffer): void {
    this.#memory = rest
    this.#start = 0
    this.#end = rest.length
  }

  /** Gives them back, once. */
  take(): Buffer | undefined {
    const bytes = this.#memory?.subarray(this.#start, this.#end)
    this.#memory = undefined
    return bytes
  }
}

const NOTHING = Buffer.alloc(0)
