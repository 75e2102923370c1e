// An HTTP/1.1 request whose body is collected for policy: undoes the framing, and hands on how far it
// came, so that the exchange goes on in the middle of a body.
import type { ErrorCode } from '../errors.ts'
import { ChunkedDecoder } from '../http/chunked.ts'
import type { RequestHead } from '../http/head.ts'
import type { RequestBody } from './request-body.ts'

/** How far the body of a request has been read before there was an exchange. */
export interface ReadBody {
  readonly bytes: Buffer
  readonly done: boolean
  /** Of a body with a length. */
  readonly left: number
  readonly decoder: ChunkedDecoder | undefined
}

export const TRAILER_LIMITS = { maxTrailerBytes: 8 * 1024, maxTrailerCount: 32 }

export class Collecting {
  /** Without the expectation, which is met by us. */
  readonly head: RequestHead
  readonly startedMs: number
  readonly body: RequestBody
  /** inbound.limits.bodyBytes; 0: no limit. */
  readonly #bodyLimit: number
  readonly #decoder: ChunkedDecoder | undefined
  #left: number
  /** When a byte last came, in thread time. */
  progressMs: number
  ready = false

  constructor(
    head: RequestHead,
    body: RequestBody,
    bodyLimit: number,
    startedMs: number,
    nowMs: number,
  ) {
    this.head = { ...head, expectContinue: false }
    this.startedMs = startedMs
    this.progressMs = nowMs
    this.body = body
    this.#bodyLimit = bodyLimit
    this.#left = head.body.kind === 'length' ? head.body.length : 0
    this.#decoder = head.body.kind === 'chunked' ? new ChunkedDecoder(TRAILER_LIMITS) : undefined
  }

  get read(): ReadBody {
    return { bytes: this.body.bytes, done: this.#done, left: this.#left, decoder: this.#decoder }
  }

  get #done(): boolean {
    return this.#decoder === undefined ? this.#left === 0 : this.#decoder.done
  }

  /** @returns index after the last byte that belongs to this request, or why it is refused */
  take(buffer: Buffer, start: number, end: number, nowMs: number): number | ErrorCode {
    this.progressMs = nowMs
    const consumed =
      this.#decoder === undefined
        ? this.#takeLength(buffer, start, end)
        : this.#takeChunks(this.#decoder, buffer, start, end)
    if (typeof consumed === 'number' && this.#done) {
      this.body.end()
      this.ready = true
    }
    return consumed
  }

  #takeLength(buffer: Buffer, start: number, end: number): number | ErrorCode {
    const stop = start + Math.min(this.#left, end - start)
    this.#left -= stop - start
    return this.#add(buffer, start, stop) ?? stop
  }

  #takeChunks(
    decoder: ChunkedDecoder,
    buffer: Buffer,
    start: number,
    end: number,
  ): number | ErrorCode {
    let refused: ErrorCode | undefined
    const consumed = decoder.decode(buffer, start, end, (from, to) => {
      refused ??= this.#add(buffer, from, to)
    })
    if (typeof consumed !== 'number') return consumed.code
    if (this.#bodyLimit > 0 && this.body.bytes.length > this.#bodyLimit) return 'body_too_large'
    return refused ?? consumed
  }

  #add(buffer: Buffer, from: number, to: number): ErrorCode | undefined {
    const collected = this.body.add(buffer, from, to)
    if (collected === 'ready') this.ready = true
    return collected === 'full' ? 'body_memory_full' : undefined
  }
}
