// The operator's log: one JSON line an event, with `level` as a word, `time` in ISO 8601 and `msg`.
// Promises that logging never waits for the reader of standard output and never shows a secret.
import { pino } from 'pino'
import { type LineSink, type LineTally, LineWriter } from './line-writer.ts'
import { createRedactor } from './redaction.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

type LogMethod = {
  (message: string): void
  (fields: object, message: string): void
}

export interface Logger extends Readonly<Record<LogLevel, LogMethod>> {
  /** One line that is JSON already; `false`: dropped, because the reader cannot keep up. */
  line(json: string, tally?: LineTally): boolean
  /** Resolves when every line is out (`true`), or after `deadlineMs` (`false`; default 1,000). */
  flush(deadlineMs?: number): Promise<boolean>
  /** For an `exit` or `uncaughtException` handler; writes what can be written without blocking. */
  flushSync(): void
  /** Lines of the four level methods that were dropped. */
  readonly dropped: number
}

export interface LoggerOptions {
  readonly level: LogLevel
  /** Names of fields and headers whose values are secrets, beside the built-in ones. */
  readonly redact?: readonly string[]
  /** Default: standard output. */
  readonly destination?: LineSink
}

/** Space that records of requests cannot use up, so that a flood of them leaves room for an error. */
const RESERVE = 256 * 1024

export function createLogger(options: LoggerOptions): Logger {
  const sink = options.destination ?? LineWriter.standardOutput()
  const redactor = createRedactor(options.redact)
  let dropped = 0
  const base = pino(
    {
      level: options.level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: {
        level: (label) => ({ level: label }),
        log: (fields) => redactor.fields(fields),
      },
    },
    {
      write(line: string) {
        if (!sink.write(line.trimEnd(), RESERVE)) dropped++
      },
    },
  )
  return {
    debug: base.debug.bind(base),
    info: base.info.bind(base),
    warn: base.warn.bind(base),
    error: base.error.bind(base),
    line: (json, tally) => sink.write(json, 0, tally),
    flush: (deadlineMs = 1000) => sink.flush(deadlineMs),
    flushSync: () => sink.flushSync(),
    get dropped() {
      return dropped
    },
  }
}
