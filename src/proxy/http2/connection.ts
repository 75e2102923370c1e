// One client connection that speaks HTTP/2: frames and streams are its session's, what is let
// through is decided here, stream by stream, as it is for HTTP/1.1. Promises limits on what a
// client may have open or reset, and the same end for a peer that stops being acceptable.
import type { Socket } from 'node:net'
import { type ErrorCode, errorEntry } from '../../errors.ts'
import { httpDate } from '../../http/date.ts'
import type { Fields } from '../../http/fields.ts'
import { isMalformedRequest } from '../../http/h2/fields.ts'
import { H2_ERROR } from '../../http/h2/frames.ts'
import { readRequestList } from '../../http/h2/request.ts'
import type { RequestHead } from '../../http/head.ts'
import { legibleList } from '../../http/legible.ts'
import type { Peer } from '../../identity/anonymous-peer.ts'
import type { PeerRejection } from '../../identity/peer.ts'
import type { ConnectionInputs } from '../../policy/input.ts'
import {
  type Admitted,
  admit,
  codeOfRejection,
  currentPeer,
  type Refused,
  requestIdOf,
  type Waiting,
} from '../admission.ts'
import type { Call, CallRequest, UpgradeUser } from '../call.ts'
import { type ClientStart, type CloseReason, codeOfClose } from '../connection.ts'
import type { Copies } from '../copies.ts'
import { recordFault } from '../fault.ts'
import { keptBytesOf } from '../lent-reads.ts'
import { openCall } from '../open-call.ts'
import { RequestBody } from '../request-body.ts'
import type { RequestEnd, RequestFacts, Tally } from '../tally.ts'
import type { ThreadContext } from '../thread-context.ts'
import { Tunnel, type TunnelClient } from '../tunnel.ts'
import type { WorkloadEnd } from '../workload-end.ts'
import { type CollectingEvents, type ReadSoFar, StreamCollecting } from './collecting.ts'
import { type ExchangeOwner, Http2Exchange } from './exchange.ts'
import { askedFor, leastOf, type OwnAnswer, sendOwnAnswer } from './own-answer.ts'
import { Http2Session, type SessionEvents, type SessionFailure } from './session.ts'
import type { Http2Stream, StreamUser } from './stream.ts'

/** A head with so many times the fields allowed, or so many bytes more, still gets an answer; a larger one a reset. */
const ANSWERED_EXCESS = 4
const ANSWERED_EXCESS_BYTES = 64 * 1024
/** A peer that was cut has so long to read why. */
const CUT_MS = 500
/** To answer a PING, for a client that is told to go. */
const LEAVE_MS = 1_000
/** After the last frame a client has so long to close. */
const LINGER_MS = 2_000
/** ...and may send so much meanwhile that nobody looks at. */
const LINGER_BYTES = 1536 * 1024

/** A request that nothing has been decided about. */
interface Asked {
  readonly stream: Http2Stream
  readonly head: RequestHead
  readonly startedMs: number
}

export class Http2Connection implements ExchangeOwner, CollectingEvents, SessionEvents {
  readonly socket: Socket
  readonly remoteAddress: string
  readonly remotePort: number
  peer: Peer
  readonly #context: ThreadContext
  readonly #tally: Tally
  readonly #inputs: ConnectionInputs
  readonly #session: Http2Session
  readonly #exchanges = new Set<Http2Exchange>()
  readonly #collecting = new Set<StreamCollecting>()
  readonly #bornMs: number
  #idleSinceMs: number
  #requests = 0
  /** Requests that wait to be begun. */
  readonly #waiting = new Set<Asked>()
  #leavingSinceMs: number | undefined
  #cutMs: number | undefined
  #endedMs: number | undefined
  /** Since when the same frame or header block is not whole. */
  #unfinished: number | undefined
  #unfinishedSinceMs = 0
  #discardedBytes = 0
  #closeReason: CloseReason = 'client'
  #closed = false

