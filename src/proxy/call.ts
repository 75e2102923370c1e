// One request on its way to the workload, and its answer on the way back, in terms that hold for
// every protocol that clients and workloads speak. http1-call.ts and h2c/ make the calls; exchange.ts
// and http2/ use them.
import type { ErrorCode } from '../errors.ts'
import type { Fields } from '../http/fields.ts'
import type { Framing } from '../http/framing.ts'
import type { ResponseFraming } from '../http/response.ts'
import type { WorkloadEnd } from './workload-end.ts'

export interface CallRequest {
  readonly method: string
  /** Path and query, or `*`. */
  readonly target: string
  readonly authority: string
  readonly scheme: 'http' | 'https'
  /** Sanitised and mutated, `host` among them; neither hop-by-hop nor framing fields are. */
  readonly fields: Fields
  readonly body: Framing
  /** The workload is to say whether it wants the body. */
  readonly expectContinue: boolean
  /** Asks for a WebSocket with this key. */
  readonly webSocketKey?: string
}

/** The answer's head, or that of an interim answer. */
export interface AnswerHead {
  readonly status: number
  /** May be empty. */
  readonly reason: string
  /** Without hop-by-hop fields; `content-length` is among them where the workload said one. */
  readonly fields: Fields
  readonly body: ResponseFraming
  /** Trailers may follow the body. */
  readonly trailers: boolean
  /** `callData`, `callEnd` or `callFailed` is called before anything else happens. */
  readonly dataFollows: boolean
}

/** Whether the request may be sent once more (RFC 9110 section 9.2.2, RFC 9113 section 8.7). */
export type Repeatable =
  /** The workload has not processed any of it. */
  | 'always'
  /** It may have: an idle connection was closed as we wrote. */
  | 'if_idempotent'
  | 'never'

/** Who made the call. Bytes are lent: `callData` copies what it keeps. */
export interface CallUser {
  callInterim(head: AnswerHead): void
  callHead(head: AnswerHead): void
  callData(buffer: Buffer, start: number, end: number): void
  /** The answer is complete. */
  callEnd(trailers: Fields): void
  /** After a `write` that returned false: there is room again. */
  callDrain(): void
  /**
   * It is over; the answer, if one began, is cut off.
   * @param detail for the log: what was wrong, where the code leaves it open; no byte of anybody's
   */
  callFailed(code: ErrorCode, repeatable: Repeatable, detail?: string): void
}

/** A user that asked for a WebSocket also learns that it has one, and owns the workload's end then. */
export interface UpgradeUser extends CallUser {
  /** @param fields as of HTTP/1.1, with `sec-websocket-accept` */
  callUpgraded(fields: Fields, upstream: WorkloadEnd): void
}

export interface Call {
  /** Sends the request, with what was written before. Called once. */
  begin(): void
  /**
   * @param bytes are lent; before `begin`, until that returns
   * @returns false when enough is waiting to be sent; `callDrain` follows
   */
  write(bytes: Buffer): boolean
  /** What was written and the workload has not taken. */
  readonly waitingBytes: number
  /** The request is complete. */
  end(trailers: Fields): void
  /** Take no more of the answer than is on its way; `resume` goes on. */
  pause(): void
  resume(): void
  /** Nobody wants the answer any more; the user is told nothing. */
  abandon(): void
}

export const totalBytes = (pieces: readonly Buffer[]): number =>
  pieces.reduce((sum, { length }) => sum + length, 0)
