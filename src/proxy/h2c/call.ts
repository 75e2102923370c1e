// One call on an HTTP/2 connection to the workload: a stream with its two windows. What the answer
// must be is RFC 9113 section 8: one status, lower-case names, a body as long as it says.
import type { ErrorCode } from '../../errors.ts'
import { isFramingField, isToken } from '../../field-names.ts'
import { type Fields, isFieldValue, removeHopByHop } from '../../http/fields.ts'
import { CHUNKED, type Framing, NO_BODY } from '../../http/framing.ts'
import { dataFrameHeader, FRAME_HEADER_BYTES, H2_ERROR, MAX_WINDOW } from '../../http/h2/frames.ts'
import { reasonPhrase } from '../../http/serialise.ts'
import type { AnswerHead, Call, CallRequest, CallUser, Repeatable } from '../call.ts'
import { type H2cSession, STREAM_WINDOW } from './session.ts'

/** What waits for the workload's window before the user is asked to stop. */
const HIGH_WATER_BYTES = 64 * 1024
const MAX_INTERIM = 16

export class H2cCall implements Call {
  readonly #user: CallUser
  readonly #request: CallRequest
  #session: H2cSession | undefined
  #id = 0
  #startedMs = 0
  #sendWindow = 0
  readonly #waiting: Buffer[] = []
  #waitingBytes = 0
  #trailers: Fields | undefined
  #ended = false
  #full = false
  #sentEnd = false
  // The answer.
  #interim = 0
  #head = false
  #answerEnded = false
  #paused = false
  #uncredited = 0
  #lengthLeft: number | undefined
  #over = false

  readonly #queue: (call: H2cCall) => void

  /** @param queue asks for a connection; `start` follows */
  constructor(user: CallUser, request: CallRequest, queue: (call: H2cCall) => void) {
    this.#user = user
    this.#request = request
    this.#queue = queue
    this.#ended = request.body.kind === 'none'
  }

