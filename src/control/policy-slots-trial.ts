// Asks the candidate policy about decisions that were made, in the control thread and after the fact:
// no request waits for it. Bounded in time and memory; what there is no time for is counted. Promises
// to say when the candidate may be promoted: so many decisions in a row, and not one would be another.
import type { Judgement } from '../policy/judge.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import { type Difference, differenceOf } from '../policy/slots-difference.ts'
import type { DecisionRecord } from '../threads.ts'

export interface TrialOptions {
  /** As they are at the moment of asking; absent: there is no candidate. */
  readonly pair: () => TrialPair | undefined
  readonly judge: (candidate: PolicyMaterial, record: DecisionRecord) => Judgement
  readonly compared: (comparison: Comparison) => void
  /** Sampled, and the candidate was not asked. */
  readonly dropped: (count: number) => void
  /** Decisions in a row after which `agreed` is called; undefined: never. */
  readonly promoteAfter: () => number | undefined
  /** Called once for each candidate that gets so far. */
  readonly agreed: () => void
  /** Called once for each candidate that does not, where it could have been promoted. */
  readonly disagreed: () => void
  /** Milliseconds from any start. */
  readonly nowMs: () => number
  readonly later: (step: () => void, ms: number) => void
}

export interface TrialPair {
  /** The same as long as both come from the same bundles, with whatever data. */
  readonly id: string
  readonly active: PolicyMaterial
  readonly candidate: PolicyMaterial
}

export interface Comparison extends Difference {
  readonly record: DecisionRecord
  readonly judgement: Judgement
}

export interface TrialStatus {
  readonly compared: number
  /** In a row, up to now. */
  readonly withoutDifference: number
  /** It cannot be promoted automatically any more. */
  readonly stopped: boolean
}

/** Of the control thread, which also answers probes; a candidate that never ends takes no more. */
const SHARE_OF_TIME = 0.1
const MOST_SAVED_MS = 50
const MOST_WAITING = 1_000
/** Input documents that wait, in UTF-16 units. */
const MOST_WAITING_SIZE = 4 * 1024 * 1024

export class CandidateTrial {
  readonly #options: TrialOptions
  #waiting: DecisionRecord[] = []
  #size = 0
  #scheduled = false
  #allowanceMs = MOST_SAVED_MS
  #countedAtMs: number
  #of: string | undefined
  #status: TrialStatus = NOTHING_YET

  constructor(options: TrialOptions) {
    this.#options = options
    this.#countedAtMs = options.nowMs()
  }

  /** Of the candidate that there is now, against the policy that decides now. */
  get status(): TrialStatus {
    return this.#options.pair()?.id === this.#of ? this.#status : NOTHING_YET
  }

  take(record: DecisionRecord): void {
    if (
      this.#waiting.length >= MOST_WAITING ||
      this.#size + record.input.length > MOST_WAITING_SIZE
    ) {
      return this.#options.dropped(1)
    }
    this.#waiting.push(record)
    this.#size += record.input.length
    this.#schedule(0)
  }

  #schedule(ms: number): void {
    if (this.#scheduled) return
    this.#scheduled = true
    this.#options.later(() => {
      this.#scheduled = false
      this.#step()
    }, ms)
  }

  /** One evaluation for each turn of the event loop: whatever else there is to do comes between. */
  #step(): void {
    const { nowMs } = this.#options
    const startMs = nowMs()
    this.#allowanceMs = Math.min(
      this.#allowanceMs + (startMs - this.#countedAtMs) * SHARE_OF_TIME,
      MOST_SAVED_MS,
    )
    this.#countedAtMs = startMs
    if (this.#allowanceMs <= 0) return this.#schedule(-this.#allowanceMs / SHARE_OF_TIME + 1)
    const record = this.#waiting.shift()
    if (record === undefined) return
    this.#size -= record.input.length
    this.#ask(record)
    this.#allowanceMs -= nowMs() - startMs
    if (this.#waiting.length > 0) this.#schedule(0)
  }

  #ask(record: DecisionRecord): void {
    const pair = this.#options.pair()
    // Whoever decided is gone meanwhile: there is nothing to compare with any more.
    if (pair === undefined || record.bundleDigest !== pair.active.digest) {
      return this.#options.dropped(1)
    }
    if (pair.id !== this.#of) {
      this.#of = pair.id
      this.#status = NOTHING_YET
    }
    const compared = this.#compared(pair.candidate, record)
    this.#count(compared.differs.length === 0 && compared.change === 'same')
    this.#options.compared(compared)
  }

  /** What a client can bring about must not end this thread: results may be nested without end. */
  #compared(candidate: PolicyMaterial, record: DecisionRecord): Comparison {
    try {
      const judgement = this.#options.judge(candidate, record)
      return { ...differenceOf(record, judgement), record, judgement }
    } catch (error) {
      const judgement = { outcome: 'error', error: String(error), evalNs: 0 } as const
      return { change: 'error', differs: ['outcome'], record, judgement }
    }
  }

  #count(agrees: boolean): void {
    const { promoteAfter, agreed, disagreed } = this.#options
    const before = this.#status
    const withoutDifference = agrees ? before.withoutDifference + 1 : 0
    const stopped = before.stopped || !agrees
    this.#status = { compared: before.compared + 1, withoutDifference, stopped }
    const wanted = promoteAfter()
    if (wanted === undefined) return
    if (stopped && !before.stopped) disagreed()
    if (!stopped && withoutDifference === wanted) agreed()
  }
}

const NOTHING_YET: TrialStatus = { compared: 0, withoutDifference: 0, stopped: false }
