// One call on an HTTP/2 connection to the workload: a stream with its two windows. What the answer
// must be is RFC 9113 section 8: one status, lower-case names, a body as long as it says.
import type { ErrorCode } from '../../errors.ts'
import { isFramingField } from '../../field-names.ts'
import { type Fields, removeHopByHop } from '../../http/fields.ts'
import { CHUNKED, type Framing, NO_BODY } from '../../http/framing.ts'
import { areFields } from '../../http/h2/fields.ts'
import { H2_ERROR } from '../../http/h2/frames.ts'
import { ownCopy } from '../../http/kept-bytes.ts'
import { reasonPhrase } from '../../http/serialise.ts'
import { acceptKeyFor } from '../../http/websocket.ts'
import {
  type AnswerHead,
  type Call,
  type CallRequest,
  type Repeatable,
  totalBytes,
  type UpgradeUser,
} from '../call.ts'
import { ReceiveWindow } from '../h2/receive-window.ts'
import { Flow, type FlowUser } from '../h2/sending.ts'
import { type H2cSession, STREAM_WINDOW, type Startable } from './session.ts'
import { StreamEnd } from './tunnel-end.ts'

const MAX_INTERIM = 16
const OTHER_LENGTH = 'a body of another length than it says'

/** Whoever has the connections. */
export interface CallOwner {
  /** `start` follows, now or when there is a stream for it; or `sessionClosed`. */
  begin(call: H2cCall): void
  /** It is over; it may not have been started. */
  forget(call: H2cCall): void
}

export class H2cCall implements Call, FlowUser, Startable {
  /** The principal that asks. */
  readonly client: string
  readonly #user: UpgradeUser
  readonly #request: CallRequest
  #session: H2cSession | undefined
  /** A session that has not said yet whether it takes WebSockets. */
  #unsettled: H2cSession | undefined
  #id = 0
  #startedMs = 0
  #flow: Flow | undefined
  /** What is to be sent once there is a connection; lent until `begin` has returned. */
  #unsent: Buffer[] = []
  #begun = false
  #trailers: Fields = []
  #ended = false
  #full = false
  #sentEnd = false
  // The answer.
  #interim = 0
  #head = false
  #answerEnded = false
  #paused = false
  readonly #window = new ReceiveWindow(STREAM_WINDOW)
  #lengthLeft: number | undefined
  #over = false

  readonly #owner: CallOwner

  constructor(user: UpgradeUser, request: CallRequest, client: string, owner: CallOwner) {
    this.client = client
    this.#user = user
    this.#request = request
    this.#owner = owner
    this.#ended = request.body.kind === 'none' && !this.#isWebSocket
  }

  begin(): void {
    this.#owner.begin(this)
    this.#begun = true
    this.#unsent = this.#unsent.map((bytes) => ownCopy(bytes))
  }

