// Brings changes into force. Promises a single load at a time, that whoever asks gets a load that
// began after they asked, that a failed load is tried again without being asked, and that what was
// good before stays in force until something better is complete. A reload that somebody asks for
// reads the configuration again, too; a new one goes into force as a whole or not at all.
import { isDeepStrictEqual } from 'node:util'
import type { Config } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import type { Snapshot } from '../threads.ts'
import {
  type Loaded,
  type LoadOutcome,
  loadMaterials,
  type Source,
  type SourceResult,
} from './loader.ts'
import { PolicySlots } from './policy-slots.ts'
import { type Generation, nextGeneration } from './snapshot-builder.ts'

export type ReloadReason =
  | 'start'
  | 'watch'
  | 'workload_api'
  | 'bundle_server'
  | 'signal'
  | 'admin'
  | 'retry'

export interface ReloadReport {
  readonly reason: ReloadReason
  /** `failed`: at least one source; the others were published all the same where they changed. */
  readonly result: 'published' | 'unchanged' | 'failed'
  /** In force after this; 0 when nothing ever was. */
  readonly generation: number
  /** `config` only where it was read: at the start and when somebody asks. */
  readonly perSource: LoadOutcome['perSource'] & { readonly config?: SourceResult }
  readonly problems: readonly Problem[]
  readonly beganMs: number
  readonly durationMs: number
  /** When what is new was written or delivered, as far as that is known; epoch milliseconds. */
  readonly sinceMs?: number
  /** The same failure as the last time: worth counting, not worth another line in the log. */
  readonly repeated: boolean
}

export interface ConfigReading {
  /** Absent: it cannot be used, and the problems say why. */
  readonly config: Config | undefined
  readonly problems: readonly Problem[]
}

export interface ReloaderOptions {
  readonly config: Config
  /** Reads the configuration anew; absent: it stays what it was. */
  readonly configuration?: (inForce: Config) => ConfigReading
  /** Epoch milliseconds. */
  readonly clock: () => number
  /** Hands a new snapshot to the data threads. */
  readonly publish: (snapshot: Snapshot) => void
  readonly onReload: (report: ReloadReport) => void
  /** Says which policy of those that were loaded decides. */
  readonly slots?: PolicySlots
  /** In place of `loadMaterials`. */
  readonly load?: (config: Config, nowMs: number, previous?: Loaded) => Promise<LoadOutcome>
}

export class Reloader {
  readonly #options: ReloaderOptions
  readonly #slots: PolicySlots
  #current: Generation | undefined
  #lastReport: ReloadReport | undefined
  /** Waits for the load that is running; joined by everybody who asks meanwhile. */
  #queued:
    | { reason: ReloadReason; sinceMs: number | undefined; readonly report: Promise<ReloadReport> }
    | undefined
  #last: Promise<unknown> = Promise.resolve()
  #retry: NodeJS.Timeout | undefined
  #retryMs = FIRST_RETRY_MS
  #stopped = false

  constructor(options: ReloaderOptions) {
    this.#options = options
    this.#slots = options.slots ?? new PolicySlots()
  }

  /** What is in force. */
  get current(): Generation | undefined {
    return this.#current
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#current?.config ?? this.#options.config
  }

  get lastReport(): ReloadReport | undefined {
    return this.#lastReport
  }

