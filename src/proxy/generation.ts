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
  readonly headLimits: HeadLimits
  /** The XFCC element of each peer seen in this generation. */
  readonly xfccByPeer = new WeakMap<VerifiedPeer, string>()

  /** @param before the generation in force; what has not changed in the new one is kept warm */
  constructor(
    snapshot: Snapshot,
    before: Generation | undefined,
    clock: Clock,
    recycled: () => void,
  ) {
    this.snapshot = snapshot
    const sameTrust =
      before !== undefined && before.snapshot.trust.generation === snapshot.trust.generation
    this.verifier = sameTrust ? before.verifier : new PeerVerifier(snapshot.trust, before?.verifier)
    const samePolicy =
      before !== undefined &&
      before.snapshot.policyPending === snapshot.policyPending &&
      before.snapshot.policy?.digest === snapshot.policy?.digest &&
      before.snapshot.policy?.entrypoint === snapshot.policy?.entrypoint &&
      before.snapshot.policy?.fuel === snapshot.policy?.fuel &&
      before.snapshot.policy?.memoryBytes === snapshot.policy?.memoryBytes &&
      isDeepStrictEqual(before.snapshot.policy?.input, snapshot.policy?.input) &&
      JSON.stringify(before.snapshot.allow) === JSON.stringify(snapshot.allow)
    this.engine = samePolicy
      ? before.engine
      : new PolicyEngine({
          allow: snapshot.allow,
          policy: snapshot.policy,
          policyPending: snapshot.policyPending === true,
          clock,
          events: { recycled },
        })
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
}
