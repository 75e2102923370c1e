// Decides about one request: first the allow rules, then the Rego policy; where both are configured
// both must admit it. Whatever a client sends, the answer is a Permit or a Denial.
import type { AllowRule } from '../config/config.ts'
import { ERRORS } from '../errors.ts'
import { compileAllowRules, type PeerTest } from './allow-rules.ts'
import { GrpcDescriptors } from './body/grpc.ts'
import { type BodyNeed, bodyNeed } from './body/need.ts'
import { BoundedCache } from './builtins/bounded-cache.ts'
import { type EvaluationOutcome, PolicyHost } from './host.ts'
import {
  buildInput,
  documentOf,
  fieldOf,
  InputError,
  type PeerFacts,
  type PolicyRequest,
  type Projection,
  pathSegments,
  type RequestFacts,
} from './input.ts'
import { type InputSettings, PLAIN_INPUT } from './input-settings.ts'
import type { PolicyMaterial } from './material.ts'
import { canRemember, Memo } from './memo.ts'
import { type Denial, type Evaluation, issuePermit, NO_MUTATIONS, type Permit } from './permit.ts'
import { projectionOf, wholeDocument } from './projection.ts'
import { type PolicyResult, readResult } from './result.ts'

const WRITTEN = { text: undefined, reason: undefined }
const MOST_RESULTS = 256
const LONGEST_KEPT_RESULT = 1_024
/** Said of what is remembered, where measuring would be most of the time. */
const REMEMBERING_NS = 1

export interface EngineOptions {
  readonly allow: readonly AllowRule[]
  readonly policy: PolicyMaterial | undefined
  /** A policy is configured and has not come yet: the allow rules alone may not decide. */
  readonly policyPending?: boolean
  readonly clock: Clock
  readonly events?: {
    /** An instance was replaced, after a trap or at its memory ceiling. */
    recycled(): void
  }
}

export interface Clock {
  nowMs(): number
  /** Milliseconds from any start, with fractions. Absent: `performance.now`. */
  monotonicMs?(): number
}

export class PolicyEngine {
  readonly material: PolicyMaterial | undefined
  readonly #admits: PeerTest | undefined
  readonly #host: PolicyHost | undefined
  readonly #policyPending: boolean
  /** What the policy reads of the input; undefined where it is given all of it. */
  readonly #projection: Projection | undefined
  readonly #whole = wholeDocument()
  readonly #memo: Memo | undefined
  readonly #descriptors: GrpcDescriptors | undefined
  readonly #monotonicMs: () => number
  /** The allow rules read nothing but the peer, which never changes. */
  readonly #admitted = new WeakMap<PeerFacts, boolean>()
  /** A policy has a handful of results, and most often the same as the last time. */
  readonly #results = new BoundedCache<PolicyResult>(MOST_RESULTS)
  #lastText = ''
  #lastResult: PolicyResult | undefined

  constructor({ allow, policy, policyPending = false, clock, events }: EngineOptions) {
    this.material = policy
    this.#policyPending = policyPending
    this.#admits = allow.length === 0 ? undefined : compileAllowRules(allow)
    this.#host = policy && new PolicyHost(policy, () => events?.recycled())
    const { protoDescriptor } = this.inputSettings
    this.#descriptors = protoDescriptor && new GrpcDescriptors(protoDescriptor)
    this.#projection = policy && projectionOf(policy.reads)
    const canBeKnown = canRemember(Object.values(policy?.builtins ?? {}))
    this.#memo = canBeKnown && this.#projection?.keyOf ? new Memo() : undefined
    this.#monotonicMs = clock.monotonicMs?.bind(clock) ?? (() => performance.now())
  }

  /** Does a part of what has to be done before the first decision; see `PolicyHost.prepare`. */
  prepare(bytes: number): boolean {
    return this.#host?.prepare(bytes) ?? true
  }

  /** Linear memory that the policy instance holds. */
  get memoryBytes(): number {
    return this.#host?.memoryBytes ?? 0
  }

  /** How `connection` of a request has to be made, see `ConnectionInput.under`. */
  get inputSettings(): InputSettings {
    return this.material?.input ?? PLAIN_INPUT
  }

