// From a request head to a Permit: the one way into the workload. The peer is checked again where
// trust or time has moved on, untrusted fields go, Postern's own come, and then policy decides.
import { randomUUID } from 'node:crypto'
import type { ErrorCode } from '../errors.ts'
import { type Fields, fieldValue, removeUntrustedFields } from '../http/fields.ts'
import type { RequestHead } from '../http/head.ts'
import { clientCertField, combineXfcc, xfccElement } from '../http/identity-headers.ts'
import { admitAnonymous, type Peer } from '../identity/anonymous-peer.ts'
import type { PeerRejection, VerifiedPeer } from '../identity/peer.ts'
import { type Cells, cellOf, DECISION_OUTCOMES, DECISION_RULES, metricEntry } from '../metrics.ts'
import type { BodyNeed } from '../policy/body/need.ts'
import type { BodyAtHand } from '../policy/body/parsed-body.ts'
import type { ConnectionInputs, PolicyRequest } from '../policy/input.ts'
import { type Denial, type Evaluation, Permit } from '../policy/permit.ts'
import type { DecisionRecord, SentInput } from '../threads.ts'
import type { Generation } from './generation.ts'
import type { ThreadContext } from './thread-context.ts'

/** What admission knows about the connection that the request came on. */
export interface RequestOrigin {
  readonly peer: Peer
  readonly inputs: ConnectionInputs
}

export interface Admitted {
  readonly kind: 'admitted'
  readonly permit: Permit
  /** Sanitised, with the identity headers, not yet changed by the permit. */
  readonly fields: Fields
  readonly requestId: string
  readonly decisionId: string | undefined
}

export interface Refused {
  readonly kind: 'refused'
  readonly code: ErrorCode
  readonly denial: Denial | undefined
  readonly requestId: string
  readonly decisionId: string | undefined
}

/** Policy wants the body first: collect it and ask again, with what there is of it by then. */
export interface Waiting {
  readonly kind: 'waiting'
  readonly need: BodyNeed
}

export function admit(
  head: RequestHead,
  origin: RequestOrigin,
  context: ThreadContext,
  generation: Generation,
): Admitted | Refused | Waiting
export function admit(
  head: RequestHead,
  origin: RequestOrigin,
  context: ThreadContext,
  generation: Generation,
  body: BodyAtHand,
): Admitted | Refused
export function admit(
  head: RequestHead,
  origin: RequestOrigin,
  context: ThreadContext,
  generation: Generation,
  body?: BodyAtHand,
): Admitted | Refused | Waiting {
  const { inbound } = generation.snapshot.settings
  const requestId = requestIdOf(head.fields)
  const limit = inbound.limits.bodyBytes
  if (limit > 0 && head.body.kind === 'length' && head.body.length > limit) {
    return {
      kind: 'refused',
      code: 'body_too_large',
      denial: undefined,
      requestId,
      decisionId: undefined,
    }
  }
  const mode = inbound.forwardedClientCert
  const keepsXfcc =
    mode === 'forward_only' || mode === 'append_forward' || mode === 'always_forward_only'
  const fields = removeUntrustedFields(head.fields, { forwardedClientCert: false })
  const received = keepsXfcc ? fieldValue(head.fields, 'x-forwarded-client-cert') : undefined
  const { peer } = origin
  // Whom nobody vouches for has no identity to be told, and none to pass on either.
  if (peer.kind === 'peer') {
    const xfcc = combineXfcc(mode, received, xfccOf(peer, generation))
    if (xfcc !== undefined) fields.push('x-forwarded-client-cert', xfcc)
    if (inbound.clientCert) {
      const leaf = peer.chain[0]
      if (leaf !== undefined) fields.push('client-cert', clientCertField(leaf.raw))
    }
  }
  setField(fields, 'x-request-id', requestId)

  const timeMs = context.clock.nowMs()
  const request: PolicyRequest = {
    requestId,
    timeMs,
    method: head.method,
    target: head.target,
    path: head.path,
    query: head.query,
    host: head.host,
    scheme: peer.kind === 'anonymous' && peer.lacks === 'tls' ? 'http' : 'https',
    protocol: head.protocol,
    fields,
    bodySize: head.body.kind === 'none' ? 0 : head.body.kind === 'length' ? head.body.length : -1,
    connection: origin.inputs.under(generation.engine.inputSettings),
    ...(body && { body }),
  }
  const need = body === undefined ? generation.engine.bodyNeed(request) : undefined
  if (need !== undefined) return { kind: 'waiting', need }
  return outcomeOf(decide(request, origin.peer, context, generation), requestId, fields)
}

