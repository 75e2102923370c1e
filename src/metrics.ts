// The one table of metrics: names, types, labels with every value they can take, and sentences.
// Data threads add to cells of a shared array whose places this table decides; the control thread
// reads the cells of all threads when it is scraped. No label takes a value that a client chooses.
import { ERRORS, type ErrorCode } from './errors.ts'

export const PROTOCOLS = ['http/1.1', 'http/2', 'tcp'] as const
export const REQUEST_OUTCOMES = [
  'allow',
  'deny',
  'error',
  'not_ready',
  'timeout',
  'rejected',
  'peer_invalid',
] as const
export const DECISION_OUTCOMES = ['allow', 'deny', 'error', 'not_ready', 'timeout'] as const
/** What becomes of the event of a decision: `logged` goes to every destination, nothing else does. */
export const DECISION_LOG_RESULTS = [
  'logged',
  'sampled_out',
  'queue_full',
  'dropped_by_policy',
  'policy_failed',
  'unreadable',
  'thread_lost',
] as const
export const DECISION_SINKS = ['console', 'file', 'upload'] as const
export const DECISION_DELIVERIES = [
  'written',
  'buffer_full',
  'rate_limited',
  'too_large',
  'failed',
] as const
export const STATUS_CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx', 'none'] as const
/** Which rule decided: the `allow` rules of the configuration, the Rego policy, or neither. */
export const DECISION_RULES = ['allow_rules', 'policy', 'none'] as const
export const HANDSHAKE_FAILURES = [
  'no_certificate',
  'untrusted',
  'expired',
  'not_yet_valid',
  'revoked',
  'deny_listed',
  'revocation_unknown',
  'purpose',
  'bad_identity',
  'timeout',
  'protocol',
  'client_closed',
  'address_limited',
  'peer_limited',
  'overload',
] as const
export const CLOSE_REASONS = [
  'client',
  'idle',
  'lifetime',
  'requests',
  'rejected',
  'peer_invalid',
  'drain',
  'upstream',
  'memory',
  'error',
] as const
/** Of what a tunnel consists: frames of a WebSocket, or bytes that nobody looks at. */
export const TUNNEL_KINDS = ['websocket', 'tcp'] as const
export const TUNNEL_ENDS = [
  'complete',
  'broken',
  'idle',
  'lifetime',
  'drain',
  'peer_invalid',
] as const
/** What clients lack that an unsafe option lets in. */
export const UNSAFE_REQUEST_KINDS = ['no_certificate', 'plaintext'] as const
export const REVOCATION_KINDS = [
  'revoked',
  'deny_listed',
  'expired',
  'untrusted',
  'revocation_unknown',
] as const
export const REVOCATION_GAPS = ['missing', 'stale'] as const
export const POLICY_SLOTS = ['active', 'previous', 'candidate', 'held_back'] as const
/** What the candidate would change: who gets in, or `error` where it gave no answer. */
export const CANDIDATE_CHANGES = ['same', 'allow_to_deny', 'deny_to_allow', 'error'] as const
export const RELOAD_SOURCES = [
  'identity',
  'trust',
  'revocation',
  'policy',
  'candidate',
  'config',
] as const

const codesBlaming = (...faults: readonly string[]): ErrorCode[] =>
  (Object.keys(ERRORS) as ErrorCode[]).filter((code) => faults.includes(ERRORS[code].fault))

export const REJECTION_CODES: readonly ErrorCode[] = [
  ...codesBlaming('client'),
  'overloaded',
  'body_memory_full',
]
export const UPSTREAM_CODES = codesBlaming('upstream')

interface MetricEntry {
  readonly type: 'counter' | 'gauge' | 'histogram'
  /** `data`: cells in shared memory, summed over data threads. `control`: set by the control thread. */
  readonly from: 'data' | 'control'
  readonly help: string
  /** Label names with all their values, or `any` where the values come from configuration. */
  readonly labels: Readonly<Record<string, readonly string[] | 'any'>>
  readonly buckets?: readonly number[]
}

const LATENCY_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]
const DECISION_BUCKETS = [
  0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1,
]

