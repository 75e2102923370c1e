// One client connection after its handshake: reads request heads, lets one exchange at a time run,
// answers pipelined requests in order, and ends when the client, a limit, a drain or a change of
// trust says so. A request reaches an exchange only through `admit`.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { type ErrorCode, errorEntry } from '../errors.ts'
import { parseRequestHead, type RequestHead } from '../http/head.ts'
import { KeptBytes } from '../http/kept-bytes.ts'
import { legibleLine } from '../http/legible.ts'
import type { Peer } from '../identity/anonymous-peer.ts'
import type { PeerRejection, VerifiedPeer } from '../identity/peer.ts'
import type { CLOSE_REASONS } from '../metrics.ts'
import type { ConnectionInputs } from '../policy/input.ts'
import {
  type Admitted,
  admit,
  codeOfRejection,
  currentPeer,
  type Refused,
  requestIdOf,
  type Waiting,
} from './admission.ts'
import { BytesAside, MOST_ASIDE_BYTES } from './bytes-aside.ts'
import type { Call, CallRequest, UpgradeUser } from './call.ts'
import { Collecting, type ReadBody } from './collecting.ts'
import type { Copies } from './copies.ts'
import { Exchange, type ExchangeClient } from './exchange.ts'
import { recordFault } from './fault.ts'
import type { Arrival } from './intake.ts'
import { keptBytesOf } from './lent-reads.ts'
import { openCall } from './open-call.ts'
import type { Owed } from './overload.ts'
import { RequestBody } from './request-body.ts'
import { encodeOwnResponse } from './respond.ts'
import { waitingBytesOf } from './small-pieces.ts'
import type { RequestEnd, Tally } from './tally.ts'
import type { ThreadContext } from './thread-context.ts'
import { Tunnel, type TunnelClient, type TunnelEnd } from './tunnel.ts'
import { UnwantedBody } from './unwanted-body.ts'
import type { WorkloadEnd } from './workload-end.ts'

export type CloseReason = (typeof CLOSE_REASONS)[number]

/** A connection that came over TLS from a peer that was verified. */
export interface ConnectionStart extends ClientStart {
  readonly socket: TLSSocket
  readonly peer: VerifiedPeer
}

/** The same, or one that only an unsafe option lets in. */
export interface ClientStart {
  readonly socket: Socket
  readonly peer: Peer
  readonly inputs: ConnectionInputs
  readonly remoteAddress: string
  readonly remotePort: number
}

const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
/** After our last byte we read and discard for so long, so that the client gets to read it. */
const LINGER_MS = 2_000
const LINGER_BYTES = 1024 * 1024
/** A client of which that much waits is not read before some of it was taken. */
const MOST_WAITING_BYTES = 4 * 1024
/** During a drain an idle client has this long to send a request that can be told to close. */
const DRAIN_IDLE_MS = 1_000

export class ClientConnection implements Arrival, ExchangeClient, TunnelClient {
  readonly socket: Socket
  readonly remoteAddress: string
  readonly remotePort: number
  peer: Peer
  readonly #context: ThreadContext
  readonly #tally: Tally
  readonly #inputs: ConnectionInputs
  readonly #bornMs: number
  #pending: Buffer | undefined
  /** Where it is, between two events. */
  readonly #kept: KeptBytes
  /** Of a head that is pending: looked at, and not complete. */
  #judgedBytes = 0
  /** What waits with a request for its turn. */
  #aside: BytesAside | undefined
  #exchange: Exchange | undefined
  /** A request that waits for its body before policy is asked. */
  #collecting: Collecting | undefined
  #tunnel: Upgraded | undefined
  #reading = false
  #requests = 0
  #clientEnded = false
  /** Since when nothing has happened, or since when a head has been incomplete. */
  #waitingSinceMs: number
  /** Of a request that is answered. */
  #unwanted: UnwantedBody | undefined
  /** A request is waiting until the client has read the answers before it. */
  #unread = false
  /** A request is waiting until others have had the thread. */
  #yielding = false
  /** It has waited since `#arrivedMs`, and its turn has come. */
  #mayBegin = false
  #arrivedMs = 0
  /** The answer to a request that was refused for overload. */
  #owed: Owed | undefined
  #lingering = false
  #lingerBytes = 0
  /** Our last byte has left; only then does the time to linger begin. */
  #flushed = false
  #sawDrain = false
  #closeReason: CloseReason = 'client'
  #closed = false

