// The part of a request body that is collected before policy is asked. Knows nothing of the protocol
// that brings it: whoever reads the body adds what comes, and gives everything back in the end.
import type { BodyNeed } from '../policy/body/need.ts'
import type { BodyAtHand } from '../policy/body/parsed-body.ts'

/** Memory for the bodies that one data thread collects, so that many slow ones cannot exhaust it. */
export class BodyBudget {
  #usedBytes = 0

  get usedBytes(): number {
    return this.#usedBytes
  }

  /** @returns false, and takes nothing, when more than `totalBytes` would be in use */
  take(bytes: number, totalBytes: number): boolean {
    if (this.#usedBytes + bytes > totalBytes) return false
    this.#usedBytes += bytes
    return true
  }

  give(bytes: number): void {
    this.#usedBytes -= bytes
  }
}

/** `ready`: policy can be asked. `full`: the thread has no memory left for it. */
export type Collected = 'more' | 'ready' | 'full'

export class RequestBody {
  readonly #need: BodyNeed
  readonly #budget: BodyBudget
  readonly #totalBytes: number
  #buffer: Buffer = Buffer.alloc(0)
  #length = 0
  #complete = false

  /** @param totalBytes that `budget` may lend at a time */
  constructor(need: BodyNeed, budget: BodyBudget, totalBytes: number) {
    this.#need = need
    this.#budget = budget
    this.#totalBytes = totalBytes
  }

  /** What came; never more than the longest one and what was read with its last byte. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  get atHand(): BodyAtHand {
    return { bytes: this.bytes, complete: this.#complete }
  }

  /** Takes the bytes, which are lent, whatever it returns but `full`. */
  add(bytes: Buffer, start: number, end: number): Collected {
    const length = this.#length + end - start
    if (length > this.#buffer.length && !this.#grow(length)) return 'full'
    bytes.copy(this.#buffer, this.#length, start, end)
    this.#length = length
    return length > this.#need.maxBytes || this.#need.enough(this.bytes) ? 'ready' : 'more'
  }

  /** The last byte has come. */
  end(): void {
    this.#complete = this.#length <= this.#need.maxBytes
  }

  /** To be called once, when the bytes have gone on or nobody wants them any more. */
  release(): void {
    this.#budget.give(this.#buffer.length)
    this.#buffer = Buffer.alloc(0)
    this.#length = 0
  }

  /** By doubling, and copied: a byte that came alone must not keep the chunk it came in. */
  #grow(length: number): boolean {
    const room = Math.max(length, Math.min(2 * this.#buffer.length, this.#need.maxBytes))
    if (!this.#budget.take(room - this.#buffer.length, this.#totalBytes)) return false
    const grown = Buffer.allocUnsafeSlow(room)
    this.#buffer.copy(grown, 0, 0, this.#length)
    this.#buffer = grown
    return true
  }
}
