// One HTTP/1.1 request and its answer: from a Permit to the last byte in both directions, with a call
// to the workload in between. Bodies are passed on as they come, and framing is written anew.
import type { ErrorCode } from '../errors.ts'
import {
  CHUNK_END,
  ChunkedDecoder,
  encodeChunkHeader,
  encodeTrailers,
  LAST_CHUNK,
} from '../http/chunked.ts'
import { type Fields, fieldValue } from '../http/fields.ts'
import { isEmpty } from '../http/framing.ts'
import type { RequestHead } from '../http/head.ts'
import { responseHeadText } from '../http/serialise.ts'
import type { Permit } from '../policy/permit.ts'
import type { Admitted } from './admission.ts'
import type { AnswerHead, Call, CallRequest, Repeatable, UpgradeUser } from './call.ts'
import { type ReadBody, TRAILER_LIMITS } from './collecting.ts'
import type { Copies } from './copies.ts'
import { mutateFields, mutateTarget, mutateTrailers } from './mutations.ts'
import { Retry } from './retry.ts'
import { UnwantedBody } from './unwanted-body.ts'
import type { WorkloadEnd } from './workload-end.ts'

/** What an exchange asks of the client connection it runs on. */
export interface ExchangeClient {
  /** @returns false when the client reads slower than we write; `clientDrain` follows */
  writeToClient(text: string): boolean
  /** As `writeToClient`, in one piece with text around it; the bytes are lent. */
  copyToClient(before: string, buffer: Buffer, start: number, end: number, after: string): boolean
  /** Makes the copies of what has to be kept. */
  readonly copies: Copies
  pauseClient(): void
  resumeClient(): void
  /** True when the connection must not be used after this exchange. */
  readonly closing: boolean
  nowMs(): number
  /** @param fresh on a connection to the workload that was never used before */
  openCall(user: UpgradeUser, request: CallRequest, fresh: boolean): Call
  /** Request and answer are complete, or as complete as they will get. */
  exchangeDone(exchange: Exchange, reuse: boolean): void
  /** Nothing of an answer was sent yet: Postern answers. */
  exchangeFailed(exchange: Exchange, code: ErrorCode, detail?: string): void
  /** Part of an answer was sent and the rest will not come. */
  exchangeBroken(exchange: Exchange, code: ErrorCode, detail?: string): void
  /** The workload agreed to a WebSocket. */
  exchangeUpgraded(exchange: Exchange, upstream: WorkloadEnd): void
}

export class Exchange implements UpgradeUser {
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
  readonly #permit: Permit
  /** 0: no limit. */
  readonly #bodyLimit: number
  #call: Call | undefined
  #request: CallRequest | undefined
  readonly #retry: Retry
  #read: ReadBody | undefined
  #requestLeft = 0
  #requestDecoder: ChunkedDecoder | undefined
  #requestTrailers: Fields = []
  #clientPaused = false
  // The answer.
  #headText: string | undefined
  #rechunk = false
  #interim = 0
  #close = false
  #ended = false

  constructor(
    client: ExchangeClient,
    admitted: Admitted,
    head: RequestHead,
    bodyLimit: number,
    startedMs: number,
    read?: ReadBody,
  ) {
    this.#client = client
    this.#retry = new Retry(client.copies)
    this.#permit = admitted.permit
    this.#bodyLimit = bodyLimit
    this.head = head
    this.requestId = admitted.requestId
    this.decisionId = admitted.decisionId
    this.startedMs = startedMs
    this.progressMs = client.nowMs()
    this.requestDone = isEmpty(head.body)
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
    return this.status === 0
  }

  /**
   * True while the rest of the request is the client's to send: the workload reads, and has not been
   * asked for a 100 (Continue) that it owes.
   */
  get awaitsClient(): boolean {
    return !this.requestDone && !this.#clientPaused && !this.#clientWaits
  }

