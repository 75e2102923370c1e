// Where decisions go: as events to standard output or a file, to an upload, and the last ones into a
// ring for the admin server. Never waits: what a destination cannot take is dropped and counted, and
// each decision is counted once by what became of its event.
import type { Problem } from '../errors.ts'
import type { DECISION_DELIVERIES, DECISION_LOG_RESULTS, DECISION_SINKS } from '../metrics.ts'
import type { DecisionRecord } from '../threads.ts'
import { decisionEvent, type EventContext, type EventOutcome } from './decision-event.ts'
import { DecisionRing } from './decision-ring.ts'
import type { DecisionUpload } from './decision-upload.ts'
import { type LineTally, LineWriter } from './line-writer.ts'
import type { Logger } from './log.ts'

export interface DecisionLogOptions extends EventContext {
  /** `log.decisionFile`. */
  readonly file?: string | undefined
  /** `log.upload`. Without a file and an upload, events go to standard output, through `logger`. */
  readonly upload?: DecisionUpload | undefined
  readonly logger: Logger
  /** Called once for each record. */
  readonly onEvent: (result: DecisionLogResult, reason?: string) => void
}

export type DecisionLogResult = Exclude<
  (typeof DECISION_LOG_RESULTS)[number],
  'queue_full' | 'thread_lost'
>
export type DeliveryResult = (typeof DECISION_DELIVERIES)[number]

/** What one destination did with the events it was given, since the start. */
export interface Deliveries {
  readonly sink: (typeof DECISION_SINKS)[number]
  /** Given and neither written nor dropped yet. */
  readonly pending: number
  readonly results: Readonly<Partial<Record<DeliveryResult, number>>>
}

const FILE_KEY = 'log.decisionFile'

export class DecisionLog {
  readonly ring = new DecisionRing()
  readonly #options: DecisionLogOptions
  readonly #file: LineWriter | undefined
  readonly #tally: LineTally = { pending: 0, written: 0, lost: 0, refused: 0 }

  private constructor(options: DecisionLogOptions, file: LineWriter | undefined) {
    this.#options = options
    this.#file = file
  }

  /** Opens the destination; a file that cannot be appended to is a problem now, not later. */
  static open(options: DecisionLogOptions): DecisionLog | Problem {
    if (options.file === undefined) return new DecisionLog(options, undefined)
    const file = LineWriter.file(options.file, FILE_KEY)
    return file instanceof LineWriter ? new DecisionLog(options, file) : file
  }

  /** `write` false: only into the ring. */
  record(record: DecisionRecord, write = true): void {
    const { onEvent } = this.#options
    const outcome = this.eventOf(record)
    if (outcome.kind === 'policy_failed') {
      onEvent(outcome.kind, outcome.reason)
      if (write) this.#write(outcome.json, record.timeMs)
      return
    }
    if (outcome.kind !== 'event') return onEvent(outcome.kind)
    const { json } = outcome
    const { decisionId: id, outcome: verdict } = record
    this.ring.add({ id, outcome: verdict, principal: shownPrincipal(record, json), json, record })
    onEvent(write ? 'logged' : 'sampled_out')
    if (write) this.#write(outcome.json, record.timeMs)
  }

  /** The event as it would be logged now; also of a record that was made up to be shown. */
  eventOf(record: DecisionRecord): EventOutcome {
    return decisionEvent(record, this.#options)
  }

  deliveries(): readonly Deliveries[] {
    const { upload, file } = this.#options
    if (upload !== undefined && file === undefined) return [upload.deliveries()]
    const { pending, written, lost, refused } = this.#tally
    const results = { written, failed: lost, buffer_full: refused }
    const lines: Deliveries = { sink: file === undefined ? 'console' : 'file', pending, results }
    return upload === undefined ? [lines] : [lines, upload.deliveries()]
  }

  /** After the file was rotated; on failure the old one stays in use and the problem is returned. */
  reopen(): Problem | undefined {
    return this.#file?.reopen(FILE_KEY)
  }

  /** What went to the logger is flushed by the logger. `true`: nothing is left. */
  async close(deadlineMs = CLOSING_MS): Promise<boolean> {
    const [flushed = true, uploaded = true] = await Promise.all([
      this.#file?.flush(deadlineMs),
      this.#options.upload?.close(deadlineMs),
    ])
    this.#file?.close()
    return flushed && uploaded
  }

  #write(event: string, timeMs: number): void {
    const { logger, upload, file } = this.#options
    upload?.take(event)
    if (upload !== undefined && file === undefined) return
    // As OPA's console logger writes it, so that one pipeline reads both.
    const time = new Date(timeMs).toISOString()
    const line = `{"level":"info","time":"${time}","msg":"Decision Log","type":"${EVENT_TYPE}",${event.slice(1)}`
    if (this.#file === undefined) logger.line(line, this.#tally)
    else this.#file.write(line, 0, this.#tally)
  }
}

/** Whoever was hidden in the event must not be found by the name either. */
function shownPrincipal({ principal, input }: DecisionRecord, json: string): string | undefined {
  const name = JSON.stringify(principal)
  const isHidden = principal !== '' && input.includes(name) && !json.includes(name)
  return isHidden ? undefined : principal
}

export const EVENT_TYPE = 'openpolicyagent.org/decision_logs'

/** Longer than an answer of a server that lives, shorter than the patience of a kubelet. */
const CLOSING_MS = 5_000
