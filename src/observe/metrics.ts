// Renders the table of metrics as Prometheus text: data series summed over the threads' cells,
// control series as they were set, then the process_ and nodejs_ defaults of prom-client.
import {
  type Cells,
  LOOP_LAG_SECONDS_CELL,
  METRICS,
  type MetricName,
  metricEntry,
  SERIES,
  type Series,
} from '../metrics.ts'
import { loadDefaultMetrics } from './default-metrics.ts'

type ControlMetric<Type> = {
  [M in MetricName]: (typeof METRICS)[M] extends { from: 'control'; type: Type } ? M : never
}[MetricName]
type Labels<M extends MetricName> = {
  readonly [L in keyof (typeof METRICS)[M]['labels']]: string
}

export interface MetricsOptions {
  /** The live data threads' cells; the place in the list is the thread's number. */
  readonly cells: () => readonly Cells[]
  /** Counters of ended threads, and of the control thread itself (drops). Its gauges are ignored. */
  readonly retired: Cells
  /** Also the process_ and nodejs_ metrics. They cost 9 MiB and 35 ms at the first scrape. */
  readonly defaults: boolean
}

/** Media type of the Prometheus text format. */
export const EXPOSITION_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** Most series that one control metric may have; a guard against a source that forgot `clear`. */
const MAX_SERIES = 2000

export class MetricsRegistry {
  readonly contentType = EXPOSITION_TYPE
  readonly #options: MetricsOptions
  readonly #control = new Map<MetricName, Map<string, number>>()
  #rendering: Promise<string> | undefined
  #defaults: (() => Promise<string>) | undefined

  constructor(options: MetricsOptions) {
    this.#options = options
    for (const name of Object.keys(METRICS) as MetricName[]) {
      const entry = metricEntry(name)
      if (entry.from !== 'control') continue
      const series = new Map<string, number>()
      this.#control.set(name, series)
      // A counter exists from the start, so that rate() sees its first increment. A gauge does not: a
      // timestamp of 0 would be a lie.
      if (entry.type === 'counter') {
        for (const labels of combinations(entry.labels)) series.set(labelText(labels), 0)
      }
    }
  }

  /** Sets one series of a gauge. */
  set<M extends ControlMetric<'gauge'>>(name: M, labels: Labels<M>, value: number): void {
    this.#change(name, labels, () => value)
  }

  /** Adds to one series of a counter. */
  inc<M extends ControlMetric<'counter'>>(name: M, labels: Labels<M>, by = 1): void {
    this.#change(name, labels, (before) => before + by)
  }

  /** Forgets every series of a gauge, before those that exist now are set. */
  clear(name: ControlMetric<'gauge'>): void {
    this.#control.get(name)?.clear()
  }

  /** The whole exposition. Scrapes at the same time share one rendering. */
  text(): Promise<string> {
    this.#rendering ??= this.#render().finally(() => {
      this.#rendering = undefined
    })
    return this.#rendering
  }

  #change(
    name: MetricName,
    labels: Readonly<Record<string, string>>,
    next: (before: number) => number,
  ): void {
    const series = this.#control.get(name)
    if (series === undefined) throw new Error(`${name} is not a metric of the control thread`)
    const key = labelText(checked(name, labels))
    const before = series.get(key)
    if (before === undefined && series.size >= MAX_SERIES) return
    series.set(key, next(before ?? 0))
  }

  async #render(): Promise<string> {
    const { cells, retired, defaults } = this.#options
    this.#defaults ??= defaults ? loadDefaultMetrics() : async () => ''
    const [lag, defaultText] = await Promise.all([timerLag(), this.#defaults()])
    const live = cells()
    this.clear('event_loop_lag_seconds')
    this.set('event_loop_lag_seconds', { thread: 'control' }, lag)
    live.forEach((one, thread) => {
      const seconds = one.read(LOOP_LAG_SECONDS_CELL)
      this.set('event_loop_lag_seconds', { thread: `data-${thread}` }, seconds)
    })
    const blocks: string[] = []
    for (const name of Object.keys(METRICS) as MetricName[]) {
      const entry = metricEntry(name)
      blocks.push(`# HELP postern_${name} ${escapeHelp(entry.help)}`)
      blocks.push(`# TYPE postern_${name} ${entry.type}`)
      if (entry.from === 'control') {
        for (const [labels, value] of this.#control.get(name) ?? []) {
          blocks.push(`postern_${name}${braces(labels)} ${number(value)}`)
        }
      } else {
        const threads = entry.type === 'gauge' ? live : [...live, retired]
        for (const series of SERIES_OF.get(name) ?? []) renderData(series, threads, blocks)
      }
    }
    return `${blocks.join('\n')}\n${defaultText}`
  }
}

