// Bytes that wait for a moment, next to those of others in the same memory. With a Buffer for each, V8
// would copy a thousand objects at each scavenge, keep them when nobody needs them any more, and mark
// the heap the sooner.

const PIECE_BYTES = 64 * 1024
/** What is larger has memory of its own. */
export const MOST_ASIDE_BYTES = PIECE_BYTES / 8

/** The memory of a thread for such; a piece of it is free when nothing waits in it. */
export class SharedPieces {
  #piece = NOTHING
  #used = 0

  /** Copies at most `MOST_ASIDE_BYTES` to where `at` says from then on. */
  put(bytes: Buffer, at: BytesAside): void {
    const { length } = bytes
    if (this.#used + length > this.#piece.length) {
      this.#piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
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

  are(memory: Buffer, start: number, end: number): void {
    this.#memory = memory
    this.#start = start
    this.#end = end
  }

  /** Gives them back, once. */
  take(): Buffer | undefined {
    const bytes = this.#memory?.subarray(this.#start, this.#end)
    this.#memory = undefined
    return bytes
  }
}

const NOTHING = Buffer.alloc(0)
