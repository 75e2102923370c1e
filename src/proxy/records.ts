// Log records on their way to the control thread: sent in batches, and only as many at a time as it
// has taken, so that a log that cannot keep up costs records (counted) and never memory or a request.
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
    if (waitingBytes >= mostBytes) {
      if (record.kind === 'decision' && record.sampled) this.#cells.add(SAMPLES_DROPPED)
      const kind =
        record.kind === 'access' || record.kind === 'decision' ? record.kind : 'connection'
      this.#cells.add(DROPPED[kind])
      return
    }
    this.#batch.push(record)
    this.#batchBytes += bytesOf(record)
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
    this.#unacknowledgedBytes -= bytes
  }
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
