// A call to a workload that speaks HTTP/1.1: owns one connection of the pool from the request's head
// to the last byte of the answer. Framing is written anew, answers are parsed strictly, and whatever
// ends badly takes the connection with it.
import type { Socket } from 'node:net'
import type { ErrorCode } from '../errors.ts'
import {
  CHUNK_END,
  ChunkedDecoder,
  encodeChunkHeader,
  encodeTrailers,
  LAST_CHUNK,
} from '../http/chunked.ts'
import { type Fields, removeHopByHop } from '../http/fields.ts'
import { ownCopy } from '../http/kept-bytes.ts'
import { parseResponseHead, type ResponseHead } from '../http/response.ts'
import { requestHeadText } from '../http/serialise.ts'
import { isHandshakeAnswer } from '../http/websocket.ts'
import {
  type Call,
  type CallRequest,
  type Repeatable,
  totalBytes,
  type UpgradeUser,
} from './call.ts'
import { TRAILER_LIMITS } from './collecting.ts'
import { waitingBytesOf } from './small-pieces.ts'
import type { Turn } from './turn.ts'
import type { UpstreamConnection, UpstreamPool, UpstreamUser } from './upstream.ts'
import { ConnectionEnd } from './workload-end.ts'

export interface AnswerLimits {
  readonly headBytes: number
  readonly headerCount: number
}

const MOST_INTERIM_RESPONSES = 16
const BAD_CHUNKS = 'malformed chunks or trailers'
const EXPECT_CONTINUE = ['expect', '100-continue']

export class Http1Call implements Call, UpstreamUser {
  readonly #user: UpgradeUser
  readonly #request: CallRequest
  readonly #pool: UpstreamPool
  readonly #limits: AnswerLimits
  readonly #turn: Turn
  /** On a connection that was never used before. */
  readonly #fresh: boolean
  readonly #client: string
  #upstream: UpstreamConnection | undefined
  /** What is to be written once there is a connection; lent until `begin` has returned. */
  #unsent: Buffer[] | undefined = []
  #begun = false
  /** What ends a body in chunks, where that is to be written once there is a connection. */
  #unsentEnd = ''
  #full = false
  #requestDone: boolean
  /** Of what Content-Length says: with less or more, the next request would be read as part of it. */
  #bodyLeft: number
  /** The turn of the loop at whose end the request's head leaves. */
  #headTurn = 0
  // The answer.
  #part: Buffer | undefined
  #head: ResponseHead | undefined
  #left = 0
  #decoder: ChunkedDecoder | undefined
  #interim = 0
  /** An interim answer has said that the connection ends with the final one (RFC 9112 section 9.6). */
  #closes = false
  #over = false

  /**
   * @param fresh on a connection that was never used before
   * @param client the principal that asks; see `UpstreamPool.acquire`
   */
  constructor(
    user: UpgradeUser,
    request: CallRequest,
    pool: UpstreamPool,
    limits: AnswerLimits,
    turn: Turn,
    fresh: boolean,
    client: string,
  ) {
    this.#user = user
    this.#request = request
    this.#pool = pool
    this.#limits = limits
    this.#turn = turn
    this.#fresh = fresh
    this.#client = client
    this.#requestDone = request.body.kind === 'none'
    this.#bodyLeft = request.body.kind === 'length' ? request.body.length : 0
  }

  begin(): void {
    this.#pool.acquire(this, this.#fresh, this.#client)
    this.#begun = true
    this.#unsent = this.#unsent?.map((bytes) => ownCopy(bytes))
  }

  // Request side.