/** Every metric; the exposed name has `postern_` before it. */
export const METRICS = {
  build_info: {
    type: 'gauge',
    from: 'control',
    help: 'Constant 1; the versions are in the labels.',
    labels: { version: 'any', node: 'any', openssl: 'any' },
  },
  snapshot_generation: {
    type: 'gauge',
    from: 'control',
    help: 'Generation of the snapshot in force.',
    labels: {},
  },
  reload_total: {
    type: 'counter',
    from: 'control',
    help: 'Attempts to bring a changed source into force.',
    labels: { source: RELOAD_SOURCES, result: ['success', 'failure'] },
  },
  reload_last_success_timestamp_seconds: {
    type: 'gauge',
    from: 'control',
    help: 'When a source was last brought into force.',
    labels: { source: RELOAD_SOURCES },
  },
  reload_lag_seconds: {
    type: 'gauge',
    from: 'control',
    help: 'Time from the last change of a source, in its file or at its agent, to its use by every data thread.',
    labels: { source: RELOAD_SOURCES },
  },
  certificate_expiration_timestamp_seconds: {
    type: 'gauge',
    from: 'control',
    help: 'End of validity of each certificate in force.',
    labels: { kind: ['identity', 'trust'], name: 'any' },
  },
  crl_next_update_timestamp_seconds: {
    type: 'gauge',
    from: 'control',
    help: 'When each CRL in force has to be replaced.',
    labels: { name: 'any' },
  },
  policy_info: {
    type: 'gauge',
    from: 'control',
    help: 'Constant 1 for each policy slot in use; held_back is what was rolled back and lies in its file still.',
    labels: { slot: POLICY_SLOTS, revision: 'any' },
  },
  policy_slot_changes_total: {
    type: 'counter',
    from: 'control',
    help: 'Rollbacks and promotions that took effect.',
    labels: { action: ['rollback', 'promote'], by: ['operator', 'automatic'] },
  },
  candidate_decisions_total: {
    type: 'counter',
    from: 'control',
    help: 'Decisions that the candidate policy was asked about as well: what it would change, or error where it gave no answer.',
    labels: { change: CANDIDATE_CHANGES },
  },
  candidate_samples_dropped_total: {
    type: 'counter',
    from: 'data',
    help: 'Sampled decisions that the candidate policy was not asked about for lack of time, or because the policies have changed since.',
    labels: {},
  },
  connections_total: {
    type: 'counter',
    from: 'data',
    help: 'Client connections accepted.',
    labels: {},
  },
  connections_open: {
    type: 'gauge',
    from: 'data',
    help: 'Client connections that are open.',
    labels: {},
  },
  connections_older_identity: {
    type: 'gauge',
    from: 'data',
    help: 'Open client connections whose handshake showed a certificate of ours that has been replaced since.',
    labels: {},
  },
  connections_closed_total: {
    type: 'counter',
    from: 'data',
    help: 'Client connections closed after their handshake.',
    labels: { reason: CLOSE_REASONS },
  },
  handshakes_total: {
    type: 'counter',
    from: 'data',
    help: 'TLS handshakes that ended.',
    labels: { result: ['success', 'failure'], reason: ['none', ...HANDSHAKE_FAILURES] },
  },
  handshake_duration_seconds: {
    type: 'histogram',
    from: 'data',
    help: 'Time from accept to the end of a successful handshake.',
    labels: {},
    buckets: LATENCY_BUCKETS,
  },
  tls_resumed_total: {
    type: 'counter',
    from: 'data',
    help: 'Handshakes that resumed a session.',
    labels: {},
  },
  requests_total: {
    type: 'counter',
    from: 'data',
    help: 'Requests answered or abandoned.',
    labels: { protocol: PROTOCOLS, outcome: REQUEST_OUTCOMES, status_class: STATUS_CLASSES },
  },
  request_duration_seconds: {
    type: 'histogram',
    from: 'data',
    help: 'Time from the complete request head to the last byte of the answer.',
    labels: { protocol: PROTOCOLS },
    buckets: LATENCY_BUCKETS,
  },
  unsafe_requests_total: {
    type: 'counter',
    from: 'data',
    help: 'Requests of clients that only inbound.unsafeOptionalPeer or inbound.unsafePlaintext lets in; their addresses are in the access log.',
    labels: { kind: UNSAFE_REQUEST_KINDS },
  },
  requests_rejected_total: {
    type: 'counter',
    from: 'data',
    help: 'Requests that were malformed or over a limit, or for which a data thread had no time or no memory.',
    labels: { code: REJECTION_CODES },
  },
  overload_active: {
    type: 'gauge',
    from: 'data',
    help: 'Data threads that are past their capacity (inbound.overload) and refuse a part of the requests.',
    labels: {},
  },
  decisions_total: {
    type: 'counter',
    from: 'data',
    help: 'Decisions about requests.',
    labels: { outcome: DECISION_OUTCOMES, rule: DECISION_RULES },
  },
  decision_duration_seconds: {
    type: 'histogram',
    from: 'data',
    help: 'Time spent in one policy evaluation.',
    labels: {},
    buckets: DECISION_BUCKETS,
  },
  tunnels_open: {
    type: 'gauge',
    from: 'data',
    help: 'WebSockets, and connections to a tcp:// workload, that are open.',
    labels: { kind: TUNNEL_KINDS },
  },
  tunnels_ended_total: {
    type: 'counter',
    from: 'data',
    help: 'Tunnels that ended: complete when both sides ended them, broken when one of them just went.',
    labels: { kind: TUNNEL_KINDS, reason: TUNNEL_ENDS },
  },
  upstream_connections_open: {
    type: 'gauge',
    from: 'data',
    help: 'Connections to the workload that are open.',
    labels: {},
  },
  upstream_errors_total: {
    type: 'counter',
    from: 'data',
    help: 'Requests that the workload did not answer properly.',
    labels: { code: UPSTREAM_CODES },
  },
  revocations_enforced_total: {
    type: 'counter',
    from: 'data',
    help: 'Established connections cut because their peer stopped being acceptable.',
    labels: { what: REVOCATION_KINDS },
  },
  revocation_soft_failures_total: {
    type: 'counter',
    from: 'data',
    help: 'Clients let in under soft-fail though the CRL of an issuer was missing or out of date.',
    labels: { reason: REVOCATION_GAPS },
  },
  log_records_dropped_total: {
    type: 'counter',
    from: 'data',
    help: 'Access and connection records dropped because the log could not keep up or be written, or because they were many of requests refused for overload.',
    labels: { kind: ['access', 'connection'] },
  },
  decision_log_events_total: {
    type: 'counter',
    from: 'data',
    help: 'Decisions by what became of their log event; together as many as decisions_total. `policy_failed` is logged without input and result.',
    labels: { result: DECISION_LOG_RESULTS },
  },
  decision_log_deliveries_total: {
    type: 'counter',
    from: 'data',
    help: 'Logged events by destination: written, or why they were dropped there; with those pending, as many as `logged` and `policy_failed`.',
    labels: { sink: DECISION_SINKS, result: DECISION_DELIVERIES },
  },
  decision_log_pending: {
    type: 'gauge',
    from: 'control',
    help: 'Logged events that a destination has not taken yet.',
    labels: { sink: DECISION_SINKS },
  },
  policy_wasm_memory_bytes: {
    type: 'gauge',
    from: 'data',
    help: 'Linear memory of the policy instances.',
    labels: {},
  },
  policy_instance_recycles_total: {
    type: 'counter',
    from: 'data',
    help: 'Policy instances replaced after a trap or at their memory ceiling.',
    labels: {},
  },
  data_thread_restarts_total: {
    type: 'counter',
    from: 'control',
    help: 'Data threads replaced because they stalled or died.',
    labels: { reason: ['stalled', 'exited'] },
  },
  unsafe_options: {
    type: 'gauge',
    from: 'control',
    help: 'Constant 1 for each option in use that weakens a guarantee.',
    labels: { option: 'any' },
  },
  event_loop_lag_seconds: {
    type: 'gauge',
    from: 'control',
    help: 'How late the last timer of a thread fired.',
    labels: { thread: 'any' },
  },
} as const satisfies Record<string, MetricEntry>

