// The request head: bytes -> RequestHead | Rejection. Promises one method, one unambiguous target, one
// Host, one way to find the end of the body, and only the upgrade that is forwarded. What llhttp
// tolerates and this refuses is listed in test/http/differential-request.test.ts.
import { VALUE_CHARACTERS } from '../field-names.ts'
import { requestConnectionOptions } from './connection.ts'
import { parseFieldSection } from './field-section.ts'
import type { Fields } from './fields.ts'
import { type Framing, framingOf, isEmpty } from './framing.ts'
import { isHost } from './host.ts'
import { type Rejection, rejection } from './rejection.ts'
import { judgePartialLine, parseRequestLine } from './request-line.ts'
import { hasHandshakeFields } from './websocket.ts'

export type { Framing } from './framing.ts'
export type { Rejection } from './rejection.ts'

export interface HeadLimits {
  /** Request line, fields and the empty line together. */
  readonly headBytes: number
  readonly headerCount: number
  readonly targetBytes: number
  readonly allowAmbiguousPaths: boolean
}

export interface RequestHead {
  readonly kind: 'request'
  readonly protocol: 'HTTP/1.1' | 'HTTP/1.0' | 'HTTP/2'
  readonly method: string
  /** What to forward in the request line. */
  readonly target: string
  readonly path: string
  readonly query: string | undefined
  /** The value of Host, in the client's letter case. */
  readonly host: string
  readonly minorVersion: 0 | 1
  /** All of them, as received. */
  readonly fields: Fields
  readonly body: Framing
  /** Whether the client wants to send another request afterwards (RFC 9112 section 9.3). */
  readonly keepAlive: boolean
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expectContinue: boolean
  readonly upgrade: 'websocket' | undefined
  /** Length of the head in the buffer; the body begins there. */
  readonly headBytes: number
}

/**
 * Parses the head that begins at `start`.
 *
 * @param judgedBytes of it, which were looked at before and were incomplete; looking again at all of them
 *   with each byte that comes would take seconds
 * @returns undefined while the head is incomplete and can still become right.
 */
