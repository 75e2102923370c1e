// uri.parse and uri.is_valid, with the meaning of Go's url.Parse. For policies that are handed a URI
// as a value; the target of a request never comes here.
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { textOfBytes } from './go-text.ts'
import { parseAddress } from './ip-address.ts'
import { RegoObject, type RegoValue } from './value.ts'

interface Uri {
  readonly scheme: string
  readonly hostname: string
  readonly port: string
  readonly path: string
  readonly raw_path: string
  readonly raw_query: string
  readonly fragment: string
}

/** Of one character, in loop iterations of wasm. */
const CHARACTER_COST = 10
/** What Go does not escape in a path; everything else is. */
const PLAIN_PATH = /^[A-Za-z0-9\-_.~$&+,/:;=@]$/
const HOST_CHARACTERS =
  /^(?:[A-Za-z0-9\-_.~!"$&'()*+,:;<=>[\]]|[^\0-\x7f]|%25|%[89a-fA-F][0-9a-fA-F])*$/
const ZONE_CHARACTERS =
  /^(?:[A-Za-z0-9\-_.~!"$&'()*+,:;<=>[\]]|[^\0-\x7f]|%25|%20|%[89a-fA-F][0-9a-fA-F]|%(?:2[1-9a-eA-E]|3[0-9a-eA-E]|[46][1-9a-fA-F]|[57][0-9aA]|5[bBdDfF]|7[eE]))*$/
const USER_CHARACTERS = /^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/

export function parseUri(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  context.spend(CHARACTER_COST * text.length)
  const result = new RegoObject()
  for (const [name, value] of Object.entries(read(text))) {
    if (value !== '') result.set(name, value)
  }
  return result
}

export function isUri([text]: readonly RegoValue[], context: BuiltinContext): RegoValue {
  if (typeof text !== 'string' || text === '') return false
  context.spend(CHARACTER_COST * text.length)
  return readUri(text) !== undefined
}

/** Undefined where it is no URI. */
export function readUri(text: string): Uri | undefined {
  try {
    return read(text)
  } catch (error) {
    if (error instanceof BuiltinError) return undefined
    throw error
  }
}

/** @throws BuiltinError */
function read(text: string): Uri {
  const [beforeFragment, fragment] = cut(text, '#')
  const uri = readWithoutFragment(beforeFragment)
  return { ...uri, fragment: decoded(fragment) }
}

function readWithoutFragment(text: string): Omit<Uri, 'fragment'> {
  if (/[\0-\x1f\x7f]/.test(text)) fail('control character')
  if (text.startsWith(':')) fail('missing protocol scheme')
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)?.[1] ?? ''
  const [hierarchy, query] = cut(scheme === '' ? text : text.slice(scheme.length + 1), '?')
  const known = { scheme: scheme.toLowerCase(), raw_query: query }
  const nobody = { hostname: '', port: '' }
  if (!hierarchy.startsWith('/')) {
    // What has a scheme and no slash is opaque, and Go tells nothing of it.
    if (scheme !== '') return { ...known, ...nobody, path: '', raw_path: '' }
    if (cut(hierarchy, '/')[0].includes(':')) fail('first path segment cannot contain colon')
  }
  const hasAuthority = hierarchy.startsWith('//') && (scheme !== '' || !hierarchy.startsWith('///'))
  if (!hasAuthority) return { ...known, ...nobody, ...readPath(hierarchy) }
  const slash = hierarchy.indexOf('/', 2)
  const end = slash < 0 ? hierarchy.length : slash
  const authority = readAuthority(known.scheme, hierarchy.slice(2, end))
  return { ...known, ...authority, ...readPath(hierarchy.slice(end)) }
}

/** The raw path is only kept where Go would escape the path in another way. */
function readPath(text: string): { path: string; raw_path: string } {
  const path = decoded(text)
  return { path, raw_path: escapePath(text) === text ? path : text }
}

function escapePath(text: string): string {
  return Array.from(bytesOf(text), (byte) => {
    const character = String.fromCharCode(byte)
    const hex = byte.toString(16).toUpperCase().padStart(2, '0')
    return PLAIN_PATH.test(character) ? character : `%${hex}`
  }).join('')
}

function readAuthority(scheme: string, text: string): { hostname: string; port: string } {
  const at = text.lastIndexOf('@')
  const user = text.slice(0, Math.max(at, 0))
  if (!USER_CHARACTERS.test(user)) fail('invalid userinfo')
  decoded(user)
  const host = text.slice(at + 1)
  const bracket = host.lastIndexOf('[')
  if (bracket > 0) fail('invalid IP literal')
  return bracket === 0 ? readLiteral(host) : readHost(scheme, host)
}

/** An IPv6 address in brackets, perhaps with a zone (RFC 6874). */
function readLiteral(host: string): { hostname: string; port: string } {
  const end = host.lastIndexOf(']')
  if (end < 0) fail("missing ']' in host")
  const port = portOf(host.slice(end + 1))
  const [address, zone] = cutBefore(host.slice(1, end), '%25')
  if (!HOST_CHARACTERS.test(address) || !ZONE_CHARACTERS.test(zone)) fail('invalid host')
  const hostname = decoded(address) + decoded(zone)
  const [bare, name] = cut(hostname, '%')
  if (parseAddress(bare)?.bits !== 128 || (hostname.includes('%') && name === '')) {
    fail('invalid host')
  }
  return { hostname, port }
}

function readHost(scheme: string, host: string): { hostname: string; port: string } {
  const first = host.indexOf(':')
  // Lists of hosts are an old habit of databases; the URIs of HTTP never have them.
  const colon = scheme === 'http' || scheme === 'https' ? first : host.lastIndexOf(':')
  portOf(colon < 0 ? '' : host.slice(colon))
  if (!HOST_CHARACTERS.test(host)) fail('invalid character in host')
  const whole = decoded(host)
  const last = whole.lastIndexOf(':')
  if (last < 0 || !/^:[0-9]*$/.test(whole.slice(last))) return { hostname: whole, port: '' }
  return { hostname: whole.slice(0, last), port: whole.slice(last + 1) }
}

function portOf(text: string): string {
  if (!/^(?::[0-9]*)?$/.test(text)) fail('invalid port')
  return text.slice(1)
}

function decoded(text: string): string {
  if (/%(?![0-9a-fA-F]{2})/.test(text)) fail('invalid URL escape')
  return text.includes('%') ? textOfBytes(bytesOf(text)) : text
}

function bytesOf(text: string): Buffer {
  const parts = text.split(/%([0-9a-fA-F]{2})/)
  return Buffer.concat(parts.map((part, i) => Buffer.from(part, i % 2 === 1 ? 'hex' : 'utf8')))
}

function cut(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)]
}

function cutBefore(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at)]
}

function fail(reason: string): never {
  throw new BuiltinError(reason)
}
