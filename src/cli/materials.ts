// Loads the materials of a configuration and proves that they serve: OpenSSL takes them, and a
// handshake with ourselves comes to its end. What a data thread could refuse must be found before a
// snapshot is published, or it would end there.
import type { MaterialsConfig } from '../config/config.ts'
import { type Loaded, type LoadOutcome, loadMaterials } from '../control/loader.ts'
import type { PolicyBundles } from '../control/policy-bundles.ts'
import type { Delivery } from '../control/workload-api-messages.ts'
import { selfHandshakeProblem } from '../proxy/self-handshake.ts'
import { contextProblem } from '../proxy/tls-options.ts'

export interface LoadOptions {
  readonly previous?: Loaded | undefined
  /** What the Workload API delivered last, where it is configured. */
  readonly delivery?: Delivery | undefined
  /** Where policies come from; absent: for this load alone. */
  readonly bundles?: PolicyBundles | undefined
  /** Without the handshake: it costs 13 ms in a new process, and `Sidecar` has a better time for it. */
  readonly unproven?: boolean
}

export async function loadChecked(
  config: MaterialsConfig,
  nowMs: number,
  { previous, delivery, bundles, unproven = false }: LoadOptions = {},
): Promise<LoadOutcome> {
  const outcome = await loadMaterials(config, nowMs, previous, delivery, bundles)
  const { loaded } = outcome
  if (loaded === undefined) return outcome
  const sameTrust =
    loaded.trust.length === previous?.trust.length &&
    loaded.trust.every((piece, at) => piece === previous?.trust[at])
  if (sameTrust && loaded.identity === previous?.identity) return outcome
  const problemOf = unproven ? contextProblemOf : proofProblem
  const problem = await problemOf(loaded)
  if (problem === undefined) return outcome
  const perSource = { ...outcome.perSource, identity: 'failed' as const }
  const problems = [...outcome.problems, problem]
  // Only what is as a whole as good as before may go on: new trust with the old pair is asked, too.
  if (previous === undefined) return { loaded: undefined, problems, perSource }
  const kept = { ...loaded, identity: previous.identity }
  return (await problemOf(kept)) === undefined
    ? { loaded: kept, problems, perSource }
    : { loaded: previous, problems, perSource: { ...perSource, trust: 'failed' } }
}

/** What a handshake with ourselves ends in; undefined: it comes to its end. */
export const proofProblem = ({ identity, trust }: Loaded) =>
  selfHandshakeProblem(
    identity.material,
    trust.map(({ material }) => material),
  )

const contextProblemOf = ({ identity, trust }: Loaded) =>
  contextProblem(
    identity.material,
    trust.map(({ material }) => material),
  )
