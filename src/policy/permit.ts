// The proof that a request may go to the workload. Only `policy/` can make a Permit: the
// constructor wants a token that never leaves this file, and forwarding takes nothing else.

/** What is known about one decision, for the decision log and the metrics. */
export interface Evaluation {
  readonly outcome: 'allow' | 'deny' | 'error' | 'not_ready' | 'timeout'
  /** Which rule decided: the `allow` rules of the configuration, the Rego policy, or neither. */
  readonly rule: 'allow_rules' | 'policy' | 'none'
  /** The whole input document, where it was made; '' otherwise (see `PolicyEngine.inputOf`). */
  readonly input: string
  /** JSON text of the result; absent when there was none. */
  readonly result: string | undefined
  /** For the operator. */
  readonly error: string | undefined
  /** Time that the evaluation took; 0 when no policy was asked. */
  readonly evalNs: number
}

type Pairs = readonly (readonly [string, string])[]

/** Changes that an allowing result makes to the request and to its response. */
export interface Mutations {
  /** Override request headers of the same name. Lower-case names; a name may occur repeatedly. */
  readonly setRequestHeaders: Pairs
  readonly removeRequestHeaders: readonly string[]
  /** Added to the response to the client. Lower-case names. */
  readonly responseHeaders: Pairs
  readonly removeQueryParameters: readonly string[]
  readonly setQueryParameters: Pairs
}

const ISSUER = Symbol('issuer')
const NONE: readonly never[] = Object.freeze([])

/** The mutations of a result that is literally `true`, and of the allow rules: none at all. */
export const NO_MUTATIONS: Mutations = Object.freeze({
  setRequestHeaders: NONE,
  removeRequestHeaders: NONE,
  responseHeaders: NONE,
  removeQueryParameters: NONE,
  setQueryParameters: NONE,
})

export class Permit implements Mutations {
  readonly #brand = true
  readonly kind = 'permit'
  readonly setRequestHeaders: Pairs
  readonly removeRequestHeaders: readonly string[]
  readonly responseHeaders: Pairs
  readonly removeQueryParameters: readonly string[]
  readonly setQueryParameters: Pairs
  readonly evaluation: Evaluation

  /** @internal Use `issuePermit`, inside `policy/` only. */
  constructor(issuer: symbol, mutations: Mutations, evaluation: Evaluation) {
    if (issuer !== ISSUER) throw new TypeError('a Permit is made by the policy engine only')
    this.setRequestHeaders = mutations.setRequestHeaders
    this.removeRequestHeaders = mutations.removeRequestHeaders
    this.responseHeaders = mutations.responseHeaders
    this.removeQueryParameters = mutations.removeQueryParameters
    this.setQueryParameters = mutations.setQueryParameters
    this.evaluation = evaluation
  }

  /** True of real permits only, whatever shape `value` has. */
  static is(value: object): value is Permit {
    return #brand in value && value.#brand
  }
}

/** @internal For `engine.ts`; a test keeps other rooms from importing it. */
export function issuePermit(mutations: Mutations, evaluation: Evaluation): Permit {
  return new Permit(ISSUER, mutations, evaluation)
}

/** The request stays here. `code` names the row of the error table that describes the outcome. */
export interface Denial {
  readonly kind: 'denial'
  readonly code:
    | 'denied'
    | 'policy_bad_input'
    | 'policy_error'
    | 'policy_not_ready'
    | 'policy_timeout'
  /** What the client gets; for `denied` the policy may choose it. */
  readonly status: number
  readonly headers: Pairs
  /** Absent: Postern's own JSON body. */
  readonly body: string | undefined
  /** For the operator, never for the client. */
  readonly reason: string
  readonly evaluation: Evaluation
}
