// Counts and records what happens to connections and requests, in cells and log records.
import { type ErrorCode, errorEntry, isFailure } from '../errors.ts'
import type { RequestHead } from '../http/head.ts'
import type { LegibleRequest } from '../http/legible.ts'
import type { Peer } from '../identity/anonymous-peer.ts'
import {
  CLOSE_REASONS,
  cellOf,
  cellsByLabel,
  metricEntry,
  PROTOCOLS,
  REJECTION_CODES,
  REQUEST_OUTCOMES,
  REVOCATION_KINDS,
  STATUS_CLASSES,
  UNSAFE_REQUEST_KINDS,
  UPSTREAM_CODES,
} from '../metrics.ts'
import type { ThreadContext } from './thread-context.ts'

export interface RequestEnd {
  readonly outcome: (typeof REQUEST_OUTCOMES)[number]
  readonly code?: ErrorCode | undefined
  /** What was wrong, or why it has ended, where the code leaves it open. */
  readonly detail?: string | undefined
  /** Of an answer of our own; otherwise the facts' status holds. */
  readonly status?: number
}

export interface RequestFacts {
  readonly head: RequestHead
  readonly requestId: string
  readonly decisionId: string | undefined
  readonly startedMs: number
  readonly status: number
  readonly requestBytes: number
  readonly responseBytes: number
}

export interface TcpFacts {
  readonly requestId: string
  readonly decisionId?: string
  readonly startedMs: number
  readonly requestBytes: number
  readonly responseBytes: number
  readonly outcome: (typeof REQUEST_OUTCOMES)[number]
  readonly code?: ErrorCode
  readonly detail: string | undefined
}

export interface ConnectionFacts {
  readonly peer: Peer
  readonly remoteAddress: string
  readonly remotePort: number
}

export type Protocol = (typeof PROTOCOLS)[number]

const REQUESTS = byProtocol((protocol) =>
  REQUEST_OUTCOMES.map((outcome) =>
    STATUS_CLASSES.map((status_class) =>
      cellOf('requests_total', { protocol, outcome, status_class }),
    ),
  ),
)
const REQUEST_DURATION = byProtocol((protocol) => cellOf('request_duration_seconds', { protocol }))
const REQUEST_BUCKETS = metricEntry('request_duration_seconds').buckets ?? []
const REJECTED: Readonly<Record<string, number>> = cellsByLabel(
  'requests_rejected_total',
  'code',
  REJECTION_CODES,
)
const UPSTREAM_ERRORS: Readonly<Record<string, number>> = cellsByLabel(
  'upstream_errors_total',
  'code',
  UPSTREAM_CODES,
)
const UNSAFE = cellsByLabel('unsafe_requests_total', 'kind', UNSAFE_REQUEST_KINDS)
const ENFORCED = cellsByLabel('revocations_enforced_total', 'what', REVOCATION_KINDS)
const CLOSED = cellsByLabel('connections_closed_total', 'reason', CLOSE_REASONS)
const ACCESS_DROPPED = cellOf('log_records_dropped_total', { kind: 'access' })
const OPEN = cellOf('connections_open', {})

export class Tally {
  readonly #context: ThreadContext

  constructor(context: ThreadContext) {
    this.#context = context
  }

  opened(): void {
    this.#context.cells.add(OPEN)
  }

  closed(reason: (typeof CLOSE_REASONS)[number]): void {
    this.#context.cells.add(OPEN, -1)
    this.#context.cells.add(CLOSED[reason])
  }

