// One request on its way to the workload, and its answer on the way back, in terms that hold for
// every protocol a workload may speak. `h2c/` makes calls of HTTP/2 with prior knowledge.
import type { ErrorCode } from '../errors.ts'
import type { Fields } from '../http/fields.ts'
import type { Framing } from '../http/framing.ts'

export interface CallRequest {
  readonly method: string
  /** Path and query, or `*`. */
  readonly target: string
  readonly authority: string
  readonly scheme: 'http' | 'https'
  /** Sanitised and mutated; neither hop-by-hop nor framing fields are among them. */
  readonly fields: Fields
  readonly body: Framing
}

/** The answer's head, or that of an interim answer. */
export interface AnswerHead {
  readonly status: number
  /** Without hop-by-hop fields; `content-length` is among them where the workload said one. */
  readonly fields: Fields
  /** Nothing follows. */
  readonly complete: boolean
  /** Trailers may follow the body. */
  readonly trailers: boolean
}

/** Whether the request may be sent once more (RFC 9110 section 9.2.2, RFC 9113 section 8.7). */
export type Repeatable =
  /** The workload has not processed any of it. */
  | 'always'
  /** It may have: an idle connection was closed as we wrote. */
  | 'if_idempotent'
  | 'never'

/** Who made the call. Bytes are lent: `data` copies what it keeps. */
export interface CallUser {
  callInterim(head: AnswerHead): void
  callHead(head: AnswerHead): void
  callData(buffer: Buffer, start: number, end: number): void
  /** The answer is complete. */
  callEnd(trailers: Fields): void
  /** After a `write` that returned false: there is room again. */
  callDrain(): void
  /** It is over; the answer, if one began, is cut off. */
  callFailed(code: ErrorCode, repeatable: Repeatable): void
}

export interface Call {
  /** @returns false when enough is waiting to be sent; `callDrain` follows */
  write(bytes: Buffer): boolean
  /** The request is complete. */
  end(trailers: Fields): void
  /** Take no more of the answer than is on its way; `resume` goes on. */
  pause(): void
  resume(): void
  /** Nobody wants the answer any more; the user is told nothing. */
  abandon(): void
}
