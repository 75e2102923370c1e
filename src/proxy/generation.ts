// A snapshot brought to life in one data thread: the verifier, the policy instance and the parser
// limits of one generation. A request reads it once, at its head, and uses that one to the end.
import { isDeepStrictEqual } from 'node:util'
import type { IdentityMaterial } from '../identity/material.ts'
import type { VerifiedPeer } from '../identity/peer.ts'
import { PeerVerifier } from '../identity/verifier.ts'
import { PolicyEngine } from '../policy/engine.ts'
import type { Snapshot } from '../threads.ts'
import type { Clock } from './clock.ts'

export interface HeadLimits {
  readonly headBytes: number
  readonly headerCount: number
  readonly targetBytes: number
  readonly allowAmbiguousPaths: boolean
}

export class Generation {
  readonly snapshot: Snapshot
  readonly verifier: PeerVerifier
  readonly engine: PolicyEngine
  /** Of the policy before, ready to decide again. */
  readonly standby: PolicyEngine | undefined
  readonly headLimits: HeadLimits
  /** The XFCC element of each peer seen in this generation. */
  readonly xfccByPeer = new WeakMap<VerifiedPeer, string>()

  /**
   * @param before generations whose parts are taken over where they are the same, the newest first; the
   *   last is in force: what is news about its peers is found out by comparison with it
   */
  constructor(
    snapshot: Snapshot,
    before: readonly Generation[],
    clock: Clock,
    recycled: () => void,
  ) {
    this.snapshot = snapshot
    const sameTrust = before.find(
      (one) => one.snapshot.trust.generation === snapshot.trust.generation,
    )
    this.verifier = sameTrust?.verifier ?? new PeerVerifier(snapshot.trust, before.at(-1)?.verifier)
    const { previousPolicy } = snapshot
    const engineOf = (rules: Rules): PolicyEngine =>
      engineLike(rules, before) ??
      new PolicyEngine({
        allow: rules.allow,
        policy: rules.policy,
        policyPending: rules.policyPending === true,
        clock,
        events: { recycled },
      })
    this.engine = engineOf(snapshot)
    this.standby = previousPolicy && engineOf(rulesBefore(snapshot))
    const { limits, unsafeAmbiguousPaths } = snapshot.settings.inbound
    this.headLimits = {
      headBytes: limits.headBytes,
      headerCount: limits.headerCount,
      targetBytes: limits.targetBytes,
      allowAmbiguousPaths: unsafeAmbiguousPaths,
    }
  }

  get identity(): IdentityMaterial {
    return this.snapshot.identity
  }

  /** Linear memory that the policy instances hold. */
  get memoryBytes(): number {
    return this.engine.memoryBytes + (this.standby?.memoryBytes ?? 0)
  }

  /** Does a part of what has to be done before the first decision; see `PolicyHost.prepare`. */
  prepare(bytes: number): boolean {
    return this.engine.prepare(bytes)
  }
}

/** What an engine is made of. */
type Rules = Pick<Snapshot, 'allow' | 'policy' | 'policyPending'>

const rulesBefore = ({ allow, previousPolicy }: Snapshot): Rules =>
  previousPolicy === undefined ? { allow } : { allow, policy: previousPolicy }

function engineLike(rules: Rules, before: readonly Generation[]): PolicyEngine | undefined {
  for (const { snapshot, engine, standby } of before) {
    if (decidesAlike(snapshot, rules)) return engine
    if (standby !== undefined && decidesAlike(rulesBefore(snapshot), rules)) return standby
  }
  return undefined
}

function decidesAlike(one: Rules, other: Rules): boolean {
  return (
    one.policyPending === other.policyPending &&
    one.policy?.digest === other.policy?.digest &&
    one.policy?.entrypoint === other.policy?.entrypoint &&
    one.policy?.fuel === other.policy?.fuel &&
    one.policy?.memoryBytes === other.policy?.memoryBytes &&
    isDeepStrictEqual(one.policy?.input, other.policy?.input) &&
    JSON.stringify(one.allow) === JSON.stringify(other.allow)
  )
}