/** Whether the workload may be connected to, where nothing but the connection is known of the request. */
export function admitConnection(
  { peer, inputs }: RequestOrigin,
  context: ThreadContext,
  generation: Generation,
): Admitted | Refused {
  const requestId = randomUUID()
  const request: PolicyRequest = {
    requestId,
    timeMs: context.clock.nowMs(),
    method: '',
    target: '',
    path: '',
    query: undefined,
    host: '',
    scheme: 'https',
    protocol: 'TCP',
    fields: [],
    bodySize: 0,
    connection: inputs.under(generation.engine.inputSettings),
  }
  return outcomeOf(decide(request, peer, context, generation), requestId, [])
}

interface Decision {
  readonly verdict: Permit | Denial
  readonly decisionId: string | undefined
}

/** Asks the policy, counts what it says, and logs it where that is wanted. */
function decide(
  request: PolicyRequest,
  peer: Peer,
  context: ThreadContext,
  generation: Generation,
): Decision {
  const { requestId, timeMs } = request
  const { log } = generation.snapshot.settings
  const verdict = generation.engine.decide(request)
  const { evaluation } = verdict
  countDecision(context.cells, evaluation)
  const logged =
    log.decisions === 'all' || (log.decisions === 'denied' && evaluation.outcome !== 'allow')
  // Only what the policy was asked about, and answered or failed at, can be compared.
  const sampled =
    evaluation.evalNs > 0 &&
    context.candidateSample?.takes(generation.snapshot.settings.candidateSample, context.tickMs)
  const decisionId = logged || verdict.kind === 'denial' ? randomUUID() : undefined
  if (logged || sampled) {
    const { material } = generation.engine
    const traceparent = fieldValue(request.fields, 'traceparent')
    const record: DecisionRecord<SentInput> = {
      kind: 'decision',
      decisionId: decisionId ?? '',
      requestId,
      timeMs,
      outcome: evaluation.outcome,
      rule: evaluation.rule,
      input: generation.engine.inputOf(request, evaluation),
      evalNs: evaluation.evalNs,
      principal: peer.principal,
      ...(evaluation.result === undefined ? {} : { result: evaluation.result }),
      ...(evaluation.error === undefined ? {} : { error: evaluation.error }),
      ...(material === undefined
        ? {}
        : {
            entrypoint: material.entrypoint,
            revision: material.revision,
            bundleDigest: material.digest,
          }),
      ...(traceparent === undefined ? {} : { traceparent }),
      ...(sampled ? { sampled } : {}),
    }
    context.records.push(logged ? record : { kind: 'sample', decision: record })
  }
  if (!logged) context.cells.add(SAMPLED_OUT)
  return { verdict, decisionId }
}

function outcomeOf(
  { verdict, decisionId }: Decision,
  requestId: string,
  fields: Fields,
): Admitted | Refused {
  if (verdict.kind === 'denial') {
    return { kind: 'refused', code: verdict.code, denial: verdict, requestId, decisionId }
  }
  // The type says so already; this catches a fault of ours before it becomes a bypass.
  if (!Permit.is(verdict))
    throw new TypeError('the policy engine returned something else than a Permit')
  return { kind: 'admitted', permit: verdict, fields, requestId, decisionId }
}