  constructor(start: ClientStart, context: ThreadContext, tally: Tally) {
    this.socket = start.socket
    this.peer = start.peer
    this.remoteAddress = start.remoteAddress
    this.remotePort = start.remotePort
    this.#inputs = start.inputs
    this.#context = context
    this.#kept = new KeptBytes(context.pool.copies)
    this.#tally = tally
    this.#bornMs = context.tickMs
    this.#waitingSinceMs = context.tickMs
  }

  /** Runs one step; a fault in it ends this connection and no other. */
  guarded(step: (connection: ClientConnection) => void): void {
    try {
      step(this)
    } catch (error) {
      recordFault(this.#context, error)
      // What is lent was not kept.
      this.#pending = undefined
      this.#destroy('error')
    }
  }

  // The client's socket. The listener routes its events here.

  /** @param chunk is lent */
  onData(chunk: Buffer): void {
    if (this.socket.destroyed) return
    if (this.#tunnel !== undefined) return this.#tunnel.tunnel.clientData(chunk)
    if (this.#lingering) return this.#linger(chunk.length)
    const before = this.#pending ?? this.#aside?.take()
    if (before !== undefined) {
      this.#pending = this.#kept.append(before, chunk)
      // One piece more than what waits is enough.
      if (this.#yielding) this.socket.pause()
    } else {
      this.#pending = chunk
      // The time of a head runs from its first byte.
      if (this.#exchange === undefined) this.#waitingSinceMs = this.#context.tickMs
    }
    this.#read()
  }

  onDrain(): void {
    if (this.#tunnel !== undefined) return this.#tunnel.tunnel.clientDrain()
    if (this.#exchange !== undefined) return this.#exchange.clientDrain()
    if (this.#unread) this.#goOn()
  }

  /** The client will send no more; it may still read (half-close). */
  onEnd(): void {
    this.#clientEnded = true
    if (this.#tunnel !== undefined) return this.#tunnel.tunnel.clientEnd()
    this.#readEnd()
  }

  onClose(): void {
    if (this.#closed) return
    this.#closed = true
    // It may still be in line.
    this.#forget()
    this.#aside = undefined
    if (this.#owed !== undefined) this.#context.overload.withdraw(this.#owed)
    const { exchange, tunnel } = { exchange: this.#exchange, tunnel: this.#tunnel }
    this.#exchange = undefined
    this.#tunnel = undefined
    const code = codeOfClose(this.#closeReason)
    this.#dropCollecting(code)
    if (exchange !== undefined) {
      exchange.abandon()
      this.#record(exchange, { outcome: 'allow', code })
    }
    if (tunnel !== undefined) {
      tunnel.tunnel.abandon(tunnelEndOf(this.#closeReason))
      this.#recordTunnel(tunnel, { outcome: 'allow' })
    }
    this.#tally.closed(this.#closeReason)
  }

  // The thread: its turn, time, trust, drain.

  /** The time of a head that is not complete runs on. */
  begin(): void {
    if (this.#closed || this.socket.destroyed || this.#lingering) return
    this.#yielding = false
    this.#pending ??= this.#aside?.take()
    this.#mayBegin = true
    if (this.socket.isPaused()) this.socket.resume()
    this.guarded(ClientConnection.#readOn)
    this.#mayBegin = false
  }

  /** Called ten times a second; every deadline of the connection is kept here. */
  tick(nowMs: number): void {
    const { timeouts } = this.#context.generation.snapshot.settings.inbound
    if (this.#closed || this.socket.destroyed) return
    if (this.#context.draining && !this.#sawDrain) {
      this.#sawDrain = true
      this.#waitingSinceMs = nowMs
    }
    if (this.#tunnel !== undefined) return this.#tickTunnel(this.#tunnel.tunnel, nowMs)
    const collecting = this.#collecting
    if (collecting !== undefined) {
      if (nowMs - collecting.progressMs >= timeouts.requestBodyMs) {
        this.#failCollecting(collecting, 'body_timeout')
      }
      return
    }
    const exchange = this.#exchange
    if (exchange !== undefined) {
      const silentMs = nowMs - exchange.progressMs
      if (exchange.awaitsClient) {
        if (silentMs >= timeouts.requestBodyMs) exchange.fail('body_timeout')
      } else if (exchange.awaitsResponse) {
        if (silentMs >= timeouts.upstreamResponseMs) exchange.fail('upstream_timeout')
      } else if (silentMs >= timeouts.idleMs) this.#destroy('idle')
      return
    }
    if (this.#yielding && !this.#lingering) return
    const waitedMs = nowMs - this.#waitingSinceMs
    if (this.#lingering) {
      if (!this.#flushed && this.socket.writableFinished) {
        this.#flushed = true
        this.#waitingSinceMs = nowMs
      } else if (waitedMs >= this.#lingerMs(timeouts.idleMs)) this.socket.destroy()
    } else if (this.#unread) {
      if (waitedMs >= timeouts.idleMs) this.#destroy('idle')
    } else if (this.#unwanted !== undefined) {
      if (waitedMs >= timeouts.requestBodyMs) this.#destroy('error')
    } else if (this.#pending !== undefined) {
      if (waitedMs >= timeouts.requestHeadMs) this.#reject('head_timeout', this.#pending)
    } else if (this.#context.draining && waitedMs >= DRAIN_IDLE_MS) this.#finish('drain')
    else if (waitedMs >= timeouts.idleMs) this.#finish('idle')
    else if (this.#outlived(nowMs)) this.#finish('lifetime')
  }

  /** At the begin of a drain: it could go on for longer than any drain lasts. */
  #tickTunnel(tunnel: Tunnel, nowMs: number): void {
    const { tunnelIdleMs } = this.#context.generation.snapshot.settings.inbound.timeouts
    if (this.#context.draining) tunnel.leave('drain')
    else if (this.#outlived(nowMs)) tunnel.leave('lifetime')
    else if (nowMs - tunnel.progressMs >= tunnelIdleMs) tunnel.leave('idle')
    if (tunnel.overdue(nowMs)) this.#destroy(tunnel.leaving ?? 'error')
  }

  /** Holds the peer against the trust in force now, and cuts the connection if it does not stand. */
  verifyAgain(nowMs: number): void {
    if (this.#closed || this.#isCut) return
    const peer = currentPeer(this.peer, this.#context.generation, nowMs)
    if (peer.kind !== 'rejection') {
      this.peer = peer
      return
    }
    // A request that waits in line is told; where there is none, or not the whole head, nobody is.
    if (this.#yielding && this.#owed === undefined) this.begin()
    if (!this.#isCut) this.#cut(peer)
  }

  get #isCut(): boolean {
    return this.#closeReason === 'peer_invalid'
  }

  /** The drain deadline has passed: who waits for an answer is told that there is none. */
  abort(): void {
    if (this.#exchange !== undefined) this.#exchange.fail('draining')
    else if (this.#collecting !== undefined) this.#failCollecting(this.#collecting, 'draining')
    else this.#destroy('drain')
  }

  get heldBytes(): number {
    const exchange = this.#exchange ?? this.#tunnel?.exchange
    const head = (exchange ?? this.#collecting)?.head.headBytes ?? 0
    const next = Math.max(this.#pending?.length ?? 0, this.#kept.memoryBytes)
    const toWorkload = this.#exchange?.heldBytes ?? this.#tunnel?.tunnel.waitingBytes ?? 0
    return head + keptBytesOf(this.socket) + next + toWorkload + waitingBytesOf(this.socket)
  }

  /** Nothing more is read or written, not even what is held back. */
  drop(reason: CloseReason): void {
    this.#closeReason = reason
    this.socket.destroy()
  }

  // What an exchange asks for.

  get closing(): boolean {
    return this.#takesNoMore || (this.#clientEnded && this.#pending === undefined)
  }

  /** Whatever the client may still have sent. */
  get #takesNoMore(): boolean {
    const { limits } = this.#context.generation.snapshot.settings.inbound
    return (
      this.#context.draining ||
      (limits.requestsPerConnection > 0 && this.#requests >= limits.requestsPerConnection) ||
      this.#outlived(this.#context.tickMs)
    )
  }

  nowMs(): number {
    return this.#context.tickMs
  }

  openCall(user: UpgradeUser, request: CallRequest, fresh: boolean): Call {
    return openCall(this.#context, user, request, fresh, this.peer.principal)
  }

  writeToClient(text: string): boolean {
    this.#context.turn.hold(this.socket)
    return this.socket.write(text, 'latin1')
  }

  copyToClient(before: string, buffer: Buffer, start: number, end: number, after: string): boolean {
    const { turn, pool } = this.#context
    turn.hold(this.socket)
    return pool.copies.write(this.socket, before, buffer, start, end, after)
  }

  pass(buffer: Buffer, start: number, end: number): boolean {
    const room = this.copyToClient('', buffer, start, end, '')
    this.#hurry()
    return room
  }

  /** Whoever takes little of the thread does not wait for the answers of all others. */
  #hurry(): void {
    const { shares, turn } = this.#context
    if (shares.isLight(this.peer.principal)) turn.release(this.socket)
  }

  get copies(): Copies {
    return this.#context.pool.copies
  }

  pauseClient(): void {
    this.socket.pause()
  }

  resumeClient(): void {
    this.socket.resume()
  }

  exchangeDone(exchange: Exchange, reuse: boolean): void {
    this.#exchange = undefined
    this.#record(exchange, { outcome: 'allow' })
    this.#hurry()
    if (!reuse) return this.#finish(this.#reasonToClose())
    this.#goOn()
  }

  exchangeFailed(exchange: Exchange, code: ErrorCode, detail?: string): void {
    this.#exchange = undefined
    const { fault } = errorEntry(code)
    this.#record(exchange, {
      outcome: fault === 'client' ? 'rejected' : 'allow',
      code,
      detail,
      status: errorEntry(code).http,
    })
    this.#answer(
      code,
      exchange.head,
      exchange.decisionId ?? exchange.requestId,
      undefined,
      exchange.unwanted,
    )
  }

  exchangeBroken(exchange: Exchange, code: ErrorCode, detail?: string): void {
    this.#exchange = undefined
    this.#record(exchange, { outcome: 'allow', code, detail })
    if (code === 'draining') this.#destroy('drain')
    else this.#destroy(errorEntry(code).fault === 'upstream' ? 'upstream' : 'error')
  }

  exchangeUpgraded(exchange: Exchange, upstream: WorkloadEnd): void {
    this.#exchange = undefined
    const first = this.#pending
    this.#pending = undefined
    const tunnel = new Tunnel('websocket', this, upstream, this.#context.cells)
    this.#tunnel = { tunnel, exchange }
    tunnel.begin()
    if (first !== undefined) {
      tunnel.clientData(first)
      this.#kept.drop()
    }
    if (this.#clientEnded) tunnel.clientEnd()
  }

  tunnelDone(broken: boolean): void {
    const tunnel = this.#tunnel
    this.#tunnel = undefined
    if (tunnel !== undefined) this.#recordTunnel(tunnel, { outcome: 'allow' })
    const leaving = tunnel?.tunnel.leaving
    if (broken && leaving === undefined) this.#destroy('upstream')
    else this.#finish(leaving ?? 'client')
  }

  // Reading.

  static readonly #readOn = (connection: ClientConnection): void => connection.#read()

  /** The way is free for the next request. Called from the workload's events too, hence the guard. */
  #goOn(): void {
    this.#unread = false
    this.#waitingSinceMs = this.#context.tickMs
    this.socket.resume()
    this.guarded(ClientConnection.#readOn)
  }

  /** Takes from the pending bytes what can be taken now; never called by itself recursively. */
  #read(): void {
    if (this.#reading) return
    this.#reading = true
    while (
      this.#pending !== undefined &&
      !this.#lingering &&
      !this.#closed &&
      !this.socket.destroyed &&
      !this.#yielding &&
      this.#tunnel === undefined
    ) {
      const bytes: Buffer = this.#pending
      this.#pending = undefined
      const rest = this.#take(bytes)
      if (rest === undefined) {
        if (this.#yielding && bytes.length <= MOST_ASIDE_BYTES) this.#putAside(bytes)
        else this.#pending = bytes
        // With each request that is taken out of it, as much again would be read and put behind it.
        if (this.#yielding && bytes.length > MOST_WAITING_BYTES) this.socket.pause()
        break
      }
      if (rest < bytes.length) this.#pending = bytes.subarray(rest)
    }
    this.#reading = false
    if (this.#pending === undefined) this.#kept.drop()
    else if (!this.#isAside(this.#pending)) this.#pending = this.#kept.keep(this.#pending)
    if (this.#clientEnded) this.#readEnd()
  }

  /** What is being read is still looked at: then its memory is given back when that is over. */
  #forget(): void {
    this.#pending = undefined
    if (!this.#reading) this.#kept.drop()
  }

  /** What the client began before it ended its side will never be complete. */
  #readEnd(): void {
    if (this.#collecting !== undefined) return this.#destroy('client')
    const exchange = this.#exchange
    if (exchange !== undefined) {
      if (exchange.requestDone) return
      this.#exchange = undefined
      exchange.abandon()
      this.#record(exchange, { outcome: 'allow', code: 'client_closed' })
      this.#destroy('client')
    } else if (this.#tunnel === undefined && !this.#unread && !this.#yielding) {
      this.#finish('client')
    }
  }

  /** @returns index after what was taken; undefined when nothing can be taken before more happens */
  #take(bytes: Buffer): number | undefined {
    const exchange = this.#exchange
    if (exchange !== undefined) {
      if (!exchange.requestDone) return exchange.clientBody(bytes, 0, bytes.length)
      this.socket.pause() // a pipelined request waits for its turn, in the client's window
      return undefined
    }
    if (this.#collecting !== undefined) return this.#collect(this.#collecting, bytes, 0)
    if (this.#unwanted !== undefined) return this.#skip(this.#unwanted, bytes)
    if (this.socket.writableNeedDrain) {
      // Answers that nobody reads must not pile up.
      this.#unread = true
      this.socket.pause()
      return undefined
    }
    if (this.#hasToWait()) return undefined
    const { generation } = this.#context
    const { headLimits } = generation
    const head = parseRequestHead(bytes, 0, bytes.length, headLimits, this.#judgedBytes)
    this.#judgedBytes = head === undefined ? bytes.length : 0
    if (head === undefined) return undefined
    if (head.kind === 'rejection') {
      this.#reject(head.code, bytes)
      return bytes.length
    }
    return this.#begin(head, bytes)
  }

  #skip(unwanted: UnwantedBody, bytes: Buffer): number {
    const taken = unwanted.take(bytes, 0, bytes.length)
    if (taken === undefined) {
      this.#finish('rejected')
      return bytes.length
    }
    this.#waitingSinceMs = this.#context.tickMs
    if (unwanted.done) this.#unwanted = undefined
    return taken
  }

  /** Before a head is looked at: bytes are the least that can be kept of a request. */
  #hasToWait(): boolean {
    const { intake, overload, clock } = this.#context
    const { principal } = this.peer
    if (this.#mayBegin || intake.hasRoom || overload.keepsOut(principal)) return false
    this.#yielding = true
    this.#arrivedMs = clock.monotonicMs()
    intake.wait(principal, this)
    return true
  }

  #putAside(bytes: Buffer): void {
    this.#aside ??= new BytesAside()
    this.#context.intake.pieces.put(bytes, this.#aside)
  }

  #isAside(bytes: Buffer): boolean {
    return this.#aside !== undefined && this.#context.intake.pieces.holds(bytes, this.#aside)
  }

  #begin(head: RequestHead, bytes: Buffer): number {
    const { generation, clock, intake, overload } = this.#context
    const waited = this.#mayBegin
    this.#mayBegin = false
    this.#requests++
    const peer = currentPeer(this.peer, generation, clock.nowMs())
    if (peer.kind === 'rejection') {
      this.#cut(peer, head)
      return bytes.length
    }
    this.peer = peer
    if (overload.sheds(peer.principal, waited)) return this.#shed(head)
    intake.began()
    const startedMs = waited ? this.#arrivedMs : clock.monotonicMs()
    const admission = admit(head, { peer, inputs: this.#inputs }, this.#context, generation)
    switch (admission.kind) {
      case 'refused':
        this.#refuse(head, admission, startedMs, UnwantedBody.of(head))
        return head.headBytes
      case 'waiting':
        return this.#beginCollecting(head, admission, bytes, startedMs)
      case 'admitted':
        return this.#forward(head, admission, bytes, head.headBytes, startedMs)
    }
  }

  #forward(
    head: RequestHead,
    admitted: Admitted,
    bytes: Buffer,
    start: number,
    startedMs: number,
    read?: ReadBody,
  ): number {
    const { bodyBytes } = this.#context.generation.snapshot.settings.inbound.limits
    const exchange = new Exchange(this, admitted, head, bodyBytes, startedMs, read)
    this.#exchange = exchange
    return exchange.forward(admitted.fields, bytes, start, bytes.length)
  }

  // A body that policy reads.

  #beginCollecting(head: RequestHead, { need }: Waiting, bytes: Buffer, startedMs: number): number {
    const { generation, bodies, tickMs } = this.#context
    const { bodyBytes } = generation.snapshot.settings.inbound.limits
    const { totalBodyBytes } = generation.engine.inputSettings
    const giveUp = (): void =>
      this.guarded(() => this.#failCollecting(collecting, 'body_memory_full'))
    const owner = { principal: this.peer.principal, giveUp }
    const body = new RequestBody(need, bodies, totalBodyBytes, owner)
    const collecting = new Collecting(head, body, bodyBytes, startedMs, tickMs)
    this.#collecting = collecting
    // The workload is asked later, if at all (RFC 9110 section 10.1.1).
    if (head.expectContinue && bytes.length === head.headBytes) this.writeToClient(CONTINUE)
    return this.#collect(collecting, bytes, head.headBytes)
  }

  #collect(collecting: Collecting, bytes: Buffer, start: number): number {
    const taken = collecting.take(bytes, start, bytes.length, this.#context.tickMs)
    if (typeof taken !== 'number') {
      this.#failCollecting(collecting, taken)
      return bytes.length
    }
    return collecting.ready ? this.#decide(collecting, bytes, taken) : taken
  }

  /** By the trust and the policy of now: a body may have taken minutes to come. */
  #decide(collecting: Collecting, bytes: Buffer, start: number): number {
    const { head, body, startedMs } = collecting
    const { generation, clock } = this.#context
    const peer = currentPeer(this.peer, generation, clock.nowMs())
    if (peer.kind === 'rejection') {
      this.#cut(peer, head)
      return bytes.length
    }
    this.peer = peer
    this.#collecting = undefined
    const origin = { peer, inputs: this.#inputs }
    try {
      const admission = admit(head, origin, this.#context, generation, body.atHand)
      if (admission.kind !== 'refused') {
        return this.#forward(head, admission, bytes, start, startedMs, collecting.read)
      }
      const rest = UnwantedBody.restOf(collecting.read)
      this.#refuse(head, admission, startedMs, rest, body.bytes.length)
      return start
    } finally {
      // Whatever went wrong: the memory is everybody's.
      body.release()
    }
  }

  #failCollecting(collecting: Collecting, code: ErrorCode): void {
    this.#dropCollecting(code, errorEntry(code).http)
    this.#answer(code, collecting.head, requestIdOf(collecting.head.fields), undefined, undefined)
  }

  #dropCollecting(code: ErrorCode, status = 0, outcome: RequestEnd['outcome'] = 'rejected'): void {
    const collecting = this.#collecting
    if (collecting === undefined) return
    this.#collecting = undefined
    const { head, body, startedMs } = collecting
    this.#tally.request(
      this,
      {
        head,
        requestId: requestIdOf(head.fields),
        decisionId: undefined,
        startedMs,
        status,
        requestBytes: body.bytes.length,
        responseBytes: 0,
      },
      { outcome, code },
    )
    body.release()
  }

  #releaseCollecting(): void {
    this.#collecting?.body.release()
    this.#collecting = undefined
  }

  // Answers of our own.

  /** Until it is told nothing more is read: what follows waits in the client's window. */
  #shed(head: RequestHead): number {
    // A part of a text keeps the whole of it.
    const id = Buffer.from(requestIdOf(head.fields), 'latin1').toString('latin1')
    this.#tally.rejected(this, id, 'overloaded', 'http/1.1', head)
    this.#yielding = true
    this.socket.pause()
    // Thousands may wait: no more is kept of them than their answers take.
    const { method, keepAlive, minorVersion } = head
    const asked = { method: method === 'HEAD' ? method : '', keepAlive, minorVersion }
    const unwanted = UnwantedBody.of(head)
    this.#owed = this.#context.overload.tell(() => {
      this.#owed = undefined
      this.guarded(() => {
        if (this.#closed || this.#lingering) return
        this.#yielding = false
        this.#answer('overloaded', asked, id, undefined, unwanted)
      })
    })
    return head.headBytes
  }

  #refuse(
    head: RequestHead,
    refused: Refused,
    startedMs: number,
    unwanted: UnwantedBody | undefined,
    requestBytes = 0,
  ): void {
    // Counted before anybody can have read it.
    this.#tally.request(
      this,
      {
        head,
        requestId: refused.requestId,
        decisionId: refused.decisionId,
        startedMs,
        status: refused.denial?.status ?? errorEntry(refused.code).http,
        requestBytes,
        responseBytes: 0,
      },
      { outcome: refused.denial?.evaluation.outcome ?? 'rejected', code: refused.code },
    )
    this.#answer(refused.code, head, refused.decisionId ?? refused.requestId, refused, unwanted)
  }

  /** @param unwanted what is still to come of the request's body; undefined: the connection ends */
  #answer(
    code: ErrorCode,
    head: Pick<RequestHead, 'method' | 'keepAlive' | 'minorVersion'>,
    id: string,
    refused: Refused | undefined,
    unwanted: UnwantedBody | undefined,
  ): void {
    const entry = errorEntry(code)
    const close =
      entry.connection === 'close' ||
      unwanted === undefined ||
      !head.keepAlive ||
      head.minorVersion === 0 ||
      this.#takesNoMore
    const denial = refused?.denial
    this.socket.write(
      encodeOwnResponse({
        code,
        id,
        close,
        withBody: head.method !== 'HEAD',
        ...(denial === undefined
          ? {}
          : { status: denial.status, headers: denial.headers, body: denial.body }),
      }),
    )
    if (close) return this.#finish(entry.fault === 'client' ? 'rejected' : this.#reasonToClose())
    if (!unwanted.done) this.#unwanted = unwanted
    // A workload's answer comes with a turn of the loop, ours does not: without this, a thousand
    // pipelined requests that a slow policy denies would be one long stall for everybody else. What a
    // client sends meanwhile waits in its window: put behind what is pending, it would be copied each time.
    this.#yielding = true
    this.socket.pause()
    setImmediate(() => {
      this.#yielding = false
      if (!this.#closed && !this.#lingering) this.#goOn()
    })
  }

  /** A head that cannot be trusted: answer, and never read another byte as a request. */
  #reject(code: ErrorCode, bytes: Buffer): void {
    const id = requestIdOf([])
    this.#tally.rejected(this, id, code, 'http/1.1', legibleLine(bytes))
    this.socket.write(encodeOwnResponse({ code, id, close: true, withBody: true }))
    this.#finish('rejected')
  }

  #cut(rejection: PeerRejection, head?: RequestHead): void {
    const code = codeOfRejection(rejection)
    this.#tally.cut(this, code, rejection.detail)
    this.#closeReason = 'peer_invalid'
    // Where its body has just come, the request is told of below.
    if (head !== undefined) this.#releaseCollecting()
    else if (this.#collecting !== undefined) {
      const { head: asked } = this.#collecting
      this.#dropCollecting(code, errorEntry(code).http, 'peer_invalid')
      return this.#tellCut(code, requestIdOf(asked.fields), asked)
    }
    const exchange = this.#exchange
    if (exchange !== undefined) {
      this.#exchange = undefined
      const unanswered = exchange.awaitsResponse
      exchange.abandon()
      const status = unanswered ? errorEntry(code).http : exchange.status
      this.#record(exchange, { outcome: 'peer_invalid', code, status })
      if (unanswered) {
        return this.#tellCut(code, exchange.decisionId ?? exchange.requestId, exchange.head)
      }
    }
    const tunnel = this.#tunnel
    if (tunnel !== undefined) {
      this.#tunnel = undefined
      const told = tunnel.tunnel.cut()
      this.#recordTunnel(tunnel, { outcome: 'peer_invalid', code })
      if (told) return this.#finish('peer_invalid')
    }
    if (head === undefined) {
      this.socket.destroy()
      return
    }
    const id = requestIdOf(head.fields)
    this.#tally.request(
      this,
      {
        head,
        requestId: id,
        decisionId: undefined,
        startedMs: this.#context.clock.monotonicMs(),
        status: errorEntry(code).http,
        requestBytes: 0,
        responseBytes: 0,
      },
      { outcome: 'peer_invalid', code },
    )
    this.#tellCut(code, id, head)
  }

  #tellCut(code: ErrorCode, id: string, { method }: RequestHead): void {
    this.socket.write(encodeOwnResponse({ code, id, close: true, withBody: method !== 'HEAD' }))
    this.#finish('peer_invalid')
  }

  // Ending.

  #outlived(nowMs: number): boolean {
    const { connectionLifetimeMs } = this.#context.generation.snapshot.settings.inbound.timeouts
    return connectionLifetimeMs > 0 && nowMs - this.#bornMs >= connectionLifetimeMs
  }

  #reasonToClose(): CloseReason {
    if (this.#context.draining) return 'drain'
    if (this.#outlived(this.#context.tickMs)) return 'lifetime'
    const { requestsPerConnection } = this.#context.generation.snapshot.settings.inbound.limits
    return requestsPerConnection > 0 && this.#requests >= requestsPerConnection
      ? 'requests'
      : 'client'
  }

  /** Our last byte is written: end, and let the client read before the socket goes. */
  #finish(reason: CloseReason): void {
    if (this.#lingering) return
    this.#lingering = true
    this.#closeReason = reason
    this.#forget()
    this.#unread = false
    this.#waitingSinceMs = this.#context.tickMs
    this.socket.end()
    if (this.#clientEnded) return
    this.socket.resume()
  }

  /** A client may take its time over an answer; one that is not acceptable any more may not. */
  #lingerMs(idleMs: number): number {
    return this.#flushed || this.#isCut ? LINGER_MS : idleMs
  }

  #linger(length: number): void {
    this.#lingerBytes += length
    if (this.#lingerBytes > LINGER_BYTES) this.socket.destroy()
  }

  #destroy(reason: CloseReason): void {
    this.#closeReason = reason
    // What was answered in this turn is still held back, and was meant to be read.
    this.#context.turn.release(this.socket)
    this.socket.destroy()
  }

  #record(exchange: Exchange, end: RequestEnd): void {
    this.#tally.request(this, exchange, end)
  }

  #recordTunnel({ tunnel, exchange }: Upgraded, end: RequestEnd): void {
    exchange.requestBytes += tunnel.fromClientBytes
    exchange.responseBytes += tunnel.toClientBytes
    this.#record(exchange, { ...end, detail: tunnel.leaving })
  }
}

interface Upgraded {
  readonly tunnel: Tunnel
  readonly exchange: Exchange
}

/** Why a request has no end whose client's connection was closed for `reason`. */
export function codeOfClose(reason: CloseReason): ErrorCode {
  switch (reason) {
    case 'memory':
      return 'held_bytes_full'
    case 'error':
      return 'internal'
    default:
      return 'client_closed'
  }
}

/** How a tunnel has ended whose client's connection was closed for `reason`. */
export function tunnelEndOf(reason: CloseReason): TunnelEnd {
  switch (reason) {
    case 'idle':
    case 'lifetime':
    case 'drain':
    case 'peer_invalid':
      return reason
    default:
      return 'broken'
  }
}
