// What a second data thread is worth. On a machine with two processors the load generator needs one
// of them, so that requests per second say nothing: what two threads would do on two processors of
// their own is computed from what a request costs with one and with two, and from how evenly the
// kernel shared the connections out, because the thread with the most is full first.
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import type { BenchOptions } from './bench.ts'
import { measured } from './contest.ts'
import type { Load } from './load.ts'
import { median } from './process.ts'
import { ALLOW, posternVariant, type RunningProxy } from './proxies.ts'
import { tell, tellBars } from './report.ts'
import { SCENARIOS } from './scenarios.ts'
import { REPOSITORY, type Stage } from './stage.ts'

/** Enough for the kernel's hash to share them out about evenly. */
const CONNECTIONS = 256
const LIMIT = 1.7
const WORKERS = [1, 2] as const

interface Measured {
  readonly workers: number
  readonly proxy: RunningProxy
  readonly micros: number[]
  readonly requestsPerSecond: number[]
  /** The data threads' time by that of the busiest of them. */
  readonly evenness: number[]
}

export async function threadScaling(
  { rounds, requests, telling, note }: BenchOptions,
  stage: Stage,
  load: Load,
): Promise<void> {
  const [{ work }] = SCENARIOS.http1.tasks as unknown as [(typeof SCENARIOS.http1.tasks)[number]]
  const all: Measured[] = []
  try {
    for (const workers of WORKERS) {
      const own = { ...ALLOW, workers }
      const main = join(REPOSITORY, 'dist/main.js')
      const variant = posternVariant(`postern-${workers}`, main, own, 'any')
      const proxy = await variant.start(stage, 'plain')
      all.push({ workers, proxy, micros: [], requestsPerSecond: [], evenness: [] })
    }
    for (let round = rounds === 1 ? 1 : 0; round <= rounds; round++) {
      note(`threads: ${round === 0 ? 'warming up' : `round ${round} of ${rounds}`}`)
      for (const { workers, proxy, micros, requestsPerSecond, evenness } of all) {
        const opening = { port: proxy.port, connections: CONNECTIONS, work, ...stage.client }
        await load.open(opening)
        await load.drive(CONNECTIONS * 4)
        const [pid = 0] = proxy.pids
        const before = threadTicks(pid)
        const turn = await measured([pid], [load.pid], requests, () => load.drive(requests))
        const used = [...threadTicks(pid)].map(([id, ticks]) => ticks - (before.get(id) ?? 0))
        await load.close()
        if (round === 0) continue
        micros.push(turn.cpuMicrosPerRequest)
        requestsPerSecond.push(turn.requestsPerSecond)
        // Everything else together uses less than a data thread.
        const own = used.toSorted((a, b) => b - a).slice(0, workers)
        evenness.push(own.reduce((sum, ticks) => sum + ticks, 0) / own[0]!)
      }
    }
    const [one, two] = all as [Measured, Measured]
    const cost = median(one.micros.map((micros, i) => micros / two.micros[i]!))
    const evenness = median(two.evenness)
    tell(
      `Data threads, on ${os.availableParallelism()} processors that they share with the load`,
      all.map(({ workers, ...one }) => ({
        workers,
        'CPU us/req': Number(median(one.micros).toFixed(1)),
        'req/s': Math.round(median(one.requestsPerSecond)),
        'both/busier': Number(median(one.evenness).toFixed(2)),
      })),
      telling,
    )
    tellBars(
      [
        {
          what: `two threads on processors of their own to one: cost ${cost.toFixed(2)} x evenness ${evenness.toFixed(2)}`,
          value: cost * evenness,
          limit: LIMIT,
          kind: 'at least',
        },
      ],
      telling,
    )
  } finally {
    for (const { proxy } of all) await proxy.end()
  }
}

/** User and system time of each thread. */
function threadTicks(pid: number): Map<string, number> {
  return new Map(
    fs.readdirSync(`/proc/${pid}/task`).map((id) => {
      const stat = fs.readFileSync(`/proc/${pid}/task/${id}/stat`, 'latin1')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return [id, Number(fields[11]) + Number(fields[12])]
    }),
  )
}
