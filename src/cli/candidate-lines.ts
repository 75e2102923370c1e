// The log line for each decision that a candidate policy would have made otherwise, and no more of them
// than a reader can take: each is counted all the same.
import type { PolicyPiece } from '../control/policy-bundles.ts'
import type { Comparison } from '../control/policy-slots-trial.ts'
import type { Logger } from '../observe/log.ts'
import type { Decisions } from './decisions.ts'

export class CandidateLines {
  readonly #options: { readonly logger: Logger; readonly decisions: Decisions }
  readonly #windows = new Map<Comparison['change'], { readonly atMs: number; told: number }>()

  constructor(options: { readonly logger: Logger; readonly decisions: Decisions }) {
    this.#options = options
  }

  tell(comparison: Comparison, candidate: PolicyPiece | undefined): void {
    const { decisions, logger } = this.#options
    const suppressed = this.#admit(comparison.change)
    if (suppressed === undefined || candidate === undefined) return
    const { record, judgement, change, differs } = comparison
    const { request, active, other } = decisions.shown(record, judgement)
    logger.info(
      {
        event: 'candidate_difference',
        change,
        ...(record.decisionId === '' ? {} : { decision_id: record.decisionId }),
        request_id: record.requestId,
        principal: record.principal,
        ...request,
        outcome: record.outcome,
        ...active,
        shadow: {
          revision: candidate.material.revision,
          bundle_digest: candidate.material.digest,
          outcome: judgement.outcome,
          ...other,
          diff: differs,
          eval_ns: judgement.evalNs,
        },
        ...(suppressed > 0 ? { suppressed } : {}),
      },
      'The candidate policy would have decided otherwise',
    )
  }

  /** How many lines of this kind were left out before this one; undefined: this one is, too. */
  #admit(change: Comparison['change']): number | undefined {
    const nowMs = performance.now()
    const window = this.#windows.get(change)
    if (window === undefined || nowMs - window.atMs >= 1_000) {
      this.#windows.set(change, { atMs: nowMs, told: 1 })
      return Math.max(0, (window?.told ?? 0) - LINES_A_SECOND)
    }
    window.told++
    return window.told > LINES_A_SECOND ? undefined : 0
  }
}

/** For each kind of change. */
const LINES_A_SECOND = 10
