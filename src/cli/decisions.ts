// The decision log of a running sidecar: its destinations, the rules of the policy in force about
// it, and the figures that show that no decision went missing unseen.
import type { Config } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import { type Cells, cellOf, cellsByLabel, DECISION_LOG_RESULTS } from '../metrics.ts'
import { DecisionLog, type DecisionLogResult } from '../observe/decision-log.ts'
import { DecisionUpload, type UploadNotice } from '../observe/decision-upload.ts'
import type { Logger } from '../observe/log.ts'
import type { MetricsRegistry } from '../observe/metrics.ts'
import type { Redactor } from '../observe/redaction.ts'
import { documentOf } from '../policy/input.ts'
import type { Judgement } from '../policy/judge.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import type { DecisionRecord, LogRecord, SentInput } from '../threads.ts'
import { VERSION } from '../version.ts'
import { decisionServer, uploadProblems } from './decision-server.ts'
import { type AskedPolicies, PolicyInquiry, shown } from './inquiry.ts'

export interface DecisionsOptions {
  readonly config: Config['log']
  readonly logger: Logger
  readonly redactor: Redactor
  /** The policies in force, as they are at the moment of asking. */
  readonly slots: () => AskedPolicies
  /** Where this side counts; it alone writes there. */
  readonly cells: () => Cells
}

export type DecisionsOpened =
  | { readonly kind: 'open'; readonly decisions: Decisions }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

export class Decisions {
  readonly log: DecisionLog
  readonly #logger: Logger
  readonly #inquiry: PolicyInquiry

  static async open(options: DecisionsOptions): Promise<DecisionsOpened> {
    const { config, logger, redactor, slots, cells } = options
    const { upload } = config
    const problems = upload === undefined ? [] : await uploadProblems(upload)
    if (problems.length > 0) return { kind: 'problems', problems }
    const inquiry = new PolicyInquiry(slots)
    const failures = new FailureNotice(logger)
    const given = Object.fromEntries(config.labels.map(({ name, value }) => [name, value]))
    const log = DecisionLog.open({
      logger,
      redactor,
      labels: { ...given, id: crypto.randomUUID(), version: VERSION },
      get rules() {
        return inquiry.rules
      },
      onEvent: (result, reason) => {
        cells().add(RESULTS[result])
        if (reason !== undefined) failures.saw(result, reason)
      },
      file: config.decisionFile,
      upload:
        upload &&
        new DecisionUpload({
          ...upload,
          post: decisionServer(upload),
          onNotice: (notice) => logUpload(logger, notice),
        }),
    })
    return log instanceof DecisionLog
      ? { kind: 'open', decisions: new Decisions(log, logger, inquiry) }
      : { kind: 'problems', problems: [log] }
  }

  private constructor(log: DecisionLog, logger: Logger, inquiry: PolicyInquiry) {
    this.log = log
    this.#logger = logger
    this.#inquiry = inquiry
  }

  /** What the policies in force say now about a decision of the past. */
  reconsider(record: DecisionRecord): ReturnType<PolicyInquiry['reconsider']> {
    return this.#inquiry.reconsider(record, this.log)
  }

  /** What a policy says about the input of a decision, and nothing else is done about it. */
  judge(policy: PolicyMaterial, record: DecisionRecord): Judgement {
    return this.#inquiry.judge(policy, record)
  }

  /** For a line of the log: what was asked, what was said, and what the other policy says. */
  shown(record: DecisionRecord, other: Judgement): ShownComparison {
    const then = shown(record, record, this.log)
    const { method, path } = requestOf(then.input)
    const now = shown(record, other, this.log)
    const said = (one: typeof now) => ({
      ...(one.result === undefined ? {} : { result: one.result }),
      ...(one.error === undefined ? {} : { error: one.error }),
    })
    return { request: { method, path }, active: said(then), other: said(now) }
  }

  /** Before each scrape: the destinations count for themselves. */
  showMetrics(metrics: MetricsRegistry, cells: Cells): void {
    for (const { sink, pending, results } of this.log.deliveries()) {
      metrics.set('decision_log_pending', { sink }, pending)
      for (const [result, count] of Object.entries(results)) {
        const labels = { sink, result: result as keyof typeof results }
        cells.set(cellOf('decision_log_deliveries_total', labels), count)
      }
    }
  }

  /** Lets the last events out. */
  async close(): Promise<void> {
    if (await this.log.close()) return
    for (const { sink, pending, results } of this.log.deliveries()) {
      this.#logger.error(
        { event: 'decisions_lost', sink, lost: pending + (results.failed ?? 0) },
        'Decisions were left when the program had to end',
      )
    }
  }
}

/** A record as a data thread sent it, with the document that the data thread had no use for. */
export function withDocument(record: LogRecord<SentInput>): LogRecord {
  switch (record.kind) {
    case 'decision':
      return documented(record)
    case 'sample':
      return { kind: 'sample', decision: documented(record.decision) }
    default:
      return record
  }
}

function documented({ input, ...rest }: DecisionRecord<SentInput>): DecisionRecord {
  return { ...rest, input: typeof input === 'string' ? input : documentOf(input) }
}

export interface ShownComparison {
  readonly request: { readonly method: unknown; readonly path: unknown }
  readonly active: { readonly result?: unknown; readonly error?: unknown }
  readonly other: { readonly result?: unknown; readonly error?: unknown }
}

interface RequestShown {
  readonly attributes?: { readonly request?: { readonly http?: HttpShown } }
}
interface HttpShown {
  readonly method?: unknown
  readonly path?: unknown
}

const requestOf = (input: unknown): HttpShown =>
  (input as RequestShown | undefined)?.attributes?.request?.http ?? {}

const RESULTS = cellsByLabel('decision_log_events_total', 'result', DECISION_LOG_RESULTS)

function logUpload(logger: Logger, notice: UploadNotice): void {
  switch (notice.kind) {
    case 'failing':
      return logger.warn(
        { event: 'decision_upload', result: 'failing', detail: notice.detail },
        'Decisions cannot be uploaded; they wait',
      )
    case 'working':
      return logger.info({ event: 'decision_upload', result: 'working' }, 'Decisions are uploaded')
    case 'dropped':
      return logger.error(
        { event: 'decisions_dropped', sink: 'upload', reason: notice.reason, count: notice.count },
        'Decisions were dropped before they could be uploaded',
      )
  }
}

const NOTICE_MS = 60_000

/** A policy that fails once fails mostly, and each decision is worth no line of its own. */
class FailureNotice {
  readonly #logger: Logger
  #atMs = Number.NEGATIVE_INFINITY
  #count = 0

  constructor(logger: Logger) {
    this.#logger = logger
  }

  saw(result: DecisionLogResult, reason: string): void {
    this.#count++
    if (performance.now() - this.#atMs < NOTICE_MS) return
    this.#logger.error(
      { event: 'decisions_dropped', result, reason, count: this.#count },
      'Decisions are logged without input and result: the rules about the log failed',
    )
    this.#atMs = performance.now()
    this.#count = 0
  }
}