  begin(): void {
    // An extended CONNECT (RFC 8441) is not spoken towards the workload.
    if (this.#request.webSocketKey !== undefined) return this.misbehaved(H2_ERROR.none)
    this.#queue(this)
  }

  /** A connection is there: sends what there is. Called once. */
  start(session: H2cSession): void {
    if (this.#over) return
    this.#session = session
    this.#id = session.open(this)
    this.#startedMs = session.nowMs
    this.#sendWindow = session.initialWindow
    const { method, scheme, authority, target, fields, body, expectContinue } = this.#request
    const all: string[] = [':method', method, ':scheme', scheme, ':authority', authority]
    all.push(':path', target)
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== 'host') all.push(fields[i]!, fields[i + 1]!)
    }
    if (body.kind === 'length') all.push('content-length', String(body.length))
    if (expectContinue) all.push('expect', '100-continue')
    // gRPC asks for it, and it is true of us (RFC 9110 section 10.1.4).
    all.push('te', 'trailers')
    const complete = this.#ended && this.#waitingBytes === 0 && this.#trailers === undefined
    session.sendHeaders(this.#id, all, complete)
    if (complete) this.#requestSent()
    else this.flush()
  }

  get over(): boolean {
    return this.#over
  }

  write(bytes: Buffer): boolean {
    if (this.#over || this.#ended) return true
    if (bytes.length > 0) {
      this.#waiting.push(bytes)
      this.#waitingBytes += bytes.length
      this.flush()
    }
    this.#full = this.#session === undefined || this.#waitingBytes >= HIGH_WATER_BYTES
    return !this.#full
  }

  end(trailers: Fields): void {
    if (this.#over || this.#ended) return
    this.#ended = true
    if (trailers.length > 0) this.#trailers = trailers
    this.flush()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#credit(0)
  }

  abandon(): void {
    if (this.#over) return
    this.#over = true
    this.#session?.gaveUp(this.#startedMs)
    this.#session?.reset(this.#id, H2_ERROR.cancel)
  }

  // What the session says.

  /** Sends as much as both windows and the socket take. */
  flush(): void {
    const session = this.#session
    if (session === undefined || this.#sentEnd || this.#over) return
    while (this.#waitingBytes > 0) {
      if (this.#sendWindow <= 0) return
      if (session.sendWindow <= 0 || session.socket.writableNeedDrain) return session.block(this)
      const room = Math.min(this.#sendWindow, session.sendWindow, session.maxFrameBytes)
      const first = this.#waiting[0]!
      const piece = first.length <= room ? first : first.subarray(0, room)
      if (piece === first) this.#waiting.shift()
      else this.#waiting[0] = first.subarray(room)
      this.#waitingBytes -= piece.length
      this.#sendWindow -= piece.length
      session.sendWindow -= piece.length
      const last = this.#ended && this.#waitingBytes === 0 && this.#trailers === undefined
      session.send(dataFrame(piece, this.#id, last))
      if (last) return this.#requestSent()
    }
    if (this.#ended) {
      if (this.#trailers === undefined) session.send(dataFrameHeader(0, this.#id, true))
      else session.sendHeaders(this.#id, this.#trailers, true)
      return this.#requestSent()
    }
    if (!this.#full) return
    this.#full = false
    this.#user.callDrain()
  }

  /** The workload takes `change` bytes more; fewer when its settings say so. */
  window(change: number): void {
    this.#sendWindow += change
    if (this.#sendWindow > MAX_WINDOW) return this.misbehaved(H2_ERROR.flowControl)
    this.flush()
  }

  headers(fields: Fields, tooLarge: boolean, endStream: boolean): void {
    if (this.#over || this.#answerEnded) return
    if (tooLarge) return this.misbehaved(H2_ERROR.enhanceYourCalm)
    if (this.#head) {
      if (!endStream || !areTrailers(fields)) return this.misbehaved(H2_ERROR.protocol)
      return this.ended(removeHopByHop(fields))
    }
    const answer = answerOf(fields)
    if (answer === undefined) return this.misbehaved(H2_ERROR.protocol)
    if (answer.status < 200) {
      if (endStream || answer.status === 101 || ++this.#interim > MAX_INTERIM) {
        return this.misbehaved(H2_ERROR.protocol)
      }
      return this.#user.callInterim(headOf(answer, NO_BODY, false))
    }
    this.#head = true
    const { status } = answer
    const length = declaredLength(answer.fields)
    if (length === 'malformed') return this.misbehaved(H2_ERROR.protocol)
    const bodyless = this.#request.method === 'HEAD' || status === 204 || status === 304
    this.#lengthLeft = bodyless ? 0 : length
    if (endStream && (this.#lengthLeft ?? 0) !== 0) return this.misbehaved(H2_ERROR.protocol)
    const framing =
      endStream || bodyless
        ? NO_BODY
        : length === undefined
          ? CHUNKED
          : ({ kind: 'length', length } as const)
    this.#user.callHead(headOf(answer, framing, endStream))
    if (endStream) this.ended([])
  }

  data(buffer: Buffer, start: number, end: number): void {
    if (this.#over) return
    const length = end - start
    if (!this.#head || this.#answerEnded) return this.misbehaved(H2_ERROR.protocol)
    this.#uncredited += length
    // More than the window that we gave is there for is a fault of the workload (section 6.9.1).
    if (this.#uncredited > STREAM_WINDOW) return this.misbehaved(H2_ERROR.flowControl)
    if (this.#lengthLeft !== undefined) {
      this.#lengthLeft -= length
      if (this.#lengthLeft < 0) return this.misbehaved(H2_ERROR.protocol)
    }
    this.#user.callData(buffer, start, end)
    this.#credit(0)
  }

  /** Padding counts against the window (section 6.9). */
  padding(bytes: number): void {
    this.#credit(bytes)
  }

  ended(trailers: Fields): void {
    if (this.#over || this.#answerEnded) return
    if (!this.#head || (this.#lengthLeft ?? 0) !== 0) return this.misbehaved(H2_ERROR.protocol)
    this.#answerEnded = true
    this.#over = true
    // An answer that is complete before its request: the rest is of no use (section 8.1).
    if (this.#sentEnd) this.#session?.left(this.#id)
    else this.#session?.reset(this.#id, H2_ERROR.none)
    this.#user.callEnd(trailers)
  }

  wasReset(code: number): void {
    if (this.#over) return
    this.#over = true
    const untouched = code === H2_ERROR.refusedStream && !this.#head
    this.#user.callFailed('upstream_reset', untouched ? 'always' : 'never')
  }

  /** The answer cannot be passed on. */
  misbehaved(code: number): void {
    if (this.#over) return
    this.#over = true
    this.#session?.reset(this.#id, code)
    this.#user.callFailed('upstream_bad_response', 'never')
  }

  /** The connection is gone, or there never was one. */
  sessionClosed(code: ErrorCode, repeatable: Repeatable): void {
    if (this.#over) return
    this.#over = true
    this.#user.callFailed(code, this.#head || this.#interim > 0 ? 'never' : repeatable)
  }

  /** Its user threw. */
  faulted(): void {
    if (this.#over) return
    this.#over = true
    this.#session?.reset(this.#id, H2_ERROR.internal)
    this.#user.callFailed('internal', 'never')
  }

  #requestSent(): void {
    this.#sentEnd = true
  }

  /** Gives the workload its window back once half of it is used, unless the user has no room. */
  #credit(bytes: number): void {
    this.#uncredited += bytes
    if (this.#paused || this.#over || this.#uncredited < STREAM_WINDOW / 2) return
    this.#session?.credit(this.#id, this.#uncredited)
    this.#uncredited = 0
  }
}

function dataFrame(bytes: Buffer, stream: number, last: boolean): Buffer {
  const header = dataFrameHeader(bytes.length, stream, last)
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + bytes.length)
  header.copy(out)
  bytes.copy(out, FRAME_HEADER_BYTES)
  return out
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

/** Section 8.2.1 and 8.2.2. */
function areFields(fields: Fields): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (!isToken(name) || name !== name.toLowerCase() || !isAnswerValue(fields[i + 1]!)) {
      return false
    }
    if (CONNECTION_SPECIFIC.has(name)) return false
  }
  return true
}

/** A trailer cannot frame what has gone before it (RFC 9110 section 6.5.1). */
function areTrailers(fields: Fields): boolean {
  return areFields(fields) && !fields.some((name, i) => i % 2 === 0 && isFramingField(name))
}

const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
])

/** obs-text is let through, as for HTTP/1.1 answers. */
function isAnswerValue(value: string): boolean {
  if (isFieldValue(value)) return value === value.trim()
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i)
    if ((code < 0x20 && code !== 0x09) || code === 0x7f) return false
  }
  return value === value.trim()
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
