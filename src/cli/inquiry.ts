// Asks the policies in force about what is no request: events of the decision log, and decisions of
// the past. Runs in the control thread, on instances of its own, so that no request waits for it.
import type { DecisionRules } from '../observe/decision-event.ts'
import type { DecisionLog } from '../observe/decision-log.ts'
import { NO_DOCUMENT } from '../policy/input.ts'
import { HostPool, type Judgement, judge } from '../policy/judge.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import type { DecisionRecord } from '../threads.ts'

export interface AskedPolicies {
  readonly active?: PolicyMaterial | undefined
  readonly candidate?: PolicyMaterial | undefined
}

/** What one policy says now about the input of a decision; its result masked as in the log. */
export interface Reconsidered {
  readonly revision: string
  readonly bundle_digest: string
  readonly entrypoint: string
  readonly outcome: Judgement['outcome']
  readonly result?: unknown
  readonly error?: unknown
  readonly eval_ns: number
  /** The outcome or the result is another one than that of the decision. */
  readonly differs: boolean
}

export class PolicyInquiry {
  readonly #slots: () => AskedPolicies
  readonly #hosts = new HostPool()
  #rules: { readonly of: PolicyMaterial; readonly rules: DecisionRules } | undefined

  constructor(slots: () => AskedPolicies) {
    this.#slots = slots
  }

  /** Of the active policy; absent where it has no opinion about its log. */
  get rules(): DecisionRules | undefined {
    const { active } = this.#slots()
    if (active?.logEntrypoints === undefined) return undefined
    if (this.#rules?.of !== active) this.#rules = { of: active, rules: this.#rulesOf(active) }
    return this.#rules.rules
  }

  /** As of the time of the decision: a token that has expired since was good then. */
  reconsider(
    record: DecisionRecord,
    log: DecisionLog,
  ): { readonly active?: Reconsidered; readonly candidate?: Reconsidered } {
    // Where path, query or body could not be read there is nothing that a policy could be asked.
    if (record.input === NO_DOCUMENT) return {}
    const { active, candidate } = this.#slots()
    return {
      ...(active && { active: this.#ask(active, record, log) }),
      ...(candidate && { candidate: this.#ask(candidate, record, log) }),
    }
  }

  judge(material: PolicyMaterial, { input, timeMs }: DecisionRecord): Judgement {
    return judge(this.#hosts.hostOf(material), input, timeMs)
  }

  #ask(material: PolicyMaterial, record: DecisionRecord, log: DecisionLog): Reconsidered {
    const now = this.judge(material, record)
    const { outcome, evalNs } = now
    const { result, error } = shown(record, now, log)
    return {
      revision: material.revision,
      bundle_digest: material.digest,
      entrypoint: material.entrypoint,
      outcome,
      ...(result === undefined ? {} : { result }),
      ...(error === undefined ? {} : { error }),
      eval_ns: evalNs,
      differs: outcome !== record.outcome || now.result !== record.result,
    }
  }

  #rulesOf(material: PolicyMaterial): DecisionRules {
    const { drop, mask } = material.logEntrypoints ?? {}
    const asking = (entrypoint: number) => (event: string, timeMs: number) =>
      this.#hosts.hostOf(material).evaluate(event, timeMs, entrypoint)
    return {
      ...(drop === undefined ? {} : { drop: asking(drop) }),
      ...(mask === undefined ? {} : { mask: asking(mask) }),
    }
  }
}

/** What may be shown of what was said about an input, and of the input: masked as in the log. */
export function shown(
  record: DecisionRecord,
  said: Pick<DecisionRecord, 'outcome' | 'result' | 'error'>,
  log: DecisionLog,
): { readonly input?: unknown; readonly result?: unknown; readonly error?: unknown } {
  const { result: _result, error: _error, ...rest } = record
  const event = log.eventOf({
    ...rest,
    outcome: said.outcome,
    ...(said.result === undefined ? {} : { result: said.result }),
    ...(said.error === undefined ? {} : { error: said.error }),
  })
  return event.kind === 'event' ? JSON.parse(event.json) : {}
}
