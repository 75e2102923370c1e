// Log records on their way to the control thread: sent in batches, and only as many at a time as it
// has taken, so that a log that cannot keep up costs records (counted) and never memory or a request, and first
// those about whom there are most.
import { type Cells, cellOf } from '../metrics.ts'
import type { FromDataThread, LogRecord, SentInput } from '../threads.ts'
import { SAMPLES_DROPPED } from './candidate-sample.ts'

const BATCH = 256
const BATCH_BYTES = 512 * 1024
/** Of what clients may make the thread hold, records are so much beside it... */
const PART_OF_HELD = 1 / 4
/** ...or at least so much: a thousand of small requests, or some 250 with the largest heads. */
const LEAST_UNACKNOWLEDGED_BYTES = 8 * 1024 * 1024
/** Samples take no room that the log may need. */
const PART_WITH_SAMPLES = 1 / 4
/** Beyond it there is room only for principals that have no more of it than the mean, and for none alone. */
const PART_FOR_ALL = 3 / 4
/** Of memory, what there is of a record beside what clients wrote. */
const RECORD_BYTES = 1024

const DROPPED = {
  access: cellOf('log_records_dropped_total', { kind: 'access' }),
  decision: cellOf('decision_log_events_total', { result: 'queue_full' }),
  connection: cellOf('log_records_dropped_total', { kind: 'connection' }),
}

export class RecordQueue {
  readonly #cells: Cells
  readonly #post: (message: FromDataThread) => void
  readonly #heldLimitBytes: () => number
  #batch: LogRecord<SentInput>[] = []
  #batchBytes = 0
  #unacknowledgedBytes = 0
  /** What waits, by principal, about: of what was taken each had its part. */
  readonly #shares = new Map<string, number>()

  /** @param heldLimitBytes `inbound.limits.heldBytes`, which follows the memory that there is */
  constructor(cells: Cells, post: (message: FromDataThread) => void, heldLimitBytes: () => number) {
    this.#cells = cells
    this.#post = post
    this.#heldLimitBytes = heldLimitBytes
  }

  push(record: LogRecord<SentInput>): void {
    const waitingBytes = this.#unacknowledgedBytes + this.#batchBytes
    const mostBytes = Math.max(LEAST_UNACKNOWLEDGED_BYTES, this.#heldLimitBytes() * PART_OF_HELD)
    if (record.kind === 'sample' && waitingBytes >= mostBytes * PART_WITH_SAMPLES) {
      this.#cells.add(SAMPLES_DROPPED)
      return
    }
    const principal = principalOf(record)
    if (waitingBytes >= mostBytes || this.#hasMost(principal, waitingBytes, mostBytes)) {
      if (record.kind === 'decision' && record.sampled) this.#cells.add(SAMPLES_DROPPED)
      const kind =
        record.kind === 'access' || record.kind === 'decision' ? record.kind : 'connection'
      this.#cells.add(DROPPED[kind])
      return
    }
    const bytes = bytesOf(record)
    this.#batch.push(record)
    this.#batchBytes += bytes
    this.#shares.set(principal, (this.#shares.get(principal) ?? 0) + bytes)
    if (this.#batch.length >= BATCH || this.#batchBytes >= BATCH_BYTES) this.flush()
  }

  flush(): void {
    if (this.#batch.length === 0) return
    const bytes = this.#batchBytes
    this.#unacknowledgedBytes += bytes
    this.#post({ kind: 'records', records: this.#batch, bytes })
    this.#batch = []
    this.#batchBytes = 0
  }

  taken(bytes: number): void {
    const waitingBytes = this.#unacknowledgedBytes + this.#batchBytes
    this.#unacknowledgedBytes -= bytes
    const left = 1 - bytes / waitingBytes
    for (const [principal, share] of this.#shares) {
      if (share * left < RECORD_BYTES / 2) this.#shares.delete(principal)
      else this.#shares.set(principal, share * left)
    }
  }

  /** Who floods the log does not keep what others do out of it. */
  #hasMost(principal: string, waitingBytes: number, mostBytes: number): boolean {
    if (waitingBytes < mostBytes * PART_FOR_ALL) return false
    return (this.#shares.get(principal) ?? 0) > waitingBytes / Math.max(2, this.#shares.size)
  }
}

/** Those that concern nobody, or nobody yet, are one. */
function principalOf(record: LogRecord<SentInput>): string {
  if (record.kind === 'sample') return record.decision.principal
  return 'principal' in record ? record.principal : ''
}

/** Of memory, about. */
function bytesOf(record: LogRecord<SentInput>): number {
  switch (record.kind) {
    case 'decision':
      return RECORD_BYTES + inputBytes(record.input) + (record.result?.length ?? 0)
    case 'sample':
      return bytesOf(record.decision)
    case 'access':
      return RECORD_BYTES + record.path.length
    case 'handshake':
      return RECORD_BYTES + record.detail.length + (record.subject?.length ?? 0)
    default:
      return RECORD_BYTES
  }
}

function inputBytes(input: SentInput): number {
  if (typeof input === 'string') return input.length
  const { beforeRequest, afterRequest, ending } = input.connection
  let bytes = beforeRequest.length + afterRequest.length + ending.length
  // Path and query once more on their own.
  bytes += 2 * input.target.length
  for (const text of input.fields) bytes += text.length
  return bytes
}
