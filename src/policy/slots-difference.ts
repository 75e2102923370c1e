// What would be different if another policy had decided: who gets in, and what client and workload
// would see of it. Two results that have the same effect are the same, however they are written.
import { isDeepStrictEqual } from 'node:util'
import type { CANDIDATE_CHANGES } from '../metrics.ts'
import type { Judgement } from './judge.ts'
import { type PolicyResult, readResult } from './result.ts'

export interface Decided {
  readonly outcome: string
  /** JSON text; absent when there was none. */
  readonly result?: string
}

export interface Difference {
  readonly change: (typeof CANDIDATE_CHANGES)[number]
  /** Empty where nobody would notice. */
  readonly differs: readonly Differing[]
}

export type Differing =
  | 'outcome'
  /** Of an answer to a denied client. */
  | 'status'
  | 'headers'
  | 'body'
  /** Of a permitted request on its way to the workload, and of the answer on its way back. */
  | 'request_headers'
  | 'response_headers'
  | 'query'

/** @param decided what was decided. @param other what the other policy says about the same input. */
export function differenceOf(decided: Decided, other: Judgement): Difference {
  const before = decided.outcome === 'allow'
  const after = other.outcome === 'allow'
  if (other.outcome === 'error' || other.outcome === 'timeout') {
    return { change: 'error', differs: decided.outcome === other.outcome ? [] : ['outcome'] }
  }
  const change = before === after ? 'same' : before ? 'allow_to_deny' : 'deny_to_allow'
  // A policy that failed admits nobody either, but its clients are told something else.
  if (decided.outcome !== other.outcome) return { change, differs: ['outcome'] }
  return { change, differs: differing(decided.result, other.result) }
}

function differing(one: string | undefined, other: string | undefined): readonly Differing[] {
  if (one === other) return []
  const [before, after] = [readResult(one ?? ''), readResult(other ?? '')]
  const fields = new Map(effectsOf(after))
  return effectsOf(before).flatMap(([name, effect]) =>
    isDeepStrictEqual(effect, fields.get(name)) ? [] : name,
  )
}

function effectsOf(result: PolicyResult): readonly (readonly [Differing, unknown])[] {
  switch (result.kind) {
    case 'allow': {
      const { mutations } = result
      return [
        ['request_headers', [mutations.setRequestHeaders, mutations.removeRequestHeaders]],
        ['response_headers', mutations.responseHeaders],
        ['query', [mutations.setQueryParameters, mutations.removeQueryParameters]],
      ]
    }
    case 'deny':
      return [
        ['status', result.status],
        ['headers', result.headers],
        ['body', result.body],
      ]
    case 'invalid':
      return []
  }
}
