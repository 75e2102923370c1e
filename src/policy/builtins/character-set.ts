// Sets of code points for the regex engine: ranges, or a Unicode property, folded or negated.

type Test = (code: number) => boolean

const [UNKNOWN, YES, NO] = [0, 1, 2] as const
const PROPERTY_COST = 20
const FOLD_COST = 60

export class CharacterSet {
  /** Measured, in steps of some 5 ns: of asking for a code point outside of ASCII. */
  readonly cost: number
  readonly #test: Test
  /** Answers for ASCII, which is most of what is asked, where they are known. */
  readonly #ascii = new Uint8Array(128)

  private constructor(test: Test, cost: number) {
    this.#test = test
    this.cost = cost
  }

  /** `ranges`: low, high, low, high... inclusive. */
  static of(ranges: readonly number[], fold: boolean): CharacterSet {
    const set = new CharacterSet((code) => inRanges(ranges, code), 1 + (ranges.length >> 2))
    return fold ? set.folded() : set
  }

  static except(ranges: readonly number[]): CharacterSet {
    return CharacterSet.of(ranges, false).negated()
  }

  static matching(test: Test): CharacterSet {
    return new CharacterSet(test, PROPERTY_COST)
  }

  has(code: number): boolean {
    if (code > 0x7f) return this.#test(code)
    if (this.#ascii[code] === UNKNOWN) this.#ascii[code] = this.#test(code) ? YES : NO
    return this.#ascii[code] === YES
  }

  union(other: CharacterSet): CharacterSet {
    return new CharacterSet((code) => this.has(code) || other.has(code), this.cost + other.cost)
  }

  negated(): CharacterSet {
    return new CharacterSet((code) => !this.has(code), 1 + this.cost)
  }

  /** With the other cases of its members. */
  folded(): CharacterSet {
    const cost = FOLD_COST + 4 * this.cost
    return new CharacterSet((code) => casesOf(code).some((one) => this.has(one)), cost)
  }
}

export const POSIX_CLASSES: ReadonlyMap<string, readonly number[]> = new Map([
  ['alnum', [0x30, 0x39, 0x41, 0x5a, 0x61, 0x7a]],
  ['alpha', [0x41, 0x5a, 0x61, 0x7a]],
  ['ascii', [0x00, 0x7f]],
  ['blank', [0x09, 0x09, 0x20, 0x20]],
  ['cntrl', [0x00, 0x1f, 0x7f, 0x7f]],
  ['digit', [0x30, 0x39]],
  ['graph', [0x21, 0x7e]],
  ['lower', [0x61, 0x7a]],
  ['print', [0x20, 0x7e]],
  ['punct', [0x21, 0x2f, 0x3a, 0x40, 0x5b, 0x60, 0x7b, 0x7e]],
  ['space', [0x09, 0x0d, 0x20, 0x20]],
  ['upper', [0x41, 0x5a]],
  ['word', [0x30, 0x39, 0x41, 0x5a, 0x5f, 0x5f, 0x61, 0x7a]],
  ['xdigit', [0x30, 0x39, 0x41, 0x46, 0x61, 0x66]],
])

const DIGIT = [0x30, 0x39]
const SPACE = [0x09, 0x0a, 0x0c, 0x0d, 0x20, 0x20]
const WORD = [0x30, 0x39, 0x41, 0x5a, 0x5f, 0x5f, 0x61, 0x7a]

/** `\d` and its kin know ASCII only, as in RE2. */
export function perlClass(letter: string): CharacterSet | undefined {
  switch (letter) {
    case 'd':
      return CharacterSet.of(DIGIT, false)
    case 'D':
      return CharacterSet.except(DIGIT)
    case 's':
      return CharacterSet.of(SPACE, false)
    case 'S':
      return CharacterSet.except(SPACE)
    case 'w':
      return CharacterSet.of(WORD, false)
    case 'W':
      return CharacterSet.except(WORD)
    default:
      return undefined
  }
}

export function isWord(code: number): boolean {
  return inRanges(WORD, code)
}

/** A general category or a script; one code point at a time, so that nothing can backtrack. */
export function unicodeClass(name: string): CharacterSet | undefined {
  if (name === 'Any') return CharacterSet.except([])
  if (!/^[A-Z][A-Za-z_]*$/.test(name)) return undefined
  const property = name.length <= 2 ? name : `Script=${name}`
  let pattern: RegExp
  try {
    pattern = new RegExp(`^\\p{${property}}$`, 'u')
  } catch {
    return undefined
  }
  return CharacterSet.matching((code) => pattern.test(String.fromCodePoint(code)))
}

function inRanges(ranges: readonly number[], code: number): boolean {
  for (let i = 0; i < ranges.length; i += 2) {
    if (code >= (ranges[i] as number) && code <= (ranges[i + 1] as number)) return true
  }
  return false
}

/** Simple folding: the code point, its other cases, and the two letters that fold into ASCII. */
function casesOf(code: number): number[] {
  const character = String.fromCodePoint(code)
  const cases = [code]
  for (const other of [character.toLowerCase(), character.toUpperCase()]) {
    const otherCode = other.codePointAt(0) as number
    if (String.fromCodePoint(otherCode) === other) {
      cases.push(otherCode)
      const back = other.toLowerCase()
      if (back.length === other.length) cases.push(back.codePointAt(0) as number)
    }
  }
  if (code === 0x73 || code === 0x53) cases.push(0x17f) // long s
  if (code === 0x6b || code === 0x4b) cases.push(0x212a) // Kelvin sign
  return cases
}
