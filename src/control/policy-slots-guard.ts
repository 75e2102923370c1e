// Watches a new policy for its first minutes: does it deny, or fail, more often than the one before
// did? Reads nothing but counts of decisions, so that it costs no request anything.
import type { RollbackConfig } from '../config/config.ts'

/** Decisions of the policy since the start of the program; they only grow. */
export interface DecisionCounts {
  readonly allow: number
  readonly deny: number
  /** Timeouts among them. */
  readonly error: number
}

export interface GuardStatus {
  /** Epoch milliseconds. */
  readonly untilMs: number
  readonly decisions: number
  readonly denyShare: number
  readonly errorShare: number
  /** Of the policy before; 0 where it decided nothing within the window. */
  readonly denyShareBefore: number
  readonly errorShareBefore: number
}

export class PolicyGuard {
  /** What was counted lately under the policy that decides; the oldest first. */
  #history: readonly Sample[] = []
  #watched: Watched | undefined

  /**
   * Another policy decides from now on.
   * @param last counts as it was published: what comes after may be of either
   * @param watch it is new, and is to be compared with the one before
   */
  switched(
    last: DecisionCounts,
    counts: DecisionCounts,
    nowMs: number,
    { windowMs }: RollbackConfig,
    watch: boolean,
  ): void {
    const oldest = this.#history.find(({ atMs }) => atMs >= nowMs - windowMs)?.counts ?? last
    const before = sharesOf(oldest, last)
    this.#watched = watch ? { since: counts, untilMs: nowMs + windowMs, before } : undefined
    this.#history = [{ atMs: nowMs, counts }]
  }

  /**
   * To be called every second or so.
   * @returns why the policy has to go, for the operator; undefined: it may stay
   */
  look(counts: DecisionCounts, nowMs: number, config: RollbackConfig): string | undefined {
    this.#remember(counts, nowMs, config)
    const watched = this.#watched
    if (watched === undefined) return undefined
    const now = sharesOf(watched.since, counts)
    const reason =
      now.decisions < config.minDecisions ? undefined : excess(now, watched.before, config)
    if (reason !== undefined || nowMs >= watched.untilMs) this.#watched = undefined
    return reason
  }

  /** Absent: nothing is watched. */
  status(counts: DecisionCounts): GuardStatus | undefined {
    const watched = this.#watched
    if (watched === undefined) return undefined
    const { decisions, deny, error } = sharesOf(watched.since, counts)
    const { untilMs, before } = watched
    return {
      untilMs,
      decisions,
      denyShare: deny,
      errorShare: error,
      denyShareBefore: before.deny,
      errorShareBefore: before.error,
    }
  }

  /** A bounded number of samples over the window. */
  #remember(counts: DecisionCounts, nowMs: number, { windowMs }: RollbackConfig): void {
    const last = this.#history.at(-1)
    if (last !== undefined && nowMs - last.atMs < windowMs / SAMPLES) return
    const kept = this.#history.filter(({ atMs }) => atMs >= nowMs - windowMs)
    this.#history = [...kept, { atMs: nowMs, counts }]
  }
}

const SAMPLES = 50

interface Sample {
  readonly atMs: number
  readonly counts: DecisionCounts
}

interface Shares {
  readonly decisions: number
  readonly deny: number
  readonly error: number
}

interface Watched {
  readonly since: DecisionCounts
  readonly untilMs: number
  readonly before: Shares
}

function sharesOf(from: DecisionCounts, to: DecisionCounts): Shares {
  const [allow, deny, error] = (['allow', 'deny', 'error'] as const).map(
    (name) => to[name] - from[name],
  ) as [number, number, number]
  const decisions = allow + deny + error
  return {
    decisions,
    deny: decisions === 0 ? 0 : deny / decisions,
    error: decisions === 0 ? 0 : error / decisions,
  }
}

function excess(now: Shares, before: Shares, config: RollbackConfig): string | undefined {
  const bounds = [
    ['deny', config.maxDenyIncrease, 'denials'],
    ['error', config.maxErrorIncrease, 'errors'],
  ] as const
  for (const [name, most, what] of bounds) {
    if (most === undefined || now[name] - before[name] <= most) continue
    return `${percent(now[name])} ${what} in ${now.decisions} decisions, ${percent(before[name])} before`
  }
  return undefined
}

const percent = (share: number): string => `${Math.round(share * 1000) / 10} %`
