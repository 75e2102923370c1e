// Proxies that take turns at the same work, so that a busy machine is busy for all of them. The figure
// that counts is the ratio of two of them within a round.
import type { Driven, Load } from './load.ts'
import { cpuMicrosOfAll, median, rssBytesOf } from './process.ts'
import type { ProxyVariant, RunningProxy } from './proxies.ts'
import type { Scenario, Task } from './scenarios.ts'
import type { Stage } from './stage.ts'

const WARM_UP = 0.05
const MEBIBYTE = 1024 * 1024

export interface Turn {
  readonly cpuMicrosPerRequest: number
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly rssMiB: number
  /** Processor time of the proxy by time that passed: near 1, it was saturated. */
  readonly busy: number
  /** What generator and workload used, by request. */
  readonly loadMicrosPerRequest: number
}

export interface Contender {
  readonly variant: ProxyVariant
  readonly proxy: RunningProxy
  /** Of each task, by round. */
  readonly turns: ReadonlyMap<string, Turn[]>
}

export interface Contest {
  readonly scenario: Scenario
  readonly variants: readonly ProxyVariant[]
  readonly rounds: number
  readonly requests: number
  readonly note: (text: string) => void
}

/** Round 0 warms up and is not counted, unless there is but one of a demonstration. */
export async function contest(
  { scenario, variants, rounds, requests, note }: Contest,
  stage: Stage,
  load: Load,
  told: (contenders: readonly Contender[]) => Promise<void>,
): Promise<void> {
  const contenders: Contender[] = []
  try {
    for (const variant of variants) {
      const turns = new Map(scenario.tasks.map(({ name }) => [name, []]))
      contenders.push({ variant, proxy: await variant.start(stage, scenario.service), turns })
    }
    for (let round = rounds === 1 ? 1 : 0; round <= rounds; round++) {
      note(round === 0 ? 'warming up' : `round ${round} of ${rounds}`)
      for (const { variant, proxy, turns } of contenders) {
        for (const task of scenario.tasks) {
          const turn = await turnOf(
            proxy,
            scenario,
            task,
            requests * (variant.share ?? 1),
            stage,
            load,
          ).catch((error: Error) => {
            throw new Error(`${variant.name}, ${task.name}: ${error.message}`)
          })
          if (round > 0) turns.get(task.name)?.push(turn)
        }
      }
    }
    await told(contenders)
  } finally {
    for (const { proxy } of contenders) await proxy.end()
  }
}

async function turnOf(
  proxy: RunningProxy,
  { connections, as }: Scenario,
  { work, share }: Task,
  requests: number,
  stage: Stage,
  load: Load,
): Promise<Turn> {
  const count = Math.ceil(requests * share)
  await load.open({ port: proxy.port, connections, work, ...stage[as] })
  // Connections are set up by their first answers, and the round before may be long ago.
  await load.drive(Math.ceil(WARM_UP * count))
  const turn = await measured(proxy.pids, [load.pid, stage.workload.pid], count, () =>
    load.drive(count),
  )
  await load.close()
  return turn
}

export async function measured(
  pids: readonly number[],
  loaders: readonly number[],
  requests: number,
  drive: () => Promise<Driven>,
): Promise<Turn> {
  const before = { proxy: cpuMicrosOfAll(pids), load: cpuMicrosOfAll(loaders) }
  const { elapsedMs, p50Ms, p99Ms } = await drive()
  const usedMicros = cpuMicrosOfAll(pids) - before.proxy
  return {
    cpuMicrosPerRequest: usedMicros / requests,
    requestsPerSecond: (requests / elapsedMs) * 1000,
    p50Ms,
    p99Ms,
    rssMiB: pids.reduce((sum, pid) => sum + rssBytesOf(pid), 0) / MEBIBYTE,
    busy: usedMicros / 1000 / elapsedMs,
    loadMicrosPerRequest: (cpuMicrosOfAll(loaders) - before.load) / requests,
  }
}

/** Median of the rounds' ratios of `of`; undefined where one of them did not take part. */
export function ratio(
  contenders: readonly Contender[],
  variant: string,
  to: string,
  task: string,
  of: (turn: Turn) => number = (turn) => turn.cpuMicrosPerRequest,
): number | undefined {
  const turnsOf = (name: string): readonly Turn[] | undefined =>
    contenders.find((contender) => contender.variant.name === name)?.turns.get(task)
  const [own, other] = [turnsOf(variant), turnsOf(to)]
  if (own === undefined || other === undefined) return undefined
  return median(own.map((turn, i) => of(turn) / of(other[i]!)))
}
