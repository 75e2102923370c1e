// The one reading of a request target. Promises that policy and workload cannot disagree about the
// path: what could be read in two ways is refused, and what is forwarded is what policy saw, byte for
// byte. Nothing here is ever decoded, normalised, or given to a URL parser.
import { type Rejection, rejection } from './rejection.ts'

export interface Target {
  readonly kind: 'target'
  /** What goes into the forwarded request line: origin-form, or `*`. */
  readonly target: string
  /** The target up to the first `?`. */
  readonly path: string
  /** What follows the first `?`; absent without one. */
  readonly query: string | undefined
  /** Of the absolute-form; the caller holds it against Host. */
  readonly authority: string | undefined
}

export type TargetForm = Target | Rejection

/**
 * @param raw the bytes between the two spaces of the request line, as latin1.
 * @returns `bad_target`: space, control or non-ASCII character, `#`, an escape that is not `%` and two
 *   hex digits, a backslash in the path, or a form the method does not have (RFC 9112 section 3.2).
 *   `ambiguous_path`: dot segment, empty segment, `%2f`, `%5c` or `;` in the path, raw or encoded, or
 *   an escape that stands for a character which needs none, unless allowed; `%00` always. `unsupported_method`: CONNECT.
 */
export function parseTarget(
  method: string,
  raw: string,
  options: { readonly allowAmbiguous: boolean },
): TargetForm {
  const first = raw.charCodeAt(0)
  if (method === 'CONNECT') return rejection('unsupported_method')
  if (first === SLASH) return originForm(raw, undefined, options.allowAmbiguous)
  if (raw === '*' && method === 'OPTIONS') return asterisk(undefined)
  return absoluteForm(method, raw, options.allowAmbiguous)
}

function originForm(
  target: string,
  authority: string | undefined,
  allowAmbiguous: boolean,
): TargetForm {
  const queryMark = target.indexOf('?')
  const pathEnd = queryMark === -1 ? target.length : queryMark
  let ambiguous = false
  // Of the current segment: how many characters it has, and how many of these are plain dots.
  // Equal and at most two means empty, `.` or `..`.
  let length = 0
  let dots = 0
  for (let i = 1; i < pathEnd; i++) {
    switch (PATH_CLASS[target.charCodeAt(i)]) {
      case PLAIN:
        length++
        break
      case SEPARATOR:
        if (length === dots && length <= 2) ambiguous = true
        length = 0
        dots = 0
        break
      case DOT:
        length++
        dots++
        break
      case PARAMETER:
        length++
        ambiguous = true
        break
      case ESCAPE: {
        const code = escapedByte(target, i, pathEnd)
        if (code === -1) return rejection('bad_target')
        if (code === 0) return rejection('ambiguous_path')
        length++
        if (AMBIGUOUS_ESCAPES[code] === 1) ambiguous = true
        i += 2
        break
      }
      default:
        return rejection('bad_target')
    }
  }
  // An empty last segment is a trailing slash, which is fine; `.` and `..` are not.
  if (length > 0 && length === dots && length <= 2) ambiguous = true
  if (queryMark !== -1 && !isQuery(target, queryMark + 1)) return rejection('bad_target')
  if (ambiguous && !allowAmbiguous) return rejection('ambiguous_path')
  return {
    kind: 'target',
    target,
    path: queryMark === -1 ? target : target.slice(0, queryMark),
    query: queryMark === -1 ? undefined : target.slice(queryMark + 1),
    authority,
  }
}

/**
 * Any visible ASCII but `#`. Wider than RFC 3986, which has none of `[ ] { } | ^ " < > \` and the
 * backtick here: browsers and command lines send these unescaped, and a query has no structure in
 * which one of them could hide a path. A backslash separates nothing in a query, so it may stay too.
 */
function isQuery(target: string, from: number): boolean {
  for (let i = from; i < target.length; i++) {
    const code = target.charCodeAt(i)
    if (code === PERCENT) {
      if (escapedByte(target, i, target.length) === -1) return false
      i += 2
    } else if (code <= 0x20 || code >= 0x7f || code === HASH) return false
  }
  return true
}

/** A client must send it to a proxy, any client may send it (RFC 9112 section 3.2.2). */
function absoluteForm(method: string, raw: string, allowAmbiguous: boolean): TargetForm {
  const scheme = SCHEME.exec(raw)
  if (scheme === null) return rejection('bad_target')
  const from = scheme[0].length
  let end = from
  while (end < raw.length && raw[end] !== '/' && raw[end] !== '?') end++
  const authority = raw.slice(from, end)
  if (authority === '') return rejection('bad_target')
  const rest = raw.slice(end)
  // RFC 9112 section 3.2.4: the last proxy turns OPTIONS without path and query into `*`.
  if (rest === '' && method === 'OPTIONS') return asterisk(authority)
  return originForm(rest.startsWith('/') ? rest : `/${rest}`, authority, allowAmbiguous)
}

function asterisk(authority: string | undefined): Target {
  return { kind: 'target', target: '*', path: '*', query: undefined, authority }
}

function escapedByte(text: string, at: number, end: number): number {
  if (at + 2 >= end) return -1
  const high = HEX[text.charCodeAt(at + 1)]
  const low = HEX[text.charCodeAt(at + 2)]
  return high === undefined || low === undefined || high > 15 || low > 15 ? -1 : high * 16 + low
}

const HASH = 0x23
const PERCENT = 0x25
const SLASH = 0x2f
const SCHEME = /^https?:\/\//i

const PLAIN = 1
const SEPARATOR = 2
const DOT = 3
const PARAMETER = 4
const ESCAPE = 5

/** Class of a path character; 0 is refused. A code above 0xff reads as undefined: refused as well. */
const PATH_CLASS: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) => {
  const special = { '/': SEPARATOR, '.': DOT, ';': PARAMETER, '%': ESCAPE, '#': 0, '\\': 0 }
  const character = String.fromCharCode(code)
  if (Object.hasOwn(special, character)) return special[character as keyof typeof special]
  return code > 0x20 && code < 0x7f ? PLAIN : 0
})

/**
 * Bytes that must not be escaped: separators, and the unreserved characters, whose escapes mean the
 * same to a workload that decodes (RFC 3986 section 2.3) and something else to a policy that compares
 * text: `/%61dmin`. Not the tilde, which older encoders escape and nobody's rules begin with.
 */
const AMBIGUOUS_ESCAPES: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) =>
  /[A-Za-z0-9\-._/\\;]/.test(String.fromCharCode(code)) ? 1 : 0,
)

/** Value of a hex digit; 255 where it is none. */
const HEX: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(code).toLowerCase())
  return value === -1 ? 255 : value
})
