// Why a decision came out as it did, in words and with the code that the client was given.
import { type ErrorCode, errorEntry } from '../errors.ts'
import type { DecisionRecord } from '../threads.ts'

export interface Explanation {
  readonly why: string
  /** Of the error table; absent where the request was let through. */
  readonly code?: ErrorCode
}

type Facts = Pick<DecisionRecord, 'outcome' | 'rule' | 'result' | 'error'> & {
  /** Undefined where it is hidden. */
  readonly principal: string | undefined
}

export function explain(facts: Facts): Explanation {
  const { outcome, rule, error } = facts
  if (outcome === 'allow') {
    return {
      why:
        rule === 'policy'
          ? 'The policy allowed it, and so did the allow rules where there are some.'
          : 'An allow rule admits the peer, and there is no policy.',
    }
  }
  const code = codeOf(facts)
  const reason = error === undefined ? '' : `: ${error}`
  if (code === 'denied') {
    const why =
      rule === 'policy'
        ? 'The policy said no.'
        : `No allow rule admits the peer${of(facts.principal)}; the policy was not asked.`
    return { code, why }
  }
  return { code, why: `${errorEntry(code).sentence.replace(/\.$/, '')}${reason}.` }
}

const of = (name: string | undefined): string => (name === undefined ? '' : ` ${name}`)

function codeOf({ outcome, rule, result, error }: Facts): ErrorCode {
  switch (outcome) {
    case 'deny':
      return rule === 'policy' && result === undefined && error !== undefined
        ? 'policy_bad_input'
        : 'denied'
    case 'timeout':
      return 'policy_timeout'
    case 'not_ready':
      return 'policy_not_ready'
    default:
      return 'policy_error'
  }
}