const SERIES_OF = Map.groupBy(SERIES, (series) => series.metric)

/**
 * Series at zero are rendered too, so that rate() and absent() work from the first scrape: the whole
 * table is some 200 lines. Left out are only combinations that cannot happen.
 */
function renderData(series: Series, threads: readonly Cells[], into: string[]): void {
  const sum = (cell: number): number => threads.reduce((total, one) => total + one.read(cell), 0)
  const { metric, cell } = series
  const labels = labelText(series.labels)
  const { buckets } = metricEntry(metric)
  if (buckets === undefined) {
    const value = sum(cell)
    if (value !== 0 || canHappen(series)) {
      into.push(`postern_${metric}${braces(labels)} ${number(value)}`)
    }
    return
  }
  let cumulative = 0
  const prefix = labels === '' ? '' : `${labels},`
  for (const [index, bound] of [...buckets, Number.POSITIVE_INFINITY].entries()) {
    cumulative += sum(cell + index)
    into.push(`postern_${metric}_bucket{${prefix}le="${number(bound)}"} ${number(cumulative)}`)
  }
  into.push(`postern_${metric}_sum${braces(labels)} ${number(sum(cell + buckets.length + 1))}`)
  // Not a cell of its own: it equals the last bucket even when a thread counts meanwhile.
  into.push(`postern_${metric}_count${braces(labels)} ${number(cumulative)}`)
}

const canHappen = ({ metric, labels }: Series): boolean =>
  metric !== 'handshakes_total' ||
  (labels['result'] === 'success') === (labels['reason'] === 'none')

function checked(
  name: MetricName,
  labels: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const declared = metricEntry(name).labels
  const ordered: Record<string, string> = {}
  for (const [label, values] of Object.entries(declared)) {
    const value = labels[label]
    if (value === undefined || (values !== 'any' && !values.includes(value))) {
      throw new Error(`${name} has no series with ${label}=${value}`)
    }
    ordered[label] = value
  }
  return ordered
}

function combinations(
  labels: Readonly<Record<string, readonly string[] | 'any'>>,
): Record<string, string>[] {
  let all: Record<string, string>[] = [{}]
  for (const [label, values] of Object.entries(labels)) {
    if (values === 'any') return []
    all = all.flatMap((one) => values.map((value) => ({ ...one, [label]: value })))
  }
  return all
}

const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([label, value]) => `${label}="${escapeLabel(value)}"`)
    .join(',')

const braces = (labels: string): string => (labels === '' ? '' : `{${labels}}`)

// Prometheus text format 0.0.4: these three and no others; a lone surrogate would not be UTF-8.
const escapeLabel = (value: string): string =>
  value.toWellFormed().replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

const escapeHelp = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')

const number = (value: number): string =>
  value === Number.POSITIVE_INFINITY
    ? '+Inf'
    : value === Number.NEGATIVE_INFINITY
      ? '-Inf'
      : `${value}`

/** Measured at the scrape: a timer that runs for ever would wake an idle sidecar. */
function timerLag(): Promise<number> {
  const start = performance.now()
  return new Promise((resolve) => {
    setTimeout(() => resolve(Math.max(0, performance.now() - start - 1) / 1000), 1)
  })
}
