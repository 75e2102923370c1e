// Where the candidate policy comes from: in the same ways as the policy in force, with the same
// verification and the same gate. Promises that its problems are told and hold up nothing.
import type { CandidateConfig, MaterialsConfig } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import type { PolicyBundles, PolicyPiece } from './policy-bundles.ts'
import { isError, type Reading } from './sources.ts'

export interface CandidateReading extends Reading<PolicyPiece> {
  /** The piece, if there is one, is that of before: all problems are warnings here. */
  readonly failed: boolean
}

type PolicyConfig = NonNullable<MaterialsConfig['policy']>

/** The policy as it would be configured, were the candidate in force; absent: there is none. */
export function candidatePolicy(policy: PolicyConfig | undefined): PolicyConfig | undefined {
  if (policy?.candidate === undefined) return undefined
  const { candidate, ...rest } = policy
  return { ...rest, bundle: candidate.bundle }
}

/** @param active what it is going to be compared with, where that is known */
export async function readCandidate(
  wanted: PolicyConfig,
  { bundle }: CandidateConfig,
  bundles: PolicyBundles,
  before: PolicyPiece | undefined,
  active: PolicyMaterial | undefined,
): Promise<CandidateReading> {
  const read = await bundles.read(wanted, before)
  const piece = read.piece ?? before
  const failed = read.piece === undefined || read.problems.some(isError)
  const reading = { ...(piece && { piece }), failed }
  const told = read.problems.map((problem): Problem => {
    const where = problem.where === 'policy.bundle' ? 'policy.candidate.bundle' : problem.where
    return { ...problem, where, severity: 'warning' }
  })
  if (piece === undefined || piece === before || active === undefined) {
    return { ...reading, problems: told }
  }
  const [wants, gets] = [piece.material.input.bodyBytes, active.input.bodyBytes]
  if (wants <= gets) return { ...reading, problems: told }
  const unseen: Problem = {
    where: bundle,
    what: `the candidate reads request bodies of ${wants} bytes, and the active policy has ${gets} collected: it is compared without the rest`,
    remedy: 'set policy.input.body.maxBytes for both, or mind the differences that come of it',
    severity: 'warning',
  }
  return { ...reading, problems: [...told, unseen] }
}