  /**
   * Never rejects. One load serves all who ask before it begins. `sinceMs`: when what is new was
   * written or delivered.
   */
  reload(reason: ReloadReason, sinceMs?: number): Promise<ReloadReport> {
    if (this.#queued !== undefined) {
      this.#queued.sinceMs = earlier(this.#queued.sinceMs, sinceMs)
      // Whoever asks wants the configuration read as well, which a notice of a file does not do.
      if (isOnDemand(reason)) this.#queued.reason = reason
      return this.#queued.report
    }
    const report = this.#last.then(() => {
      const last = this.#queued ?? { reason, sinceMs }
      this.#queued = undefined
      return this.#run(last.reason, last.sinceMs)
    })
    this.#queued = { reason, sinceMs, report }
    this.#last = report
    return report
  }

  /** Brings what has changed in the slots into force now; nothing is loaded or waited for. */
  republish(): Generation | undefined {
    const before = this.#current
    if (before === undefined) return undefined
    const { config, loaded } = before
    const nowMs = this.#options.clock()
    const next = nextGeneration(config, loaded, nowMs, before, this.#slots.pieces)
    if (next !== before) this.#options.publish(next.snapshot)
    this.#current = next
    return next
  }

  /** Ends retries; a load that is running ends by itself. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#retry)
  }

  async #run(reason: ReloadReason, toldMs: number | undefined): Promise<ReloadReport> {
    clearTimeout(this.#retry)
    // What is tried again has been waiting since it was told.
    const sinceMs = toldMs ?? (reason === 'retry' ? this.#lastReport?.sinceMs : undefined)
    const { clock, onReload } = this.#options
    const beganMs = clock()
    const outcome = await this.#attempt(reason, beganMs)
    const report = {
      ...outcome,
      reason,
      generation: this.#current?.snapshot.generation ?? 0,
      beganMs,
      durationMs: clock() - beganMs,
      ...(sinceMs === undefined ? {} : { sinceMs }),
      repeated: reason === 'retry' && sameFailure(outcome, this.#lastReport),
    }
    this.#lastReport = report
    if (SOURCES.some((source) => report.perSource[source] === 'failed')) this.#retryLater(reason)
    onReload(report)
    return report
  }

  async #attempt(reason: ReloadReason, nowMs: number): Promise<Attempt> {
    const { load = loadMaterials, publish } = this.#options
    try {
      const loadedBefore = this.#current?.loaded
      const asked = await this.#reconfigured(reason, nowMs)
      const config = asked.adopted?.config ?? this.config
      const outcome = asked.adopted?.outcome ?? (await load(config, nowMs, loadedBefore))
      const { loaded } = outcome
      const problems = withoutRepeats([...asked.problems, ...outcome.problems])
      const perSource = { ...outcome.perSource, ...(asked.result && { config: asked.result }) }
      const failed = Object.values(perSource).includes('failed')
      if (loaded === undefined) return { result: 'failed', perSource, problems }
      // Somebody may have rolled back while this was loaded.
      const before = this.#current
      const slots = this.#slots.settle(config, loaded)
      const next = nextGeneration(config, loaded, nowMs, before, slots)
      if (next !== before) publish(next.snapshot)
      this.#current = next
      if (failed) return { result: 'failed', perSource, problems }
      return { result: next === before ? 'unchanged' : 'published', perSource, problems }
    } catch (error) {
      const what = `the load ended in a fault: ${error instanceof Error ? error.stack : error}`
      const problem = { where: 'postern', what, remedy: 'please report it' }
      return { result: 'failed', perSource: ALL_FAILED, problems: [problem] }
    }
  }

  /** Loaded afresh: what the old configuration left behind can stand for nothing in the new one. */
  async #reconfigured(reason: ReloadReason, nowMs: number): Promise<Reconfigured> {
    const { configuration, load = loadMaterials } = this.#options
    if (reason === 'start') return { result: 'changed', problems: [] }
    if (configuration === undefined || !isOnDemand(reason)) return { problems: [] }
    const { config, problems } = configuration(this.config)
    if (config === undefined) return { result: 'failed', problems }
    if (isDeepStrictEqual(config, this.config)) return { result: 'unchanged', problems }
    const outcome = await load(config, nowMs)
    if (outcome.loaded === undefined)
      return { result: 'failed', problems: [...problems, ...outcome.problems] }
    // At the start a policy may be waited for; here there is something that decides meanwhile.
    if (isPending(config, outcome.loaded) && !isPending(this.config, this.#current?.loaded)) {
      return { result: 'failed', problems: [...problems, NOT_COME, ...outcome.problems] }
    }
    return { result: 'changed', problems, adopted: { config, outcome } }
  }

  /**
   * A key without its certificate is normal while both are being replaced, and a certificate from
   * the future while clocks differ: both go away without another change of a file.
   */
  #retryLater(reason: ReloadReason): void {
    if (this.#stopped || this.#current === undefined) return
    this.#retryMs = reason === 'retry' ? Math.min(this.#retryMs * 2, LAST_RETRY_MS) : FIRST_RETRY_MS
    this.#retry = setTimeout(() => void this.reload('retry'), this.#retryMs).unref()
  }
}

type Attempt = Pick<ReloadReport, 'result' | 'perSource' | 'problems'>

interface Reconfigured {
  readonly result?: SourceResult
  readonly problems: readonly Problem[]
  readonly adopted?: { readonly config: Config; readonly outcome: LoadOutcome }
}

const earlier = (one: number | undefined, other: number | undefined): number | undefined =>
  one === undefined || other === undefined ? (one ?? other) : Math.min(one, other)

const isOnDemand = (reason: ReloadReason): boolean => reason === 'signal' || reason === 'admin'

const isPending = ({ policy }: Config, loaded: Loaded | undefined): boolean =>
  policy !== undefined && loaded?.policy === undefined

const NOT_COME: Problem = {
  where: 'policy.bundle',
  what: 'the policy of the new configuration has not come from its server; what was in force stays',
  remedy: 'ask for the reload again when the server answers',
}

/** A file that both configurations name is told once. */
const withoutRepeats = (problems: readonly Problem[]): Problem[] => [
  ...new Map(problems.map((problem) => [JSON.stringify(problem), problem])).values(),
]

function sameFailure(one: Attempt, other: ReloadReport | undefined): boolean {
  const told = (attempt?: Attempt) => JSON.stringify([attempt?.perSource, attempt?.problems])
  return one.result === 'failed' && told(one) === told(other)
}

const SOURCES: readonly Source[] = ['identity', 'trust', 'revocation', 'policy', 'candidate']
const FIRST_RETRY_MS = 100
const LAST_RETRY_MS = 30_000
const ALL_FAILED = {
  identity: 'failed',
  trust: 'failed',
  revocation: 'failed',
  policy: 'failed',
} as const
