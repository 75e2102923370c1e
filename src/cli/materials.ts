// Loads the materials of a configuration and asks OpenSSL, too, whether it takes them: what a data
// thread could refuse must be found before a snapshot is published.
import type { Config } from '../config/config.ts'
import { type Loaded, type LoadOutcome, loadMaterials } from '../control/loader.ts'
import { contextProblem } from '../proxy/tls-options.ts'

export async function loadChecked(
  config: Config,
  nowMs: number,
  previous?: Loaded,
): Promise<LoadOutcome> {
  const outcome = await loadMaterials(config, nowMs, previous)
  const { loaded } = outcome
  if (loaded === undefined) return outcome
  const problem = contextProblem(
    loaded.identity.material,
    loaded.trust.map(({ material }) => material),
  )
  if (problem === undefined) return outcome
  return {
    loaded: previous === undefined ? undefined : { ...loaded, identity: previous.identity },
    problems: [...outcome.problems, problem],
    perSource: { ...outcome.perSource, identity: 'failed' },
  }
}
