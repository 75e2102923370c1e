// An HTTP/2 request whose body is collected before policy is asked: reads the stream until there is
// enough of it, and hands it on to whoever goes on from there.
import type { ServerHttp2Stream } from 'node:http2'
import type { ErrorCode } from '../../errors.ts'
import type { RequestHead } from '../../http/head.ts'
import type { RequestBody } from '../request-body.ts'

/** How far a request was read before there was an exchange. */
export interface ReadSoFar {
  readonly bytes: Buffer
  /** That was all. */
  readonly done: boolean
  readonly trailers: readonly string[]
}

export interface CollectingEvents {
  /** Runs what a stream event leads to; a fault in it ends this stream and no other. */
  guard(stream: ServerHttp2Stream, step: () => void): void
  ready(collecting: StreamCollecting): void
  failed(collecting: StreamCollecting, code: ErrorCode): void
}

/**
 * Whether the client has sent all of its request, when `end` says so: that event is also there when
 * the client resets the stream or goes away (Node.js 26.10), behind the end of the stream as a whole.
 */
export function isWhole(stream: ServerHttp2Stream): boolean {
  return !stream.closed
}

export class StreamCollecting {
  readonly stream: ServerHttp2Stream
  /** Without the expectation, which is met by us. */
  readonly head: RequestHead
  readonly body: RequestBody
  readonly startedMs: number
  progressMs: number
  readonly #nowMs: () => number
  readonly #bodyLimit: number
  readonly #events: CollectingEvents
  #trailers: readonly string[] = []
  #done = false
  #over = false

  /** @param bodyLimit inbound.limits.bodyBytes; 0: no limit */
  constructor(
    stream: ServerHttp2Stream,
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
    this.#bodyLimit = bodyLimit
    this.#events = events
    if (head.expectContinue) stream.additionalHeaders({ ':status': 100 })
    stream.on('trailers', this.#onTrailers)
    stream.on('data', this.#onData)
    stream.on('end', this.#onEnd)
    stream.on('close', this.#onClose)
  }

  get read(): ReadSoFar {
    return { bytes: this.body.bytes, done: this.#done, trailers: this.#trailers }
  }

  /** Stops reading; nothing is told any more. */
  stop(): void {
    if (this.#over) return
    this.#over = true
    this.stream.pause()
    this.stream.off('trailers', this.#onTrailers)
    this.stream.off('data', this.#onData)
    this.stream.off('end', this.#onEnd)
    this.stream.off('close', this.#onClose)
  }

  readonly #onTrailers = (_headers: unknown, _flags: number, list?: string[]): void => {
    this.#trailers = list ?? []
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#events.guard(this.stream, () => this.#take(chunk))
  }

  readonly #onEnd = (): void => {
    this.#events.guard(this.stream, () => {
      if (!isWhole(this.stream)) return
      this.#done = true
      this.body.end()
      this.#ready()
    })
  }

  readonly #onClose = (): void => {
    this.#events.guard(this.stream, () => this.#fail('client_closed'))
  }

  #take(chunk: Buffer): void {
    this.progressMs = this.#nowMs()
    const collected = this.body.add(chunk, 0, chunk.length)
    if (collected === 'full') return this.#fail('body_memory_full')
    if (this.#bodyLimit > 0 && this.body.bytes.length > this.#bodyLimit) {
      return this.#fail('body_too_large')
    }
    if (collected === 'ready') this.#ready()
  }

  #ready(): void {
    this.stop()
    this.#events.ready(this)
  }

  #fail(code: ErrorCode): void {
    this.stop()
    this.#events.failed(this, code)
  }
}
