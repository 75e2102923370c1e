// Text as Go and OPA write it: quoted strings, and Rego values as `Term.String` gives them.
import { isUtf8 } from 'node:buffer'
import { compareValues } from './compare.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

const SHORT: ReadonlyMap<string, string> = new Map([
  ['\u0007', '\\a'],
  ['\b', '\\b'],
  ['\f', '\\f'],
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
  ['\v', '\\v'],
  ['"', '\\"'],
  ['\\', '\\\\'],
])
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u

/** strconv.Quote, or QuoteToASCII. */
export function quoteGo(text: string, asciiOnly: boolean): string {
  if (/^[ !#-[\]-~]*$/.test(text)) return `"${text}"`
  let quoted = ''
  for (const character of text) {
    const short = SHORT.get(character)
    const code = character.codePointAt(0) as number
    if (short !== undefined) quoted += short
    else if (isPrintable(character) && (code < 0x80 || !asciiOnly)) quoted += character
    else if (code < 0x20 || code === 0x7f) quoted += `\\x${hex(code, 2)}`
    else quoted += code > 0xffff ? `\\U${hex(code, 8)}` : `\\u${hex(code, 4)}`
  }
  return `"${quoted}"`
}

/** unicode.IsPrint: letters, marks, numbers, punctuation, symbols and the ASCII space. */
export function isPrintable(character: string): boolean {
  return PRINTABLE.test(character)
}

export function valueText(value: RegoValue): string {
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return quoteGo(value, false)
  if (value instanceof RegoNumber) return value.literal
  if (value instanceof RegoSet) {
    if (value.members.length === 0) return 'set()'
    return `{${value.members.toSorted(compareValues).map(valueText).join(', ')}}`
  }
  if (value instanceof RegoObject) {
    const entries = Array.from(value.entries()).toSorted(([a], [b]) => compareValues(a, b))
    return `{${entries.map(([key, one]) => `${valueText(key)}: ${valueText(one)}`).join(', ')}}`
  }
  return `[${value.map(valueText).join(', ')}]`
}

/** Bytes as text: as in Go, each byte that is not part of UTF-8 becomes one U+FFFD. */
export function textOfBytes(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8')
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at)
    text += length === 0 ? '\ufffd' : bytes.toString('utf8', at, at + length)
    at += Math.max(length, 1)
  }
  return text
}

function sequenceLength(bytes: Buffer, at: number): number {
  const first = bytes[at] as number
  const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4
  return at + length <= bytes.length && isUtf8(bytes.subarray(at, at + length)) ? length : 0
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, '0')
}
