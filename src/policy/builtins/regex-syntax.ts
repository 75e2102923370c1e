// Parses RE2 patterns (github.com/google/re2/wiki/Syntax) as Go's regexp/syntax does. What a
// backtracking engine would need (backreferences, lookaround) is a syntax error, as it is in RE2.
import { CharacterSet, POSIX_CLASSES, perlClass, unicodeClass } from './character-set.ts'

export class RegexSyntaxError extends Error {
  override readonly name = 'RegexSyntaxError'
}

export type Assertion =
  | 'text_start'
  | 'text_end'
  | 'line_start'
  | 'line_end'
  | 'boundary'
  | 'no_boundary'

export type RegexNode =
  | { readonly kind: 'set'; readonly set: CharacterSet }
  | { readonly kind: 'assert'; readonly assertion: Assertion }
  | { readonly kind: 'sequence'; readonly items: readonly RegexNode[] }
  | { readonly kind: 'choice'; readonly items: readonly RegexNode[] }
  | { readonly kind: 'group'; readonly index: number; readonly item: RegexNode }
  | {
      readonly kind: 'repeat'
      readonly item: RegexNode
      readonly min: number
      /** Infinity: no limit. */
      readonly max: number
      readonly greedy: boolean
    }

export interface ParsedRegex {
  readonly root: RegexNode
  /** Capturing groups, the whole match not counted. */
  readonly groupCount: number
  readonly names: ReadonlyMap<string, number>
}

/** @throws RegexSyntaxError */
export function parseRegex(pattern: string): ParsedRegex {
  return new RegexParser(pattern).parse()
}

interface Flags {
  readonly fold: boolean
  readonly multiLine: boolean
  readonly dotAll: boolean
  readonly ungreedy: boolean
}

const NO_FLAGS: Flags = { fold: false, multiLine: false, dotAll: false, ungreedy: false }
const FLAG_NAMES = { i: 'fold', m: 'multiLine', s: 'dotAll', U: 'ungreedy' } as const
const MAX_REPEAT = 1_000
const MAX_DEPTH = 200
const NEWLINE = 0x0a
const ESCAPED_CONTROLS: ReadonlyMap<string, number> = new Map([
  ['a', 0x07],
  ['f', 0x0c],
  ['n', 0x0a],
  ['r', 0x0d],
  ['t', 0x09],
  ['v', 0x0b],
])

class RegexParser {
  readonly #characters: readonly string[]
  readonly #names = new Map<string, number>()
  #at = 0
  #groups = 0
  #depth = 0
  #flags = NO_FLAGS

  constructor(pattern: string) {
    this.#characters = Array.from(pattern)
  }

