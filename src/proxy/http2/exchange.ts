// One HTTP/2 request and its answer: from a permit to the stream's last frame, with a call to the
// workload in between. Back-pressure goes both ways: a side that does not read stops the other.
import { randomBytes } from 'node:crypto'
import { type ErrorCode, errorEntry } from '../../errors.ts'
import { type Fields, fieldValue } from '../../http/fields.ts'
import type { RequestHead } from '../../http/head.ts'
import { keptTrailers } from '../../http/trailers.ts'
import type { Permit } from '../../policy/permit.ts'
import type { AnswerHead, Call, CallRequest, Repeatable, UpgradeUser } from '../call.ts'
import type { Copies } from '../copies.ts'
import { mutateFields, mutateTarget, mutateTrailers } from '../mutations.ts'
import { Retry } from '../retry.ts'
import type { LeaveReason, Tunnel, TunnelClient } from '../tunnel.ts'
import type { WorkloadEnd } from '../workload-end.ts'
import type { ReadSoFar } from './collecting.ts'
import { endOf, isGrpc, statusFields } from './grpc.ts'
import { breakOff, endWithStatus, sendOwnAnswer } from './own-answer.ts'
import type { Http2Stream, StreamUser } from './stream.ts'

/** What an exchange asks of the connection that its stream is on. */
export interface ExchangeOwner {
  /** Makes the copies of what has to be kept. */
  readonly copies: Copies
  nowMs(): number
  /** For an answer that has none. */
  date(): string
  /** @param fresh on a connection to the workload that was never used before */
  openCall(user: UpgradeUser, request: CallRequest, fresh: boolean): Call
  openTunnel(client: TunnelClient, upstream: WorkloadEnd): Tunnel
  /** The answer is complete, or as complete as it will get. */
  exchangeDone(exchange: Http2Exchange, code: ErrorCode | undefined, detail?: string): void
  /** Nothing of an answer was sent yet: Postern answers. */
  exchangeFailed(exchange: Http2Exchange, code: ErrorCode, detail?: string): void
}

export interface ExchangeTimeouts {
  readonly requestBodyMs: number
  readonly upstreamResponseMs: number
  readonly idleMs: number
  readonly tunnelIdleMs: number
}

export class Http2Exchange implements UpgradeUser, StreamUser {
  readonly stream: Http2Stream
  readonly head: RequestHead
  readonly requestId: string
  readonly decisionId: string | undefined
  readonly startedMs: number
  requestBytes = 0
  responseBytes = 0
  /** 0 until the final response head was sent. */
  status = 0
  readonly #owner: ExchangeOwner
  readonly #permit: Permit
  readonly #fields: Fields
  readonly #bodyLimit: number
  readonly #grpc: boolean
  readonly #deadlineMs: number | undefined
  #call: Call | undefined
  #tunnel: Tunnel | undefined
  readonly #retry: Retry
  #requestDone = false
  #clientPaused = false
  #requestTrailers: Fields = []
  #answered = false
  /** Nothing but a status can follow the answer's head: gRPC can be told why there is no more. */
  #endsInTrailers = false
  #bodiless = false
  #over = false
  /** When a byte last moved, in thread time. */
  #progressMs: number

  constructor(
    stream: Http2Stream,
    request: {
      readonly head: RequestHead
      readonly permit: Permit
      /** Sanitised, which the permit may still change. */
      readonly fields: Fields
      readonly requestId: string
      readonly decisionId: string | undefined
      readonly startedMs: number
      /** 0: no limit. */
      readonly bodyLimit: number
    },
    owner: ExchangeOwner,
  ) {
    this.stream = stream
    this.head = request.head
    this.requestId = request.requestId
    this.decisionId = request.decisionId
    this.startedMs = request.startedMs
    this.#permit = request.permit
    this.#fields = request.fields
    this.#bodyLimit = request.bodyLimit
    this.#owner = owner
    this.#retry = new Retry(owner.copies)
    this.#progressMs = owner.nowMs()
    this.#grpc = isGrpc(request.fields)
    this.#deadlineMs = endOf(request.fields, request.startedMs)
  }

