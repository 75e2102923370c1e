// The answers that Postern makes itself, as HTTP/2: JSON with a code and an id, or for gRPC the same
// in a status and a message, without a body ("trailers-only").
import { type ErrorCode, errorEntry } from '../../errors.ts'
import type { Fields } from '../../http/fields.ts'
import { H2_ERROR } from '../../http/h2/frames.ts'
import { mayHaveContent, retryAfterOf } from '../respond.ts'
import { grpcStatusOf, isGrpc, statusFields } from './grpc.ts'
import type { Http2Stream } from './stream.ts'

export interface OwnAnswer {
  readonly code: ErrorCode
  /** Of the decision where there was one, else of the request. */
  readonly id: string
  /** A denial by policy may choose these. */
  readonly status?: number
  readonly headers?: readonly (readonly [string, string])[]
  readonly body?: string | undefined
}

interface Asked {
  readonly method: string
  readonly fields: Fields
}

/** What an answer has to know of a request that could not be read, or is not to be. */
export function askedFor(list: readonly string[]): Asked {
  const fields: Fields = []
  let method = ''
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] === ':method') method = list[i + 1]!
    if (list[i] === 'content-type') fields.push('content-type', list[i + 1]!)
  }
  return { method, fields }
}

/** What of a request its answer depends on, without the rest of the head. */
export const leastOf = ({ method, fields }: Asked): Asked => ({
  method: method === 'HEAD' ? 'HEAD' : '',
  fields: isGrpc(fields) ? ['content-type', 'application/grpc'] : [],
})

/** @param asked method and fields of the request; a HEAD gets no body, a gRPC call a status */
export function sendOwnAnswer(stream: Http2Stream, asked: Asked, answer: OwnAnswer): void {
  if (stream.closed || stream.headersSent) return
  const status = answer.status ?? errorEntry(answer.code).http
  const grpc = isGrpc(asked.fields)
  const list: string[] = [':status', grpc ? '200' : String(status)]
  let typed = false
  for (const [name, value] of answer.headers ?? []) {
    if (OWN_FIELDS.has(name) || (grpc && name === 'content-type')) continue
    if (name === 'content-type') typed = true
    list.push(name, value)
  }
  list.push('x-postern-decision-id', answer.id, 'date', new Date().toUTCString())
  const retryAfter = retryAfterOf(answer.code)
  if (retryAfter !== undefined) {
    list.push('retry-after', String(retryAfter))
    // What gRPC clients with a retry policy heed (gRPC proposal A6).
    if (grpc) list.push('grpc-retry-pushback-ms', String(retryAfter * 1_000))
  }
  if (grpc) {
    const message = answer.body ?? JSON.stringify({ error: answer.code, id: answer.id })
    list.push('content-type', 'application/grpc')
    list.push(...statusFields(grpcStatusOf(answer.code, status), message))
    stream.respond(list)
  } else {
    const own = answer.body === undefined
    const body = Buffer.from(
      own ? JSON.stringify({ error: answer.code, id: answer.id }) : (answer.body as string),
    )
    if (!typed) list.push('content-type', own ? 'application/json' : 'text/plain; charset=utf-8')
    const hasContent = mayHaveContent(status)
    if (hasContent) list.push('content-length', String(body.length))
    stream.respond(list)
    if (hasContent && asked.method !== 'HEAD') stream.write(body)
  }
  stream.end()
}

/**
 * Part of an answer is sent and the rest will not come: RST_STREAM, at once.
 * @param tunnel where a TCP connection would be reset: CANCEL says so (RFC 8441 section 5)
 */
export function breakOff(stream: Http2Stream, tunnel = false): void {
  stream.reset(tunnel ? H2_ERROR.cancel : H2_ERROR.internal)
}

/**
 * The same for a gRPC answer, whose end can say that it is not complete: what is written goes out,
 * then the status. A client that does not read gets the reset.
 */
export function endWithStatus(stream: Http2Stream, status: Fields): void {
  if (stream.closed) return
  stream.end(status)
  if (!stream.closed) setTimeout(() => breakOff(stream), STATUS_MS).unref()
}

const STATUS_MS = 1_000

/** Fields that this module writes, and those that HTTP/2 does not know; a policy cannot set them. */
const OWN_FIELDS: ReadonlySet<string> = new Set([
  'content-length',
  'transfer-encoding',
  'connection',
  'proxy-connection',
  'keep-alive',
  'upgrade',
  'te',
  'trailer',
  'date',
  'grpc-status',
  'grpc-message',
  'x-postern-decision-id',
])