  request(connection: ConnectionFacts, facts: RequestFacts, end: RequestEnd): void {
    const { cells, clock } = this.#context
    const durationMs = clock.monotonicMs() - facts.startedMs
    const status = end.status ?? facts.status
    const protocol: Protocol = facts.head.protocol === 'HTTP/2' ? 'http/2' : 'http/1.1'
    const row = REQUESTS[protocol][REQUEST_OUTCOMES.indexOf(end.outcome)] as number[]
    cells.add(row[statusClass(status)] as number)
    cells.observe(REQUEST_DURATION[protocol], REQUEST_BUCKETS, durationMs / 1000)
    if (end.code !== undefined) this.#countCode(end.code)
    const unsafe = this.#unsafe(connection.peer)
    const { access } = this.#context.generation.snapshot.settings.log
    const ordinary = end.outcome === 'allow' && !isFailure(end.code) && unsafe === undefined
    if (access === 'off' || (access === 'denied' && ordinary)) return
    this.#context.records.push({
      kind: 'access',
      timeMs: clock.nowMs(),
      requestId: facts.requestId,
      ...(facts.decisionId === undefined ? {} : { decisionId: facts.decisionId }),
      principal: connection.peer.principal,
      ...(unsafe === undefined ? {} : { unsafe }),
      remoteAddress: connection.remoteAddress,
      remotePort: connection.remotePort,
      method: facts.head.method,
      path: facts.head.path,
      protocol,
      status,
      outcome: end.outcome,
      ...(end.code === undefined ? {} : { code: end.code }),
      ...(end.detail === undefined ? {} : { detail: end.detail }),
      durationMs,
      requestBytes: facts.requestBytes,
      responseBytes: facts.responseBytes,
    })
  }

  /** A connection whose bytes were not looked at, when it has ended. */
  connection(connection: ConnectionFacts, facts: TcpFacts): void {
    const { cells, clock, records } = this.#context
    const { outcome, code, detail, startedMs, ...told } = facts
    const durationMs = clock.monotonicMs() - startedMs
    const row = REQUESTS.tcp[REQUEST_OUTCOMES.indexOf(outcome)] as number[]
    cells.add(row[statusClass(0)] as number)
    cells.observe(REQUEST_DURATION.tcp, REQUEST_BUCKETS, durationMs / 1000)
    if (code !== undefined) this.#countCode(code)
    const { access } = this.#context.generation.snapshot.settings.log
    if (access === 'off' || (access === 'denied' && outcome === 'allow' && !isFailure(code))) return
    records.push({
      kind: 'access',
      timeMs: clock.nowMs(),
      ...told,
      principal: connection.peer.principal,
      remoteAddress: connection.remoteAddress,
      remotePort: connection.remotePort,
      method: '',
      path: '',
      protocol: 'tcp',
      status: 0,
      outcome,
      ...(code === undefined ? {} : { code }),
      ...(detail === undefined ? {} : { detail }),
      durationMs,
    })
  }

  /** @param asked absent: there is no method or path that is safe to repeat */
  rejected(
    connection: ConnectionFacts,
    requestId: string,
    code: ErrorCode,
    protocol: Protocol = 'http/1.1',
    asked?: LegibleRequest,
    detail?: string,
  ): void {
    const { cells, clock, records } = this.#context
    const status = errorEntry(code).http
    const row = REQUESTS[protocol][REQUEST_OUTCOMES.indexOf('rejected')] as number[]
    cells.add(row[statusClass(status)] as number)
    this.#countCode(code)
    const unsafe = this.#unsafe(connection.peer)
    if (this.#context.generation.snapshot.settings.log.access === 'off') return
    // A line costs as much as a request that is forwarded.
    if (code === 'overloaded' && !this.#context.overload.logs()) return cells.add(ACCESS_DROPPED)
    records.push({
      kind: 'access',
      timeMs: clock.nowMs(),
      requestId,
      principal: connection.peer.principal,
      ...(unsafe === undefined ? {} : { unsafe }),
      remoteAddress: connection.remoteAddress,
      remotePort: connection.remotePort,
      method: asked?.method ?? '',
      path: asked?.path ?? '',
      protocol,
      status,
      outcome: 'rejected',
      code,
      ...(detail === undefined ? {} : { detail }),
      durationMs: 0,
      requestBytes: 0,
      responseBytes: 0,
    })
  }

  /** What the client of a request lacks, where an unsafe option let it in. */
  #unsafe(peer: Peer): keyof typeof UNSAFE | undefined {
    if (peer.kind === 'peer') return undefined
    const kind = peer.lacks === 'tls' ? 'plaintext' : 'no_certificate'
    this.#context.cells.add(UNSAFE[kind])
    return kind
  }

  cut(connection: ConnectionFacts, code: ErrorCode, detail: string): void {
    const { cells, clock, records } = this.#context
    cells.add(ENFORCED[KIND_OF_CUT[code] ?? 'untrusted'])
    records.push({
      kind: 'cut',
      timeMs: clock.nowMs(),
      remoteAddress: connection.remoteAddress,
      remotePort: connection.remotePort,
      principal: connection.peer.principal,
      serial: connection.peer.serial,
      code,
      detail,
    })
  }

  #countCode(code: ErrorCode): void {
    const cell = REJECTED[code] ?? UPSTREAM_ERRORS[code]
    if (cell !== undefined) this.#context.cells.add(cell)
  }
}

const KIND_OF_CUT: Partial<Record<ErrorCode, (typeof REVOCATION_KINDS)[number]>> = {
  peer_revoked: 'revoked',
  peer_deny_listed: 'deny_listed',
  peer_expired: 'expired',
  peer_untrusted: 'untrusted',
  peer_revocation_unknown: 'revocation_unknown',
}

function byProtocol<T>(make: (protocol: Protocol) => T): Readonly<Record<Protocol, T>> {
  return Object.fromEntries(PROTOCOLS.map((protocol) => [protocol, make(protocol)])) as Record<
    Protocol,
    T
  >
}

function statusClass(status: number): number {
  return status < 100 || status > 599 ? STATUS_CLASSES.length - 1 : Math.floor(status / 100) - 1
}
