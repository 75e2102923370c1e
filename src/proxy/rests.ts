// How long clients rest whose records bring next to nothing, and take long: all of them together, one
// after the other, so that more connections get no more. The longer it goes on, the smaller is the part
// of the time that they have: a burst hardly notices, and others do not notice what never ends.

/** As many times as long as what they took, at first and at the most. */
const LEAST = 3
const MOST = 96
const FORGET_AFTER_MS = 10_000

export class Rests {
  #factor = LEAST
  #untilMs = Number.NEGATIVE_INFINITY

  /** @returns for how long the one that has taken `tookMs` rests from now on */
  after(tookMs: number, nowMs: number): number {
    this.#factor =
      nowMs - this.#untilMs >= FORGET_AFTER_MS ? LEAST : Math.min(MOST, this.#factor * 2)
    this.#untilMs = Math.max(this.#untilMs, nowMs) + tookMs * this.#factor
    return this.#untilMs - nowMs
  }
}