export function parseRequestHead(
  buffer: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
  judgedBytes = 0,
): RequestHead | Rejection | undefined {
  const judged = start + judgedBytes
  const stop = buffer.indexOf('\r\n\r\n', Math.max(start, judged - 3), 'latin1')
  const complete = stop !== -1 && stop + 4 <= end
  const headBytes = complete ? stop + 4 - start : end - start
  if (headBytes > limits.headBytes)
    return judgeLine(buffer, start, end, limits) ?? rejection('head_too_large')
  if (!complete) return judgePartialHead(buffer, start, end, limits, judged)
  const text = buffer.toString('latin1', start, stop + 2)

  const line = parseRequestLine(text, limits)
  if (line.kind === 'rejection') return line
  const { method, minorVersion, target } = line
  const fields = parseFieldSection(
    buffer,
    start,
    text,
    line.length,
    limits.headerCount,
    VALUE_CHARACTERS,
  )
  if (fields === 'malformed') return rejection('bad_header')
  if (fields === 'too_many') return rejection('too_many_headers')

  let host: string | undefined
  let length: string | undefined
  let encoding: string | undefined
  let expect: string | undefined
  let upgrade: string | undefined
  let connection: string | undefined
  let authorized = false
  let typed = false
  // By length first: most names cost one comparison of integers.
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    switch (name.length) {
      case 4:
        if (name !== 'host') break
        if (host !== undefined) return rejection('bad_host')
        host = fields[i + 1]!
        break
      case 6:
        if (name !== 'expect') break
        if (expect !== undefined) return rejection('duplicate_header')
        expect = fields[i + 1]!
        break
      case 7:
        if (name !== 'upgrade') break
        if (upgrade !== undefined) return rejection('duplicate_header')
        upgrade = fields[i + 1]!
        break
      case 10:
        // A list, so it may come in several fields.
        if (name !== 'connection') break
        connection = connection === undefined ? fields[i + 1]! : `${connection},${fields[i + 1]!}`
        break
      case 12:
        if (name !== 'content-type') break
        if (typed) return rejection('duplicate_header')
        typed = true
        break
      case 13:
        if (name !== 'authorization') break
        if (authorized) return rejection('duplicate_header')
        authorized = true
        break
      case 14:
        if (name !== 'content-length') break
        if (length !== undefined) return rejection('bad_framing')
        length = fields[i + 1]!
        break
      case 17:
        if (name !== 'transfer-encoding') break
        if (encoding !== undefined) return rejection('bad_framing')
        encoding = fields[i + 1]!
        break
    }
  }

  if (host === undefined || !isHost(host)) return rejection('bad_host')
  if (target.authority !== undefined && target.authority.toLowerCase() !== host.toLowerCase()) {
    return rejection('bad_host')
  }
  const body = framingOf(length, encoding, minorVersion)
  if (body.kind === 'rejection') return body
  const options = requestConnectionOptions(connection)
  if (options === undefined) return rejection('bad_connection_header')
  if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
    return rejection('unsupported_expectation')
  }
  // Any other upgrade is for us to ignore (RFC 9110 section 7.8), and is not forwarded.
  const toWebSocket = upgrade !== undefined && upgrade.toLowerCase() === 'websocket'
  const bodyless = isEmpty(body)
  if (toWebSocket) {
    const asked = method === 'GET' && minorVersion === 1 && bodyless && options.upgrade
    if (!asked || !hasHandshakeFields(fields)) return rejection('bad_upgrade')
  }
  return {
    kind: 'request',
    protocol: minorVersion === 1 ? 'HTTP/1.1' : 'HTTP/1.0',
    method,
    target: target.target,
    path: target.path,
    query: target.query,
    host,
    minorVersion,
    fields,
    body,
    keepAlive: !options.close && (minorVersion === 1 || options.keepAlive),
    // RFC 9110 section 10.1.1: ignored in HTTP/1.0, and pointless without a body.
    expectContinue: expect !== undefined && minorVersion === 1 && !bodyless,
    upgrade: toWebSocket ? 'websocket' : undefined,
    headBytes,
  }
}

/**
 * What is already wrong with an incomplete head, so that a client that will never send CRLF CRLF is
 * answered at once and not after the head timeout.
 */
function judgePartialHead(
  buffer: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
  judged: number,
): Rejection | undefined {
  const lineEnd = buffer.indexOf('\n', start, 'latin1')
  const inLine =
    lineEnd !== -1 && lineEnd < judged ? undefined : judgeLine(buffer, start, end, limits)
  if (inLine !== undefined) return inLine
  // A CR at the end of what was judged was waiting for its LF.
  const from = judged > start && buffer[judged - 1] === CR ? judged - 1 : judged
  return hasLooseLineBreak(buffer, from, end) ? rejection('bad_header') : undefined
}

function judgeLine(
  buffer: Buffer,
  start: number,
  end: number,
  limits: HeadLimits,
): Rejection | undefined {
  const lineEnd = buffer.indexOf('\n', start, 'latin1')
  if (lineEnd === -1 || lineEnd >= end) {
    return start === end
      ? undefined
      : judgePartialLine(buffer.toString('latin1', start, end), limits)
  }
  const line = parseRequestLine(`${buffer.toString('latin1', start, lineEnd + 1)}\r\n`, limits)
  return line.kind === 'rejection' ? line : undefined
}

/** A CR or LF that is not part of a CRLF; a CR at the very end may still get its LF. */
function hasLooseLineBreak(buffer: Buffer, start: number, end: number): boolean {
  for (let i = start; ; ) {
    const cr = buffer.indexOf(CR, i)
    const lf = buffer.indexOf(LF, i)
    if (cr === -1 || cr >= end - 1) return lf !== -1 && lf < end
    if (lf !== cr + 1) return true
    i = lf + 1
  }
}

const CR = 13
const LF = 10
