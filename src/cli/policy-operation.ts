// Operates the policy slots of a running sidecar: takes orders, asks the candidate about what was
// decided, promotes and rolls back where the configuration says so, and tells each of it in the log,
// in metrics and in what /snapshot shows.
import type { Config } from '../config/config.ts'
import type { PolicyPiece } from '../control/policy-bundles.ts'
import {
  isSame,
  PolicySlots,
  type SlotChange,
  type SlotOrder,
  type SlotOutcome,
} from '../control/policy-slots.ts'
import { type DecisionCounts, PolicyGuard } from '../control/policy-slots-guard.ts'
import { CandidateTrial, type TrialPair } from '../control/policy-slots-trial.ts'
import type { Reloader } from '../control/reloader.ts'
import type { Generation } from '../control/snapshot-builder.ts'
import { type Cells, cellOf } from '../metrics.ts'
import type { SlotReport } from '../observe/admin.ts'
import type { Logger } from '../observe/log.ts'
import type { MetricsRegistry } from '../observe/metrics.ts'
import type { DecisionRecord } from '../threads.ts'
import { CandidateLines } from './candidate-lines.ts'
import type { Decisions } from './decisions.ts'

export interface PolicyOperationOptions {
  readonly logger: Logger
  readonly metrics: MetricsRegistry
  readonly reloader: () => Reloader
  readonly decisions: Decisions
  /** Of every data thread, those that are gone included. */
  readonly counted: () => readonly Cells[]
  /** Where this side counts; it alone writes there. */
  readonly cells: Cells
  /** The oldest generation that a data thread decides by. */
  readonly appliedGeneration: () => number
  /** Epoch milliseconds. */
  readonly clock: () => number
}

export class PolicyOperation {
  readonly slots = new PolicySlots()
  readonly #options: PolicyOperationOptions
  readonly #trial: CandidateTrial
  readonly #guard = new PolicyGuard()
  readonly #lines: CandidateLines
  #applying: { readonly generation: number; readonly done: () => void }[] = []
  /** What decided when last looked at. */
  #decides: PolicyPiece | undefined
  #heldBack: PolicyPiece | undefined
  #guarding: NodeJS.Timeout | undefined

