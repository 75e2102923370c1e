// The digest that OPA's signatures give for a JSON file: over its content in one canonical form, so
// that a rebuilt bundle with other white space or order of keys keeps its signature. Numbers are
// hashed as they were written: `1e3`, `1.0` and 20 digits must not pass through a double.
import { createHash, type Hash } from 'node:crypto'
import { RegoNumber, RegoObject, type RegoValue } from '../builtins/value.ts'

/** @param value from `readJson`. Lower-case hex. */
export function structuredHash(value: RegoValue, algorithm: string): string {
  const stream = new HashStream(createHash(algorithm))
  walk(value, stream)
  return stream.digest()
}

/** One call of OpenSSL for each brace would cost more than the hashing. */
class HashStream {
  readonly #hash: Hash
  #text = ''

  constructor(hash: Hash) {
    this.#hash = hash
  }

  write(text: string): void {
    this.#text += text
    if (this.#text.length < 65_536) return
    this.#hash.update(this.#text)
    this.#text = ''
  }

  digest(): string {
    return this.#hash.update(this.#text).digest('hex')
  }
}

function walk(value: RegoValue, to: HashStream): void {
  if (value instanceof RegoObject) return walkObject(value, to)
  if (Array.isArray(value)) return walkArray(value, to)
  if (typeof value === 'string') return to.write(encodeString(value))
  // Sets do not come out of JSON.
  to.write(value instanceof RegoNumber ? value.literal : String(value))
}

function walkObject(object: RegoObject, to: HashStream): void {
  const entries = [...object.entries()] as [string, RegoValue][]
  entries.sort(([one], [other]) => byUtf8(one, other))
  to.write('{')
  for (const [at, [key, value]] of entries.entries()) {
    to.write(at === 0 ? encodeString(key) : `,${encodeString(key)}`)
    to.write(':')
    walk(value, to)
  }
  to.write('}')
}

function walkArray(items: readonly RegoValue[], to: HashStream): void {
  to.write('[')
  for (const [at, item] of items.entries()) {
    if (at > 0) to.write(',')
    walk(item, to)
  }
  to.write(']')
}

/** As Go's encoder with HTML escaping off: JavaScript's, but for the two line separators. */
const encodeString = (text: string): string =>
  JSON.stringify(text).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029')

/** UTF-16 sorts surrogates before U+E000, UTF-8 sorts what they stand for after U+FFFF. */
function byUtf8(one: string, other: string): number {
  if (SURROGATE_OR_ABOVE.test(one) && SURROGATE_OR_ABOVE.test(other)) {
    return Buffer.compare(Buffer.from(one), Buffer.from(other))
  }
  return one < other ? -1 : one > other ? 1 : 0
}

const SURROGATE_OR_ABOVE = /[\ud800-\uffff]/
