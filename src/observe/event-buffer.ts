// Events that wait to be sent, bounded by count and by bytes. The oldest are lent out to be sent and
// come back when that failed; when something has to go, it is the oldest that is not lent.

interface Waiting {
  readonly event: string
  readonly bytes: number
}

export class EventBuffer {
  readonly #maxEvents: number
  readonly #maxBytes: number
  #waiting: Waiting[] = []
  /** Where the oldest stands: what is before it is gone, and cut off now and then. */
  #first = 0
  #lent: readonly Waiting[] = []
  #bytes = 0

  constructor(maxEvents: number, maxBytes: number) {
    this.#maxEvents = maxEvents
    this.#maxBytes = maxBytes
  }

  /** Lent ones, too. */
  get count(): number {
    return this.#waiting.length - this.#first + this.#lent.length
  }

  get bytes(): number {
    return this.#bytes
  }

  get isHalfFull(): boolean {
    return this.count * 2 >= this.#maxEvents || this.#bytes * 2 >= this.#maxBytes
  }

  /** How many were dropped for it; itself, where everything else is lent. */
  add(event: string): number {
    const bytes = Buffer.byteLength(event)
    let dropped = 0
    while (this.count + 1 > this.#maxEvents || this.#bytes + bytes > this.#maxBytes) {
      const oldest = this.#next()
      dropped++
      if (oldest === undefined) return dropped
      this.#bytes -= oldest.bytes
    }
    this.#waiting.push({ event, bytes })
    this.#bytes += bytes
    return dropped
  }

  /** The oldest: at least one, at most `most`, and no more when they come to `bytes`. */
  lend(bytes: number, most: number): readonly string[] {
    const lent: Waiting[] = []
    for (let sum = 0; lent.length < most && (lent.length === 0 || sum < bytes); ) {
      const oldest = this.#next()
      if (oldest === undefined) break
      lent.push(oldest)
      sum += oldest.bytes
    }
    this.#lent = lent
    return lent.map(({ event }) => event)
  }

  putBack(): void {
    this.#waiting = [...this.#lent, ...this.#waiting.slice(this.#first)]
    this.#first = 0
    this.#lent = []
  }

  /** The lent ones are done with; how many they were. */
  settle(): number {
    const count = this.#lent.length
    for (const { bytes } of this.#lent) this.#bytes -= bytes
    this.#lent = []
    return count
  }

  /** How many there were. */
  clear(): number {
    const { count } = this
    this.#waiting = []
    this.#lent = []
    this.#first = 0
    this.#bytes = 0
    return count
  }

  #next(): Waiting | undefined {
    const oldest = this.#waiting[this.#first]
    if (oldest === undefined) return undefined
    this.#first++
    if (this.#first > 1024 && this.#first * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first)
      this.#first = 0
    }
    return oldest
  }
}
