// A call to a workload that speaks HTTP/1.1: owns one connection of the pool from the request's head
// to the last byte of the answer. Framing is written anew, answers are parsed strictly, and whatever
// ends badly takes the connection with it.

import type { ErrorCode } from '../errors.ts'
import { ChunkedDecoder, encodeChunkHeader, encodeTrailers, LAST_CHUNK } from '../http/chunked.ts'
import { type Fields, removeHopByHop } from '../http/fields.ts'
import { parseResponseHead, type ResponseHead } from '../http/response.ts'
import { requestHeadText } from '../http/serialise.ts'
import { isHandshakeAnswer } from '../http/websocket.ts'
import type { Call, CallRequest, CallUser, Repeatable } from './call.ts'
import type { Turn } from './turn.ts'
import type { UpstreamConnection, UpstreamPool, UpstreamUser } from './upstream.ts'

export interface AnswerLimits {
  readonly headBytes: number
  readonly headerCount: number
}

/** A user that asked for a WebSocket also learns that it has one, and owns the connection then. */
export interface UpgradeUser extends CallUser {
  callUpgraded(fields: Fields, upstream: UpstreamConnection, early: Buffer): void
}

const MOST_INTERIM_RESPONSES = 16
const TRAILER_LIMITS = { maxTrailerBytes: 8 * 1024, maxTrailerCount: 32 }
const CRLF = Buffer.from('\r\n', 'latin1')
const LAST = Buffer.from(LAST_CHUNK, 'latin1')

export class Http1Call implements Call, UpstreamUser {
  readonly #user: CallUser | UpgradeUser
  readonly #request: CallRequest
  readonly #pool: UpstreamPool
  readonly #limits: AnswerLimits
  readonly #turn: Turn
  /** Asks for a WebSocket with this key. */
  readonly #upgradeKey: string | undefined
  #upstream: UpstreamConnection | undefined
  /** What is to be written once there is a connection. */
  #unsent: Buffer[] | undefined = []
  #full = false
  #requestDone: boolean
  // The answer.
  #part: Buffer | undefined
  #head: ResponseHead | undefined
  #left = 0
  #decoder: ChunkedDecoder | undefined
  #interim = 0
  #over = false

  /** @param upgradeKey value of `sec-websocket-key`, when this is to become a WebSocket */
  constructor(
    user: CallUser | UpgradeUser,
    request: CallRequest,
    pool: UpstreamPool,
    limits: AnswerLimits,
    turn: Turn,
    upgradeKey?: string,
  ) {
    this.#user = user
    this.#request = request
    this.#pool = pool
    this.#limits = limits
    this.#turn = turn
    this.#upgradeKey = upgradeKey
    this.#requestDone = request.body.kind === 'none'
  }

  /** @param fresh on a connection that was never used before */
  begin(fresh = false): void {
    this.#pool.acquire(this, fresh)
  }

  // Request side.

