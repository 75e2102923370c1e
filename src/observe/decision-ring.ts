// The last decisions, for `GET /decisions`: bounded by count and by size, newest first.
import type { DecisionRecord } from '../threads.ts'

export interface RecentDecision {
  readonly id: string
  readonly outcome: string
  /** Undefined where the event hides it. */
  readonly principal: string | undefined
  /** The event, masked as in the log. */
  readonly json: string
  /** What was decided, not masked: only to be asked again, never to be shown. */
  readonly record: DecisionRecord
}

export interface DecisionFilter {
  readonly outcome?: string
  readonly principal?: string
  readonly limit: number
}

export class DecisionRing {
  readonly #capacity: number
  readonly #maxSize: number
  readonly #slots: (RecentDecision | undefined)[]
  #next = 0
  #count = 0
  #size = 0

  /** `maxSize` bounds the sum of the lengths of events and documents, in UTF-16 units. */
  constructor(capacity = 1000, maxSize = 16 * 1024 * 1024) {
    this.#capacity = capacity
    this.#maxSize = maxSize
    this.#slots = new Array(capacity)
  }

  get count(): number {
    return this.#count
  }

  get size(): number {
    return this.#size
  }

  add(decision: RecentDecision): void {
    const size = sizeOf(decision)
    if (size > this.#maxSize) return
    while (
      this.#count > 0 &&
      (this.#count === this.#capacity || this.#size + size > this.#maxSize)
    ) {
      const oldest = (this.#next - this.#count + this.#capacity) % this.#capacity
      const gone = this.#slots[oldest]
      if (gone !== undefined) this.#size -= sizeOf(gone)
      this.#slots[oldest] = undefined
      this.#count--
    }
    this.#slots[this.#next] = decision
    this.#next = (this.#next + 1) % this.#capacity
    this.#count++
    this.#size += size
  }

  find(id: string): RecentDecision | undefined {
    for (const decision of this.#newestFirst()) if (decision.id === id) return decision
    return undefined
  }

  list({ outcome, principal, limit }: DecisionFilter): RecentDecision[] {
    const found: RecentDecision[] = []
    for (const decision of this.#newestFirst()) {
      if (found.length >= limit) break
      if (outcome !== undefined && decision.outcome !== outcome) continue
      if (principal !== undefined && decision.principal !== principal) continue
      found.push(decision)
    }
    return found
  }

  *#newestFirst(): Generator<RecentDecision> {
    for (let back = 1; back <= this.#count; back++) {
      const decision = this.#slots[(this.#next - back + this.#capacity) % this.#capacity]
      if (decision !== undefined) yield decision
    }
  }
}

const sizeOf = ({ json, record }: RecentDecision): number =>
  json.length + record.input.length + (record.result?.length ?? 0)
