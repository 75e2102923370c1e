// Log records on their way to the control thread: sent in batches, and only as many at a time as it
// has taken, so that a log that cannot keep up costs records (counted) and never memory or a request.
import { type Cells, cellOf } from '../metrics.ts'
import type { FromDataThread, LogRecord, SentInput } from '../threads.ts'
import { SAMPLES_DROPPED } from './candidate-sample.ts'

const BATCH = 256
const MOST_UNACKNOWLEDGED = 8_192
/** Samples take no room that the log may need. */
const MOST_WITH_SAMPLES = MOST_UNACKNOWLEDGED / 4

const DROPPED = {
  access: cellOf('log_records_dropped_total', { kind: 'access' }),
  decision: cellOf('decision_log_events_total', { result: 'queue_full' }),
  connection: cellOf('log_records_dropped_total', { kind: 'connection' }),
}

export class RecordQueue {
  readonly #cells: Cells
  readonly #post: (message: FromDataThread) => void
  #batch: LogRecord<SentInput>[] = []
  #unacknowledged = 0

  constructor(cells: Cells, post: (message: FromDataThread) => void) {
    this.#cells = cells
    this.#post = post
  }

  push(record: LogRecord<SentInput>): void {
    const waiting = this.#unacknowledged + this.#batch.length
    if (record.kind === 'sample' && waiting >= MOST_WITH_SAMPLES) {
      this.#cells.add(SAMPLES_DROPPED)
      return
    }
    if (waiting >= MOST_UNACKNOWLEDGED) {
      if (record.kind === 'decision' && record.sampled) this.#cells.add(SAMPLES_DROPPED)
      const kind =
        record.kind === 'access' || record.kind === 'decision' ? record.kind : 'connection'
      this.#cells.add(DROPPED[kind])
      return
    }
    this.#batch.push(record)
    if (this.#batch.length >= BATCH) this.flush()
  }

  flush(): void {
    if (this.#batch.length === 0) return
    this.#unacknowledged += this.#batch.length
    this.#post({ kind: 'records', records: this.#batch })
    this.#batch = []
  }

  taken(count: number): void {
    this.#unacknowledged -= count
  }
}