  /** The client sends its body when it is asked to, or when it has waited long enough. */
  get #clientWaits(): boolean {
    return this.head.expectContinue && this.#interim === 0 && this.requestBytes === 0
  }

  /** What is still to come of the request, for an answer of ours; undefined: the connection ends. */
  get unwanted(): UnwantedBody | undefined {
    if (this.#clientWaits) return undefined
    return UnwantedBody.restOf({ left: this.#requestLeft, decoder: this.#requestDecoder })
  }

  /**
   * Sends the request on its way, with what is there of its body, which is lent.
   * @param fields sanitised request fields, which the permit may still change
   * @returns index after the last byte of `buffer` that belongs to this request
   */
  forward(fields: Fields, buffer: Buffer, start: number, end: number): number {
    const { method, target, host, body, expectContinue, upgrade } = this.head
    this.#request = {
      method,
      target: mutateTarget(target, this.#permit),
      authority: host,
      scheme: 'https',
      fields: mutateFields(fields, this.#permit),
      body,
      expectContinue,
      ...(upgrade && { webSocketKey: fieldValue(fields, 'sec-websocket-key') ?? '' }),
    }
    const call = this.#client.openCall(this, this.#request, false)
    this.#call = call
    let consumed = start
    const read = this.#read
    this.#read = undefined
    if (read !== undefined) {
      this.#send(read.bytes)
      if (read.done && read.decoder !== undefined) this.#takeTrailers(read.decoder)
    }
    if (this.requestDone) call.end(this.#requestTrailers)
    else if (end > start) consumed = this.#takeBody(buffer, start, end)
    if (!this.#ended) call.begin()
    return consumed
  }

  /** More of the request body, lent. @returns as `forward` */
  clientBody(buffer: Buffer, start: number, end: number): number {
    this.progressMs = this.#client.nowMs()
    return this.#takeBody(buffer, start, end)
  }

  /** The client reads again. */
  clientDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#call?.resume()
  }

  /** What is kept of the request's body. */
  get heldBytes(): number {
    return this.#retry.keptBytes + (this.#call?.waitingBytes ?? 0)
  }

  /** The client is gone, or the exchange is to be forgotten for another reason. */
  abandon(): void {
    this.#ended = true
    this.#call?.abandon()
    this.#call = undefined
  }

  /** Gives up on the workload: Postern answers if nothing was sent yet. */
  fail(code: ErrorCode, detail?: string): void {
    if (this.#ended) return
    this.abandon()
    if (this.status === 0) this.#client.exchangeFailed(this, code, detail)
    else this.#client.exchangeBroken(this, code, detail)
  }

  // What the call says.

  callDrain(): void {
    this.progressMs = this.#client.nowMs()
    if (!this.#clientPaused) return
    this.#clientPaused = false
    this.#client.resumeClient()
  }

  callInterim({ status, reason, fields }: AnswerHead): void {
    this.#sawAnswer()
    this.#interim++
    if (this.head.minorVersion === 0) return
    const text = responseHeadText(status, reason, fields, { kind: 'none' }, 'keep-alive', 1)
    this.#client.writeToClient(text)
  }

  callHead({ status, reason, fields, body, dataFollows }: AnswerHead): void {
    this.#sawAnswer()
    this.status = status
    const delimited = body.kind === 'none' || body.kind === 'length'
    this.#rechunk = !delimited && this.head.minorVersion === 1
    // An answer that outruns its request ends the connection: the rest of the body has no reader.
    this.#close =
      !this.head.keepAlive ||
      this.#client.closing ||
      !this.requestDone ||
      (!delimited && !this.#rechunk)
    for (const [name, value] of this.#permit.responseHeaders) fields.push(name, value)
    const text = responseHeadText(
      status,
      reason,
      fields,
      delimited ? body : { kind: this.#rechunk ? 'chunked' : 'close' },
      this.#close ? 'close' : 'keep-alive',
      this.head.minorVersion,
    )
    // In one piece with what follows it: two writes cost 28 % more CPU.
    if (dataFollows) this.#headText = text
    else this.#client.writeToClient(text)
  }

  callData(buffer: Buffer, start: number, end: number): void {
    this.progressMs = this.#client.nowMs()
    this.responseBytes += end - start
    const before = this.#headText ?? ''
    this.#headText = undefined
    const room = this.#rechunk
      ? this.#client.copyToClient(
          `${before}${encodeChunkHeader(end - start)}`,
          buffer,
          start,
          end,
          CHUNK_END,
        )
      : this.#client.copyToClient(before, buffer, start, end, '')
    if (!room) this.#call?.pause()
  }

  callEnd(trailers: Fields): void {
    this.#ended = true
    this.#call = undefined
    if (this.#rechunk) {
      const last = trailers.length === 0 ? LAST_CHUNK : `0\r\n${encodeTrailers(trailers)}`
      this.#client.writeToClient(`${this.#headText ?? ''}${last}`)
    } else if (this.#headText !== undefined) this.#client.writeToClient(this.#headText)
    this.#client.exchangeDone(this, !this.#close && this.requestDone)
  }

  callFailed(code: ErrorCode, repeatable: Repeatable, detail?: string): void {
    if (this.#ended) return
    this.#call = undefined
    // A head that could have gone out with its first bytes, and did not.
    if (this.#headText !== undefined) this.status = 0
    const kept = this.#retry.again(this.head.method, repeatable)
    if (kept === undefined || this.#request === undefined) return this.fail(code, detail)
    const call = this.#client.openCall(this, this.#request, true)
    this.#call = call
    call.write(kept)
    if (this.requestDone) call.end(this.#requestTrailers)
    call.begin()
  }

  callUpgraded(fields: Fields, upstream: WorkloadEnd): void {
    this.status = 101
    this.#ended = true
    this.#call = undefined
    for (const [name, value] of this.#permit.responseHeaders) fields.push(name, value)
    const text = responseHeadText(
      101,
      'Switching Protocols',
      fields,
      { kind: 'none' },
      'upgrade',
      1,
    )
    this.#client.writeToClient(text)
    this.#client.exchangeUpgraded(this, upstream)
  }

  // Request side.

  /** @returns index after the last byte that belongs to this request */
  #takeBody(buffer: Buffer, start: number, end: number): number {
    const decoder = this.#requestDecoder
    if (decoder === undefined) {
      const stop = start + Math.min(this.#requestLeft, end - start)
      this.#requestLeft -= stop - start
      this.requestBytes += stop - start
      if (this.#requestLeft === 0) this.requestDone = true
      this.#send(buffer.subarray(start, stop))
      if (this.requestDone) this.#call?.end([])
      return stop
    }
    const data = decoder.decodeJoined(buffer, start, end)
    if (data.kind === 'rejection') {
      this.fail(data.code)
      return end
    }
    this.requestBytes += data.to - data.from
    if (this.#bodyLimit > 0 && this.requestBytes > this.#bodyLimit) {
      this.fail('body_too_large')
      return end
    }
    this.requestDone = decoder.done
    this.#send(buffer.subarray(data.from, data.to))
    if (decoder.done) {
      this.#takeTrailers(decoder)
      this.#call?.end(this.#requestTrailers)
    }
    return data.consumed
  }

  #takeTrailers(decoder: ChunkedDecoder): void {
    this.#requestTrailers = mutateTrailers(decoder.trailers, this.#permit)
  }

  #send(bytes: Buffer): void {
    if (bytes.length === 0 || this.#call === undefined) return
    this.#retry.keep(bytes)
    if (this.#call.write(bytes) || this.requestDone || this.#clientPaused) return
    this.#clientPaused = true
    this.#client.pauseClient()
  }

  /** From now on the workload has processed it. */
  #sawAnswer(): void {
    this.progressMs = this.#client.nowMs()
    this.#retry.answered()
  }
}
