// regex.replace, regex.split and regex.find_n with the meaning of Go's Regexp.ReplaceAllString,
// Split and FindAllString.
import { type BuiltinContext, BuiltinError, integerArgument, stringArgument } from './builtin.ts'
import { compileRegex, type Regex, RegexSyntaxError } from './regex.ts'
import type { RegoValue } from './value.ts'

/** A replacement may multiply its text; the result goes back into the policy's memory. */
const MAX_RESULT_LENGTH = 1024 * 1024
/** Of making one part of a result, in loop iterations of wasm. */
const PART_COST = 60
/** Of putting one piece of a template into a result. */
const PIECE_COST = 20
/** Of one character of a template, of which some are variables. */
const TEMPLATE_COST = 8

export function replaceRegex(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  const pattern = stringArgument(args[1], 2)
  const template = stringArgument(args[2], 3)
  const regex = cachedRegex(pattern, context)
  context.spend(template.length * TEMPLATE_COST)
  const pieces = piecesOf(template, regex)
  let result = ''
  let from = 0
  for (const match of regex.matches(text, (steps) => context.spend(steps))) {
    const [start, end] = [match[0] as number, match[1] as number]
    context.spend(PART_COST + pieces.length * PIECE_COST)
    result += text.slice(from, start)
    for (const piece of pieces) {
      result += typeof piece === 'string' ? piece : groupOf(text, match, piece)
      if (result.length > MAX_RESULT_LENGTH) throw new BuiltinError('result is too long')
    }
    from = end
  }
  return result + text.slice(from)
}

/** regex.split(pattern, value) = the parts between the matches */
export function splitByRegex(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const pattern = stringArgument(args[0], 1)
  const text = stringArgument(args[1], 2)
  const regex = cachedRegex(pattern, context)
  if (pattern !== '' && text === '') return ['']
  const parts: string[] = []
  let [from, to] = [0, 0]
  for (const match of regex.matches(text, (steps) => context.spend(steps))) {
    context.spend(PART_COST)
    const [start, end] = [match[0] as number, match[1] as number]
    to = start
    // A match of nothing at the beginning splits nothing off.
    if (end !== 0) parts.push(text.slice(from, to))
    from = end
  }
  if (to !== text.length) parts.push(text.slice(from))
  return parts
}

/** regex.find_n(pattern, value, number) = the first matches; all of them for a negative number */
export function findRegex(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const pattern = stringArgument(args[0], 1)
  const text = stringArgument(args[1], 2)
  const wanted = integerArgument(args[2], 3)
  const found: string[] = []
  const regex = cachedRegex(pattern, context)
  if (wanted === 0) return found
  for (const match of regex.matches(text, (steps) => context.spend(steps))) {
    context.spend(PART_COST)
    found.push(text.slice(match[0], match[1]))
    if (found.length === wanted) break
  }
  return found
}

/** @throws BuiltinError where the pattern is none */
export function cachedRegex(pattern: string, context: BuiltinContext): Regex {
  try {
    return context.regexes.get(pattern, () => {
      context.spend(pattern.length * 100)
      return compileRegex(pattern, (steps) => context.spend(steps))
    })
  } catch (error) {
    if (error instanceof RegexSyntaxError) throw new BuiltinError(error.message)
    throw error
  }
}

/** Of a template: what it says there, or the number of a group. */
type Piece = string | number

const VARIABLE = /\$(?:\$|([\p{L}\p{Nd}_]+)|\{([\p{L}\p{Nd}_]+)\})/gu

/** `$name`, `${name}` and `$$`; the longest name wins, an unknown one is empty (Regexp.Expand). */
function piecesOf(template: string, regex: Regex): readonly Piece[] {
  const pieces: Piece[] = []
  let from = 0
  for (const { 0: whole, 1: bare, 2: braced, index } of template.matchAll(VARIABLE)) {
    pieces.push(template.slice(from, index))
    from = index + whole.length
    const name = bare ?? braced
    pieces.push(name === undefined ? '$' : (groupNamed(name, regex) ?? ''))
  }
  pieces.push(template.slice(from))
  return pieces.filter((piece) => piece !== '')
}

function groupOf(text: string, match: readonly number[], group: number): string {
  const start = match[2 * group] ?? -1
  return start < 0 ? '' : text.slice(start, match[2 * group + 1])
}

/** A number with a leading zero is a name, which no group can have. */
function groupNamed(name: string, regex: Regex): number | undefined {
  if (!/^[0-9]+$/.test(name)) return regex.names.get(name)
  return name.length > 1 && name.startsWith('0') ? undefined : Number(name)
}
