// Takes the records of the data threads and decides which become log lines, at which level, and how
// many: what a client can cause without being authenticated is bounded per second.
import type { Config } from '../config/config.ts'
import { errorEntry, isFailure } from '../errors.ts'
import { type Cells, cellOf } from '../metrics.ts'
import type {
  AccessRecord,
  CutRecord,
  DecisionRecord,
  FaultRecord,
  HandshakeRecord,
  LogRecord,
  OverloadRecord,
} from '../threads.ts'
import type { DecisionLog } from './decision-log.ts'
import type { LineTally } from './line-writer.ts'
import type { Logger, LogLevel } from './log.ts'
import type { Redactor } from './redaction.ts'

export interface RecordSinkOptions {
  readonly logger: Logger
  readonly decisions: DecisionLog
  readonly config: Pick<Config['log'], 'access' | 'decisions'>
  readonly redactor: Redactor
  /** A decision that the candidate policy is to be asked about. */
  readonly sampled?: (decision: DecisionRecord) => void
  /** Takes the drops of this side; the `retired` cells, whose one writer is the control thread. */
  readonly cells: Cells
  /** Lines a window for each handshake failure reason and each reason to cut. Default 10. */
  readonly linesPerWindow?: number
  /** Default 1,000. */
  readonly windowMs?: number
}

/** A heartbeat is looked at four times a second, an admin call wants an answer at once. */
const SLICE_MS = 10
const ACCESS_DROPPED = cellOf('log_records_dropped_total', { kind: 'access' })

/** TCP probes and port scanners end as `client_closed`: worth a line only to someone who looks. */
const HANDSHAKE_LEVELS: Readonly<Record<HandshakeRecord['reason'], LogLevel>> = {
  no_certificate: 'warn',
  untrusted: 'warn',
  expired: 'warn',
  not_yet_valid: 'warn',
  revoked: 'warn',
  deny_listed: 'warn',
  revocation_unknown: 'error',
  purpose: 'warn',
  bad_identity: 'warn',
  timeout: 'info',
  protocol: 'info',
  client_closed: 'debug',
  address_limited: 'warn',
  peer_limited: 'warn',
  overload: 'warn',
}

const ABSENCE_WINDOW_MS = 10_000

export class RecordSink {
  readonly #options: RecordSinkOptions
  readonly #handshakes: Limiter<HandshakeRecord['reason']>
  readonly #cuts: Limiter<CutRecord['code']>
  readonly #faults: Limiter<'fault'>
  readonly #absences: Limiter<'workload'>
  readonly #accessLines: LineTally
  /** Resolves when what was taken before has been written; absent: at once. */
  #writing: Promise<void> | undefined

