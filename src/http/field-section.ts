// The lines of a head or a trailer section: "name: value" and nothing else. Promises lower-case token
// names, trimmed values of allowed characters, and at most the given number of fields.
import { TOKEN_CHARACTERS } from '../field-names.ts'
import type { Fields } from './fields.ts'

const CR = 13
const LF = 10
const SPACE = 32
const TAB = 9
const COLON = 58

/**
 * Reads the lines of `text` from `from` to its end, each of which ends in CRLF; `text[i]` is the byte
 * `bytes[base + i]`. No obs-fold, no bare CR or LF, no space before the colon (RFC 9112 section 5).
 */
export function parseFieldSection(
  bytes: Buffer,
  base: number,
  text: string,
  from: number,
  maxCount: number,
  valueCharacters: Uint8Array,
): Fields | 'malformed' | 'too_many' {
  const fields: Fields = []
  const end = base + text.length
  let lower = ''
  let i = base + from
  while (i < end) {
    if (fields.length === maxCount * 2) return 'too_many'
    const nameStart = i
    let code = bytes[i]!
    let upper = false
    while (TOKEN_CHARACTERS[code] === 1) {
      if (code <= 90 && code >= 65) upper = true
      code = bytes[++i]!
    }
    if (code !== COLON || i === nameStart) return 'malformed'
    const nameEnd = i++
    while ((code = bytes[i]!) === SPACE || code === TAB) i++
    const valueStart = i
    while (valueCharacters[code] === 1) code = bytes[++i]!
    if (code !== CR || bytes[i + 1] !== LF) return 'malformed'
    let valueEnd = i
    while (valueEnd > valueStart && ((code = bytes[valueEnd - 1]!) === SPACE || code === TAB)) {
      valueEnd--
    }
    // One conversion of the whole text is several times cheaper than one for each name.
    if (upper && lower === '') lower = text.toLowerCase()
    const name = (upper ? lower : text).slice(nameStart - base, nameEnd - base)
    // llhttp does not take "chunked" with a tab after it for chunked (9.x, measured 2026-11): a
    // workload could then see another end of the body than we do.
    if (valueEnd !== i && name === 'transfer-encoding') return 'malformed'
    fields.push(name, text.slice(valueStart - base, valueEnd - base))
    i += 2
  }
  return fields
}
