// Rego values as builtins see them. They cross into wasm as text in Rego's own notation, not as
// JSON: so sets stay sets, keys may be anything, and numbers keep every digit.

export type RegoValue =
  | null
  | boolean
  | string
  | RegoNumber
  | readonly RegoValue[]
  | RegoSet
  | RegoObject

/** A number as written: Rego's numbers have no limit of size or precision. */
export class RegoNumber {
  readonly literal: string

  constructor(literal: string) {
    this.literal = literal
  }
}

export class RegoSet {
  readonly members: readonly RegoValue[]

  constructor(members: readonly RegoValue[]) {
    this.members = members
  }
}

export class RegoObject {
  readonly #entries = new Map<string, readonly [RegoValue, RegoValue]>()

  /** The last of equal keys wins, as in Go's JSON decoder. */
  set(key: RegoValue, value: RegoValue): void {
    this.#entries.set(identity(key), [key, value])
  }

  get(key: RegoValue): RegoValue | undefined {
    return this.#entries.get(identity(key))?.[1]
  }

  get size(): number {
    return this.#entries.size
  }

  entries(): Iterable<readonly [RegoValue, RegoValue]> {
    return this.#entries.values()
  }
}

/** Of a key: strings are most of them and stay as they are, behind a letter that no other text has. */
function identity(key: RegoValue): string {
  return typeof key === 'string' ? `"${key}` : canonical(key)
}

/** The same text for equal values: however a number is written, and a set ordered. */
function canonical(value: RegoValue): string {
  if (value instanceof RegoNumber) return canonicalNumber(value.literal)
  if (value instanceof RegoSet) return `<${value.members.map(canonical).sort().join()}>`
  if (value instanceof RegoObject) {
    const entries = Array.from(value.entries(), ([k, v]) => `${canonical(k)}:${canonical(v)}`)
    return `{${entries.sort().join()}}`
  }
  return Array.isArray(value) ? `[${value.map(canonical).join()}]` : writeValue(value)
}

function canonicalNumber(literal: string): string {
  const number = Number(literal)
  return Number.isSafeInteger(number) || /[.eE]/.test(literal) ? String(number) : literal
}

/** The text is not a value: an expected outcome where it comes from a token. */
export class ValueSyntaxError extends Error {
  override readonly name = 'ValueSyntaxError'
}

const MAX_DEPTH = 512

/**
 * Text that `opa_value_parse` reads.
 * @param spend is told about each character before there is much of it: what a value has in several
 *   places is written as often, so that a small one can be a text without end
 */
export function writeValue(value: RegoValue, spend: (characters: number) => void = free): string {
  if (value instanceof RegoSet) {
    return value.members.length === 0
      ? leaf('set()', spend)
      : `{${writeList(value.members, spend)}}`
  }
  if (value instanceof RegoObject) {
    let text = ''
    spend(2)
    for (const [key, one] of value.entries()) {
      spend(2)
      text += `${text === '' ? '' : ','}${writeValue(key, spend)}:${writeValue(one, spend)}`
    }
    return `{${text}}`
  }
  if (Array.isArray(value)) return `[${writeList(value, spend)}]`
  if (typeof value === 'string') return leaf(JSON.stringify(value.toWellFormed()), spend)
  return leaf(value instanceof RegoNumber ? value.literal : String(value), spend)
}

function leaf(text: string, spend: (characters: number) => void): string {
  spend(text.length)
  return text
}

function free(): void {}

function writeList(values: readonly RegoValue[], spend: (characters: number) => void): string {
  let text = ''
  spend(2)
  for (const value of values) {
    spend(1)
    text += text === '' ? writeValue(value, spend) : `,${writeValue(value, spend)}`
  }
  return text
}

/**
 * Reads what `opa_value_dump` wrote.
 * @throws ValueSyntaxError
 */
export function readValue(text: string): RegoValue {
  return new ValueReader(text, false).whole()
}

/**
 * Reads strict JSON, keeping number literals.
 * @throws ValueSyntaxError
 */
