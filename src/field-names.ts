// Which characters a field may have, and which field names belong to Postern or to one connection.
// A leaf: the codec, the policy result and the forwarder must agree on these tables, and rooms that
// may not import each other can all import this. Every name here and every argument is lower-case.

/** RFC 9110 section 5.6.2; what a method and a field name consist of. Index: character code. */
export const TOKEN_CHARACTERS: Uint8Array = charactersIn(
  (code, character) => code > 0x20 && code < 0x7f && !'"(),/:;<=>?@[\\]{}'.includes(character),
)

/**
 * Visible ASCII, space and tab. RFC 9110 section 5.5 also allows obs-text (0x80-0xff) but recipients
 * decode it differently, so what policy matched might not be what the workload reads.
 */
export const VALUE_CHARACTERS: Uint8Array = charactersIn(
  (code) => (code >= 0x20 && code < 0x7f) || code === 0x09,
)

/** What every workload reads alike in a name. A table costs less than half of what a regexp does. */
const PLAIN_NAME_CHARACTERS: Uint8Array = charactersIn((_, character) =>
  /[a-z0-9-]/.test(character),
)

export function isToken(text: string): boolean {
  return text !== '' && consistsOf(TOKEN_CHARACTERS, text)
}

/** Characters only: leading and trailing white space is for the caller to trim or to refuse. */
export function isFieldValue(text: string): boolean {
  return consistsOf(VALUE_CHARACTERS, text)
}

/**
 * Fields that mean something to one connection only and are never passed on, whether Connection
 * lists them or not: those of RFC 9110 section 7.6.1, and
 * - `proxy-*`: authentication towards a proxy (RFC 9110 section 11.7). The next hop is the workload,
 *   an origin server, so a proxy's challenge or credentials have no business there;
 * - `te`, also as `te: trailers`: what we accept from the workload is ours to say;
 * - `trailer`: it announces a trailer section of which we may drop fields;
 * - `http2-settings`: the other half of an h2c upgrade (RFC 7540 section 3.2.1), never forwarded.
 */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])

/**
 * By length: most names are none of these by that alone. The others are compared, since V8 makes a
 * constant of every string that it looks for in a set (1 % of a request, 2026-11).
 */
const HOP_BY_HOP_NAMES: readonly (readonly string[] | undefined)[] = byLength(HOP_BY_HOP)

export function isHopByHop(name: string): boolean {
  return HOP_BY_HOP_NAMES[name.length]?.includes(name) === true
}

/** Fields that decide where a message ends or whether its body is sent; Postern writes its own. */
export function isFramingField(name: string): boolean {
  return name === 'content-length' || name === 'transfer-encoding' || name === 'expect'
}

/** Fields by which Postern tells the workload who the peer is, or speaks in its own name. */
export function isIdentityField(name: string): boolean {
  return (
    name === 'x-forwarded-client-cert' ||
    name === 'client-cert' ||
    name === 'client-cert-chain' ||
    name.startsWith('x-postern-')
  )
}

/**
 * Names with anything but letters, digits and `-`. Workloads that pass fields on as variables take
 * them for other names: WSGI and Rack fold `-` into `_`, PHP `.` as well, lighttpd every character
 * that is no letter or digit. nginx ignores such fields for the same reason.
 */
export function isFoldable(name: string): boolean {
  return !consistsOf(PLAIN_NAME_CHARACTERS, name)
}

/**
 * Names that the result of a policy may neither set nor remove on a request. A foldable name is
 * judged as the name with `-` that it may be taken for.
 */
export function isProtectedRequestField(name: string): boolean {
  const folded = isFoldable(name) ? name.replaceAll(/[^a-z0-9-]/g, '-') : name
  return (
    name.startsWith(':') ||
    folded === 'host' ||
    isFramingField(folded) ||
    isHopByHop(folded) ||
    isIdentityField(folded)
  )
}

/** Names that the result of a policy may not set on a response. */
export function isProtectedResponseField(name: string): boolean {
  return (
    name.startsWith(':') ||
    isFramingField(name) ||
    isHopByHop(name) ||
    name.startsWith('x-postern-')
  )
}

function byLength(names: Iterable<string>): (readonly string[] | undefined)[] {
  const all: string[][] = []
  for (const name of names) (all[name.length] ??= []).push(name)
  return Array.from({ length: all.length }, (_, length) => all[length])
}

function consistsOf(allowed: Uint8Array, text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    // A code above 0xff is outside the table and reads as undefined: not allowed.
    if (allowed[text.charCodeAt(i)] !== 1) return false
  }
  return true
}

function charactersIn(allowed: (code: number, character: string) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, code) =>
    allowed(code, String.fromCharCode(code)) ? 1 : 0,
  )
}
