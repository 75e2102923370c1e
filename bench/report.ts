// How results are told: a table for people, a line of JSON for each row for programs.
import os from 'node:os'
import { type Contender, ratio, type Turn } from './contest.ts'
import { median } from './process.ts'
import type { Scenario } from './scenarios.ts'

export type Cell = string | number | null
export type Row = Readonly<Record<string, Cell>>

export interface Telling {
  readonly json: boolean
  /** Nothing was measured, so that no bar is reached or missed. */
  readonly quick: boolean
}

/** @param rows with the same keys, which are the columns' names */
export function tell(title: string, rows: readonly Row[], { json }: Telling): void {
  if (json) {
    for (const row of rows) console.log(JSON.stringify({ scenario: title, ...row }))
    return
  }
  console.log(`\n${title}`)
  const columns = Object.keys(rows[0] ?? {})
  console.log(line(columns))
  for (const row of rows) console.log(line(columns.map((column) => row[column] ?? '-')))
}

export interface BarResult {
  readonly what: string
  /** Undefined: who it is measured by did not take part. */
  readonly value: number | undefined
  readonly limit: number
  readonly kind: 'at most' | 'at least'
}

export function tellBars(bars: readonly BarResult[], { json, quick }: Telling): void {
  if (quick) return
  for (const { what, value, limit, kind } of bars) {
    const reached =
      value === undefined ? undefined : kind === 'at most' ? value <= limit : value >= limit
    if (json) console.log(JSON.stringify({ bar: what, kind, limit, value: value ?? null, reached }))
    else {
      const verdict = reached === undefined ? 'not measured' : reached ? 'reached' : 'MISSED'
      console.log(`  bar: ${what} ${kind} ${limit}: ${value?.toFixed(2) ?? '-'}, ${verdict}`)
    }
  }
}

export function machine(): string {
  const [processor] = os.cpus()
  return `${processor?.model ?? 'unknown processor'}, ${os.availableParallelism()} processors, Node ${process.versions.node}`
}

export async function tellContest(
  scenario: Scenario,
  contenders: readonly Contender[],
  telling: Telling,
): Promise<void> {
  const rows = scenario.tasks.flatMap((task) =>
    contenders.map(({ variant, turns }): Row => {
      const middle = (of: (turn: Turn) => number, digits: number): number =>
        Number(median((turns.get(task.name) ?? []).map(of)).toFixed(digits))
      const toMeasure = ratio(contenders, variant.name, scenario.measure, task.name)
      return {
        variant: `${variant.name}/${task.name}`,
        'CPU us/req': middle((turn) => turn.cpuMicrosPerRequest, 1),
        [`x ${scenario.measure}`]: toMeasure === undefined ? null : Number(toMeasure.toFixed(2)),
        'req/s': middle((turn) => turn.requestsPerSecond, 0),
        'p50 ms': middle((turn) => turn.p50Ms, 2),
        'p99 ms': middle((turn) => turn.p99Ms, 2),
        'RSS MiB': middle((turn) => turn.rssMiB, 1),
        'busy %': middle((turn) => turn.busy * 100, 0),
      }
    }),
  )
  tell(scenario.title, rows, telling)
  const bars = scenario.bars.flatMap(({ variant, to, atMost }) =>
    contenders.some((contender) => contender.variant.name === variant)
      ? scenario.tasks.map(({ name }) => ({
          what: `${variant}/${name} to ${to}`,
          value: ratio(contenders, variant, to, name),
          limit: atMost,
          kind: 'at most' as const,
        }))
      : [],
  )
  tellBars(bars, telling)
  if (telling.json) return
  const all = contenders.flatMap(({ turns }) => [...turns.values()].flat())
  const ceiling = Math.round(1e6 / median(all.map((turn) => turn.loadMicrosPerRequest)))
  console.log(`  generator and workload on one processor could do ${ceiling} req/s`)
  for (const { variant, proxy } of contenders) {
    const lost = await proxy.lostRecords()
    if (lost > 0) console.log(`  ${variant.name}: ${lost} log records dropped`)
  }
}

function line(cells: readonly Cell[]): string {
  const [first = '', ...rest] = cells
  return String(first).padEnd(36) + rest.map((cell) => String(cell).padStart(12)).join('')
}