  constructor(start: ClientStart, context: ThreadContext, tally: Tally) {
    this.socket = start.socket
    this.peer = start.peer
    this.remoteAddress = start.remoteAddress
    this.remotePort = start.remotePort
    this.#inputs = start.inputs
    this.#context = context
    this.#tally = tally
    this.#bornMs = context.tickMs
    this.#idleSinceMs = context.tickMs
    const { limits } = context.generation.snapshot.settings.inbound
    // A client that has ended its side is gone. Left half open, the session would not notice, and
    // its streams would go on towards the workload until they are idle.
    start.socket.allowHalfOpen = false
    this.#session = new Http2Session(
      start.socket,
      {
        maxStreams: limits.streamsPerConnection,
        maxListBytes: limits.headBytes,
        listLimits: {
          listBytes: limits.headBytes + ANSWERED_EXCESS_BYTES,
          count: ANSWERED_EXCESS * limits.headerCount,
        },
        memory: context.pool.copies,
        turn: context.turn,
        later: (goOn) => context.shares.wait(this.peer.principal, { goOn, expectedMs: 0 }),
        nowMs: () => context.tickMs,
        fault: (error) => recordFault(context, error),
      },
      this,
    )
  }

  /** Runs one step; a fault in it ends this connection and no other. */
  guarded(step: (connection: Http2Connection) => void): void {
    try {
      step(this)
    } catch (error) {
      recordFault(this.#context, error)
      this.#destroy('error')
    }
  }

  /** @param chunk is lent */
  onData(chunk: Buffer): void {
    if (!this.#session.over) return this.#session.read(chunk)
    this.#discardedBytes += chunk.length
    if (this.#discardedBytes > LINGER_BYTES) this.socket.destroy()
  }

  onDrain(): void {
    this.#session.writable()
  }

  onClose(): void {
    this.#closed = true
    this.#waiting.clear()
    this.#session.closed()
    this.#tally.closed(this.#closeReason)
  }

  // The thread: time, trust, drain.

  tick(nowMs: number): void {
    const { timeouts } = this.#context.generation.snapshot.settings.inbound
    if (this.#cutMs !== undefined) {
      if (nowMs - this.#cutMs >= CUT_MS) this.socket.destroy()
      return
    }
    if (this.#session.over) return this.#linger(nowMs, timeouts.idleMs)
    if (this.#isHeadLate(nowMs, timeouts.requestHeadMs)) {
      this.#tally.rejected(this, requestIdOf([]), 'head_timeout', 'http/2')
      return this.#destroy('rejected')
    }
    const leaving = this.#leavingFor(nowMs)
    for (const exchange of this.#exchanges) {
      if (leaving !== undefined) exchange.leaveTunnel(leaving)
      exchange.tick(nowMs, timeouts)
    }
    for (const one of this.#collecting) {
      if (one.isLate(nowMs, timeouts.requestBodyMs)) this.failed(one, 'body_timeout')
    }
    if (leaving !== undefined) this.#leave(leaving)
    if (nowMs - (this.#leavingSinceMs ?? nowMs) >= this.#leaveMs) this.#session.leave()
    if (this.#exchanges.size + this.#collecting.size + this.#waiting.size > 0)
      this.#idleSinceMs = nowMs
    else if (nowMs - this.#idleSinceMs >= timeouts.idleMs) this.#destroy('idle')
  }

  /** A drain that is short has to have time for the end. */
  get #leaveMs(): number {
    const { draining, drainTimeoutMs } = this.#context
    return draining ? Math.min(LEAVE_MS, drainTimeoutMs / 4) : LEAVE_MS
  }

  /** Of a head that does not end the connection can read nothing behind it. */
  #isHeadLate(nowMs: number, limitMs: number): boolean {
    const { unfinished } = this.#session
    if (unfinished !== this.#unfinished) this.#unfinishedSinceMs = nowMs
    this.#unfinished = unfinished
    return unfinished !== undefined && nowMs - this.#unfinishedSinceMs >= limitMs
  }

  #leavingFor(nowMs: number): 'drain' | 'lifetime' | undefined {
    if (this.#context.draining) return 'drain'
    const { connectionLifetimeMs } = this.#context.generation.snapshot.settings.inbound.timeouts
    const outlived = connectionLifetimeMs > 0 && nowMs - this.#bornMs >= connectionLifetimeMs
    return outlived ? 'lifetime' : undefined
  }

  /** Its session is over, by GOAWAY or an error; the socket is not left to a client that stays. */
  #linger(nowMs: number, idleMs: number): void {
    this.#endedMs ??= nowMs
    const limitMs = this.socket.writableLength > 0 ? idleMs : LINGER_MS
    if (nowMs - this.#endedMs >= limitMs) this.socket.destroy()
  }

  /** Holds the peer against the trust in force now, and cuts the connection if it does not stand. */
  verifyAgain(nowMs: number): void {
    if (this.#closed || this.#cutMs !== undefined) return
    const peer = currentPeer(this.peer, this.#context.generation, nowMs)
    if (peer.kind === 'rejection') this.#cut(peer)
    else this.peer = peer
  }

  /** The drain deadline has passed: who waits for an answer is told that there is none. */
  abort(): void {
    for (const exchange of this.#exchanges) exchange.fail('draining')
    for (const one of this.#collecting) this.failed(one, 'draining')
    this.#destroy('drain')
  }

  get heldBytes(): number {
    let bytes = this.#session.heldBytes + keptBytesOf(this.socket)
    for (const exchange of this.#exchanges) bytes += exchange.heldBytes
    return bytes
  }

  /** Nothing more is read or written, not even what is held back. */
  drop(reason: CloseReason): void {
    this.#closeReason = reason
    this.socket.destroy()
  }

  // A request.

  sessionRequest(stream: Http2Stream, list: Fields, endStream: boolean): void {
    const { generation, clock } = this.#context
    const startedMs = clock.monotonicMs()
    if (this.#cutMs !== undefined || this.socket.destroyed) {
      return stream.reset(H2_ERROR.refusedStream)
    }
    const head = readRequestList(list, endStream, generation.headLimits)
    if (head.kind === 'rejection') {
      const id = requestIdOf([])
      this.#tally.rejected(this, id, head.code, 'http/2', legibleList(list))
      if (isMalformedRequest(list, endStream)) return this.#session.malformed(stream)
      return sendOwnAnswer(stream, askedFor(list), { code: head.code, id })
    }
    if (head.body.kind === 'length') stream.expect(head.body.length)
    this.#requests++
    this.#idleSinceMs = this.#context.tickMs
    if (!this.#waits(stream, head, startedMs)) this.#begin(stream, head, startedMs, false)
    const { limits } = generation.snapshot.settings.inbound
    const most = limits.requestsPerConnection
    if (most === 0 || this.#requests < most) return
    this.#leave('requests')
    // More than can have been on their way when it heard of it.
    if (this.#requests >= most + limits.streamsPerConnection) this.#session.leave()
  }

  /** What follows of it waits in the client's window. @returns false where it need not, or may not */
  #waits(stream: Http2Stream, head: RequestHead, startedMs: number): boolean {
    const { intake, overload } = this.#context
    const { principal } = this.peer
    if (intake.hasRoom || overload.keepsOut(principal)) return false
    const asked = { stream, head, startedMs }
    this.#waiting.add(asked)
    const begin = (): void => {
      // It was answered when its peer was cut, or has nobody any more who asks.
      if (!this.#waiting.delete(asked) || stream.closed || this.socket.destroyed) return
      try {
        this.#begin(stream, head, startedMs, true)
      } catch (error) {
        this.#session.faulted(stream, error)
      }
    }
    intake.wait(principal, { begin })
    return true
  }

  #begin(stream: Http2Stream, head: RequestHead, startedMs: number, waited: boolean): void {
    const { generation, clock, intake, overload } = this.#context
    if (this.#cutMs !== undefined) return stream.reset(H2_ERROR.refusedStream)
    const peer = currentPeer(this.peer, generation, clock.nowMs())
    if (peer.kind === 'rejection') return this.#cut(peer, { stream, head, startedMs })
    this.peer = peer
    if (overload.sheds(peer.principal, waited)) return this.#shed(stream, head)
    intake.began()
    const origin = { peer, inputs: this.#inputs }
    const admission = admit(head, origin, this.#context, generation)
    switch (admission.kind) {
      case 'refused':
        this.#refuse(stream, head, admission, startedMs)
        break
      case 'waiting':
        this.#collect(stream, head, admission, startedMs)
        break
      case 'admitted':
        this.#forward(stream, head, admission, startedMs)
    }
  }

  #forward(
    stream: Http2Stream,
    head: RequestHead,
    admitted: Admitted,
    startedMs: number,
    read?: ReadSoFar,
  ): void {
    const { bodyBytes: bodyLimit } = this.#context.generation.snapshot.settings.inbound.limits
    const request = { ...admitted, head, startedMs, bodyLimit }
    const exchange = new Http2Exchange(stream, request, this)
    this.#exchanges.add(exchange)
    exchange.begin(read)
  }

  #collect(stream: Http2Stream, head: RequestHead, { need }: Waiting, startedMs: number): void {
    const { generation, bodies } = this.#context
    const { totalBodyBytes } = generation.engine.inputSettings
    const { bodyBytes } = generation.snapshot.settings.inbound.limits
    const times = { startedMs, nowMs: () => this.#context.tickMs }
    const giveUp = (): void => {
      try {
        this.failed(collecting, 'body_memory_full')
      } catch (error) {
        this.#session.faulted(stream, error)
      }
    }
    const owner = { principal: this.peer.principal, giveUp }
    const body = new RequestBody(need, bodies, totalBodyBytes, owner)
    const collecting = new StreamCollecting(stream, head, body, bodyBytes, times, this)
    this.#collecting.add(collecting)
    collecting.begin(head.expectContinue)
  }

  #refuse(stream: Http2Stream, head: RequestHead, refused: Refused, startedMs: number): void {
    const { code, denial, requestId, decisionId } = refused
    sendOwnAnswer(stream, head, ownAnswer(code, decisionId ?? requestId, refused))
    this.#record(
      factsOf(head, requestId, decisionId, startedMs, denial?.status ?? errorEntry(code).http),
      { outcome: denial?.evaluation.outcome ?? 'rejected', code },
    )
  }

  #shed(stream: Http2Stream, head: RequestHead): void {
    const id = requestIdOf(head.fields)
    this.#tally.rejected(this, id, 'overloaded', 'http/2', head)
    stream.discard()
    // Thousands may wait: no more is kept of them than their answers take, and nothing of who has gone.
    const asked = leastOf(head)
    const { overload } = this.#context
    const owed = overload.tell(() => {
      try {
        sendOwnAnswer(stream, asked, { code: 'overloaded', id })
      } catch (error) {
        this.#session.faulted(stream, error)
      }
    })
    stream.user = { ...NOBODY, streamClosed: () => overload.withdraw(owed) }
  }

  // What collecting a body comes to.

  /** By the trust and the policy of now: a body may have taken minutes to come. */
  ready(collecting: StreamCollecting): void {
    this.#collecting.delete(collecting)
    const { stream, head, body, startedMs, read } = collecting
    const { generation, clock } = this.#context
    try {
      const peer = currentPeer(this.peer, generation, clock.nowMs())
      if (peer.kind === 'rejection') return this.#cut(peer, { stream, head, startedMs })
      this.peer = peer
      const origin = { peer, inputs: this.#inputs }
      const admission = admit(head, origin, this.#context, generation, body.atHand)
      if (admission.kind === 'refused') this.#refuse(stream, head, admission, startedMs)
      else this.#forward(stream, head, admission, startedMs, read)
    } finally {
      // Whatever went wrong: the memory is everybody's.
      body.release()
    }
  }

  failed(collecting: StreamCollecting, end: ErrorCode): void {
    const code = this.#codeOf(end)
    collecting.stop()
    this.#collecting.delete(collecting)
    const { stream, head, body, startedMs } = collecting
    const id = requestIdOf(head.fields)
    const status = stream.isMalformed ? 0 : errorEntry(code).http
    sendOwnAnswer(stream, head, { code, id })
    const requestBytes = body.bytes.length
    this.#record(
      { ...factsOf(head, id, undefined, startedMs, status), requestBytes },
      { outcome: 'rejected', code },
    )
    body.release()
  }

  // What an exchange asks for.

  get copies(): Copies {
    return this.#context.pool.copies
  }

  nowMs(): number {
    return this.#context.tickMs
  }

  date(): string {
    return httpDate(this.#context.clock.nowMs())
  }

  openCall(user: UpgradeUser, request: CallRequest, fresh: boolean): Call {
    return openCall(this.#context, user, request, fresh, this.peer.principal)
  }

  openTunnel(client: TunnelClient, upstream: WorkloadEnd): Tunnel {
    return new Tunnel('websocket', client, upstream, this.#context.cells)
  }

  exchangeDone(exchange: Http2Exchange, end: ErrorCode | undefined, detail?: string): void {
    this.#over(exchange)
    const code = this.#codeOf(end)
    // Of what a client sends wrong, only that comes so late.
    const outcome = code === 'bad_framing' ? 'rejected' : 'allow'
    this.#record(exchange, { outcome, code, detail })
    if (this.#context.shares.isLight(this.peer.principal)) this.#session.flush()
  }

  exchangeFailed(exchange: Http2Exchange, code: ErrorCode, detail?: string): void {
    this.#over(exchange)
    const { fault, http } = errorEntry(code)
    sendOwnAnswer(exchange.stream, exchange.head, {
      code,
      id: exchange.decisionId ?? exchange.requestId,
    })
    this.#record(exchange, {
      outcome: fault === 'client' ? 'rejected' : 'allow',
      code,
      detail,
      status: http,
    })
  }

  /** A stream knows that it was closed, and not why its connection was. */
  #codeOf<Code extends ErrorCode | undefined>(end: Code): Code | ErrorCode {
    return end === 'client_closed' ? codeOfClose(this.#closeReason) : end
  }

  #over(exchange: Http2Exchange): void {
    this.#exchanges.delete(exchange)
    this.#idleSinceMs = this.#context.tickMs
  }

  // Ending.

  #cut(rejection: PeerRejection, asked?: Asked): void {
    const code = codeOfRejection(rejection)
    this.#tally.cut(this, code, rejection.detail)
    this.#closeReason = 'peer_invalid'
    this.#cutMs = this.#context.tickMs
    for (const exchange of this.#exchanges) {
      exchange.cut(code)
      this.#record(exchange, { outcome: 'peer_invalid', code })
    }
    this.#exchanges.clear()
    for (const one of this.#collecting) {
      one.stop()
      one.body.release()
      this.#tellCut(code, one)
    }
    this.#collecting.clear()
    for (const one of this.#waiting) this.#tellCut(code, one)
    this.#waiting.clear()
    if (asked !== undefined) this.#tellCut(code, asked)
    // GOAWAY now, the end when the answers are out or at the latest after CUT_MS.
    this.#session.leave()
  }

  #tellCut(code: ErrorCode, { stream, head, startedMs }: Asked): void {
    const id = requestIdOf(head.fields)
    sendOwnAnswer(stream, head, { code, id })
    this.#record(factsOf(head, id, undefined, startedMs, errorEntry(code).http), {
      outcome: 'peer_invalid',
      code,
    })
  }

  /**
   * No more streams; those that are open or on their way go on to their end. The second GOAWAY names the last
   * of them, so that the client knows which requests it may send elsewhere.
   */
  #leave(reason: CloseReason): void {
    if (this.#leavingSinceMs !== undefined || this.#session.over) return
    this.#leavingSinceMs = this.#context.tickMs
    this.#closeReason = reason
    this.#session.announceLeave()
  }

  // What the session says.

  sessionTooLarge(): void {
    this.#tally.rejected(this, requestIdOf([]), 'head_too_large', 'http/2')
  }

  sessionFailed(code: SessionFailure, detail: string): void {
    if (this.#closeReason === 'client') this.#closeReason = 'rejected'
    this.#tally.rejected(this, requestIdOf([]), code, 'http/2', undefined, detail)
  }

  sessionOver(): void {
    this.#endedMs = this.#context.tickMs
  }

  #destroy(reason: CloseReason): void {
    this.#closeReason = reason
    if (this.#session.over) this.socket.destroy()
    else this.#session.end(reason === 'error' ? H2_ERROR.internal : H2_ERROR.none)
  }

  #record(facts: RequestFacts, end: RequestEnd): void {
    this.#tally.request(this, facts, end)
  }
}

function ownAnswer(code: ErrorCode, id: string, { denial }: Refused): OwnAnswer {
  if (denial === undefined || denial.code !== 'denied') return { code, id }
  return { code, id, status: denial.status, headers: denial.headers, body: denial.body }
}

const factsOf = (
  head: RequestHead,
  requestId: string,
  decisionId: string | undefined,
  startedMs: number,
  status: number,
): RequestFacts => ({
  head,
  requestId,
  decisionId,
  startedMs,
  status,
  requestBytes: 0,
  responseBytes: 0,
})

const nothing = (): void => {}

/** Takes no notice of anything. */
const NOBODY: StreamUser = {
  streamData: nothing,
  streamEnd: nothing,
  streamDrain: nothing,
  streamClosed: nothing,
}
