// Whether a request that failed is sent to the workload once more, and what of its body is needed for
// that. Never after a byte of an answer, and never twice.
import type { KeptCopy, Memory } from '../http/kept-bytes.ts'
import type { Repeatable } from './call.ts'

/** Of a body, so much is kept for the case that it has to be sent once more. */
const MOST_KEPT_BYTES = 64 * 1024
/** Methods whose repetition means the same as one (RFC 9110 section 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

export class Retry {
  readonly #memory: Memory
  /** The body so far, in memory that may have room for more. */
  #kept: KeptCopy | undefined
  #bytes = 0
  /** The request cannot be repeated any more. */
  #over = false

  constructor(memory: Memory) {
    this.#memory = memory
  }

  /** More of the body was sent; the bytes are lent. */
  keep(bytes: Buffer): void {
    if (this.#over) return
    const end = this.#bytes + bytes.length
    if (end > MOST_KEPT_BYTES) return this.answered()
    const { memory } = this.#roomFor(end)
    bytes.copy(memory, this.#bytes)
    this.#bytes = end
  }

  /** Of memory. */
  get keptBytes(): number {
    return this.#kept?.memory.length ?? 0
  }

  /** Something has come back: the workload has processed the request. */
  answered(): void {
    this.#over = true
    this.#kept?.release()
    this.#kept = undefined
  }

  /** @returns the body so far, once, where the request may be sent again */
  again(method: string, repeatable: Repeatable): Buffer | undefined {
    const may =
      repeatable === 'always' || (repeatable === 'if_idempotent' && IDEMPOTENT.has(method))
    const body = this.#kept?.memory.subarray(0, this.#bytes) ?? NOTHING
    const isOver = this.#over
    this.#over = true
    this.#kept = undefined
    return may && !isOver ? body : undefined
  }

  #roomFor(bytes: number): KeptCopy {
    const kept = this.#kept
    if (kept !== undefined && bytes <= kept.memory.length) return kept
    const larger = this.#memory.take(bytes)
    kept?.memory.copy(larger.memory, 0, 0, this.#bytes)
    kept?.release()
    this.#kept = larger
    return larger
  }
}

const NOTHING = Buffer.alloc(0)