/**
 * The peer as it stands now: unchanged, verified again under newer trust, or no longer acceptable.
 * Cheap when nothing changed: a comparison of two numbers.
 */
export function currentPeer(
  peer: VerifiedPeer,
  generation: Generation,
  nowMs: number,
): VerifiedPeer | PeerRejection
export function currentPeer(peer: Peer, generation: Generation, nowMs: number): Peer | PeerRejection
export function currentPeer(
  peer: Peer,
  generation: Generation,
  nowMs: number,
): Peer | PeerRejection {
  if (peer.kind === 'anonymous') return admitAnonymous(peer, generation.snapshot.settings.inbound)
  if (
    peer.trustGeneration === generation.verifier.trustGeneration &&
    nowMs < peer.acceptableUntilMs
  ) {
    return peer
  }
  return generation.verifier.recheck(peer, nowMs)
}

/** The code of the error table for a peer that stopped being acceptable. */
export function codeOfRejection(rejection: PeerRejection): ErrorCode {
  switch (rejection.reason) {
    case 'no_certificate':
      return 'peer_no_certificate'
    case 'revoked':
      return 'peer_revoked'
    case 'deny_listed':
      return 'peer_deny_listed'
    case 'expired':
    case 'not_yet_valid':
      return 'peer_expired'
    case 'revocation_unknown':
      return 'peer_revocation_unknown'
    default:
      return 'peer_untrusted'
  }
}

const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/

/** `x-request-id` is kept when it is well formed, so that one call can be followed through services. */
export function requestIdOf(fields: Fields): string {
  const received = fieldValue(fields, 'x-request-id')
  return received !== undefined && REQUEST_ID.test(received) ? received : randomUUID()
}

export function setField(fields: Fields, name: string, value: string): void {
  let kept = 0
  let set = false
  for (let i = 0; i < fields.length; i += 2) {
    const isIt = fields[i] === name
    if (isIt && set) continue
    fields[kept] = fields[i] as string
    fields[kept + 1] = isIt ? value : (fields[i + 1] as string)
    kept += 2
    if (isIt) set = true
  }
  if (kept < fields.length) fields.length = kept
  if (!set) fields.push(name, value)
}

function xfccOf(peer: VerifiedPeer, generation: Generation): string {
  const known = generation.xfccByPeer.get(peer)
  if (known !== undefined) return known
  const details = generation.snapshot.settings.inbound.forwardedClientCertDetails
  const text = xfccElement({
    by: generation.identity.uris,
    hash: peer.fingerprint,
    uris: peer.uris,
    ...(details.includes('subject') ? { subject: peer.subject } : {}),
    ...(details.includes('dns') ? { dns: peer.dnsNames } : {}),
    ...(details.includes('cert') ? { certPem: peer.chain[0]?.toString() ?? '' } : {}),
    ...(details.includes('chain')
      ? { chainPem: peer.chain.map((one) => one.toString()).join('') }
      : {}),
  })
  generation.xfccByPeer.set(peer, text)
  return text
}

const DECISIONS = Object.fromEntries(
  DECISION_OUTCOMES.map((outcome) => [
    outcome,
    Object.fromEntries(
      DECISION_RULES.map((rule) => [rule, cellOf('decisions_total', { outcome, rule })]),
    ),
  ]),
) as Readonly<Record<Evaluation['outcome'], Readonly<Record<Evaluation['rule'], number>>>>
const SAMPLED_OUT = cellOf('decision_log_events_total', { result: 'sampled_out' })
const DECISION_DURATION = cellOf('decision_duration_seconds', {})
const DECISION_BUCKETS = metricEntry('decision_duration_seconds').buckets ?? []

function countDecision(cells: Cells, { outcome, rule, evalNs }: Evaluation): void {
  cells.add(DECISIONS[outcome][rule])
  if (evalNs > 0) cells.observe(DECISION_DURATION, DECISION_BUCKETS, evalNs / 1e9)
}
