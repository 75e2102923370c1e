// Whether a request that failed is sent to the workload once more, and what of its body is needed for
// that. Never after a byte of an answer, and never twice.
import type { Repeatable } from './call.ts'

/** Of a body, so much is kept for the case that it has to be sent once more. */
const MOST_KEPT_BYTES = 64 * 1024
/** Methods whose repetition means the same as one (RFC 9110 section 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

export class Retry {
  /** Undefined once the request cannot be repeated any more. */
  #kept: Buffer[] | undefined = []
  #bytes = 0

  /** More of the body was sent. */
  keep(bytes: Buffer): void {
    this.#bytes += bytes.length
    if (this.#bytes > MOST_KEPT_BYTES) this.#kept = undefined
    this.#kept?.push(bytes)
  }

  /** Something has come back: the workload has processed the request. */
  answered(): void {
    this.#kept = undefined
  }

  /** @returns the body so far, once, where the request may be sent again */
  again(method: string, repeatable: Repeatable): readonly Buffer[] | undefined {
    const may =
      repeatable === 'always' || (repeatable === 'if_idempotent' && IDEMPOTENT.has(method))
    const kept = may ? this.#kept : undefined
    this.#kept = undefined
    return kept
  }
}
