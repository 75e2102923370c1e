// Chooses the decisions that a candidate policy is asked about, in the control thread. What cannot be
// asked there anyway is not sent: a sample never costs requests more than this many a second.
import { type Cells, cellOf } from '../metrics.ts'

/** In one tick of 100 ms, of one data thread. */
const MOST_IN_A_TICK = 200

export const SAMPLES_DROPPED = cellOf('candidate_samples_dropped_total', {})

export class CandidateSample {
  readonly #cells: Cells
  readonly #random: () => number
  #tickMs = 0
  #taken = 0

  constructor(cells: Cells, random: () => number = Math.random) {
    this.#cells = cells
    this.#random = random
  }

  /** @param share of all decisions; absent: there is no candidate. @param tickMs of this tick */
  takes(share: number | undefined, tickMs: number): boolean {
    if (share === undefined || this.#random() >= share) return false
    if (tickMs !== this.#tickMs) {
      this.#tickMs = tickMs
      this.#taken = 0
    }
    if (this.#taken >= MOST_IN_A_TICK) {
      this.#cells.add(SAMPLES_DROPPED)
      return false
    }
    this.#taken++
    return true
  }
}
