// What RFC 9113 sections 8.2.1 and 8.2.2 ask of field lines, whichever side sends them.
import { isToken, TOKEN_CHARACTERS, VALUE_CHARACTERS } from '../../field-names.ts'

/** Fields of an answer, or trailers: no pseudo-header field among them. obs-text is let through. */
export function areFields(fields: readonly string[]): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    if (!isFieldLine(fields[i]!, fields[i + 1]!)) return false
  }
  return true
}

/** As for heads, values are of ASCII alone: recipients read other octets differently. */
export function areRequestTrailers(fields: readonly string[]): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    if (!isFieldLine(fields[i]!, fields[i + 1]!) || !isAscii(fields[i + 1]!)) return false
  }
  return true
}

/**
 * A request that is malformed (section 8.1.1), as opposed to one that we refuse: its stream is reset,
 * for whoever sent it cannot be trusted to read an answer. All of these are refused by
 * `readRequestList`; this tells them apart.
 */
export function isMalformedRequest(list: readonly string[], endStream: boolean): boolean {
  const pseudo = new Map<string, string>()
  const hosts: string[] = []
  const lengths: string[] = []
  let behind = false
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i]!
    const value = list[i + 1]!
    if (name.startsWith(':')) {
      if (behind || pseudo.has(name) || !isValue(value) || !PSEUDO.has(name)) return true
      pseudo.set(name, value)
      continue
    }
    behind = true
    if (!isFieldLine(name, value) || (name === 'te' && value !== 'trailers')) return true
    if (name === 'host') hosts.push(value)
    if (name === 'content-length') lengths.push(value)
  }
  return !areControlData(pseudo, hosts) || !isLength(lengths, endStream)
}

/** Section 8.3.1. */
function areControlData(pseudo: ReadonlyMap<string, string>, hosts: readonly string[]): boolean {
  const method = pseudo.get(':method')
  const path = pseudo.get(':path')
  if (method === undefined || !isToken(method)) return false
  if (pseudo.has(':protocol') && method !== 'CONNECT') return false
  if (method === 'CONNECT' && !pseudo.has(':protocol')) return pseudo.has(':authority')
  if (!pseudo.has(':scheme') || path === undefined) return false
  if (!path.startsWith('/') && path !== '*') return false
  const host = pseudo.get(':authority') ?? hosts[0]
  return host !== undefined && hosts.length <= 1 && !host.includes('@')
}

function isLength(lengths: readonly string[], endStream: boolean): boolean {
  const [length] = lengths
  if (length === undefined) return true
  return lengths.length === 1 && /^\d+$/.test(length) && (!endStream || Number(length) === 0)
}

function isFieldLine(name: string, value: string): boolean {
  return isLowerCaseName(name) && !CONNECTION_SPECIFIC.has(name) && isValue(value)
}

/** Section 8.2.1: a token in lower case. */
export function isLowerCaseName(name: string): boolean {
  if (name === '') return false
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i)
    if (TOKEN_CHARACTERS[code] !== 1 || (code >= 0x41 && code <= 0x5a)) return false
  }
  return true
}

/** Without control characters, and without white space around it. */
function isValue(value: string): boolean {
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i)
    if ((code < 0x20 && code !== 0x09) || code === 0x7f) return false
  }
  return !isPadded(value)
}

/** Surrounded by a space or a tab; not by what else `trim` takes for white space, such as 0xa0. */
export function isPadded(value: string): boolean {
  return isBlank(value.charCodeAt(0)) || isBlank(value.charCodeAt(value.length - 1))
}

const isBlank = (code: number): boolean => code === 0x20 || code === 0x09

function isAscii(value: string): boolean {
  for (let i = 0; i < value.length; i++) {
    if (VALUE_CHARACTERS[value.charCodeAt(i)] !== 1) return false
  }
  return true
}

const PSEUDO: ReadonlySet<string> = new Set([
  ':method',
  ':scheme',
  ':authority',
  ':path',
  ':protocol',
])

/** Section 8.2.2; `te` may be there and says `trailers`. */
export const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
])
