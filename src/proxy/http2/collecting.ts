// An HTTP/2 request whose body is collected before policy is asked: reads the stream until there is
// enough of it, and hands it on to whoever goes on from there.
import type { ErrorCode } from '../../errors.ts'
import type { Fields } from '../../http/fields.ts'
import type { RequestHead } from '../../http/head.ts'
import type { RequestBody } from '../request-body.ts'
import { endOf } from './grpc.ts'
import type { Http2Stream, StreamUser } from './stream.ts'

/** How far a request was read before there was an exchange. */
export interface ReadSoFar {
  readonly bytes: Buffer
  /** That was all. */
  readonly done: boolean
  readonly trailers: Fields
}

export interface CollectingEvents {
  ready(collecting: StreamCollecting): void
  failed(collecting: StreamCollecting, code: ErrorCode): void
}

export class StreamCollecting implements StreamUser {
  readonly stream: Http2Stream
  /** Without the expectation, which is met by us. */
  readonly head: RequestHead
  readonly body: RequestBody
  readonly startedMs: number
  progressMs: number
  /** Of a gRPC call. */
  readonly #deadlineMs: number | undefined
  readonly #nowMs: () => number
  readonly #bodyLimit: number
  readonly #events: CollectingEvents
  #trailers: Fields = []
  #done = false
  #over = false

  /** @param bodyLimit inbound.limits.bodyBytes; 0: no limit */
  constructor(
    stream: Http2Stream,
    head: RequestHead,
    body: RequestBody,
    bodyLimit: number,
    times: { readonly startedMs: number; readonly nowMs: () => number },
    events: CollectingEvents,
  ) {
    this.stream = stream
    this.head = { ...head, expectContinue: false }
    this.body = body
    this.startedMs = times.startedMs
    this.#nowMs = times.nowMs
    this.progressMs = times.nowMs()
    this.#deadlineMs = endOf(head.fields, times.startedMs)
    this.#bodyLimit = bodyLimit
    this.#events = events
  }

  /** Begins to read. */
  begin(expectContinue: boolean): void {
    if (expectContinue) this.stream.inform([':status', '100'])
    this.stream.user = this
    if (this.stream.headOnly && !this.#over) this.streamEnd([])
  }

  get read(): ReadSoFar {
    return { bytes: this.body.bytes, done: this.#done, trailers: this.#trailers }
  }

  /** It has made no progress for so long, or the call is to be over. */
  isLate(nowMs: number, limitMs: number): boolean {
    return nowMs - this.progressMs >= limitMs || nowMs >= (this.#deadlineMs ?? nowMs + 1)
  }

  /** Stops reading; nothing is told any more. */
  stop(): void {
    if (this.#over) return
    this.#over = true
    this.stream.user = undefined
  }

  streamData(chunk: Buffer): void {
    this.progressMs = this.#nowMs()
    const collected = this.body.add(chunk, 0, chunk.length)
    if (collected === 'full') return this.#fail('body_memory_full')
    if (this.#bodyLimit > 0 && this.body.bytes.length > this.#bodyLimit) {
      return this.#fail('body_too_large')
    }
    if (collected === 'ready') this.#ready()
  }

  streamEnd(trailers: Fields): void {
    this.#done = true
    this.#trailers = trailers
    this.body.end()
    this.#ready()
  }

  streamClosed(): void {
    this.#fail(this.stream.isMalformed ? 'bad_framing' : 'client_closed')
  }

  /** Nothing was sent that could be drained. */
  streamDrain(): void {}

  #ready(): void {
    if (this.#over) return
    this.stop()
    this.#events.ready(this)
  }

  #fail(code: ErrorCode): void {
    if (this.#over) return
    this.stop()
    this.#events.failed(this, code)
  }
}
