// The head of an HTTP/2 request, from the header list that the frame layer decoded: as strict about
// method, target, host and length as for HTTP/1.1, so that policy and workload see one request
// whichever protocol it came by (RFC 9113 section 8.3).
import { isToken, VALUE_CHARACTERS } from '../../field-names.ts'
import { type Fields, fieldValue } from '../fields.ts'
import { CHUNKED, type Framing, NO_BODY, parseLength } from '../framing.ts'
import type { HeadLimits, RequestHead } from '../head.ts'
import { isHost } from '../host.ts'
import { parseTarget } from '../path.ts'
import { type Rejection, rejection } from '../rejection.ts'
import { CONNECTION_SPECIFIC, isLowerCaseName, isPadded } from './fields.ts'

/** What RFC 9113 section 6.5.2 counts for each field beside its text. */
const FIELD_OVERHEAD = 32
const MAX_METHOD_LENGTH = 32

/**
 * @param list name, value, name, value..., pseudo-header fields first, as received
 * @param endStream nothing follows the head
 */
export function readRequestList(
  list: readonly string[],
  endStream: boolean,
  limits: HeadLimits,
): RequestHead | Rejection {
  const pseudo = new Map<string, string>()
  const fields: Fields = []
  const crumbs: string[] = []
  const single = new Set<string>()
  let bytes = 0
  /** Section 8.3: no pseudo-header field follows any other. */
  let behind = false
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i]!
    const value = list[i + 1]!
    bytes += name.length + value.length + FIELD_OVERHEAD
    if (!consistsOfValueCharacters(value)) return rejection('bad_header')
    if (name.charCodeAt(0) === COLON) {
      if (behind || pseudo.has(name)) return rejection('bad_header')
      pseudo.set(name, value)
      continue
    }
    behind = true
    if (!isLowerCaseName(name) || CONNECTION_SPECIFIC.has(name)) return rejection('bad_header')
    if (name === 'te' && value !== 'trailers') return rejection('bad_header')
    if (SINGLE.has(name)) {
      if (single.has(name)) return rejection(CODE_OF_SECOND.get(name) ?? 'duplicate_header')
      single.add(name)
    }
    // RFC 9113 section 8.2.3: split for compression only; HTTP/1.1 knows one Cookie field.
    if (name === 'cookie') crumbs.push(value)
    else if (name !== 'host') fields.push(name, value)
  }
  if (bytes > limits.headBytes) return rejection('head_too_large')
  // As many as the HTTP/1.1 request would have lines, its Host and its one Cookie among them.
  const lines = fields.length / 2 + 1 + Math.min(crumbs.length, 1)
  if (lines > limits.headerCount) return rejection('too_many_headers')
  if (crumbs.length > 0) fields.push('cookie', crumbs.join('; '))
  return headOf(pseudo, fields, fieldValue(list, 'host'), endStream, limits)
}

function headOf(
  pseudo: ReadonlyMap<string, string>,
  fields: Fields,
  hostField: string | undefined,
  endStream: boolean,
  limits: HeadLimits,
): RequestHead | Rejection {
  const toWebSocket = pseudo.get(':method') === 'CONNECT' && pseudo.has(':protocol')
  const known = toWebSocket ? WITH_PROTOCOL : WITHOUT_PROTOCOL
  for (const name of pseudo.keys()) if (!known.has(name)) return rejection('bad_request_line')
  const asked = pseudo.get(':method')
  const path = pseudo.get(':path')
  const scheme = pseudo.get(':scheme')
  if (asked === undefined || !isToken(asked) || asked.length > MAX_METHOD_LENGTH) {
    return rejection('bad_request_line')
  }
  if (!toWebSocket && (asked === 'CONNECT' || asked === 'TRACE' || asked !== asked.toUpperCase())) {
    return rejection('unsupported_method')
  }
  if (path === undefined || (scheme !== 'https' && scheme !== 'http')) {
    return rejection('bad_request_line')
  }
  // Section 8.3.1: where both are there they must agree.
  const host = pseudo.get(':authority') ?? hostField
  if (host === undefined || !isHost(host)) return rejection('bad_host')
  if (hostField !== undefined && hostField.toLowerCase() !== host.toLowerCase()) {
    return rejection('bad_host')
  }
  if (path.length > limits.targetBytes) return rejection('target_too_long')
  // Of a WebSocket, policy and an HTTP/1.1 workload see the GET that it would have been there
  // (RFC 8441 section 5), as Envoy shows it.
  const method = toWebSocket ? 'GET' : asked
  if (path.charCodeAt(0) !== SLASH && path !== '*') return rejection('bad_target')
  const target = parseTarget(method, path, { allowAmbiguous: limits.allowAmbiguousPaths })
  if (target.kind === 'rejection') return target
  if (toWebSocket && (pseudo.get(':protocol') !== 'websocket' || endStream)) {
    return rejection('bad_upgrade')
  }
  const body = toWebSocket ? NO_BODY : bodyOf(fields, endStream)
  if (body === undefined) return rejection('bad_framing')
  const expect = fieldValue(fields, 'expect')
  if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
    return rejection('unsupported_expectation')
  }
  return {
    kind: 'request',
    protocol: 'HTTP/2',
    method,
    target: target.target,
    path: target.path,
    query: target.query,
    host,
    minorVersion: 1,
    // First, where HTTP/1.1 has it.
    fields: ['host', host, ...fields],
    body,
    keepAlive: true,
    expectContinue: expect !== undefined && body.kind !== 'none',
    upgrade: toWebSocket ? 'websocket' : undefined,
    headBytes: 0,
  }
}

/** Section 8.1.1: a length that is said has to be kept; the frame layer counts. */
function bodyOf(fields: Fields, endStream: boolean): Framing | undefined {
  const text = fieldValue(fields, 'content-length')
  if (text === undefined) return endStream ? NO_BODY : CHUNKED
  const length = parseLength(text)
  if (length === undefined || (endStream && length !== 0)) return undefined
  return { kind: 'length', length }
}

function consistsOfValueCharacters(value: string): boolean {
  for (let i = 0; i < value.length; i++) {
    if (VALUE_CHARACTERS[value.charCodeAt(i)] !== 1) return false
  }
  return !isPadded(value)
}

const COLON = 0x3a
const SLASH = 0x2f
const WITHOUT_PROTOCOL: ReadonlySet<string> = new Set([':method', ':scheme', ':authority', ':path'])
const WITH_PROTOCOL: ReadonlySet<string> = new Set([...WITHOUT_PROTOCOL, ':protocol'])
const SINGLE: ReadonlySet<string> = new Set([
  'host',
  'authorization',
  'content-type',
  'content-length',
  'expect',
])
const CODE_OF_SECOND: ReadonlyMap<string, 'bad_host' | 'bad_framing'> = new Map([
  ['host', 'bad_host'],
  ['content-length', 'bad_framing'],
])