  parse(): ParsedRegex {
    const root = this.#choice()
    if (this.#at < this.#characters.length) this.#fail('unexpected )')
    return { root, groupCount: this.#groups, names: this.#names }
  }

  #choice(): RegexNode {
    const items = [this.#sequence()]
    while (this.#takes('|')) items.push(this.#sequence())
    return items.length === 1 ? (items[0] as RegexNode) : { kind: 'choice', items }
  }

  #sequence(): RegexNode {
    const items: RegexNode[] = []
    let repeatable = false
    for (;;) {
      const next = this.#peek()
      if (next === undefined || next === '|' || next === ')') break
      const range = this.#repetition()
      if (range !== undefined) {
        const item = items.pop()
        if (item === undefined || !repeatable) this.#fail('nothing to repeat')
        const lazy = this.#takes('?')
        const repeat = {
          kind: 'repeat',
          item,
          ...range,
          greedy: lazy === this.#flags.ungreedy,
        } as const
        if (!repeatsAtMost(MAX_REPEAT, repeat)) this.#fail('invalid repeat count')
        items.push(repeat)
        repeatable = false
        continue
      }
      const before = items.length
      this.#atom(items)
      repeatable = items.length > before
    }
    return items.length === 1 ? (items[0] as RegexNode) : { kind: 'sequence', items }
  }

  #repetition(): { min: number; max: number } | undefined {
    if (this.#takes('*')) return { min: 0, max: Number.POSITIVE_INFINITY }
    if (this.#takes('+')) return { min: 1, max: Number.POSITIVE_INFINITY }
    if (this.#takes('?')) return { min: 0, max: 1 }
    if (this.#peek() !== '{') return undefined
    // Looking no further than the largest counts go, for each of many braces may be a literal.
    const text = this.#characters.slice(this.#at, this.#at + 40).join('')
    const counts = /^\{(0|[1-9][0-9]*)(,(0|[1-9][0-9]*|))?\}/.exec(text)
    if (counts === null) return undefined // a literal brace
    this.#at += counts[0].length
    const min = Number(counts[1])
    const max =
      counts[2] === undefined
        ? min
        : counts[3] === ''
          ? Number.POSITIVE_INFINITY
          : Number(counts[3])
    if (min > max || min > MAX_REPEAT || (max !== Number.POSITIVE_INFINITY && max > MAX_REPEAT)) {
      this.#fail('invalid repeat count')
    }
    return { min, max }
  }

  #atom(items: RegexNode[]): void {
    const character = this.#next()
    const { multiLine, dotAll } = this.#flags
    switch (character) {
      case '(':
        this.#group(items)
        return
      case '[':
        items.push({ kind: 'set', set: this.#bracket() })
        return
      case '.':
        items.push({ kind: 'set', set: CharacterSet.except(dotAll ? [] : [NEWLINE, NEWLINE]) })
        return
      case '^':
        items.push({ kind: 'assert', assertion: multiLine ? 'line_start' : 'text_start' })
        return
      case '$':
        items.push({ kind: 'assert', assertion: multiLine ? 'line_end' : 'text_end' })
        return
      case '\\':
        this.#escape(items)
        return
      default:
        items.push(this.#literal(character.codePointAt(0) as number))
    }
  }

  #literal(code: number): RegexNode {
    return { kind: 'set', set: CharacterSet.of([code, code], this.#flags.fold) }
  }

  #group(items: RegexNode[]): void {
    if (++this.#depth > MAX_DEPTH) this.#fail('nested too deeply')
    const outer = this.#flags
    let index = 0
    if (this.#takes('?')) {
      const named = this.#takes('P') || this.#peek() === '<'
      if (named) {
        index = this.#nameGroup()
      } else if (this.#readFlags() === ')') {
        // `(?i)`: for the rest of the enclosing group, which restores the flags at its end.
        this.#depth--
        return
      }
    } else {
      index = ++this.#groups
    }
    const item = this.#choice()
    if (!this.#takes(')')) this.#fail('missing )')
    this.#flags = outer
    this.#depth--
    items.push(index === 0 ? item : { kind: 'group', index, item })
  }

  #nameGroup(): number {
    if (!this.#takes('<')) this.#fail('invalid named group')
    const close = this.#characters.indexOf('>', this.#at)
    const name = close < 0 ? '' : this.#characters.slice(this.#at, close).join('')
    if (!/^[\p{L}\p{N}_]+$/u.test(name) || this.#names.has(name)) this.#fail('invalid group name')
    this.#at = close + 1
    this.#groups++
    this.#names.set(name, this.#groups)
    return this.#groups
  }

  /** Reads `i-m:` or `i-m)` and returns the last character. */
  #readFlags(): string {
    const flags = { ...this.#flags }
    let value = true
    for (let read = 0; ; read++) {
      const character = this.#next()
      if (character === ':' || character === ')') {
        if (character === ')' && read === 0) this.#fail('missing argument to (?)')
        this.#flags = flags
        return character
      }
      if (character === '-' && value) {
        value = false
      } else if (character in FLAG_NAMES) {
        flags[FLAG_NAMES[character as keyof typeof FLAG_NAMES]] = value
      } else {
        this.#fail('invalid or unsupported Perl syntax')
      }
    }
  }

  #escape(items: RegexNode[]): void {
    const { fold } = this.#flags
    const character = this.#next()
    if (character === 'A') items.push({ kind: 'assert', assertion: 'text_start' })
    else if (character === 'z') items.push({ kind: 'assert', assertion: 'text_end' })
    else if (character === 'b') items.push({ kind: 'assert', assertion: 'boundary' })
    else if (character === 'B') items.push({ kind: 'assert', assertion: 'no_boundary' })
    else if (character === 'Q') this.#quoted(items)
    else {
      const set = this.#classEscape(character)
      if (set !== undefined) items.push({ kind: 'set', set: fold ? set.folded() : set })
      else items.push(this.#literal(this.#characterEscape(character)))
    }
  }

  #quoted(items: RegexNode[]): void {
    while (this.#at < this.#characters.length) {
      const character = this.#next()
      if (character === '\\' && this.#takes('E')) return
      items.push(this.#literal(character.codePointAt(0) as number))
    }
  }

  /** `\d`, `\pL`, `\p{Greek}` and so on, inside and outside of brackets. */
  #classEscape(character: string): CharacterSet | undefined {
    const perl = perlClass(character)
    if (perl !== undefined) return perl
    if (character !== 'p' && character !== 'P') return undefined
    let name = this.#next()
    if (name === '{') {
      const close = this.#characters.indexOf('}', this.#at)
      if (close < 0) this.#fail('invalid character class')
      name = this.#characters.slice(this.#at, close).join('')
      this.#at = close + 1
    }
    const negated = name.startsWith('^')
    const set = unicodeClass(negated ? name.slice(1) : name)
    if (set === undefined) this.#fail('invalid character class')
    return negated === (character === 'P') ? set : set.negated()
  }

  #characterEscape(character: string): number {
    const control = ESCAPED_CONTROLS.get(character)
    if (control !== undefined) return control
    if (/^[0-7]$/.test(character)) {
      // `\1` to `\7` alone would be backreferences, which RE2 does not have.
      let digits = character
      while (digits.length < 3 && /^[0-7]$/.test(this.#peek() ?? '')) digits += this.#next()
      if (character !== '0' && digits.length === 1) this.#fail('invalid escape sequence')
      return Number.parseInt(digits, 8)
    }
    if (character === 'x') return this.#hexEscape()
    if (/^[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]$/.test(character)) {
      return character.charCodeAt(0)
    }
    return this.#fail('invalid escape sequence')
  }

  #hexEscape(): number {
    const braced = this.#takes('{')
    const close = braced ? this.#characters.indexOf('}', this.#at) : this.#at + 2
    const digits = close < 0 ? '' : this.#characters.slice(this.#at, close).join('')
    const valid = braced ? /^[0-9A-Fa-f]{1,6}$/.test(digits) : /^[0-9A-Fa-f]{2}$/.test(digits)
    const code = Number.parseInt(digits, 16)
    if (!valid || code > 0x10ffff) this.#fail('invalid escape sequence')
    this.#at = braced ? close + 1 : close
    return code
  }

  #bracket(): CharacterSet {
    const negated = this.#takes('^')
    const ranges: number[] = []
    let set: CharacterSet | undefined
    for (let first = true; first || this.#peek() !== ']'; first = false) {
      const posix = this.#posixClass()
      if (posix !== undefined) {
        set = set?.union(posix) ?? posix
        continue
      }
      const low = this.#bracketItem()
      if (low instanceof CharacterSet) {
        set = set?.union(low) ?? low
        continue
      }
      let high = low
      if (this.#peek() === '-' && this.#characters[this.#at + 1] !== ']') {
        this.#at++
        const end = this.#bracketItem()
        if (end instanceof CharacterSet || end < low) this.#fail('invalid character class range')
        high = end
      }
      ranges.push(low, high)
    }
    this.#at++
    const single = CharacterSet.of(ranges, false)
    set = set?.union(single) ?? single
    if (this.#flags.fold) set = set.folded()
    return negated ? set.negated() : set
  }

  #posixClass(): CharacterSet | undefined {
    if (this.#peek() !== '[' || this.#characters[this.#at + 1] !== ':') return undefined
    const rest = this.#characters.slice(this.#at, this.#at + 12).join('')
    const found = /^\[:(\^?)([a-z]+):\]/.exec(rest)
    if (found === null) return undefined
    const ranges = POSIX_CLASSES.get(found[2] as string)
    if (ranges === undefined) this.#fail('invalid character class range')
    this.#at += found[0].length
    return found[1] === '^' ? CharacterSet.except(ranges) : CharacterSet.of(ranges, false)
  }

  #bracketItem(): CharacterSet | number {
    const character = this.#next()
    if (character !== '\\') return character.codePointAt(0) as number
    const escaped = this.#next()
    return this.#classEscape(escaped) ?? this.#characterEscape(escaped)
  }

  #peek(): string | undefined {
    return this.#characters[this.#at]
  }

  #takes(expected: string): boolean {
    if (this.#characters[this.#at] !== expected) return false
    this.#at++
    return true
  }

  #next(): string {
    return this.#characters[this.#at++] ?? this.#fail('unexpected end of pattern')
  }

  #fail(what: string): never {
    throw new RegexSyntaxError(`error parsing regexp: ${what} at ${this.#at}`)
  }
}

/** Counts of repeats inside of repeats multiply, and are limited as one (Go: repeatIsValid). */
function repeatsAtMost(limit: number, node: RegexNode): boolean {
  switch (node.kind) {
    case 'set':
    case 'assert':
      return true
    case 'group':
      return repeatsAtMost(limit, node.item)
    case 'sequence':
    case 'choice':
      return node.items.every((item) => repeatsAtMost(limit, item))
    case 'repeat': {
      const { min, max, item } = node
      if (max === 0) return true
      const times = max === Number.POSITIVE_INFINITY ? min : max
      return times <= limit && repeatsAtMost(Math.floor(limit / Math.max(times, 1)), item)
    }
  }
}