  /**
   * What has to be at hand of the body before `decide` is asked; undefined: nothing. A request that
   * the allow rules refuse waits for nothing.
   */
  bodyNeed(request: PolicyRequest): BodyNeed | undefined {
    const { bodyBytes } = this.inputSettings
    if (bodyBytes === 0 || request.bodySize === 0 || this.#isRefusedByRules(request)) {
      return undefined
    }
    const outline = {
      size: request.bodySize,
      contentType: fieldOf(request.fields, 'content-type'),
      path: () => pathSegments(request.path),
    }
    try {
      return bodyNeed(bodyBytes, outline, this.#descriptors)
    } catch (error) {
      // `decide` refuses it for the same reason.
      if (error instanceof InputError) return undefined
      throw error
    }
  }

  decide(request: PolicyRequest): Permit | Denial {
    if (this.#isRefusedByRules(request)) return REFUSED_BY_RULES
    if (this.#host !== undefined) return this.#askPolicy(this.#host, request)
    if (this.#policyPending || this.#admits === undefined) return NOT_READY
    return issuePermit(NO_MUTATIONS, ADMITTED_BY_RULES)
  }

  /** For the log: the whole input document, or where it was not made what it is made of. */
  inputOf({ connection, ...request }: PolicyRequest, { input }: Evaluation): string | RequestFacts {
    if (input !== '') return input
    const { beforeRequest, afterRequest, ending, headers } = connection
    // Whoever forwards the request changes its fields, before the log is written.
    const fields = request.fields.slice()
    const texts = { beforeRequest, afterRequest, ending, ...(headers && { headers }) }
    const facts = { ...request, fields, connection: texts }
    return request.body === undefined ? facts : documentOf(facts, this.#descriptors)
  }

  #askPolicy(host: PolicyHost, request: PolicyRequest): Permit | Denial {
    // A body that was collected can be refused as one, which only the whole document shows.
    const isAlone = request.body === undefined && request.protocol !== 'TCP'
    const projection = isAlone ? this.#projection : undefined
    const key = this.#memo && projection?.keyOf?.(request)
    const known = key && this.#memo?.find(key)
    if (known) return known
    const { text, reason } = this.#inputFor(host, request, isAlone, projection)
    if (reason !== undefined) return badInput(text ?? '', reason)
    const input = projection === undefined ? (text ?? '') : ''
    const startMs = this.#monotonicMs()
    const outcome =
      text === undefined
        ? host.evaluateWritten(request.timeMs)
        : host.evaluate(text, request.timeMs)
    // 0 stands for no policy asked.
    const evalNs = Math.max(1, Math.round((this.#monotonicMs() - startMs) * 1e6))
    if (outcome.kind === 'too_large') return badInput(input, 'the input document is too large')
    if (outcome.kind !== 'result') return failed(outcome, input, evalNs)
    const result = this.#resultOf(outcome.text)
    if (key && !host.hasReadTime) {
      this.#memo?.remember(key, verdict(result, outcome.text, input, REMEMBERING_NS))
    }
    return verdict(result, outcome.text, input, evalNs)
  }

  /** The text is undefined where the host has been given the input already. */
  #inputFor(
    host: PolicyHost,
    request: PolicyRequest,
    isAlone: boolean,
    projection: Projection | undefined,
  ): { text: string | undefined; reason: string | undefined } {
    try {
      const { templateOf } = projection ?? this.#whole
      if (isAlone && host.write(templateOf(request.connection), request)) return WRITTEN
      return { text: buildInput(request, projection, this.#descriptors), reason: undefined }
    } catch (error) {
      if (error instanceof InputError) return { text: '', reason: error.message }
      throw error
    }
  }

  #isRefusedByRules({ connection }: PolicyRequest): boolean {
    return this.#admits !== undefined && !this.#admitsPeer(this.#admits, connection.peer)
  }

  #admitsPeer(admits: PeerTest, peer: PeerFacts): boolean {
    const known = this.#admitted.get(peer)
    if (known !== undefined) return known
    const admitted = admits(peer)
    this.#admitted.set(peer, admitted)
    return admitted
  }

  #resultOf(text: string): PolicyResult {
    if (this.#lastResult !== undefined && text === this.#lastText) return this.#lastResult
    if (text.length > LONGEST_KEPT_RESULT) return readResult(text)
    this.#lastText = text
    this.#lastResult = this.#results.get(text, () => readResult(text))
    return this.#lastResult
  }
}

function verdict(
  result: PolicyResult,
  resultText: string,
  input: string,
  evalNs: number,
): Permit | Denial {
  const evaluation: Evaluation = {
    outcome: result.kind === 'invalid' ? 'error' : result.kind,
    rule: 'policy',
    input,
    result: resultText,
    error: result.kind === 'invalid' ? result.reason : undefined,
    evalNs,
  }
  switch (result.kind) {
    case 'allow':
      return issuePermit(result.mutations, evaluation)
    case 'deny': {
      const { status, headers, body } = result
      const reason = 'the policy said no'
      return { kind: 'denial', code: 'denied', status, headers, body, reason, evaluation }
    }
    case 'invalid':
      return denial('policy_error', result.reason, evaluation)
  }
}

function failed(
  outcome: Exclude<EvaluationOutcome, { kind: 'result' | 'too_large' }>,
  input: string,
  evalNs: number,
): Denial {
  const timedOut = outcome.kind === 'timeout'
  const reason = reasonOf(outcome)
  return denial(timedOut ? 'policy_timeout' : 'policy_error', reason, {
    outcome: timedOut ? 'timeout' : 'error',
    rule: 'policy',
    input,
    result: undefined,
    error: reason,
    evalNs,
  })
}

/** For the operator: why an evaluation gave no result. */
export function reasonOf(outcome: Parameters<typeof failed>[0]): string {
  switch (outcome.kind) {
    case 'timeout':
      return `the evaluation used up its ${outcome.what}`
    case 'undefined':
      return 'the entrypoint is undefined for this input'
    case 'error':
      return outcome.reason
  }
}

function badInput(input: string, reason: string): Denial {
  return denial('policy_bad_input', reason, {
    outcome: 'deny',
    rule: 'policy',
    input,
    result: undefined,
    error: reason,
    evalNs: 0,
  })
}

function denial(code: Denial['code'], reason: string, evaluation: Evaluation): Denial {
  const status = ERRORS[code].http
  return { kind: 'denial', code, status, headers: [], body: undefined, reason, evaluation }
}

const withoutPolicy = (
  outcome: Evaluation['outcome'],
  rule: Evaluation['rule'],
  error?: string,
): Evaluation => Object.freeze({ outcome, rule, input: '', result: undefined, error, evalNs: 0 })

const ADMITTED_BY_RULES = withoutPolicy('allow', 'allow_rules')
const NOT_READY = denial(
  'policy_not_ready',
  'neither a policy nor an allow rule is in force',
  withoutPolicy('not_ready', 'none', ERRORS.policy_not_ready.sentence),
)
const REFUSED_BY_RULES = denial(
  'denied',
  'no allow rule admits the peer',
  withoutPolicy('deny', 'allow_rules'),
)