  constructor(options: PolicyOperationOptions) {
    this.#options = options
    this.#lines = new CandidateLines(options)
    const { decisions, metrics, cells, logger } = options
    this.#trial = new CandidateTrial({
      pair: () => this.#pair,
      judge: (candidate, record) => decisions.judge(candidate, record),
      compared: (comparison) => {
        metrics.inc('candidate_decisions_total', { change: comparison.change })
        const { candidate } = this.slots.pieces
        if (comparison.differs.length > 0 || comparison.change === 'error')
          this.#lines.tell(comparison, candidate)
      },
      dropped: (count) => cells.add(DROPPED, count),
      promoteAfter: () => this.#policy?.candidate?.promoteAfter,
      agreed: () => this.#promoteByItself(),
      disagreed: () =>
        logger.warn(
          {
            event: 'policy_promotion',
            result: 'stopped',
            ...versions(this.slots.pieces.candidate),
          },
          'The candidate differs: it is not promoted automatically',
        ),
      nowMs: () => performance.now(),
      later: (step, ms) => void (ms === 0 ? setImmediate(step) : setTimeout(step, ms).unref()),
    })
  }

  /** A decision that the candidate is to be asked about. */
  sampled(record: DecisionRecord): void {
    this.#trial.take(record)
  }

  /** To be called with each generation that goes into force. */
  published({ slots, snapshot }: Generation): void {
    const { metrics } = this.#options
    metrics.clear('policy_info')
    for (const [slot, piece] of Object.entries({
      active: slots.active,
      previous: slots.previous,
      candidate: slots.candidate,
      held_back: slots.heldBack,
    }) as [Slot, PolicyPiece | undefined][]) {
      if (piece !== undefined)
        metrics.set('policy_info', { slot, revision: piece.material.revision }, 1)
    }
    const freed = this.#heldBack !== undefined && isSame(slots.active, this.#heldBack)
    this.#heldBack = slots.heldBack
    if (freed && this.slots.lastChange === undefined) {
      this.#options.logger.warn(
        { event: 'policy_slot', action: 'ended', ...versions(slots.active) },
        'What was held back decides again, because the settings of the policy have changed',
      )
    }
    this.#guardWhereWanted()
    if (isSame(slots.active, this.#decides)) return
    const isNew = this.#decides !== undefined && this.slots.lastChange?.action !== 'rollback'
    this.#decides = slots.active
    const last = this.#counts()
    void this.#applied(snapshot.generation).then(() => {
      const rollback = this.#policy?.rollback
      if (rollback === undefined || this.#decides !== slots.active) return
      this.#guard.switched(last, this.#counts(), this.#options.clock(), rollback, isNew)
    })
  }

  /** To be called when a data thread has applied a generation. */
  applied(): void {
    const generation = this.#options.appliedGeneration()
    const done = this.#applying.filter((one) => one.generation <= generation)
    this.#applying = this.#applying.filter((one) => one.generation > generation)
    for (const one of done) one.done()
  }

  /** The answer comes when every data thread decides by it, or is taking long. */
  rollback(): Promise<SlotReport> {
    return this.#report(this.#order('rollback', { by: 'operator' }))
  }

  promote(slot?: 'candidate' | 'held_back'): Promise<SlotReport> {
    return this.#report(this.#order('promote', { by: 'operator' }, slot))
  }

  /** What `/snapshot` shows beside the slots themselves. */
  view(): object {
    const { lastChange, pieces } = this.slots
    const { promoteAfter } = this.#policy?.candidate ?? {}
    const trial = this.#trial.status
    const watched = this.#guard.status(this.#counts())
    return {
      ...(lastChange && { last_change: changeView(lastChange) }),
      ...(pieces.candidate && {
        trial: {
          compared: trial.compared,
          without_difference: trial.withoutDifference,
          ...(promoteAfter === undefined
            ? {}
            : {
                promote_after: promoteAfter,
                promotion: trial.stopped || !this.slots.isCandidateTrusted ? 'stopped' : 'pending',
              }),
        },
      }),
      ...(watched && {
        watched: {
          until: new Date(watched.untilMs).toISOString(),
          decisions: watched.decisions,
          deny_share: watched.denyShare,
          deny_share_before: watched.denyShareBefore,
          error_share: watched.errorShare,
          error_share_before: watched.errorShareBefore,
        },
      }),
    }
  }

  stop(): void {
    clearInterval(this.#guarding)
  }

  get #policy(): Config['policy'] {
    return this.#options.reloader().config.policy
  }

  get #pair(): TrialPair | undefined {
    const { active, candidate } = this.slots.pieces
    if (active === undefined || candidate === undefined) return undefined
    const id = `${active.parts[0]?.digest} ${candidate.parts[0]?.digest}`
    return { id, active: active.material, candidate: candidate.material }
  }

  #order(
    action: SlotChange['action'],
    given: Pick<SlotOrder, 'by' | 'reason'>,
    slot?: 'candidate' | 'held_back',
  ): SlotOutcome {
    const { logger, metrics, clock, reloader } = this.#options
    const order: SlotOrder = { ...given, atMs: clock() }
    const outcome =
      action === 'rollback' ? this.slots.rollback(order) : this.slots.promote(order, slot)
    if (outcome.kind === 'refused') return outcome
    const { change } = outcome
    metrics.inc('policy_slot_changes_total', { action, by: change.by })
    const generation = reloader().republish()
    logger[change.by === 'automatic' && action === 'rollback' ? 'error' : 'warn'](
      {
        event: 'policy_slot',
        ...changeView(change),
        generation: generation?.snapshot.generation,
      },
      action === 'rollback' ? 'Rolled back to the previous policy' : 'Another policy was promoted',
    )
    if (generation !== undefined) this.published(generation)
    return outcome
  }

  async #report(outcome: SlotOutcome): Promise<SlotReport> {
    if (outcome.kind === 'refused') {
      return { ok: false, error: outcome.code, detail: outcome.what }
    }
    const generation = this.#options.reloader().current?.snapshot.generation ?? 0
    const applied = await this.#applied(generation)
    return { ok: true, ...changeView(outcome.change), generation, applied }
  }

  /** False where it takes longer than anybody should wait. */
  #applied(generation: number): Promise<boolean> {
    if (this.#options.appliedGeneration() >= generation) return Promise.resolve(true)
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const late = setTimeout(() => resolve(false), APPLYING_MS).unref()
    const done = () => {
      clearTimeout(late)
      resolve(true)
    }
    this.#applying.push({ generation, done })
    return promise
  }

  #promoteByItself(): void {
    if (!this.slots.isCandidateTrusted) return
    const { withoutDifference } = this.#trial.status
    const reason = `${withoutDifference} decisions in a row without a difference`
    this.#order('promote', { by: 'automatic', reason }, 'candidate')
  }

  #guardWhereWanted(): void {
    const wanted = this.#policy?.rollback !== undefined
    if (wanted === (this.#guarding !== undefined)) return
    clearInterval(this.#guarding)
    this.#guarding = wanted ? setInterval(() => this.#look(), LOOK_MS).unref() : undefined
  }

  #look(): void {
    const rollback = this.#policy?.rollback
    if (rollback === undefined) return
    const reason = this.#guard.look(this.#counts(), this.#options.clock(), rollback)
    if (reason === undefined) return
    const outcome = this.#order('rollback', { by: 'automatic', reason })
    if (outcome.kind === 'refused') {
      this.#options.logger.error(
        { event: 'policy_slot', action: 'rollback', by: 'automatic', reason, detail: outcome.what },
        'The new policy should be rolled back, and there is nothing to roll back to',
      )
    }
  }

  #counts(): DecisionCounts {
    const count = (outcome: 'allow' | 'deny' | 'error' | 'timeout'): number => {
      const cell = cellOf('decisions_total', { outcome, rule: 'policy' })
      return this.#options.counted().reduce((sum, cells) => sum + cells.read(cell), 0)
    }
    return { allow: count('allow'), deny: count('deny'), error: count('error') + count('timeout') }
  }
}

type Slot = 'active' | 'previous' | 'candidate' | 'held_back'

const DROPPED = cellOf('candidate_samples_dropped_total', {})
const LOOK_MS = 1_000
const APPLYING_MS = 2_000

function changeView({ action, by, reason, atMs, from, to }: SlotChange): object {
  return {
    action,
    by,
    ...(reason === undefined ? {} : { reason }),
    at: new Date(atMs).toISOString(),
    from: versions(from),
    to: versions(to),
  }
}

const versions = (piece: PolicyPiece | undefined) =>
  piece && {
    file: piece.material.file,
    revision: piece.material.revision,
    digest: piece.material.digest,
  }