  write(bytes: Buffer): boolean {
    if (this.#over || this.#requestDone || bytes.length === 0) return true
    const pieces =
      this.#request.body.kind === 'chunked'
        ? [Buffer.from(encodeChunkHeader(bytes.length), 'latin1'), bytes, CRLF]
        : [bytes]
    if (this.#unsent !== undefined) {
      this.#unsent.push(...pieces)
      this.#full = true
      return false
    }
    const socket = this.#upstream?.socket
    if (socket === undefined) return true
    this.#turn.hold(socket)
    for (const piece of pieces) this.#full = !socket.write(piece)
    return !this.#full
  }

  end(trailers: Fields): void {
    if (this.#over || this.#requestDone) return
    this.#requestDone = true
    if (this.#request.body.kind !== 'chunked') return
    const last =
      trailers.length === 0 ? LAST : Buffer.from(`0\r\n${encodeTrailers(trailers)}`, 'latin1')
    if (this.#unsent !== undefined) this.#unsent.push(last)
    else if (this.#upstream !== undefined) {
      this.#turn.hold(this.#upstream.socket)
      this.#upstream.socket.write(last)
    }
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
    const { method, target, authority, fields, body } = this.#request
    const { socket } = connection
    this.#turn.hold(socket)
    const head = requestHeadText(
      method,
      target,
      ['host', authority, ...fields],
      body,
      [],
      this.#upgradeKey === undefined ? undefined : 'upgrade',
    )
    let flowing = socket.write(head, 'latin1')
    const unsent = this.#unsent ?? []
    this.#unsent = undefined
    for (const piece of unsent) flowing = socket.write(piece)
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
    let bytes = buffer
    let from = start
    let to = end
    if (this.#part !== undefined) {
      bytes = Buffer.concat([this.#part, buffer.subarray(start, end)])
      from = 0
      to = bytes.length
      this.#part = undefined
    }
    const request = { method: this.#request.method, upgrade: this.#upgradeKey !== undefined }
    while (!this.#over) {
      const head = parseResponseHead(bytes, from, to, request, this.#limits)
      if (head === undefined) {
        this.#part = Buffer.from(bytes.subarray(from, to))
        return
      }
      if (head.kind === 'bad_response') return this.#fail('upstream_bad_response', 'never')
      from += head.headBytes
      if (head.status === 101) return this.#switch(head, Buffer.from(bytes.subarray(from, to)))
      if (head.status >= 200) return this.#answer(head, bytes, from, to)
      if (++this.#interim > MOST_INTERIM_RESPONSES) {
        return this.#fail('upstream_bad_response', 'never')
      }
      this.#user.callInterim({
        status: head.status,
        fields: removeHopByHop(head.fields),
        complete: false,
        trailers: false,
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

  upstreamBusy(): void {
    this.#fail('upstream_busy', 'never')
  }

  // Response side.

  #answer(head: ResponseHead, bytes: Buffer, from: number, to: number): void {
    this.#head = head
    const { body } = head
    if (body.kind === 'length') this.#left = body.length
    else if (body.kind === 'chunked') this.#decoder = new ChunkedDecoder(TRAILER_LIMITS)
    const complete = body.kind === 'none' || (body.kind === 'length' && body.length === 0)
    this.#user.callHead({
      status: head.status,
      fields: removeHopByHop(head.fields),
      complete,
      trailers: body.kind === 'chunked',
    })
    if (this.#over) return
    if (complete) this.#finish(from === to, [])
    else if (from < to) this.#body(bytes, from, to)
  }

  #body(buffer: Buffer, start: number, end: number): void {
    const decoder = this.#decoder
    if (decoder === undefined) {
      const untilClose = this.#head?.body.kind === 'close'
      const length = untilClose ? end - start : Math.min(this.#left, end - start)
      if (length > 0) this.#user.callData(buffer, start, start + length)
      if (untilClose) return
      this.#left -= length
      if (this.#left === 0) this.#finish(start + length === end, [])
      return
    }
    const ranges: number[] = []
    const consumed = decoder.decode(buffer, start, end, (from, to) => ranges.push(from, to))
    if (typeof consumed !== 'number') return this.#fail('upstream_bad_response', 'never')
    for (let i = 0; i < ranges.length && !this.#over; i += 2) {
      this.#user.callData(buffer, ranges[i]!, ranges[i + 1]!)
    }
    if (decoder.done) this.#finish(consumed === end, decoder.trailers)
  }

  /** @param clean the workload sent exactly one answer and nothing behind it */
  #finish(clean: boolean, trailers: Fields): void {
    if (this.#over) return
    this.#over = true
    const upstream = this.#upstream
    this.#upstream = undefined
    if (upstream !== undefined) {
      if (clean && this.#requestDone && this.#head?.keepAlive === true) upstream.release()
      else upstream.destroy()
    }
    this.#user.callEnd(trailers)
  }

  #switch(head: ResponseHead, early: Buffer): void {
    const upstream = this.#upstream
    if (
      this.#upgradeKey === undefined ||
      upstream === undefined ||
      !('callUpgraded' in this.#user) ||
      !isHandshakeAnswer(head.fields, this.#upgradeKey)
    ) {
      return this.#fail('upstream_bad_response', 'never')
    }
    this.#over = true
    this.#upstream = undefined
    this.#user.callUpgraded(removeHopByHop(head.fields), upstream, early)
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

  #fail(code: ErrorCode, repeatable: Repeatable): void {
    if (this.#over) return
    this.abandon()
    this.#user.callFailed(code, repeatable)
  }
}
