import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Cells,
  cellOf,
  LOOP_LAG_SECONDS_CELL,
  METRICS,
  type MetricName,
  metricEntry,
  SERIES,
} from '../../src/metrics.ts'
import { MetricsRegistry } from '../../src/observe/metrics.ts'

interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

interface Family {
  readonly type: string
  readonly samples: Sample[]
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*'
const LABEL = `[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*"`
const SAMPLE = new RegExp(
  `^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? ([+-]?(?:[0-9.e+-]+|Inf)|NaN)$`,
  'i',
)

/** What promtool checks: grammar, HELP and TYPE once and first, families together, no duplicates. */
function parsed(text: string): Map<string, Family> {
  assert.ok(text.endsWith('\n'))
  const families = new Map<string, Family>()
  const seen = new Set<string>()
  let helped = ''
  let current = ''
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line)
    if (comment) {
      const [, kind, name, rest] = comment as unknown as [string, string, string, string]
      if (kind === 'HELP') {
        assert.ok(!families.has(name), `${name} is described twice`)
        helped = name
      } else {
        assert.equal(helped, name)
        assert.match(rest, /^(counter|gauge|histogram|summary)$/)
        families.set(name, { type: rest, samples: [] })
        current = name
      }
      continue
    }
    const sample = SAMPLE.exec(line)
    assert.ok(sample, `not a sample: ${line}`)
    const [, name, labelText = '', value] = sample as unknown as [string, string, string, string]
    assert.ok(!seen.has(`${name}{${labelText}}`), `twice: ${line}`)
    seen.add(`${name}{${labelText}}`)
    const family = families.get(current)
    const base = family?.type === 'histogram' ? name.replace(/_(bucket|sum|count)$/, '') : name
    assert.equal(base, current, `${name} stands under ${current}`)
    const labels: Record<string, string> = {}
    for (const [, label, text] of labelText.matchAll(/([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[label!] = text!.replace(/\\(.)/g, (_, one) => (one === 'n' ? '\n' : one))
    }
    const numeric = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value)
    family?.samples.push({ name, labels, value: numeric })
  }
  return families
}

function registry(cells: readonly Cells[] = [], retired = Cells.allocate(), defaults = false) {
  return new MetricsRegistry({ cells: () => cells, retired, defaults })
}

const value = (families: Map<string, Family>, name: string, labels: Record<string, string> = {}) =>
  families
    .get(`postern_${name}`)
    ?.samples.find((one) => JSON.stringify(one.labels) === JSON.stringify(labels))?.value

test('every metric of the table is described once, with its type and declared labels only', async () => {
  const cells = Cells.allocate()
  for (const series of SERIES) cells.add(series.cell)
  const families = parsed(await registry([cells]).text())
  assert.deepEqual(
    [...families.keys()],
    Object.keys(METRICS).map((name) => `postern_${name}`),
  )
  for (const name of Object.keys(METRICS) as MetricName[]) {
    const entry = metricEntry(name)
    const family = families.get(`postern_${name}`)
    assert.equal(family?.type, entry.type)
    for (const { labels } of family?.samples ?? []) {
      const { le: _, ...own } = labels
      assert.deepEqual(Object.keys(own), Object.keys(entry.labels))
    }
  }
})

test('a closed label takes only the values of the table, so never one that a client chose', async () => {
  const cells = Cells.allocate()
  for (const series of SERIES) cells.add(series.cell)
  for (const [name, family] of parsed(await registry([cells]).text())) {
    const declared = metricEntry(name.replace('postern_', '') as MetricName).labels
    for (const { labels } of family.samples) {
      for (const [label, values] of Object.entries(declared)) {
        if (values !== 'any') assert.ok(values.includes(labels[label]!), `${name} ${label}`)
      }
    }
  }
  const one = registry()
  assert.throws(() => one.inc('reload_total', { source: '/etc/passwd', result: 'success' }))
  assert.throws(() => one.set('snapshot_generation_' as 'snapshot_generation', {}, 1))
})

test('counters are summed over live and ended threads, gauges over live threads only', async () => {
  const [first, second, retired] = [Cells.allocate(), Cells.allocate(), Cells.allocate()]
  for (const cells of [first, second, retired]) {
    cells.add(cellOf('connections_total', {}), 5)
    cells.add(cellOf('connections_open', {}), 2)
  }
  const families = parsed(await registry([first, second], retired).text())
  assert.equal(value(families, 'connections_total'), 15)
  assert.equal(value(families, 'connections_open'), 4)
})

test('histograms are cumulative, end in +Inf and agree with their count and sum', async () => {
  const cells = Cells.allocate()
  const cell = cellOf('decision_duration_seconds', {})
  const buckets = METRICS.decision_duration_seconds.buckets
  for (const seconds of [0.000004, 0.000005, 0.00002, 0.02, 7])
    cells.observe(cell, buckets, seconds)
  const families = parsed(await registry([cells]).text())
  for (const [name, family] of families) {
    if (family.type !== 'histogram') continue
    const bounds = family.samples.filter((one) => one.name.endsWith('_bucket'))
    const counts = bounds.map((one) => one.value)
    assert.deepEqual(
      counts,
      counts.toSorted((a, b) => a - b),
    )
    assert.equal(bounds.at(-1)?.labels['le'], '+Inf')
    const count = family.samples.find((one) => one.name === `${name}_count`)
    assert.equal(count?.value, counts.at(-1))
  }
  const samples = families.get('postern_decision_duration_seconds')!.samples
  const at = (le: string) => samples.find((one) => one.labels['le'] === le)?.value
  assert.equal(at('0.000005'), 2, 'a value on a bound belongs to that bucket')
  assert.equal(at('0.000025'), 3)
  assert.equal(at('0.1'), 4)
  assert.equal(at('+Inf'), 5)
  const sum = samples.find((one) => one.name.endsWith('_sum'))?.value ?? 0
  assert.ok(Math.abs(sum - 7.020029) < 1e-9)
})

test('series at zero are there from the start, impossible ones only if they were counted', async () => {
  const families = parsed(await registry([Cells.allocate()]).text())
  assert.equal(value(families, 'decisions_total', { outcome: 'deny', rule: 'policy' }), 0)
  assert.equal(value(families, 'reload_total', { source: 'trust', result: 'failure' }), 0)
  assert.equal(value(families, 'handshakes_total', { result: 'success', reason: 'none' }), 0)
  assert.equal(
    value(families, 'handshakes_total', { result: 'success', reason: 'expired' }),
    undefined,
  )
  assert.equal(
    value(families, 'reload_last_success_timestamp_seconds', { source: 'trust' }),
    undefined,
  )
  const cells = Cells.allocate()
  cells.add(cellOf('handshakes_total', { result: 'success', reason: 'expired' }))
  const odd = parsed(await registry([cells]).text())
  assert.equal(value(odd, 'handshakes_total', { result: 'success', reason: 'expired' }), 1)
})

test('the loop lag of every thread is shown under its number', async () => {
  const [first, second] = [Cells.allocate(), Cells.allocate()]
  first.set(LOOP_LAG_SECONDS_CELL, 0.25)
  second.set(LOOP_LAG_SECONDS_CELL, 0.5)
  const families = parsed(await registry([first, second]).text())
  assert.equal(value(families, 'event_loop_lag_seconds', { thread: 'data-0' }), 0.25)
  assert.equal(value(families, 'event_loop_lag_seconds', { thread: 'data-1' }), 0.5)
  assert.ok((value(families, 'event_loop_lag_seconds', { thread: 'control' }) ?? -1) >= 0)
})

test('label values are escaped and survive parsing', async () => {
  const nasty = 'a\\b"c\nd} 1\n# HELP x'
  const one = registry()
  one.set('policy_info', { slot: 'active', revision: nasty }, 1)
  const families = parsed(await one.text())
  assert.equal(value(families, 'policy_info', { slot: 'active', revision: nasty }), 1)
})

test('a gauge family can be cleared and set anew', async () => {
  const one = registry()
  one.set('certificate_expiration_timestamp_seconds', { kind: 'trust', name: 'old.pem' }, 1)
  one.clear('certificate_expiration_timestamp_seconds')
  one.set('certificate_expiration_timestamp_seconds', { name: 'new.pem', kind: 'trust' }, 2)
  const samples = parsed(await one.text()).get('postern_certificate_expiration_timestamp_seconds')
  assert.deepEqual(
    samples?.samples.map(({ labels }) => labels),
    [{ kind: 'trust', name: 'new.pem' }],
  )
})

test('a control metric that is never cleared stays bounded', async () => {
  const one = registry()
  for (let i = 0; i < 3000; i++) one.set('policy_info', { slot: 'active', revision: `${i}` }, 1)
  const samples = parsed(await one.text()).get('postern_policy_info')?.samples ?? []
  assert.equal(samples.length, 2000)
})

test('the process_ and nodejs_ defaults follow, and parse', async () => {
  const families = parsed(await registry([], Cells.allocate(), true).text())
  assert.ok(families.has('process_resident_memory_bytes'))
  assert.ok(families.has('nodejs_version_info'))
  assert.ok(families.has('postern_build_info'))
})
