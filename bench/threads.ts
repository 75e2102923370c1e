// What a second data thread is worth. Where the load has a processor of its own, two threads have none
// to spare on a machine with two. So the whole of it, proxy, generator and workload, is given one
// processor with one thread and two with two, and a generator for each: requests per second are then
// the work that gets done.
import os from 'node:os'
import { join } from 'node:path'
import type { BenchOptions } from './bench.ts'
import { Load, type Pressed } from './load.ts'
import { cpuMicrosOf, cpuMicrosOfAll, LOAD_CPU, median, PROXY_CPU, pin } from './process.ts'
import { ALLOW, posternVariant, type RunningProxy } from './proxies.ts'
import { tell, tellBars } from './report.ts'
import { SCENARIOS } from './scenarios.ts'
import { REPOSITORY, type Stage } from './stage.ts'

/** Of each generator: enough for the kernel's hash to share them out about evenly. */
const CONNECTIONS = 128
const LIMIT = 1.7

interface Contender {
  readonly workers: number
  readonly cpus: readonly number[]
  readonly proxy: RunningProxy
  readonly loads: readonly Load[]
  readonly turns: Turn[]
}

interface Turn {
  readonly requestsPerSecond: number
  /** Of the proxy, by request. */
  readonly micros: number
  /** Processors that all of them used: less than there are, and something else used the rest, or none. */
  readonly busy: number
}

export async function threadScaling(
  { rounds, telling, note }: BenchOptions,
  stage: Stage,
  load: Load,
): Promise<void> {
  if (os.availableParallelism() < 2) throw new Error('two threads need two processors')
  const seconds = telling.quick ? 0.2 : 3
  const second = new Load(PROXY_CPU)
  const contenders: Contender[] = []
  try {
    for (const [cpus, loads] of [
      [[PROXY_CPU], [second]],
      [
        [PROXY_CPU, LOAD_CPU],
        [second, load],
      ],
    ] as const) {
      const workers = cpus.length
      const own = { ...ALLOW, workers }
      const main = join(REPOSITORY, 'dist/main.js')
      const variant = posternVariant(`postern-${workers}`, main, own, 'any')
      const proxy = await variant.start(stage, 'plain')
      for (const pid of proxy.pids) pin(pid, cpus)
      contenders.push({ workers, cpus, proxy, loads, turns: [] })
    }
    for (let round = rounds === 1 ? 1 : 0; round <= rounds; round++) {
      note(`threads: ${round === 0 ? 'warming up' : `round ${round} of ${rounds}`}`)
      for (const contender of contenders) {
        pin(stage.workload.pid, contender.cpus)
        const turn = await turnOf(contender, seconds, stage)
        if (round > 0) contender.turns.push(turn)
      }
    }
    const [one, two] = contenders as [Contender, Contender]
    tell(
      'Data threads: everything on one processor with one, on two with two',
      contenders.map(({ workers, turns }) => ({
        workers,
        'req/s': Math.round(median(turns.map(({ requestsPerSecond }) => requestsPerSecond))),
        'CPU us/req': Number(median(turns.map(({ micros }) => micros)).toFixed(1)),
        busy: Number(median(turns.map(({ busy }) => busy)).toFixed(2)),
      })),
      telling,
    )
    tellBars(
      [
        {
          what: 'requests per second of two threads to one',
          value: median(
            two.turns.map(
              ({ requestsPerSecond }, i) => requestsPerSecond / one.turns[i]!.requestsPerSecond,
            ),
          ),
          limit: LIMIT,
          kind: 'at least',
        },
      ],
      telling,
    )
  } finally {
    pin(stage.workload.pid, [LOAD_CPU])
    for (const { proxy } of contenders) await proxy.end()
    await second.end()
  }
}

async function turnOf({ proxy, loads }: Contender, seconds: number, stage: Stage): Promise<Turn> {
  const [{ work }] = SCENARIOS.http1.tasks as unknown as [(typeof SCENARIOS.http1.tasks)[number]]
  const opening = { port: proxy.port, connections: CONNECTIONS, work, ...stage.client }
  await Promise.all(loads.map((load) => load.open(opening)))
  await Promise.all(loads.map((load) => load.drive(CONNECTIONS * 8)))
  const [pid = 0] = proxy.pids
  const others = [stage.workload.pid, ...loads.map((load) => load.pid)]
  const before = { proxy: cpuMicrosOf(pid), others: cpuMicrosOfAll(others) }
  const pressed = await Promise.all(loads.map((load) => load.press(0, seconds)))
  const proxyMicros = cpuMicrosOf(pid) - before.proxy
  const othersMicros = cpuMicrosOfAll(others) - before.others
  await Promise.all(loads.map((load) => load.close()))
  const sum = (of: (one: Pressed) => number): number =>
    pressed.reduce((total, one) => total + of(one), 0)
  if (sum(({ refused }) => refused) > 0) throw new Error('the proxy refused requests')
  return {
    requestsPerSecond: sum(({ answered, elapsedMs }) => (answered / elapsedMs) * 1_000),
    micros: proxyMicros / sum(({ answered }) => answered),
    busy: (proxyMicros + othersMicros) / (sum(({ elapsedMs }) => elapsedMs) / loads.length) / 1_000,
  }
}
