// The head of the workload's answer: bytes -> ResponseHead | BadResponse. As strict as for requests
// about where the message ends, more patient about what a workload says in it.
import { type ConnectionOptions, connectionOptions } from './connection.ts'
import { parseFieldSection } from './field-section.ts'
import { type Fields, fieldValues } from './fields.ts'
import { CHUNKED, type Framing, isChunked, NO_BODY, parseLength } from './framing.ts'

export interface ResponseHead {
  readonly kind: 'response'
  readonly status: number
  /** May be empty. */
  readonly reason: string
  readonly minorVersion: 0 | 1
  readonly fields: Fields
  /** `close`: the body ends with the connection. */
  readonly body: ResponseFraming
  /** Whether the connection can carry another request after this answer. */
  readonly keepAlive: boolean
  readonly headBytes: number
}

export type ResponseFraming = Framing | { readonly kind: 'close' }

export interface BadResponse {
  readonly kind: 'bad_response'
  /** What is wrong with it, for the log; holds no byte of the response. */
  readonly what: string
}

/**
 * Parses the head that begins at `start`, an interim one (1xx) too.
 *
 * @param request what the answer is for: its method decides about the body, and 101 is only allowed
 *   where an upgrade was asked for. Whether the handshake holds is for `isHandshakeAnswer`.
 * @returns undefined while the head is incomplete and can still become right.
 */
export function parseResponseHead(
  buffer: Buffer,
  start: number,
  end: number,
  request: { readonly method: string; readonly upgrade: boolean },
  limits: { readonly headBytes: number; readonly headerCount: number },
): ResponseHead | BadResponse | undefined {
  const stop = buffer.indexOf('\r\n\r\n', start, 'latin1')
  const complete = stop !== -1 && stop + 4 <= end
  const headBytes = complete ? stop + 4 - start : end - start
  if (headBytes > limits.headBytes) return bad('head too large')
  if (!complete) {
    return PREFIX.startsWith(buffer.toString('latin1', start, Math.min(end, start + 7)))
      ? undefined
      : bad('not HTTP/1.x')
  }
  const text = buffer.toString('latin1', start, stop + 2)

  const line = parseStatusLine(text)
  if (line === undefined) return bad('malformed status line')
  const { status, minorVersion } = line
  const fields = parseFieldSection(
    buffer,
    start,
    text,
    line.length,
    limits.headerCount,
    RESPONSE_VALUE_CHARACTERS,
  )
  if (fields === 'malformed') return bad('malformed field')
  if (fields === 'too_many') return bad('too many fields')
  // RFC 9110 section 15.2: HTTP/1.0 has no interim answers, so its recipients may take it for the last.
  if (status < 200 && minorVersion === 0) return bad('interim answer in HTTP/1.0')
  if (status === 101 && !request.upgrade) return bad('101 without being asked')

  const bodyless = request.method === 'HEAD' || status < 200 || status === 204 || status === 304
  const body = responseFraming(fields, minorVersion, bodyless)
  if (body.kind === 'bad_response') return body
  const options = optionsOf(fields)
  return {
    kind: 'response',
    status,
    reason: line.reason,
    minorVersion,
    fields,
    body,
    keepAlive: body.kind !== 'close' && !options.close && (minorVersion === 1 || options.keepAlive),
    headBytes,
  }
}

interface StatusLine {
  readonly status: number
  readonly reason: string
  readonly minorVersion: 0 | 1
  readonly length: number
}

/** RFC 9112 section 4. The space before an absent reason may be absent too, as many servers send it. */
function parseStatusLine(text: string): StatusLine | undefined {
  const minor = text.charCodeAt(7) - 0x30
  const status = digitAt(text, 9) * 100 + digitAt(text, 10) * 10 + digitAt(text, 11)
  const lineEnd = text.indexOf('\r\n')
  const separator = text.charCodeAt(12)
  if (
    !text.startsWith(PREFIX) ||
    (minor !== 0 && minor !== 1) ||
    text.charCodeAt(8) !== SPACE ||
    // NaN where one of the three is no digit; RFC 9110 section 15 knows five classes.
    !(status >= 100 && status <= 599) ||
    (separator !== SPACE && lineEnd !== 12)
  ) {
    return undefined
  }
  for (let i = 13; i < lineEnd; i++) {
    if (RESPONSE_VALUE_CHARACTERS[text.charCodeAt(i)] !== 1) return undefined
  }
  const reason = lineEnd > 13 ? text.slice(13, lineEnd) : ''
  return { status, reason, minorVersion: minor, length: lineEnd + 2 }
}

/** RFC 9112 section 6.3, without its leniency for repeated equal lengths. */
function responseFraming(
  fields: Fields,
  minorVersion: 0 | 1,
  bodyless: boolean,
): ResponseFraming | BadResponse {
  let length: string | undefined
  let encoding: string | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === 'content-length') {
      if (length !== undefined) return bad('repeated content-length')
      length = fields[i + 1]!
    } else if (fields[i] === 'transfer-encoding') {
      if (encoding !== undefined) return bad('repeated transfer-encoding')
      encoding = fields[i + 1]!
    }
  }
  if (encoding !== undefined) {
    if (length !== undefined) return bad('content-length with transfer-encoding')
    if (minorVersion === 0) return bad('transfer-encoding in HTTP/1.0')
    if (!isChunked(encoding)) return bad('transfer-encoding other than chunked')
    return bodyless ? NO_BODY : CHUNKED
  }
  if (length === undefined) return bodyless ? NO_BODY : UNTIL_CLOSE
  const bytes = parseLength(length)
  if (bytes === undefined) return bad('malformed content-length')
  return bodyless ? NO_BODY : { kind: 'length', length: bytes }
}

function optionsOf(fields: Fields): ConnectionOptions {
  const values = fieldValues(fields, 'connection')
  return connectionOptions(values.length > 1 ? values.join(',') : values[0])
}

function bad(what: string): BadResponse {
  return { kind: 'bad_response', what }
}

function digitAt(text: string, at: number): number {
  const digit = text.charCodeAt(at) - 0x30
  return digit >= 0 && digit <= 9 ? digit : Number.NaN
}

const SPACE = 0x20
const PREFIX = 'HTTP/1.'
const UNTIL_CLOSE: ResponseFraming = Object.freeze({ kind: 'close' })

/**
 * With obs-text, unlike requests: no decision rests on it, and workloads do send UTF-8 file names in
 * Content-Disposition. As latin1 the bytes survive unchanged.
 */
const RESPONSE_VALUE_CHARACTERS: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) =>
  (code >= 0x20 && code !== 0x7f) || code === 0x09 ? 1 : 0,
)
