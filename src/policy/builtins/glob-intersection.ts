// regex.globs_match: do two globs (characters, `.`, sets in brackets, each perhaps with `+` or `*`)
// have a text in common? Decides as the library that OPA uses, where that differs from theory too.
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import type { RegoValue } from './value.ts'

type Repeat = '' | '+' | '*'

interface Token {
  /** Ranges of code points: low, high, low, high...; undefined is any character. */
  readonly ranges: readonly number[] | undefined
  repeat: Repeat
}

type Glob = readonly Token[]

export function globsMatch(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [left, right] = [stringArgument(args[0], 1), stringArgument(args[1], 2)]
  context.spend(40 * (left.length + right.length))
  return new Intersection(parseGlob(left), parseGlob(right), context).exists()
}

class Intersection {
  readonly #context: BuiltinContext
  #globs: readonly [Glob, Glob]
  /** Answers by position, so that stars cannot make the search explode. */
  readonly #known = new Map<string, boolean>()

  constructor(left: Glob, right: Glob, context: BuiltinContext) {
    this.#globs = [left, right]
    this.#context = context
  }

  exists(): boolean {
    return this.#trim() && this.#from(0, 0, 0)
  }

  /** What stands at both ends without a repetition has to match; all but one of it goes away. */
  #trim(): boolean {
    const [left, right] = this.#globs
    const plain = (a?: Token, b?: Token) => a?.repeat === '' && b?.repeat === ''
    let start = 0
    for (; plain(left[start], right[start]); start++) {
      if (!this.#match(left[start] as Token, right[start] as Token)) return false
    }
    if (start > 0) start--
    let [i, j] = [left.length - 1, right.length - 1]
    for (; i >= start && j >= start && plain(left[i], right[j]); i--, j--) {
      if (!this.#match(left[i] as Token, right[j] as Token)) return false
    }
    const kept = i < left.length - 1 ? 2 : 1
    this.#globs = [left.slice(start, i + kept), right.slice(start, j + kept)]
    return true
  }

  /** `first` is the glob that `i` is a position in; `j` is one in the other. */
  #from(first: 0 | 1, i: number, j: number): boolean {
    const key = `${first} ${i} ${j}`
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const answer = this.#compute(first, i, j)
    this.#known.set(key, answer)
    return answer
  }

  #compute(first: 0 | 1, i: number, j: number): boolean {
    const other = first === 0 ? 1 : 0
    const [mine, theirs] = [this.#globs[first], this.#globs[other]]
    for (; i < mine.length && j < theirs.length; i++, j++) {
      const [a, b] = [mine[i] as Token, theirs[j] as Token]
      if (a.repeat === '' && b.repeat === '') {
        if (!this.#match(a, b)) return false
      } else if (a.repeat !== '') {
        return this.#repeated(first, i, j)
      } else {
        return this.#repeated(other, j, i)
      }
    }
    return i === mine.length && j === theirs.length
  }

  #repeated(first: 0 | 1, i: number, j: number): boolean {
    const token = this.#globs[first][i] as Token
    if (token.repeat === '*') return this.#star(first, i, j)
    const one = this.#globs[first === 0 ? 1 : 0][j] as Token
    if (!this.#match(token, one)) return false
    return this.#star(first, i, j + 1) || (one.repeat !== '' && this.#from(first, i + 1, j))
  }

  /** The repetition takes tokens of the other until what follows it can take over. */
  #star(first: 0 | 1, i: number, j: number): boolean {
    const [mine, theirs] = [this.#globs[first], this.#globs[first === 0 ? 1 : 0]]
    const star = mine[i] as Token
    const next = mine[i + 1]
    for (let k = j; k < theirs.length; k++) {
      const token = theirs[k] as Token
      if (next !== undefined && this.#match(token, next) && this.#from(first, i + 1, k)) return true
      if (!this.#match(token, star)) return false
    }
    return next === undefined
  }

  #match(a: Token, b: Token): boolean {
    const [x, y] = [a.ranges, b.ranges]
    this.#context.spend(10 + (x?.length ?? 0) * (y?.length ?? 0))
    if (x === undefined || y === undefined) return true
    for (let m = 0; m < x.length; m += 2) {
      for (let n = 0; n < y.length; n += 2) {
        if ((x[m] as number) <= (y[n + 1] as number) && (y[n] as number) <= (x[m + 1] as number)) {
          return true
        }
      }
    }
    return false
  }
}

/** @throws BuiltinError where it is no glob */
function parseGlob(text: string): Glob {
  return simplified(new GlobParser(text).parse())
}

class GlobParser {
  readonly #characters: readonly string[]
  #at = 0

  constructor(text: string) {
    this.#characters = Array.from(text)
  }

  parse(): Token[] {
    const tokens: Token[] = []
    while (this.#at < this.#characters.length) {
      const ranges = this.#ranges()
      const repeat = this.#characters[this.#at]
      if (repeat === '+' || repeat === '*') this.#at++
      tokens.push({ ranges, repeat: repeat === '+' || repeat === '*' ? repeat : '' })
    }
    return tokens
  }

  #ranges(): readonly number[] | undefined {
    const { character, escaped } = this.#next()
    if (!escaped) {
      if (character === '.') return undefined
      if (character === '[') return this.#set()
      if (character === ']' || character === '+' || character === '*') {
        throw new BuiltinError(`unexpected ${character}`)
      }
    }
    const code = codeOf(character)
    return [code, code]
  }

  #set(): readonly number[] {
    const ranges: number[] = []
    let previous: number | undefined
    for (;;) {
      const { character, escaped } = this.#next()
      if (!escaped && character === ']') return merged(ranges)
      const code = codeOf(character)
      if (escaped || character !== '-') {
        ranges.push(code, code)
        previous = code
        continue
      }
      const end = this.#next()
      if (!end.escaped && (end.character === ']' || end.character === '-')) {
        throw new BuiltinError('a range without an end')
      }
      if (previous === undefined || codeOf(end.character) < previous) {
        throw new BuiltinError('a range without a beginning, or out of order')
      }
      ranges.push(previous, codeOf(end.character))
      previous = undefined
    }
  }

  #next(): { readonly character: string; readonly escaped: boolean } {
    const escaped = this.#characters[this.#at] === '\\'
    if (escaped) this.#at++
    const character = this.#characters[this.#at++]
    if (character === undefined) throw new BuiltinError('the glob ends too early')
    return { character, escaped }
  }
}

/** Two repetitions of the same are one. */
function simplified(tokens: readonly Token[]): Glob {
  const simple: Token[] = []
  for (const token of tokens) {
    const latest = simple.at(-1)
    if (
      latest !== undefined &&
      token.repeat !== '' &&
      latest.repeat !== '' &&
      same(token, latest)
    ) {
      if (token.repeat === '+') latest.repeat = '+'
    } else {
      simple.push(token)
    }
  }
  return simple
}

function merged(ranges: readonly number[]): readonly number[] {
  const pairs = Array.from({ length: ranges.length / 2 }, (_, i) => ranges.slice(2 * i, 2 * i + 2))
  const result: number[] = []
  for (const [low, high] of pairs.sort(([a], [b]) => (a as number) - (b as number))) {
    const last = result.at(-1)
    if (last === undefined || (low as number) > last + 1) result.push(low as number, high as number)
    else result[result.length - 1] = Math.max(last, high as number)
  }
  return result
}

function same(a: Token, b: Token): boolean {
  return String(a.ranges) === String(b.ranges)
}

function codeOf(character: string): number {
  return character.codePointAt(0) as number
}
