// One request and its answer: from a Permit to the last byte in both directions. It owns one
// connection to the workload meanwhile. Bodies are passed on as they come, framing is written anew,
// and whatever ends badly takes the workload's connection with it.
import type { ErrorCode } from '../errors.ts'
import { ChunkedDecoder, encodeChunkHeader, encodeTrailers, LAST_CHUNK } from '../http/chunked.ts'
import { type Fields, fieldValue, removeHopByHop } from '../http/fields.ts'
import type { RequestHead } from '../http/head.ts'
import { parseResponseHead, type ResponseHead } from '../http/response.ts'
import { requestHeadText, responseHeadText } from '../http/serialise.ts'
import { isHandshakeAnswer } from '../http/websocket.ts'
import type { Permit } from '../policy/permit.ts'
import type { Admitted } from './admission.ts'
import { type ReadBody, TRAILER_LIMITS } from './collecting.ts'
import { mutateFields, mutateTarget, mutateTrailers } from './mutations.ts'
import type { Turn } from './turn.ts'
import type { UpstreamConnection, UpstreamPool, UpstreamUser } from './upstream.ts'

/** What an exchange asks of the client connection it runs on. */
export interface ExchangeClient {
  readonly turn: Turn
  /** @returns false when the client reads slower than we write; `clientDrain` follows */
  writeToClient(bytes: Buffer | string): boolean
  pauseClient(): void
  resumeClient(): void
  /** True when the connection must not be used after this exchange. */
  readonly closing: boolean
  nowMs(): number
  /** Request and answer are complete, or as complete as they will get. */
  exchangeDone(exchange: Exchange, reuse: boolean): void
  /** Nothing of an answer was sent yet: Postern answers. */
  exchangeFailed(exchange: Exchange, code: ErrorCode): void
  /** Part of an answer was sent and the rest will not come. */
  exchangeBroken(exchange: Exchange, code: ErrorCode): void
  /** The workload agreed to a WebSocket. */
  exchangeUpgraded(exchange: Exchange, upstream: UpstreamConnection, early: Buffer): void
}

export interface ExchangeLimits {
  readonly headBytes: number
  readonly headerCount: number
  readonly bodyBytes: number
}