  /** Sends the request on its way. @param read what was read of its body before */
  begin(read?: ReadSoFar): void {
    if (read === undefined && this.head.expectContinue) this.stream.inform([':status', '100'])
    this.#open()
    // Its answer may already have failed: nothing is listened to then.
    if (this.#over) return
    // What the client of a WebSocket says before there is one waits, within its window.
    if (this.head.upgrade !== undefined) this.stream.pause()
    if (read !== undefined && read.bytes.length > 0) this.streamData(read.bytes)
    if (read === undefined ? this.stream.headOnly : read.done) {
      this.streamEnd(read?.trailers ?? [])
    }
    if (!this.#over) this.stream.user = this
  }

  /** A deadline has passed. Called ten times a second. */
  tick(nowMs: number, timeouts: ExchangeTimeouts): void {
    if (this.#over) return
    const tunnel = this.#tunnel
    if (tunnel !== undefined) {
      if (nowMs - tunnel.progressMs >= timeouts.tunnelIdleMs) tunnel.leave('idle')
      if (tunnel.overdue(nowMs)) this.#reset(undefined, tunnel.leaving)
      return
    }
    const silentMs = nowMs - this.#progressMs
    if (this.#deadlineMs !== undefined && nowMs >= this.#deadlineMs) this.fail('upstream_timeout')
    else if (this.#grpc) {
      // The sides of a stream of messages may both be silent for longer than an answer may take.
      if (silentMs >= timeouts.idleMs) this.#idle()
    } else if (this.#awaitsClient) {
      if (silentMs >= timeouts.requestBodyMs) this.fail('body_timeout')
    } else if (this.status === 0) {
      if (silentMs >= timeouts.upstreamResponseMs) this.fail('upstream_timeout')
    } else if (silentMs >= timeouts.idleMs) this.#idle()
  }

  /** Beside what its stream holds. */
  get heldBytes(): number {
    const toWorkload = this.#call ?? this.#tunnel
    return this.#retry.keptBytes + (toWorkload?.waitingBytes ?? 0)
  }

  /** The connection is about to end, and a WebSocket would hold it open. */
  leaveTunnel(reason: LeaveReason): void {
    this.#tunnel?.leave(reason)
  }

  get #awaitsClient(): boolean {
    const upgrading = this.head.upgrade !== undefined
    return !this.#requestDone && !this.#clientPaused && !upgrading && this.status === 0
  }

  /** Gives up on the workload: Postern answers if nothing was sent yet. */
  fail(code: ErrorCode, detail?: string): void {
    if (this.#over) return
    this.#abandonCall()
    if (this.status === 0 && !this.stream.closed) {
      this.#over = true
      this.#owner.exchangeFailed(this, code, detail)
    } else if (this.#bodiless) this.#endAfterHead(code, detail)
    else this.#reset(code, detail)
  }

  /** The client has been told all there is to tell; what the workload does behind it is no part of it. */
  #endAfterHead(code: ErrorCode, detail: string | undefined): void {
    this.#over = true
    this.stream.end()
    this.#owner.exchangeDone(this, code, detail)
  }

  /** The peer is not acceptable any more: nothing of the answer gets out from here on. */
  cut(code: ErrorCode): void {
    if (this.#over) return
    this.#over = true
    const told = this.#tunnel?.cut() ?? false
    this.#abandonCall()
    this.#countTunnel()
    const id = this.decisionId ?? this.requestId
    if (told) this.stream.end()
    else if (this.status === 0) sendOwnAnswer(this.stream, this.head, { code, id })
    else this.#breakOff(code)
  }

  // What the call says.

  callInterim({ status, fields }: AnswerHead): void {
    this.#progressMs = this.#owner.nowMs()
    this.#retry.answered()
    // 100 was answered by us when it was asked for.
    if (status === 100 || this.stream.closed) return
    if (!areSingle(fields)) return this.fail('upstream_bad_response', TWICE)
    this.stream.inform([':status', String(status), ...fields])
  }

  callHead({ status, fields, body, trailers }: AnswerHead): void {
    if (this.#over || this.stream.closed) return
    this.#progressMs = this.#owner.nowMs()
    this.#retry.answered()
    // The client would take it for a WebSocket (RFC 8441 section 5).
    if (this.head.upgrade !== undefined && status < 300) return this.fail('upstream_no_websocket')
    // RFC 9110 sections 15.3.5 and 15.3.6; a client may take a length that is not kept for an error.
    const empty = status === 204 || status === 205
    this.#bodiless = empty || body.kind === 'none'
    this.#endsInTrailers = trailers && !this.#bodiless && body.kind !== 'length'
    const list = [':status', String(status)]
    for (let i = 0; i < fields.length; i += 2) {
      if (!empty || fields[i] !== 'content-length') list.push(fields[i]!, fields[i + 1]!)
    }
    for (const [name, value] of this.#permit.responseHeaders) list.push(name, value)
    if (!areSingle(list)) return this.fail('upstream_bad_response', TWICE)
    // RFC 9110 section 6.6.1: whoever forwards an answer without one says when it came.
    if (fieldValue(list, 'date') === undefined) list.push('date', this.#owner.date())
    this.stream.respond(list)
    this.status = status
  }

  callData(buffer: Buffer, start: number, end: number): void {
    if (this.#over) return
    this.#progressMs = this.#owner.nowMs()
    if (this.#bodiless) return
    this.responseBytes += end - start
    if (!this.stream.write(buffer, start, end)) this.#call?.pause()
  }

  callEnd(trailers: Fields): void {
    if (this.#over) return
    this.#progressMs = this.#owner.nowMs()
    this.#call = undefined
    this.#answered = true
    this.stream.end(this.#bodiless ? [] : trailers)
  }

  callDrain(): void {
    this.#progressMs = this.#owner.nowMs()
    if (!this.#clientPaused) return
    this.#clientPaused = false
    this.stream.resume()
  }

  callFailed(code: ErrorCode, repeatable: Repeatable, detail?: string): void {
    this.#call = undefined
    const kept = this.#over ? undefined : this.#retry.again(this.head.method, repeatable)
    if (kept === undefined) return this.fail(code, detail)
    const call = this.#owner.openCall(this, this.#request(), true)
    this.#call = call
    call.write(kept)
    if (this.#requestDone) call.end(this.#requestTrailers)
    call.begin()
  }

  callUpgraded(fields: Fields, upstream: WorkloadEnd): void {
    this.#call = undefined
    const list = [':status', '200']
    // The rest of the HTTP/1.1 handshake has no meaning here (RFC 8441 section 5).
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== 'sec-websocket-accept') list.push(fields[i]!, fields[i + 1]!)
    }
    for (const [name, value] of this.#permit.responseHeaders) list.push(name, value)
    if (!areSingle(list)) {
      upstream.destroy()
      return this.fail('upstream_bad_response', TWICE)
    }
    this.stream.allowHalfOpen = true
    this.stream.respond(list)
    this.status = 200
    const tunnelDone = (broken: boolean): void => {
      if (broken && this.#tunnel?.leaving === undefined) this.#reset('upstream_reset')
      else this.stream.end()
    }
    const client = {
      socket: this.stream,
      pass: (buffer: Buffer, start: number, end: number) => this.stream.write(buffer, start, end),
      nowMs: () => this.#owner.nowMs(),
      tunnelDone,
    }
    this.#tunnel = this.#owner.openTunnel(client, upstream)
    this.#tunnel.begin()
  }

  // The client's stream.

  streamData(bytes: Buffer): void {
    this.#progressMs = this.#owner.nowMs()
    if (this.#tunnel !== undefined) return this.#tunnel.clientData(bytes)
    this.requestBytes += bytes.length
    if (this.#bodyLimit > 0 && this.requestBytes > this.#bodyLimit) {
      return this.fail('body_too_large')
    }
    if (this.#call === undefined) return
    this.#retry.keep(bytes)
    if (this.#call.write(bytes)) return
    this.#clientPaused = true
    this.stream.pause()
  }

  streamEnd(trailers: Fields): void {
    if (trailers.length > 0) {
      const kept = keptTrailers(trailers)
      if (kept === undefined) return this.fail('bad_trailer')
      this.#requestTrailers = mutateTrailers(kept, this.#permit)
    }
    this.#requestDone = true
    if (this.#tunnel === undefined) this.#call?.end(this.#requestTrailers)
    else this.#tunnel.clientEnd()
  }

  streamDrain(): void {
    this.#progressMs = this.#owner.nowMs()
    if (this.#tunnel === undefined) this.#call?.resume()
    else this.#tunnel.clientDrain()
  }

  streamClosed(): void {
    if (this.#over) return
    this.#over = true
    this.#abandonCall()
    this.#countTunnel()
    const complete = this.#answered || this.#tunnel !== undefined
    const code = this.stream.isMalformed ? 'bad_framing' : 'client_closed'
    this.#owner.exchangeDone(this, complete ? undefined : code, this.#tunnel?.leaving)
  }

  #open(): void {
    this.#call = this.#owner.openCall(this, this.#request(), false)
    this.#call.begin()
  }

  #request(): CallRequest {
    const { head } = this
    const webSocketKey = head.upgrade && randomBytes(16).toString('base64')
    const fields = mutateFields(this.#fields, this.#permit)
    return {
      method: head.method,
      target: mutateTarget(head.target, this.#permit),
      authority: head.host,
      scheme: 'https',
      fields: webSocketKey === undefined ? fields : withHandshake(fields, webSocketKey),
      body: head.body,
      expectContinue: false,
      ...(webSocketKey === undefined ? {} : { webSocketKey }),
    }
  }

  #idle(): void {
    if (this.status === 0) return this.fail('upstream_timeout')
    this.#reset(this.stream.isUnread ? 'client_closed' : 'upstream_timeout')
  }

  /** Part of an answer was sent and the rest will not come. */
  #reset(code: ErrorCode | undefined, detail?: string): void {
    if (this.#over) return
    this.#over = true
    this.#abandonCall()
    this.#countTunnel()
    this.#breakOff(code)
    this.#owner.exchangeDone(this, code, detail)
  }

  #breakOff(code: ErrorCode | undefined): void {
    if (code === undefined || !this.#grpc || !this.#endsInTrailers) {
      return breakOff(this.stream, this.#tunnel !== undefined)
    }
    const id = this.decisionId ?? this.requestId
    const message = JSON.stringify({ error: code, id })
    endWithStatus(this.stream, statusFields(errorEntry(code).grpc, message))
  }

  #countTunnel(): void {
    this.requestBytes += this.#tunnel?.fromClientBytes ?? 0
    this.responseBytes += this.#tunnel?.toClientBytes ?? 0
  }

  #abandonCall(): void {
    this.#call?.abandon()
    this.#call = undefined
    this.#tunnel?.abandon()
  }
}

/** What HTTP/1.1 wants of a WebSocket, in place of what the client may have sent of it. */
function withHandshake(fields: Fields, key: string): Fields {
  const kept = fields.filter((_, i) => !HANDSHAKE.has(fields[i - (i % 2)]!))
  kept.push('sec-websocket-key', key, 'sec-websocket-version', '13')
  return kept
}

const HANDSHAKE: ReadonlySet<string> = new Set([
  'sec-websocket-key',
  'sec-websocket-version',
  'sec-websocket-accept',
])

const TWICE = 'a field twice that may be there once'

/** A client may take the first of two for the answer's, and a cache the second. */
function areSingle(fields: Fields): boolean {
  let seen = 0
  for (let i = 0; i < fields.length; i += 2) {
    const bit = SINGLE.get(fields[i]!)
    if (bit === undefined) continue
    if ((seen & bit) !== 0) return false
    seen |= bit
  }
  return true
}

const SINGLE: ReadonlyMap<string, number> = new Map(
  [
    'content-type',
    'content-length',
    'content-location',
    'content-range',
    'content-encoding',
    'date',
    'etag',
    'last-modified',
    'location',
    'age',
    'retry-after',
    'expires',
  ].map((name, i) => [name, 1 << i]),
)