  write(bytes: Buffer): boolean {
    if (this.#over || this.#requestDone || bytes.length === 0) return true
    if (!this.#chunked) this.#bodyLeft -= bytes.length
    if (this.#unsent !== undefined) {
      this.#unsent.push(this.#begun ? ownCopy(bytes) : bytes)
      this.#full = true
      return false
    }
    const socket = this.#upstream?.socket
    if (socket === undefined) return true
    this.#turn.hold(socket)
    // In the turn of the head nothing leaves before its end: that is how a surplus answer is known.
    const room =
      this.#put(socket, '', bytes) ||
      (this.#headTurn !== this.#turn.number && this.#turn.relieve(socket))
    this.#full = !room
    return room
  }

  get waitingBytes(): number {
    const socket = this.#upstream?.socket
    return socket === undefined ? totalBytes(this.#unsent ?? []) : waitingBytesOf(socket)
  }

  end(trailers: Fields): void {
    if (this.#over || this.#requestDone) return
    this.#requestDone = true
    if (!this.#chunked) return
    const last = trailers.length === 0 ? LAST_CHUNK : `0\r\n${encodeTrailers(trailers)}`
    const socket = this.#upstream?.socket
    if (this.#unsent !== undefined) this.#unsentEnd = last
    else if (socket !== undefined) {
      this.#turn.hold(socket)
      socket.write(last, 'latin1')
    }
  }

  get #chunked(): boolean {
    return this.#request.body.kind === 'chunked'
  }

  /** Writes a piece of the body, framed, in one piece with `before`. @returns as `socket.write` */
  #put(socket: Socket, before: string, bytes: Buffer): boolean {
    const { copies } = this.#pool
    const { length } = bytes
    return this.#chunked
      ? copies.write(socket, before + encodeChunkHeader(length), bytes, 0, length, CHUNK_END)
      : copies.write(socket, before, bytes, 0, length, '')
  }

  pause(): void {
    this.#upstream?.socket.pause()
  }

  resume(): void {
    this.#upstream?.socket.resume()
  }

  abandon(): void {
    this.#over = true
    this.#pool.forget(this)
    this.#upstream?.destroy()
    this.#upstream = undefined
  }

  // What the workload's connection says.

  upstreamReady(connection: UpstreamConnection): void {
    this.#upstream = connection
    const { method, target, fields, body, expectContinue, webSocketKey } = this.#request
    const { socket } = connection
    this.#turn.hold(socket)
    this.#headTurn = this.#turn.number
    const head = requestHeadText(
      method,
      target,
      fields,
      body,
      expectContinue ? EXPECT_CONTINUE : [],
      webSocketKey === undefined ? undefined : 'upgrade',
    )
    const [first, ...rest] = this.#unsent ?? []
    this.#unsent = undefined
    let flowing =
      first === undefined
        ? socket.write(head + this.#unsentEnd, 'latin1')
        : this.#put(socket, head, first)
    for (const bytes of rest) flowing = this.#put(socket, '', bytes)
    if (first !== undefined && this.#unsentEnd !== '') {
      flowing = socket.write(this.#unsentEnd, 'latin1')
    }
    if (!this.#full || !flowing) return
    this.#full = false
    this.#user.callDrain()
  }

  upstreamDrain(): void {
    this.#full = false
    this.#user.callDrain()
  }

  upstreamData(buffer: Buffer, start: number, end: number): void {
    if (this.#head !== undefined) return this.#body(buffer, start, end)
    // Nothing of the request has left: this is a surplus answer to the one before it.
    if (this.#headTurn === this.#turn.number) {
      return this.#fail('upstream_bad_response', 'always', 'an answer before its request had left')
    }
    let bytes = buffer
    let from = start
    let to = end
    if (this.#part !== undefined) {
      bytes = Buffer.concat([this.#part, buffer.subarray(start, end)])
      from = 0
      to = bytes.length
      this.#part = undefined
    }
    const { method, webSocketKey } = this.#request
    const request = { method, upgrade: webSocketKey !== undefined }
    while (!this.#over) {
      const head = parseResponseHead(bytes, from, to, request, this.#limits)
      if (head === undefined) {
        this.#part = ownCopy(bytes, from, to)
        return
      }
      if (head.kind === 'bad_response') return this.#misbehaved(head.what)
      from += head.headBytes
      if (head.status === 101) return this.#switch(head, ownCopy(bytes, from, to))
      if (head.status >= 200) return this.#answer(head, bytes, from, to)
      if (!head.keepAlive) this.#closes = true
      if (++this.#interim > MOST_INTERIM_RESPONSES) {
        return this.#misbehaved('too many interim answers')
      }
      this.#user.callInterim({
        status: head.status,
        reason: head.reason,
        fields: removeHopByHop(head.fields),
        body: head.body,
        trailers: false,
        dataFollows: false,
      })
      if (from === to) return
    }
  }

  upstreamEnd(): void {
    if (this.#head?.body.kind === 'close') this.#finish(false, [])
    else this.#lost(true)
  }

  upstreamFailed(_error: NodeJS.ErrnoException | undefined, connected: boolean): void {
    this.#lost(connected)
  }

  upstreamConnectTimeout(): void {
    this.#upstream = undefined
    this.#fail('upstream_connect_timeout', 'never')
  }

  upstreamFault(): void {
    this.#upstream = undefined
    this.#fail('internal', 'never')
  }

  get upstreamLeft(): number {
    return this.#head?.body.kind === 'length' ? this.#left : 0
  }

  upstreamBusy(): void {
    this.#fail('upstream_busy', 'never')
  }

  // Response side.

  #answer(head: ResponseHead, bytes: Buffer, from: number, to: number): void {
    this.#head = head
    const { body } = head
    if (body.kind === 'length') this.#left = body.length
    else if (body.kind === 'chunked') this.#decoder = new ChunkedDecoder(TRAILER_LIMITS)
    const taken = this.#take(bytes, from, to)
    // What cannot be passed on is known before the head is.
    if (taken === undefined) return this.#misbehaved(BAD_CHUNKS)
    this.#user.callHead({
      status: head.status,
      reason: head.reason,
      fields: removeHopByHop(head.fields),
      body,
      trailers: body.kind === 'chunked',
      dataFollows: taken.done || taken.to > taken.from,
    })
    this.#passOn(bytes, taken, to)
  }

  #body(buffer: Buffer, start: number, end: number): void {
    const taken = this.#take(buffer, start, end)
    if (taken === undefined) this.#misbehaved(BAD_CHUNKS)
    else this.#passOn(buffer, taken, end)
  }

  #passOn(buffer: Buffer, { from, to, consumed, done }: TakenBody, end: number): void {
    if (to > from) this.#user.callData(buffer, from, to)
    if (done) this.#finish(consumed === end, this.#decoder?.trailers ?? [])
  }

  /** @returns undefined where the body is not framed as it should be */
  #take(buffer: Buffer, start: number, end: number): TakenBody | undefined {
    const decoder = this.#decoder
    if (decoder !== undefined) {
      const data = decoder.decodeJoined(buffer, start, end)
      return data.kind === 'data' ? { ...data, done: decoder.done } : undefined
    }
    const untilClose = this.#head?.body.kind === 'close'
    const consumed = untilClose ? end : start + Math.min(this.#left, end - start)
    this.#left -= consumed - start
    return { from: start, to: consumed, consumed, done: !untilClose && this.#left <= 0 }
  }

  /** @param clean the workload sent exactly one answer and nothing behind it */
  #finish(clean: boolean, trailers: Fields): void {
    if (this.#over) return
    this.#over = true
    const upstream = this.#upstream
    this.#upstream = undefined
    if (upstream !== undefined) {
      // A body with a length needs no end: HTTP/2 may bring that in a frame of its own, later.
      const complete = clean && (this.#chunked ? this.#requestDone : this.#bodyLeft === 0)
      if (complete && this.#head?.keepAlive === true && !this.#closes) upstream.release()
      else upstream.destroy()
    }
    this.#user.callEnd(trailers)
  }

  #switch(head: ResponseHead, early: Buffer): void {
    const upstream = this.#upstream
    const { webSocketKey } = this.#request
    const agreed = webSocketKey !== undefined && isHandshakeAnswer(head.fields, webSocketKey)
    if (!agreed || upstream === undefined) return this.#misbehaved('a wrong WebSocket handshake')
    this.#over = true
    this.#upstream = undefined
    const end = new ConnectionEnd(upstream, this.#turn, early)
    this.#user.callUpgraded(removeHopByHop(head.fields), end)
  }

  /**
   * The connection went away before the answer was complete. A workload that closes an idle
   * connection may do so just as we write to it (RFC 9112 section 9.3.1).
   */
  #lost(connected: boolean): void {
    const upstream = this.#upstream
    this.#upstream = undefined
    upstream?.destroy()
    const silent = this.#part === undefined && this.#head === undefined && this.#interim === 0
    const stale = upstream?.reused === true && silent
    this.#fail(connected ? 'upstream_reset' : 'upstream_refused', stale ? 'if_idempotent' : 'never')
  }

  /** @param what is wrong with its answer */
  #misbehaved(what: string): void {
    this.#fail('upstream_bad_response', 'never', what)
  }

  #fail(code: ErrorCode, repeatable: Repeatable, detail?: string): void {
    if (this.#over) return
    this.abandon()
    this.#user.callFailed(code, repeatable, detail)
  }
}

interface TakenBody {
  /** Where the bytes of the body are inside the buffer. */
  readonly from: number
  readonly to: number
  readonly consumed: number
  readonly done: boolean
}
