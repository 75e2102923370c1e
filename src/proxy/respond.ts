// The responses that Postern makes itself: a status, a code and an id, and nothing about rules,
// files or paths. The reason is for the operator, in log and console.
import { type ErrorCode, errorEntry } from '../errors.ts'
import { reasonPhrase } from '../http/serialise.ts'
import type { HandshakeFailure } from './handshake.ts'

export interface OwnResponse {
  readonly code: ErrorCode
  /** Of the decision where there was one, else of the request. */
  readonly id: string
  readonly close: boolean
  /** A denial by policy may choose these. */
  readonly status?: number
  readonly headers?: readonly (readonly [string, string])[]
  readonly body?: string | undefined
  /** False for an answer to HEAD. */
  readonly withBody: boolean
}

export function encodeOwnResponse(response: OwnResponse): Buffer {
  const status = response.status ?? errorEntry(response.code).http
  const own = response.body === undefined
  const body = Buffer.from(
    own ? JSON.stringify({ error: response.code, id: response.id }) : (response.body as string),
  )
  let head = `HTTP/1.1 ${status} ${reasonPhrase(status)}\r\n`
  let typed = false
  for (const [name, value] of response.headers ?? []) {
    if (name === 'content-type') typed = true
    if (OWN_FIELDS.has(name)) continue
    head += `${name}: ${value}\r\n`
  }
  if (!typed) head += `content-type: ${own ? 'application/json' : 'text/plain; charset=utf-8'}\r\n`
  head += `x-postern-decision-id: ${response.id}\r\n`
  const retryAfter = retryAfterOf(response.code)
  if (retryAfter !== undefined) head += `retry-after: ${retryAfter}\r\n`
  head += `date: ${new Date().toUTCString()}\r\n`
  if (status === 205) head += 'content-length: 0\r\n'
  else if (mayHaveContent(status)) head += `content-length: ${body.length}\r\n`
  if (response.close) head += 'connection: close\r\n'
  head += '\r\n'
  const withBody = response.withBody && mayHaveContent(status)
  return withBody ? Buffer.concat([Buffer.from(head, 'latin1'), body]) : Buffer.from(head, 'latin1')
}

/** RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5. */
export const mayHaveContent = (status: number): boolean =>
  status !== 204 && status !== 205 && status !== 304

/** @returns in how many seconds to try again, not the same for everyone; undefined: nobody knows */
export const retryAfterOf = (code: ErrorCode): number | undefined =>
  code === 'overloaded' ? 1 + Math.floor(Math.random() * 3) : undefined

/** What a client hears whose certificate was refused after the TLS handshake. */
export function encodeHandshakeRefusal(reason: HandshakeFailure, id: string): Buffer {
  const code = codeOfHandshakeFailure(reason)
  return encodeOwnResponse({ code, id, close: true, withBody: true })
}

export const codeOfHandshakeFailure = (reason: HandshakeFailure): ErrorCode =>
  CODE_OF_HANDSHAKE_FAILURE[reason] ?? 'peer_untrusted'

const CODE_OF_HANDSHAKE_FAILURE: Partial<Record<HandshakeFailure, ErrorCode>> = {
  no_certificate: 'peer_no_certificate',
  expired: 'peer_expired',
  not_yet_valid: 'peer_expired',
  revoked: 'peer_revoked',
  deny_listed: 'peer_deny_listed',
  peer_limited: 'peer_limited',
  revocation_unknown: 'peer_revocation_unknown',
}

/** Fields that this module writes; a policy cannot set them. */
const OWN_FIELDS: ReadonlySet<string> = new Set([
  'content-length',
  'transfer-encoding',
  'connection',
  'keep-alive',
  'upgrade',
  'trailer',
  'date',
  'x-postern-decision-id',
])
