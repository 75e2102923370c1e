// Text to other text and back, with the meaning of Go's encoding/hex, encoding/base64 and net/url.
import { type BuiltinContext, BuiltinError, objectArgument, stringArgument } from './builtin.ts'
import { compareValues } from './compare.ts'
import { textOfBytes } from './go-text.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

/** As Go: a query with more parameters is an error. */
const MAX_PARAMETERS = 10_000

export function encodeHex(args: readonly RegoValue[]): RegoValue {
  return Buffer.from(stringArgument(args[0], 1), 'utf8').toString('hex')
}

export function decodeHex(args: readonly RegoValue[]): RegoValue {
  const text = stringArgument(args[0], 1)
  if (text.length % 2 !== 0 || !/^[0-9A-Fa-f]*$/.test(text)) {
    throw new BuiltinError('not hexadecimal')
  }
  return textOfBytes(Buffer.from(text, 'hex'))
}

export function encodeBase64UrlNoPad(args: readonly RegoValue[]): RegoValue {
  return Buffer.from(stringArgument(args[0], 1), 'utf8').toString('base64url')
}

export function encodeUrlQuery(args: readonly RegoValue[]): RegoValue {
  return escapeQuery(stringArgument(args[0], 1))
}

export function decodeUrlQuery(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  context.spend(4 * text.length)
  return unescapeQuery(text)
}

/** {"a": "1", "b": ["2", "3"]} = "a=1&b=2&b=3" */
export function encodeUrlQueryObject(args: readonly RegoValue[]): RegoValue {
  const parameters: [string, readonly RegoValue[]][] = []
  for (const [key, value] of objectArgument(args[0], 1).entries()) {
    parameters.push([parameterName(key), parameterValues(value)])
  }
  return parameters
    .toSorted(([a], [b]) => compareValues(a, b))
    .flatMap(([name, values]) =>
      values.map((value) => {
        if (typeof value !== 'string') throw new BuiltinError('values must be strings')
        return `${escapeQuery(name)}=${escapeQuery(value)}`
      }),
    )
    .join('&')
}

/** "a=1&b=2&b=3" = {"a": ["1"], "b": ["2", "3"]} */
export function decodeUrlQueryObject(
  args: readonly RegoValue[],
  context: BuiltinContext,
): RegoValue {
  const text = stringArgument(args[0], 1)
  context.spend(4 * text.length)
  const parts = text.split('&', MAX_PARAMETERS + 1)
  if (parts.length > MAX_PARAMETERS) throw new BuiltinError('too many parameters')
  const valuesByName = new Map<string, string[]>()
  for (const part of parts) {
    if (part.includes(';')) throw new BuiltinError('invalid semicolon separator in query')
    if (part === '') continue
    context.spend(250)
    const equals = part.indexOf('=')
    const name = unescapeQuery(equals < 0 ? part : part.slice(0, equals))
    const value = equals < 0 ? '' : unescapeQuery(part.slice(equals + 1))
    const values = valuesByName.get(name)
    if (values === undefined) valuesByName.set(name, [value])
    else values.push(value)
  }
  const object = new RegoObject()
  for (const [name, values] of valuesByName) object.set(name, values)
  return object
}

function parameterName(key: RegoValue): string {
  if (typeof key === 'string') return key
  if (key instanceof RegoNumber) return key.literal
  if (key === null || typeof key === 'boolean') return String(key)
  throw new BuiltinError('keys must be strings')
}

function parameterValues(value: RegoValue): readonly RegoValue[] {
  if (value instanceof RegoSet) return value.members.toSorted(compareValues)
  return Array.isArray(value) ? value : [value]
}

/** url.QueryEscape */
function escapeQuery(text: string): string {
  return encodeURIComponent(text.toWellFormed())
    .replaceAll('%20', '+')
    .replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)
}

/** url.QueryUnescape */
function unescapeQuery(text: string): string {
  if (!/[%+]/.test(text)) return text
  const source = Buffer.from(text, 'utf8')
  const bytes = Buffer.alloc(source.length)
  let length = 0
  for (let at = 0; at < source.length; at++) {
    const byte = source[at] as number
    if (byte === 0x25) {
      const digits = source.toString('latin1', at + 1, at + 3)
      if (!/^[0-9A-Fa-f]{2}$/.test(digits)) throw new BuiltinError('invalid URL escape')
      bytes[length++] = Number.parseInt(digits, 16)
      at += 2
    } else {
      bytes[length++] = byte === 0x2b ? 0x20 : byte
    }
  }
  return textOfBytes(bytes.subarray(0, length))
}