/** Methods whose repetition means the same as one (RFC 9110 section 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])
const MOST_INTERIM_RESPONSES = 16
const EXPECT_CONTINUE = ['expect', '100-continue']
const NO_BODY = { kind: 'none' } as const

export class Exchange implements UpstreamUser {
  readonly head: RequestHead
  readonly requestId: string
  readonly decisionId: string | undefined
  readonly startedMs: number
  requestBytes = 0
  responseBytes = 0
  /** 0 until the final response head was sent. */
  status = 0
  /** The request is complete: what follows on the connection belongs to the next one. */
  requestDone: boolean
  /** When a byte last moved, in thread time. */
  progressMs: number
  readonly #client: ExchangeClient
  readonly #pool: UpstreamPool
  readonly #permit: Permit
  readonly #limits: ExchangeLimits
  #upstream: UpstreamConnection | undefined
  /** What was written first; kept while the request could be repeated on a fresh connection. */
  #firstWrite: Buffer | string = ''
  #wrote = false
  #retried = false
  #repeatable: boolean
  #read: ReadBody | undefined
  #requestLeft = 0
  #requestDecoder: ChunkedDecoder | undefined
  #clientPaused = false
  #responsePart: Buffer | undefined
  #response: ResponseHead | undefined
  #responseLeft = 0
  #responseDecoder: ChunkedDecoder | undefined
  #rechunk = false
  #interim = 0
  #close = false
  #ended = false

  constructor(
    client: ExchangeClient,
    pool: UpstreamPool,
    admitted: Admitted,
    head: RequestHead,
    limits: ExchangeLimits,
    startedMs: number,
    read?: ReadBody,
  ) {
    this.#client = client
    this.#pool = pool
    this.#permit = admitted.permit
    this.#limits = limits
    this.head = head
    this.requestId = admitted.requestId
    this.decisionId = admitted.decisionId
    this.startedMs = startedMs
    this.progressMs = client.nowMs()
    this.requestDone =
      head.body.kind === 'none' || (head.body.kind === 'length' && head.body.length === 0)
    this.#repeatable = IDEMPOTENT.has(head.method)
    if (read !== undefined) this.#goOn(read)
    else if (head.body.kind === 'length') this.#requestLeft = head.body.length
    else if (head.body.kind === 'chunked') this.#requestDecoder = new ChunkedDecoder(TRAILER_LIMITS)
  }

  /** Part of the body, or all of it, was read for policy. */
  #goOn(read: ReadBody): void {
    this.#read = read
    this.requestDone = read.done
    this.requestBytes = read.bytes.length
    this.#requestLeft = read.left
    this.#requestDecoder = read.decoder
  }

  /** True while nothing has come back: the workload's time runs. */
  get awaitsResponse(): boolean {
    return this.#response === undefined
  }

  /**
   * True while the rest of the request is the client's to send: the workload reads, and has not been
   * asked for a 100 (Continue) that it owes.
   */
  get awaitsClient(): boolean {
    if (this.requestDone || this.#clientPaused) return false
    return !(this.head.expectContinue && this.#interim === 0 && this.requestBytes === 0)
  }

  /**
   * Sends the request on its way, with what is there of its body.
   * @param fields sanitised request fields, which the permit may still change
   * @returns index after the last byte of `buffer` that belongs to this request
   */
  forward(fields: Fields, buffer: Buffer, start: number, end: number): number {
    const target = mutateTarget(this.head.target, this.#permit)
    const text = requestHeadText(
      this.head.method,
      target,
      mutateFields(fields, this.#permit),
      this.head.body,
      this.head.expectContinue ? EXPECT_CONTINUE : [],
      this.head.upgrade === undefined ? undefined : 'upgrade',
    )
    this.#firstWrite = this.#read === undefined ? text : this.#withRead(text, this.#read)
    let consumed = start
    if (!this.requestDone && end > start) {
      const body = this.#takeBody(buffer, start, end)
      if (body === undefined) return end
      consumed = body.consumed
      if (body.bytes !== undefined) this.#keep(body.bytes)
    }
    this.#acquire(false)
    return consumed
  }

  #withRead(headText: string, { bytes, done, decoder }: ReadBody): Buffer | string {
    this.#read = undefined
    const taken = { consumed: 0, length: bytes.length, ranges: [0, bytes.length] }
    if (decoder === undefined) return joinRanges(headText, bytes, taken) ?? headText
    const trailers = done ? mutateTrailers(decoder.trailers, this.#permit) : undefined
    return encodeChunks(headText, bytes, taken, trailers) ?? headText
  }

  /** Behind what waits for a connection. */
  #keep(bytes: Buffer): void {
    const first =
      typeof this.#firstWrite === 'string'
        ? Buffer.from(this.#firstWrite, 'latin1')
        : this.#firstWrite
    this.#firstWrite = Buffer.concat([first, bytes])
  }

  /** More of the request body. @returns as `forward` */
  clientBody(buffer: Buffer, start: number, end: number): number {
    this.progressMs = this.#client.nowMs()
    const body = this.#takeBody(buffer, start, end)
    if (body === undefined) return end
    if (body.bytes !== undefined) {
      if (this.#upstream !== undefined && this.#wrote) {
        // Bytes beyond the first write are not kept, so this request cannot be repeated any more.
        this.#repeatable = false
        if (!this.#upstream.socket.write(body.bytes) && !this.requestDone) this.#pauseClient()
      } else this.#keep(body.bytes)
    }
    return body.consumed
  }

  /** The client reads again. */
  clientDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#upstream?.socket.resume()
  }

  /** The client is gone, or the exchange is to be forgotten for another reason. */
  abandon(): void {
    this.#ended = true
    this.#pool.forget(this)
    this.#upstream?.destroy()
    this.#upstream = undefined
  }

  /** Gives up on the workload: Postern answers if nothing was sent yet. */
  fail(code: ErrorCode): void {
    if (this.#ended) return
    this.abandon()
    if (this.status === 0) this.#client.exchangeFailed(this, code)
    else this.#client.exchangeBroken(this, code)
  }

  // What the workload's connection says.

  upstreamReady(connection: UpstreamConnection): void {
    this.#upstream = connection
    this.progressMs = this.#client.nowMs()
    this.#wrote = true
    const { socket } = connection
    this.#client.turn.hold(socket)
    const flowing =
      typeof this.#firstWrite === 'string'
        ? socket.write(this.#firstWrite, 'latin1')
        : socket.write(this.#firstWrite)
    if (this.requestDone) return
    if (flowing) this.#resumeClient()
    else this.#pauseClient()
  }

  upstreamDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#resumeClient()
  }

  upstreamData(buffer: Buffer, start: number, end: number): void {
    this.progressMs = this.#client.nowMs()
    this.#firstWrite = ''
    this.#repeatable = false
    if (this.#response !== undefined) {
      this.#passOn(undefined, buffer, start, end)
      return
    }
    let bytes = buffer
    let from = start
    let to = end
    if (this.#responsePart !== undefined) {
      bytes = Buffer.concat([this.#responsePart, buffer.subarray(start, end)])
      from = 0
      to = bytes.length
      this.#responsePart = undefined
    }
    const request = { method: this.head.method, upgrade: this.head.upgrade !== undefined }
    for (;;) {
      const head = parseResponseHead(bytes, from, to, request, this.#limits)
      if (head === undefined) {
        this.#responsePart = Buffer.from(bytes.subarray(from, to))
        return
      }
      if (head.kind === 'bad_response') return this.fail('upstream_bad_response')
      from += head.headBytes
      if (head.status === 101)
        return this.#switchProtocol(head, Buffer.from(bytes.subarray(from, to)))
      if (head.status >= 200) {
        this.#answer(head, bytes, from, to)
        return
      }
      if (++this.#interim > MOST_INTERIM_RESPONSES) return this.fail('upstream_bad_response')
      if (this.head.minorVersion === 1) this.#relayInterim(head)
      if (from === to) return
    }
  }

  upstreamEnd(): void {
    if (this.#response?.body.kind === 'close') this.#finish(false)
    else this.#lost(true)
  }

  upstreamFailed(_error: NodeJS.ErrnoException | undefined, connected: boolean): void {
    this.#lost(connected)
  }

  upstreamConnectTimeout(): void {
    this.#upstream = undefined
    this.fail('upstream_connect_timeout')
  }

  upstreamFault(): void {
    this.#upstream = undefined
    this.fail('internal')
  }

  upstreamBusy(): void {
    this.fail('upstream_busy')
  }

  // Request side.

  /** Without a connection there is nowhere to put more of the body. */
  #acquire(fresh: boolean): void {
    this.#pool.acquire(this, fresh)
    if (this.#upstream === undefined && !this.requestDone) this.#pauseClient()
  }

  /** @returns undefined when the body was bad and the exchange is over */
  #takeBody(
    buffer: Buffer,
    start: number,
    end: number,
  ): { consumed: number; bytes: Buffer | undefined } | undefined {
    const decoder = this.#requestDecoder
    if (decoder === undefined) {
      const length = Math.min(this.#requestLeft, end - start)
      this.#requestLeft -= length
      this.requestBytes += length
      if (this.#requestLeft === 0) this.requestDone = true
      return { consumed: start + length, bytes: buffer.subarray(start, start + length) }
    }
    const taken = decodeChunks(decoder, buffer, start, end)
    if ('code' in taken) {
      this.fail(taken.code)
      return undefined
    }
    this.requestBytes += taken.length
    if (this.#limits.bodyBytes > 0 && this.requestBytes > this.#limits.bodyBytes) {
      this.fail('body_too_large')
      return undefined
    }
    if (decoder.done) this.requestDone = true
    return {
      consumed: taken.consumed,
      bytes: encodeChunks(
        undefined,
        buffer,
        taken,
        decoder.done ? mutateTrailers(decoder.trailers, this.#permit) : undefined,
      ),
    }
  }

  #pauseClient(): void {
    this.#clientPaused = true
    this.#client.pauseClient()
  }

  #resumeClient(): void {
    if (!this.#clientPaused) return
    this.#clientPaused = false
    this.#client.resumeClient()
  }

  // Response side.

  #relayInterim(head: ResponseHead): void {
    this.#client.writeToClient(
      responseHeadText(
        head.status,
        head.reason,
        removeHopByHop(head.fields),
        NO_BODY,
        'keep-alive',
        1,
      ),
    )
  }

  #answer(head: ResponseHead, bytes: Buffer, from: number, to: number): void {
    this.#response = head
    this.status = head.status
    const { body } = head
    if (body.kind === 'length') this.#responseLeft = body.length
    else if (body.kind === 'chunked') this.#responseDecoder = new ChunkedDecoder(TRAILER_LIMITS)
    const delimited = body.kind === 'none' || body.kind === 'length'
    this.#rechunk = !delimited && this.head.minorVersion === 1
    // An answer that outruns its request ends the connection: the rest of the body has no reader.
    this.#close =
      !this.head.keepAlive ||
      this.#client.closing ||
      !this.requestDone ||
      (!delimited && !this.#rechunk)
    const fields = removeHopByHop(head.fields)
    for (const [name, value] of this.#permit.responseHeaders) fields.push(name.toLowerCase(), value)
    const framing = delimited
      ? body
      : this.#rechunk
        ? ({ kind: 'chunked' } as const)
        : ({ kind: 'close' } as const)
    const text = responseHeadText(
      head.status,
      head.reason,
      fields,
      framing,
      this.#close ? 'close' : 'keep-alive',
      this.head.minorVersion,
    )
    this.#passOn(text, bytes, from, to)
  }

  /** Writes head and body bytes to the client in one piece: two writes cost 28 % more CPU. */
  #passOn(headText: string | undefined, buffer: Buffer, start: number, end: number): void {
    const response = this.#response as ResponseHead
    let consumed = end
    let done = false
    let bytes: Buffer | undefined
    if (response.body.kind === 'chunked') {
      const decoder = this.#responseDecoder as ChunkedDecoder
      const taken = decodeChunks(decoder, buffer, start, end)
      if ('code' in taken) {
        if (headText !== undefined) this.status = 0
        return this.fail('upstream_bad_response')
      }
      consumed = taken.consumed
      done = decoder.done
      this.responseBytes += taken.length
      bytes = this.#rechunk
        ? encodeChunks(headText, buffer, taken, done ? decoder.trailers : undefined)
        : joinRanges(headText, buffer, taken)
    } else {
      const length =
        response.body.kind === 'close'
          ? end - start
          : response.body.kind === 'none'
            ? 0
            : Math.min(this.#responseLeft, end - start)
      if (response.body.kind === 'length') this.#responseLeft -= length
      consumed = start + length
      done =
        response.body.kind === 'none' ||
        (response.body.kind === 'length' && this.#responseLeft === 0)
      this.responseBytes += length
      const taken = { consumed, length, ranges: [start, consumed] }
      bytes = this.#rechunk
        ? encodeChunks(headText, buffer, taken, undefined)
        : joinRanges(headText, buffer, taken)
    }
    if (bytes !== undefined && !this.#client.writeToClient(bytes) && !done)
      this.#upstream?.socket.pause()
    if (done) this.#finish(consumed === end)
  }

  /** @param clean the workload sent exactly one answer and nothing behind it */
  #finish(clean: boolean): void {
    if (this.#ended) return
    this.#ended = true
    if (this.#rechunk && this.#response?.body.kind === 'close')
      this.#client.writeToClient(LAST_CHUNK)
    const upstream = this.#upstream
    this.#upstream = undefined
    if (upstream !== undefined) {
      if (clean && this.requestDone && this.#response?.keepAlive === true) upstream.release()
      else upstream.destroy()
    }
    this.#client.exchangeDone(this, !this.#close && this.requestDone)
  }

  #switchProtocol(head: ResponseHead, early: Buffer): void {
    const key = fieldValue(this.head.fields, 'sec-websocket-key')
    const agreed =
      this.head.upgrade === 'websocket' && key !== undefined && isHandshakeAnswer(head.fields, key)
    const upstream = this.#upstream
    if (!agreed || upstream === undefined) return this.fail('upstream_bad_response')
    this.status = 101
    this.#ended = true
    this.#upstream = undefined
    const fields = removeHopByHop(head.fields)
    for (const [name, value] of this.#permit.responseHeaders) fields.push(name.toLowerCase(), value)
    this.#client.writeToClient(responseHeadText(101, head.reason, fields, NO_BODY, 'upgrade', 1))
    this.#client.exchangeUpgraded(this, upstream, early)
  }

  /**
   * The connection went away before the answer was complete. A workload that closes an idle
   * connection may do so just as we write to it; then, and only if nothing of the request can have
   * been processed, it is sent once more on a fresh one (RFC 9112 section 9.3.1).
   */
  #lost(connected: boolean): void {
    if (this.#ended) return
    const upstream = this.#upstream
    this.#upstream = undefined
    upstream?.destroy()
    const stale =
      upstream?.reused === true && this.#responsePart === undefined && this.#response === undefined
    if (stale && this.#repeatable && !this.#retried && this.#firstWrite !== '') {
      this.#retried = true
      this.#wrote = false
      this.#acquire(true)
      return
    }
    this.fail(connected ? 'upstream_reset' : 'upstream_refused')
  }
}

interface TakenChunks {
  readonly consumed: number
  readonly length: number
  /** start, end, start, end... of the body bytes inside the buffer. */
  readonly ranges: readonly number[]
}

function decodeChunks(
  decoder: ChunkedDecoder,
  buffer: Buffer,
  start: number,
  end: number,
): TakenChunks | { readonly code: ErrorCode } {
  const ranges: number[] = []
  let length = 0
  const consumed = decoder.decode(buffer, start, end, (from, to) => {
    ranges.push(from, to)
    length += to - from
  })
  return typeof consumed === 'number' ? { consumed, length, ranges } : consumed
}

/** All ranges as one chunk, after the head, with the last chunk behind it when there are trailers. */
function encodeChunks(
  headText: string | undefined,
  buffer: Buffer,
  taken: TakenChunks,
  trailers: Fields | undefined,
): Buffer | undefined {
  const opening = taken.length > 0 ? encodeChunkHeader(taken.length) : ''
  const closing =
    trailers === undefined
      ? ''
      : trailers.length === 0
        ? LAST_CHUNK
        : `0\r\n${encodeTrailers(trailers)}`
  return joinRanges(
    `${headText ?? ''}${opening}`,
    buffer,
    taken,
    `${taken.length > 0 ? '\r\n' : ''}${closing}`,
  )
}

/** One new buffer of text, ranges and text; undefined when that would be empty. */
function joinRanges(
  before: string | undefined,
  buffer: Buffer,
  taken: TakenChunks,
  after = '',
): Buffer | undefined {
  const lead = before ?? ''
  const total = lead.length + taken.length + after.length
  if (total === 0) return undefined
  const out = Buffer.allocUnsafe(total)
  let at = lead === '' ? 0 : out.write(lead, 'latin1')
  for (let i = 0; i < taken.ranges.length; i += 2) {
    at += buffer.copy(out, at, taken.ranges[i], taken.ranges[i + 1])
  }
  if (after !== '') out.write(after, at, 'latin1')
  return out
}
