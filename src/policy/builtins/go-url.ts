// A URI as Go's url.URL shows it in JSON.
import { BuiltinError } from './builtin.ts'
import { textOfBytes } from './go-text.ts'
import { RegoObject, type RegoValue } from './value.ts'

const URI = /^([A-Za-z][A-Za-z0-9+.-]*):([^?#]*)(\?[^#]*)?(?:#(.*))?$/

export function goUrl(text: string): RegoValue {
  const found = URI.exec(text)
  if (found === null || /[\x00-\x20\x7f]/.test(text)) throw new BuiltinError('cannot parse URI')
  const [, scheme = '', rest = '', query, fragment = ''] = found
  const slash = rest.indexOf('/', 2)
  const hasAuthority = rest.startsWith('//')
  const authority = hasAuthority ? rest.slice(2, slash < 0 ? undefined : slash) : ''
  const path = hasAuthority ? (slash < 0 ? '' : rest.slice(slash)) : rest
  const isOpaque = !hasAuthority && !path.startsWith('/')
  const at = authority.lastIndexOf('@')
  const host = authority.slice(at + 1)
  if (/%|\\/.test(host)) throw new BuiltinError('cannot parse URI')
  const object = new RegoObject()
  object.set('Scheme', scheme.toLowerCase())
  object.set('Opaque', isOpaque ? path : '')
  object.set('User', at < 0 ? null : new RegoObject())
  object.set('Host', host)
  object.set('Path', isOpaque ? '' : unescapePath(path))
  object.set('RawPath', isOpaque ? '' : rawUnlessUsual(path, PATH))
  object.set('Fragment', unescapePath(fragment))
  object.set('RawFragment', rawUnlessUsual(fragment, FRAGMENT))
  object.set('RawQuery', query?.slice(1) ?? '')
  object.set('ForceQuery', query === '?')
  object.set('OmitHost', false)
  return object
}

/** What Go leaves as it is when it writes one. */
const PATH = /[A-Za-z0-9\-_.~$&+,/:;=@]/
const FRAGMENT = /[A-Za-z0-9\-_.~$&+,/:;=@?!()*]/

function rawUnlessUsual(text: string, plain: RegExp): string {
  let usual = ''
  for (const byte of Buffer.from(unescapePath(text), 'utf8')) {
    const character = String.fromCharCode(byte)
    usual += plain.test(character)
      ? character
      : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return usual === text ? '' : text
}

function unescapePath(text: string): string {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) throw new BuiltinError('cannot parse URI')
  const bytes = text.replace(/%([0-9A-Fa-f]{2})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  )
  return textOfBytes(Buffer.from(bytes, 'latin1'))
}