  constructor(options: RecordSinkOptions) {
    this.#options = options
    this.#accessLines = new AccessLines(options.cells)
    const { logger, linesPerWindow = 10, windowMs = 1000 } = options
    this.#handshakes = new Limiter(linesPerWindow, windowMs, (reason, suppressed) =>
      logger[HANDSHAKE_LEVELS[reason]](
        { event: 'handshakes_failed', reason, suppressed },
        'More handshakes failed for the same reason',
      ),
    )
    this.#cuts = new Limiter(linesPerWindow, windowMs, (code, suppressed) =>
      logger.warn(
        { event: 'connections_cut', code, suppressed },
        'More connections were cut for the same reason',
      ),
    )
    // Each request that fails for it has a line of its own.
    this.#absences = new Limiter(1, ABSENCE_WINDOW_MS, () => {})
    this.#faults = new Limiter(linesPerWindow, windowMs, (_, suppressed) =>
      logger.error({ event: 'faults', suppressed }, 'More faults ended connections'),
    )
  }

  /**
   * Writes records in the order they came in, a slice at a time, so that a mask which takes long holds
   * up nothing else in this thread. A promise: they are not all written yet.
   */
  take(records: readonly LogRecord[], thread: number): void | Promise<void> {
    if (this.#writing === undefined) {
      const next = this.#writeSlice(records, 0, thread)
      if (next === records.length) return
      this.#writing = this.#writeRest(records, next, thread)
    } else {
      this.#writing = this.#writing.then(() => this.#writeRest(records, 0, thread))
    }
    const mine = this.#writing
    void mine.then(() => {
      if (this.#writing === mine) this.#writing = undefined
    })
    return mine
  }

  /** Everything that was taken is written, or `deadlineMs` have passed. */
  async settled(deadlineMs: number): Promise<void> {
    if (this.#writing === undefined) return
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, deadlineMs)
    await Promise.race([this.#writing, late.promise])
    clearTimeout(timer)
  }

  async #writeRest(records: readonly LogRecord[], from: number, thread: number): Promise<void> {
    for (let next = from; next < records.length; ) {
      await new Promise((resolve) => setImmediate(resolve))
      next = this.#writeSlice(records, next, thread)
    }
  }

  /** Where the next slice begins. */
  #writeSlice(records: readonly LogRecord[], from: number, thread: number): number {
    const { config, decisions } = this.#options
    const end = performance.now() + SLICE_MS
    for (let at = from; at < records.length; at++) {
      if (at > from && performance.now() > end) return at
      const record = records[at] as LogRecord
      switch (record.kind) {
        case 'access':
          if (config.access === 'all' || (config.access === 'denied' && hasGoneWrong(record)))
            this.#access(record, thread)
          break
        case 'decision':
          decisions.record(
            record,
            config.decisions === 'all' ||
              (config.decisions === 'denied' && record.outcome !== 'allow'),
          )
          if (record.sampled) this.#options.sampled?.(record)
          break
        case 'sample':
          this.#options.sampled?.(record.decision)
          break
        case 'handshake':
          this.#handshake(record, thread)
          break
        case 'cut':
          this.#cut(record, thread)
          break
        case 'fault':
          this.#fault(record, thread)
          break
        case 'overload':
          this.#overload(record, thread)
          break
        case 'unreachable':
          if (!this.#absences.admits('workload')) break
          this.#options.logger.warn(
            { event: 'workload_unreachable', thread, detail: record.detail },
            'There is no connection to the workload',
          )
          break
        case 'relieved':
          this.#options.logger.warn(
            {
              event: 'connections_relieved',
              thread,
              closed: record.closed,
              held_bytes: record.heldBytes,
              principal: record.principal,
            },
            'Connections closed that held most of what waits (inbound.limits.heldBytes)',
          )
          break
        case 'slow_reads':
          this.#options.logger.warn(
            { event: 'slow_reads', thread, detail: record.detail, node: process.version },
            'Large request bodies cost more with this version of Node.js; please report it',
          )
          break
      }
    }
    return records.length
  }

  /** Not through the logger's level: the access log has its own switch, as in Envoy. */
  #access(record: AccessRecord, thread: number): void {
    const { logger, redactor } = this.#options
    const level = record.code === undefined ? 'info' : errorEntry(record.code).log
    logger.line(
      JSON.stringify({
        level: level === 'debug' ? 'info' : level,
        time: new Date(record.timeMs).toISOString(),
        msg: 'request',
        event: 'access',
        request_id: record.requestId,
        decision_id: record.decisionId,
        principal: record.principal,
        unsafe: record.unsafe,
        remote_address: endpoint(record),
        method: record.method,
        path: redactor.target(record.path),
        protocol: record.protocol,
        status: record.status,
        outcome: record.outcome,
        code: record.code,
        detail: record.detail,
        duration_ms: record.durationMs,
        request_bytes: record.requestBytes,
        response_bytes: record.responseBytes,
        thread,
      }),
      this.#accessLines,
    )
  }

  #handshake(record: HandshakeRecord, thread: number): void {
    if (!this.#handshakes.admits(record.reason)) return
    this.#options.logger[HANDSHAKE_LEVELS[record.reason]](
      {
        event: 'handshake_failed',
        request_id: record.requestId,
        reason: record.reason,
        detail: bounded(record.detail),
        remote_address: endpoint(record),
        subject: bounded(record.subject),
        serial: bounded(record.serial),
        thread,
      },
      'TLS handshake failed',
    )
  }

  #fault(record: FaultRecord, thread: number): void {
    if (!this.#faults.admits('fault')) return
    this.#options.logger.error(
      { event: 'fault', thread, detail: record.detail },
      'A fault in Postern ended a connection; please report it',
    )
  }

  #overload({ active, lagMs, shed }: OverloadRecord, thread: number): void {
    const fields = { thread, lag_ms: Math.round(lagMs) }
    const { logger } = this.#options
    if (active) logger.warn({ event: 'overload', ...fields }, errorEntry('overloaded').sentence)
    else logger.warn({ event: 'overload_over', ...fields, shed }, 'Overload is over')
  }

  #cut(record: CutRecord, thread: number): void {
    if (!this.#cuts.admits(record.code)) return
    this.#options.logger.warn(
      {
        event: 'connection_cut',
        code: record.code,
        detail: bounded(record.detail),
        principal: bounded(record.principal),
        serial: bounded(record.serial),
        remote_address: endpoint(record),
        thread,
      },
      errorEntry(record.code).sentence,
    )
  }
}

/** A 5xx that the workload gave is its answer. */
const hasGoneWrong = ({ outcome, code, unsafe }: AccessRecord): boolean =>
  outcome !== 'allow' || isFailure(code) || unsafe !== undefined

/** Who comes by the UNIX socket of `inbound.listen` has no address. */
function endpoint({
  remoteAddress,
  remotePort,
}: HandshakeRecord | AccessRecord | CutRecord): string {
  if (remoteAddress === '') return 'unix'
  return remoteAddress.includes(':')
    ? `[${remoteAddress}]:${remotePort}`
    : `${remoteAddress}:${remotePort}`
}

/** A client's certificate can be 64 KB of subject. */
const bounded = (text: string | undefined): string | undefined =>
  text !== undefined && text.length > 512 ? `${text.slice(0, 512)}…` : text

/** Counts as dropped what did not fit, and what was taken and met a full disk or a reader that has gone. */
class AccessLines implements LineTally {
  readonly #cells: Cells
  pending = 0
  written = 0

  constructor(cells: Cells) {
    this.#cells = cells
  }

  get lost(): number {
    return this.#cells.read(ACCESS_DROPPED)
  }

  set lost(count: number) {
    this.#cells.add(ACCESS_DROPPED, count - this.lost)
  }

  get refused(): number {
    return this.lost
  }

  set refused(count: number) {
    this.lost = count
  }
}

/** Admits a number of lines a window for each key of a closed set, and reports how many it did not. */
class Limiter<Key extends string> {
  readonly #limit: number
  readonly #windowMs: number
  readonly #report: (key: Key, suppressed: number) => void
  readonly #windows = new Map<Key, number>()

  constructor(limit: number, windowMs: number, report: (key: Key, suppressed: number) => void) {
    this.#limit = limit
    this.#windowMs = windowMs
    this.#report = report
  }

  admits(key: Key): boolean {
    const used = this.#windows.get(key)
    if (used === undefined) {
      setTimeout(() => {
        const suppressed = (this.#windows.get(key) ?? 0) - this.#limit
        this.#windows.delete(key)
        if (suppressed > 0) this.#report(key, suppressed)
      }, this.#windowMs).unref()
    }
    this.#windows.set(key, (used ?? 0) + 1)
    return (used ?? 0) < this.#limit
  }
}
