// The 99th percentile at half load: the same number of requests a second for each, half of what the
// slower one can do, sent when they are due and not when an answer has come.
import type { BenchOptions } from './bench.ts'
import type { Load } from './load.ts'
import { median } from './process.ts'
import { NGINX, type RunningProxy } from './proxies.ts'
import { tell, tellBars } from './report.ts'
import { SCENARIOS } from './scenarios.ts'
import type { Stage } from './stage.ts'

const SECONDS = 4
const NAMES = ['postern-allow', 'postern-policy', NGINX, 'haproxy', 'envoy-rbac']
const LIMIT = 2

interface Measured {
  readonly name: string
  readonly proxy: RunningProxy
  readonly p50Ms: number[]
  readonly p99Ms: number[]
  saturated: number
}

export async function latencyAtHalfLoad(
  { rounds, requests, telling, variants, note }: BenchOptions,
  stage: Stage,
  load: Load,
): Promise<void> {
  const { connections, tasks } = SCENARIOS.http1
  const [{ work }] = tasks as unknown as [(typeof tasks)[number]]
  const all: Measured[] = []
  const open = ({ proxy }: Measured): Promise<void> =>
    load.open({ port: proxy.port, connections, work, ...stage.client })
  try {
    for (const variant of variants(NAMES, NGINX)) {
      const proxy = await variant.start(stage, 'plain')
      all.push({ name: variant.name, proxy, p50Ms: [], p99Ms: [], saturated: 0 })
    }
    for (const one of all) {
      await open(one)
      await load.drive(requests)
      const { elapsedMs } = await load.drive(requests)
      one.saturated = (requests / elapsedMs) * 1000
      await load.close()
    }
    const rate = Math.round(Math.min(...all.map(({ saturated }) => saturated)) / 2)
    for (let round = 1; round <= rounds; round++) {
      note(`latency: round ${round} of ${rounds}, ${rate} requests a second`)
      for (const one of all) {
        await open(one)
        await load.drive(connections * 4)
        const { p50Ms, p99Ms } = await load.drive(rate * (requests < 1000 ? 1 : SECONDS), rate)
        one.p50Ms.push(p50Ms)
        one.p99Ms.push(p99Ms)
        await load.close()
      }
    }
    const measure = all.find(({ name }) => name === NGINX)
    const toMeasure = ({ p99Ms }: Measured): number | undefined =>
      measure && median(p99Ms.map((ms, i) => ms / measure.p99Ms[i]!))
    tell(
      `Latency at ${rate} requests a second, half of what the slowest can do; a GET, 100 bytes`,
      all.map((one) => ({
        variant: one.name,
        'p50 ms': Number(median(one.p50Ms).toFixed(2)),
        'p99 ms': Number(median(one.p99Ms).toFixed(2)),
        'x nginx p99': toMeasure(one)?.toFixed(2) ?? null,
        'most req/s': Math.round(one.saturated),
      })),
      telling,
    )
    const bars = all
      .filter(({ name }) => name.startsWith('postern'))
      .map((one) => ({
        what: `${one.name}: p99 to ${NGINX}`,
        value: toMeasure(one),
        limit: LIMIT,
        kind: 'at most' as const,
      }))
    tellBars(bars, telling)
  } finally {
    for (const { proxy } of all) await proxy.end()
  }
}