export type MetricName = keyof typeof METRICS
type DataMetricName = {
  [M in MetricName]: (typeof METRICS)[M]['from'] extends 'data' ? M : never
}[MetricName]
type LabelsOf<M extends MetricName> = {
  readonly [L in keyof (typeof METRICS)[M]['labels']]: (typeof METRICS)[M]['labels'][L] extends readonly (infer V)[]
    ? V
    : string
}

export const metricEntry = (name: MetricName): MetricEntry => METRICS[name]

/** One series of a data metric: its label values and the place of its first cell. */
export interface Series {
  readonly metric: MetricName
  readonly labels: Readonly<Record<string, string>>
  /** Counter and gauge: one cell. Histogram: one cell a bucket, then one for +Inf, then the sum. */
  readonly cell: number
  readonly cells: number
}

/** Cells that are not metrics of their own, at the start of every thread's array. */
export const HEARTBEAT_CELL = 0
export const LOOP_LAG_SECONDS_CELL = 1
export const GENERATION_CELL = 2

export const SERIES: readonly Series[] = layOut()
export const CELL_COUNT = (() => {
  const last = SERIES.at(-1)
  return last === undefined ? 3 : last.cell + last.cells
})()

function layOut(): Series[] {
  const series: Series[] = []
  let next = 3
  for (const metric of Object.keys(METRICS) as MetricName[]) {
    const entry = metricEntry(metric)
    if (entry.from !== 'data') continue
    let combinations: Record<string, string>[] = [{}]
    for (const [label, values] of Object.entries(entry.labels)) {
      if (values === 'any') throw new Error(`metric ${metric}: a data metric needs closed labels`)
      combinations = combinations.flatMap((one) =>
        values.map((value) => ({ ...one, [label]: value })),
      )
    }
    const cells = entry.type === 'histogram' ? (entry.buckets ?? []).length + 2 : 1
    for (const labels of combinations) {
      series.push({ metric, labels, cell: next, cells })
      next += cells
    }
  }
  return series
}

