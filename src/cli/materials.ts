// Loads the materials of a configuration and proves that they serve: OpenSSL takes them, a handshake
// with ourselves comes to its end, and we would believe it ourselves. What a data thread could refuse
// must be found before a snapshot is published, or it would end there.
import type { MaterialsConfig } from '../config/config.ts'
import { crossCheck } from '../control/cross-check.ts'
import { type Loaded, type LoadOutcome, loadMaterials, type Serving } from '../control/loader.ts'
import type { PolicyBundles } from '../control/policy-bundles.ts'
import { isError } from '../control/sources.ts'
import type { Delivery } from '../control/workload-api-messages.ts'
import type { Problem } from '../errors.ts'
import type { IdentityMaterial, TrustBundleMaterial } from '../identity/material.ts'
import { selfHandshakeProblem } from '../proxy/self-handshake.ts'
import { contextProblem } from '../proxy/tls-options.ts'

export interface LoadOptions {
  readonly previous?: Loaded | undefined
  /** What the Workload API delivered last, where it is configured. */
  readonly delivery?: Delivery | undefined
  /** Where policies come from; absent: for this load alone. */
  readonly bundles?: PolicyBundles | undefined
  /** The same for candidates. */
  readonly candidates?: PolicyBundles | undefined
  /** Only what OpenSSL says: the rest costs 20 ms in a new process, and `Sidecar` has time later. */
  readonly unproven?: boolean
  /** Is told what is to be proven as soon as it is known, which is long before a policy is loaded. */
  readonly identified?: ((serving: Serving) => void) | undefined
}

export async function loadChecked(
  config: MaterialsConfig,
  nowMs: number,
  { previous, delivery, bundles, candidates, identified, unproven = false }: LoadOptions = {},
): Promise<LoadOutcome> {
  const outcome = await loadMaterials(
    config,
    nowMs,
    previous,
    delivery,
    bundles,
    candidates,
    identified,
  )
  const { loaded } = outcome
  if (loaded === undefined) return outcome
  const same = (one: (materials: Loaded) => readonly unknown[]): boolean =>
    previous !== undefined && isSame(one(loaded), one(previous))
  const sameServing = same(({ identity, trust }) => [identity, ...trust])
  if (sameServing && same(({ crls, denied }) => [...crls, denied])) return outcome
  const examine = unproven ? contextProblems : prove
  const found = await examine(loaded, nowMs)
  const problems = [...outcome.problems, ...found]
  if (sameServing || !found.some(isError)) return { ...outcome, problems }
  const perSource = { ...outcome.perSource, identity: 'failed' as const }
  // Only what is as a whole as good as before may go on: new trust with the old pair is asked, too.
  if (previous === undefined) return { loaded: undefined, problems, perSource }
  const kept = { ...loaded, identity: previous.identity }
  return (await examine(kept, nowMs)).some(isError)
    ? { loaded: previous, problems, perSource: { ...perSource, trust: 'failed' } }
    : { loaded: kept, problems, perSource }
}

/**
 * An error where it does not serve, warnings where we would not believe it ourselves.
 * @param handshake the answer of `selfHandshakeProblem`, where another thread was asked for it
 */
export async function prove(
  loaded: Loaded,
  nowMs: number,
  handshake?: Promise<Problem | undefined>,
): Promise<readonly Problem[]> {
  const unfit = await (handshake ?? selfHandshakeProblem(...servingOf(loaded)))
  return unfit === undefined ? crossCheck(loaded, nowMs) : [unfit]
}

function contextProblems(loaded: Loaded): readonly Problem[] {
  const problem = contextProblem(...servingOf(loaded))
  return problem === undefined ? [] : [problem]
}

export const servingOf = ({
  identity,
  trust,
}: Serving): readonly [IdentityMaterial, readonly TrustBundleMaterial[]] => [
  identity.material,
  trust.map(({ material }) => material),
]

const isSame = (one: readonly unknown[], other: readonly unknown[]): boolean =>
  one.length === other.length && one.every((item, at) => item === other[at])
