// How much of something that costs us and brings nothing a client may do: a burst, and so many a
// second after it.

export class Budget {
  readonly #burst: number
  readonly #perSecond: number
  #left: number
  #sinceMs: number

  constructor(burst: number, perSecond: number, nowMs: number) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#left = burst
    this.#sinceMs = nowMs
  }

  /** @returns false when there is nothing left */
  take(nowMs: number): boolean {
    if (nowMs > this.#sinceMs) this.give(((nowMs - this.#sinceMs) / 1000) * this.#perSecond)
    this.#sinceMs = nowMs
    if (this.#left < 1) return false
    this.#left--
    return true
  }

  /** The client has brought something. */
  give(amount: number): void {
    this.#left = Math.min(this.#burst, this.#left + amount)
  }
}