  get #isWebSocket(): boolean {
    return this.#request.webSocketKey !== undefined
  }

  /** A connection is there: sends what there is. Not called when it is over. */
  start(session: H2cSession): void {
    this.#startedMs = session.nowMs
    this.#unsettled = undefined
    if (this.#isWebSocket && session.takesWebSockets !== true) return this.#awaitOffer(session)
    this.#session = session
    this.#id = session.open(this)
    const flow = new Flow(this.#id, session.sending, this)
    this.#flow = flow
    const { outbox, maxFrameBytes } = session.sending
    outbox.headers(this.#id, headFields(this.#request, this.#isWebSocket), false, maxFrameBytes)
    let room = true
    for (const bytes of this.#unsent) room = flow.write(bytes, 0, bytes.length)
    this.#unsent = []
    if (this.#ended) flow.end(this.#trailers)
    else if (this.#full && room) this.flowDrained()
  }

  startElsewhere(): void {
    this.#unsettled = undefined
    this.#owner.begin(this)
  }

  /** It must not be asked for before it is offered (RFC 8441 section 3). */
  #awaitOffer(session: H2cSession): void {
    if (session.takesWebSockets === undefined) {
      this.#unsettled = session
      return session.startLater(this)
    }
    session.decline(this)
    this.#end()
    this.#user.callFailed('upstream_no_websocket', 'never')
  }

  write(bytes: Buffer): boolean {
    if (this.#over || this.#ended) return true
    if (bytes.length === 0) return !this.#full
    if (this.#flow === undefined) {
      this.#unsent.push(this.#begun ? ownCopy(bytes) : bytes)
      this.#full = true
    } else this.#full = !this.#flow.write(bytes, 0, bytes.length)
    return !this.#full
  }

  get waitingBytes(): number {
    return this.#flow?.waitingBytes ?? totalBytes(this.#unsent)
  }

  end(trailers: Fields): void {
    // Of a WebSocket the request is complete, but not what is said behind it.
    if (this.#over || this.#ended || this.#isWebSocket) return
    this.#ended = true
    this.#trailers = trailers
    this.#flow?.end(trailers)
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#credit()
  }

  abandon(): void {
    if (this.#over) return
    this.#end()
    this.#owner.forget(this)
    this.#unsettled?.withdraw(this)
    this.#unsettled?.gaveUp(this.#startedMs)
    this.#session?.gaveUp(this.#startedMs)
    this.#session?.reset(this.#id, H2_ERROR.cancel)
  }

  // What the session says.

  grow(change: number): boolean {
    return this.#flow?.grow(change) ?? true
  }

  flowDrained(): void {
    this.#full = false
    if (this.#over || this.#ended) return
    try {
      this.#user.callDrain()
    } catch (error) {
      this.#session?.faulted(this, error)
    }
  }

  flowEnded(): void {
    this.#sentEnd = true
  }

  headers(fields: Fields, tooLarge: boolean, endStream: boolean): void {
    if (this.#over || this.#answerEnded) return
    if (tooLarge) return this.misbehaved(H2_ERROR.enhanceYourCalm, 'head too large')
    if (this.#head) {
      if (!endStream || !areTrailers(fields)) {
        return this.misbehaved(H2_ERROR.protocol, 'malformed trailers')
      }
      return this.ended(removeHopByHop(fields))
    }
    const answer = answerOf(fields)
    if (answer === undefined) return this.misbehaved(H2_ERROR.protocol, 'malformed head')
    if (answer.status < 200) {
      if (endStream || answer.status === 101 || ++this.#interim > MAX_INTERIM) {
        return this.misbehaved(H2_ERROR.protocol, 'an interim answer that may not be there')
      }
      return this.#user.callInterim(headOf(answer, NO_BODY, false))
    }
    if (this.#isWebSocket && answer.status < 300) return this.#upgrade(answer.fields, endStream)
    this.#head = true
    const { status } = answer
    const length = declaredLength(answer.fields)
    if (length === 'malformed')
      return this.misbehaved(H2_ERROR.protocol, 'malformed content-length')
    const bodyless = this.#request.method === 'HEAD' || status === 204 || status === 304
    this.#lengthLeft = bodyless ? 0 : length
    if (endStream && (this.#lengthLeft ?? 0) !== 0) {
      return this.misbehaved(H2_ERROR.protocol, OTHER_LENGTH)
    }
    // An HTTP/1.1 client has to be told that nothing follows.
    const known = endStream ? 0 : length
    const framing = bodyless
      ? NO_BODY
      : known === undefined
        ? CHUNKED
        : ({ kind: 'length', length: known } as const)
    this.#user.callHead(headOf(answer, framing, endStream))
    if (endStream) this.ended([])
  }

  /** The stream is a tunnel from here on. */
  #upgrade(fields: Fields, endStream: boolean): void {
    const [session, flow] = [this.#session, this.#flow]
    if (session === undefined || flow === undefined) return
    this.#over = true
    const end = new StreamEnd(session, this, this.#id, flow, this.#window)
    session.handOver(this.#id, end)
    try {
      this.#user.callUpgraded(upgradeFields(fields, this.#request.webSocketKey ?? ''), end)
      if (endStream) end.ended()
    } catch (error) {
      session.faulted(end, error)
    }
  }

  data(buffer: Buffer, start: number, end: number): void {
    if (this.#over) return
    const length = end - start
    if (!this.#head || this.#answerEnded) {
      return this.misbehaved(H2_ERROR.protocol, 'a body without a head, or behind its end')
    }
    if (this.#lengthLeft !== undefined) {
      this.#lengthLeft -= length
      if (this.#lengthLeft < 0) return this.misbehaved(H2_ERROR.protocol, OTHER_LENGTH)
    }
    this.#user.callData(buffer, start, end)
    this.#credit()
  }

  /** DATA begins; padding counts against the window, too (section 6.9). */
  frame(length: number): void {
    // More than the window that we gave is a fault of the workload (section 6.9.1).
    if (!this.#window.take(length)) this.misbehaved(H2_ERROR.flowControl, 'more than its window')
    else if (length > 0) this.#credit()
  }

  ended(trailers: Fields): void {
    if (this.#over || this.#answerEnded) return
    if (!this.#head || (this.#lengthLeft ?? 0) !== 0) {
      return this.misbehaved(H2_ERROR.protocol, OTHER_LENGTH)
    }
    this.#answerEnded = true
    this.#end()
    // An answer that is complete before its request: the rest is of no use (section 8.1).
    if (this.#sentEnd) this.#session?.left(this.#id)
    else this.#session?.reset(this.#id, H2_ERROR.none)
    this.#user.callEnd(trailers)
  }

  wasReset(code: number): void {
    if (this.#over) return
    this.#end()
    const untouched = code === H2_ERROR.refusedStream && !this.#head
    this.#user.callFailed('upstream_reset', untouched ? 'always' : 'never')
  }

  /** The answer cannot be passed on. */
  misbehaved(code: number, what: string): void {
    if (this.#over) return
    this.#end()
    this.#session?.reset(this.#id, code)
    this.#user.callFailed('upstream_bad_response', 'never', what)
  }

  /** The connection is gone, or there never was one. */
  sessionClosed(code: ErrorCode, repeatable: Repeatable): void {
    if (this.#over) return
    this.#end()
    this.#user.callFailed(code, this.#head || this.#interim > 0 ? 'never' : repeatable)
  }

  /** Its user threw. */
  faulted(): void {
    if (this.#over) return
    this.#end()
    this.#session?.reset(this.#id, H2_ERROR.internal)
    this.#user.callFailed('internal', 'never')
  }

  /** Nothing is sent or told any more. */
  #end(): void {
    this.#over = true
    this.#unsent = []
    this.#flow?.stop()
  }

  /** Gives the workload its window back once half of it is used, unless the user has no room. */
  #credit(): void {
    if (this.#paused || this.#over) return
    const due = this.#window.due()
    if (due > 0) this.#session?.credit(this.#id, due)
  }
}

/** For a WebSocket an extended CONNECT (RFC 8441 section 4): a stream needs no key to be told apart. */
function headFields(request: CallRequest, isWebSocket: boolean): string[] {
  const { method, scheme, authority, target, fields, body, expectContinue } = request
  const all = isWebSocket ? [':method', 'CONNECT', ':protocol', 'websocket'] : [':method', method]
  all.push(':scheme', scheme, ':authority', authority, ':path', target)
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (name === 'host' || (isWebSocket && name === 'sec-websocket-key')) continue
    all.push(name, fields[i + 1]!)
  }
  if (body.kind === 'length') all.push('content-length', String(body.length))
  if (expectContinue) all.push('expect', '100-continue')
  // gRPC asks for it, and it is true of us (RFC 9110 section 10.1.4).
  if (!isWebSocket) all.push('te', 'trailers')
  return all
}

/** As HTTP/1.1 would have answered. A length in a 2xx to CONNECT means nothing (RFC 9110 section 9.3.6). */
function upgradeFields(fields: Fields, key: string): Fields {
  const all: Fields = ['sec-websocket-accept', acceptKeyFor(key)]
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (name === 'content-length' || name === 'sec-websocket-accept') continue
    all.push(name, fields[i + 1]!)
  }
  return all
}

interface Answer {
  readonly status: number
  readonly fields: Fields
}

/** Section 8.3.2: `:status` first, and no other pseudo-header field. */
function answerOf(fields: Fields): Answer | undefined {
  if (fields[0] !== ':status' || !/^[1-5]\d\d$/.test(fields[1] ?? '')) return undefined
  const rest = fields.slice(2)
  return areFields(rest) ? { status: Number(fields[1]), fields: removeHopByHop(rest) } : undefined
}

const headOf = ({ status, fields }: Answer, body: Framing, complete: boolean): AnswerHead => ({
  status,
  reason: reasonPhrase(status),
  fields,
  body,
  trailers: status >= 200 && !complete,
  dataFollows: complete,
})

/** A trailer cannot frame what has gone before it (RFC 9110 section 6.5.1). */
function areTrailers(fields: Fields): boolean {
  return areFields(fields) && !fields.some((name, i) => i % 2 === 0 && isFramingField(name))
}

function declaredLength(fields: Fields): number | undefined | 'malformed' {
  let length: number | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] !== 'content-length') continue
    const text = fields[i + 1]!
    if (length !== undefined || !/^\d{1,15}$/.test(text)) return 'malformed'
    length = Number(text)
  }
  return length
}
