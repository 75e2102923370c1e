// Where decisions go: one NDJSON line each to standard output or a file, and the last ones into a
// ring for the admin server. Never waits: what the destination cannot take is dropped and counted.
import type { Problem } from '../errors.ts'
import type { DecisionRecord } from '../threads.ts'
import { type DecisionLabels, decisionEvent } from './decision-event.ts'
import { DecisionRing } from './decision-ring.ts'
import { LineWriter } from './line-writer.ts'
import type { Logger } from './log.ts'
import type { Redactor } from './redaction.ts'

export interface DecisionLogOptions {
  /** `log.decisionFile`; absent: standard output, through `logger`. */
  readonly file?: string
  readonly logger: Logger
  readonly redactor: Redactor
  readonly labels: DecisionLabels
  /** Called for each decision that could not be written. */
  readonly onDrop: () => void
}

const FILE_KEY = 'log.decisionFile'

export class DecisionLog {
  readonly ring = new DecisionRing()
  readonly #options: DecisionLogOptions
  readonly #file: LineWriter | undefined

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
    const { redactor, labels, logger, onDrop } = this.#options
    const json = decisionEvent(record, labels, redactor)
    if (json === undefined) {
      onDrop()
      return
    }
    const { decisionId: id, outcome, principal } = record
    this.ring.add({ id, outcome, principal, json })
    if (write && !(this.#file ? this.#file.write(json) : logger.line(json))) onDrop()
  }

  /** After the file was rotated; on failure the old one stays in use and the problem is returned. */
  reopen(): Problem | undefined {
    return this.#file?.reopen(FILE_KEY)
  }

  /** The file's part; what went to the logger is flushed by the logger. */
  async close(deadlineMs = 1000): Promise<boolean> {
    if (this.#file === undefined) return true
    const flushed = await this.#file.flush(deadlineMs)
    this.#file.close()
    return flushed
  }
}