const SERIES_BY_KEY = new Map(SERIES.map((one) => [keyOf(one.metric, one.labels), one]))

function keyOf(metric: string, labels: Readonly<Record<string, string>>): string {
  return `${metric}|${Object.values(labels).join('|')}`
}

/** The cell of one series; resolve it once, when a module loads, and add to it in the hot path. */
export function cellOf<M extends DataMetricName>(metric: M, labels: LabelsOf<M>): number {
  const series = SERIES_BY_KEY.get(keyOf(metric, labels as Record<string, string>))
  if (series === undefined) throw new Error(`no series ${metric} with ${JSON.stringify(labels)}`)
  return series.cell
}

/** A map from each value of the one label of a metric to its cell. */
export function cellsByLabel<V extends string>(
  metric: DataMetricName,
  label: string,
  values: readonly V[],
): Readonly<Record<V, number>> {
  return Object.fromEntries(
    values.map((value) => [value, cellOf(metric, { [label]: value } as never)]),
  ) as Record<V, number>
}

/**
 * The numbers of one data thread. One writer (the thread), one reader (the control thread); a
 * 64-bit cell is written whole, so that no lock is needed for figures that may be a moment old.
 */
export class Cells {
  readonly memory: SharedArrayBuffer
  readonly values: Float64Array

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory
    this.values = new Float64Array(memory)
  }

  static allocate(): Cells {
    return new Cells(new SharedArrayBuffer(CELL_COUNT * Float64Array.BYTES_PER_ELEMENT))
  }

  add(cell: number, amount = 1): void {
    this.values[cell] = (this.values[cell] ?? 0) + amount
  }

  set(cell: number, value: number): void {
    this.values[cell] = value
  }

  read(cell: number): number {
    return this.values[cell] ?? 0
  }

  /** Adds one observation to the histogram that starts at `cell`. */
  observe(cell: number, buckets: readonly number[], value: number): void {
    let bucket = 0
    while (bucket < buckets.length && value > (buckets[bucket] as number)) bucket++
    this.add(cell + bucket)
    this.add(cell + buckets.length + 1, value)
  }
}