export function readJson(text: string): RegoValue {
  return new ValueReader(text, true).whole()
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
/** What policies may write besides, and the compiler leaves as it is. */
const WITHOUT_ZERO = /(-?)(\.[0-9]+(?:[eE][+-]?[0-9]+)?)/y

class ValueReader {
  readonly #text: string
  readonly #strict: boolean
  #at = 0

  constructor(text: string, strict: boolean) {
    this.#text = text
    this.#strict = strict
  }

  whole(): RegoValue {
    const value = this.#value(0)
    this.#space()
    if (this.#at !== this.#text.length) this.#fail()
    return value
  }

  #value(depth: number): RegoValue {
    if (depth > MAX_DEPTH) throw new ValueSyntaxError(`nested deeper than ${MAX_DEPTH}`)
    this.#space()
    const character = this.#text[this.#at]
    if (character === '"') return this.#string()
    if (character === '[') return this.#array(depth)
    if (character === '{') return this.#objectOrSet(depth)
    if (character !== undefined && character <= '9') return this.#number()
    if (this.#takes('null')) return null
    if (this.#takes('true')) return true
    if (this.#takes('false')) return false
    if (!this.#strict && this.#takes('set()')) return new RegoSet([])
    return this.#number()
  }

  #number(): RegoNumber {
    const start = this.#at
    NUMBER.lastIndex = start
    if (NUMBER.test(this.#text)) {
      this.#at = NUMBER.lastIndex
      return new RegoNumber(this.#text.slice(start, this.#at))
    }
    const [, sign, digits] = (this.#strict ? undefined : this.#match(WITHOUT_ZERO)) ?? this.#fail()
    return new RegoNumber(`${sign}0${digits}`)
  }

  #array(depth: number): RegoValue {
    const items: RegoValue[] = []
    this.#at++
    if (this.#takes(']')) return items
    do items.push(this.#value(depth + 1))
    while (this.#takes(','))
    this.#needs(']')
    return items
  }

  #objectOrSet(depth: number): RegoValue {
    this.#at++
    const object = new RegoObject()
    if (this.#takes('}')) return object
    const first = this.#key(depth)
    if (!this.#strict && !this.#takes(':')) return this.#set(first, depth)
    if (this.#strict) this.#needs(':')
    object.set(first, this.#value(depth + 1))
    while (this.#takes(',')) {
      const key = this.#key(depth)
      this.#needs(':')
      object.set(key, this.#value(depth + 1))
    }
    this.#needs('}')
    return object
  }

  #key(depth: number): RegoValue {
    if (!this.#strict) return this.#value(depth + 1)
    this.#space()
    return this.#string()
  }

  #set(first: RegoValue, depth: number): RegoSet {
    const members = [first]
    while (this.#takes(',')) members.push(this.#value(depth + 1))
    this.#needs('}')
    return new RegoSet(members)
  }

  #string(): string {
    const text = this.#text
    const start = this.#at
    if (text.charCodeAt(start) !== 0x22) this.#fail()
    let end = start + 1
    let plain = true
    for (;;) {
      const code = text.charCodeAt(end)
      if (code === 0x22) break
      if (code < 0x20 || Number.isNaN(code)) this.#fail()
      if (code === 0x5c) {
        plain = false
        end++
      }
      end++
    }
    this.#at = end + 1
    if (plain) return text.slice(start + 1, end)
    try {
      // As Go's decoder: half of a surrogate pair becomes U+FFFD.
      return (JSON.parse(text.slice(start, end + 1)) as string).toWellFormed()
    } catch {
      return this.#fail()
    }
  }

  #takes(expected: string): boolean {
    this.#space()
    if (!this.#text.startsWith(expected, this.#at)) return false
    this.#at += expected.length
    return true
  }

  #needs(expected: string): void {
    if (!this.#takes(expected)) this.#fail()
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)
    if (found === null) return undefined
    this.#at += found[0].length
    return found
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.#at++
    }
  }

  #fail(): never {
    throw new ValueSyntaxError(`unexpected character at ${this.#at}`)
  }
}
