// Loads the materials of a configuration and asks OpenSSL, too, whether it takes them: what a data
// thread could refuse must be found before a snapshot is published, or it would end there.
import type { MaterialsConfig } from '../config/config.ts'
import { type Loaded, type LoadOutcome, loadMaterials } from '../control/loader.ts'
import { contextProblem } from '../proxy/tls-options.ts'

export async function loadChecked(
  config: MaterialsConfig,
  nowMs: number,
  previous?: Loaded,
): Promise<LoadOutcome> {
  const outcome = await loadMaterials(config, nowMs, previous)
  const { loaded } = outcome
  if (loaded === undefined) return outcome
  const sameTrust =
    loaded.trust.length === previous?.trust.length &&
    loaded.trust.every((piece, at) => piece === previous?.trust[at])
  if (sameTrust && loaded.identity === previous?.identity) return outcome
  const problem = problemOf(loaded.identity, loaded.trust)
  if (problem === undefined) return outcome
  const perSource = { ...outcome.perSource, identity: 'failed' as const }
  const problems = [...outcome.problems, problem]
  // Only what is as a whole as good as before may go on: new trust with the old pair is asked, too.
  if (previous === undefined) return { loaded: undefined, problems, perSource }
  const kept = { ...loaded, identity: previous.identity }
  return problemOf(kept.identity, kept.trust) === undefined
    ? { loaded: kept, problems, perSource }
    : { loaded: previous, problems, perSource: { ...perSource, trust: 'failed' } }
}

const problemOf = (identity: Loaded['identity'], trust: Loaded['trust']) =>
  contextProblem(
    identity.material,
    trust.map(({ material }) => material),
  )
