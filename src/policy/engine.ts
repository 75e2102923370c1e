// Decides about one request: first the allow rules, then the Rego policy; where both are configured
// both must admit it. Promises a Permit or a Denial for every request, never an exception.
import type { AllowRule } from '../config/config.ts'
import type { PolicyRequest } from './input.ts'
import type { PolicyMaterial } from './material.ts'
import type { Denial, Permit } from './permit.ts'

export interface EngineOptions {
  readonly allow: readonly AllowRule[]
  readonly policy: PolicyMaterial | undefined
  readonly clock: Clock
  readonly events?: {
    /** An instance was replaced, after a trap or at its memory ceiling. */
    recycled(): void
  }
}

export interface Clock {
  nowMs(): number
  /** As `performance.now`, which is what is used when it is absent. */
  monotonicMs?(): number
}

export class PolicyEngine {
  readonly material: PolicyMaterial | undefined

  constructor(options: EngineOptions) {
    this.material = options.policy
  }

  /** Linear memory that the policy instance holds. */
  get memoryBytes(): number {
    return 0
  }

  decide(_request: PolicyRequest): Permit | Denial {
    throw new Error('not built yet')
  }
}
