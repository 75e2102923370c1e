// yaml.marshal: block style with two spaces, as go-yaml writes it. Quotes where a reader of YAML 1.1
// or 1.2 would take the text for something else.
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { compareValues } from './compare.ts'
import { formatFloat } from './go-float.ts'
import { jsonEntries } from './json-marshal.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'
import { plainValue } from './yaml-read.ts'

/** Of one value and one character, in loop iterations of wasm. */
const VALUE_COST = 50
const CHARACTER_COST = 10
/** Of a number, which is read and written anew. */
const NUMBER_COST = 400
/** Of two keys that are compared, and of a character of either. */
const COMPARE_COST = 400
const COMPARED_CHARACTER_COST = 5
const MAX_RESULT_LENGTH = 1024 * 1024
/** A key that is longer, or has several lines, stands behind a question mark. */
const MAX_KEY_BYTES = 128

export function marshalYaml(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  return `${new Writer(context).block(args[0] as RegoValue, 0).trimStart()}\n`
}

class Writer {
  readonly #context: BuiltinContext
  #length = 0

  constructor(context: BuiltinContext) {
    this.#context = context
  }

  /** A value behind a colon: what begins a line of its own begins with the end of the line. */
  block(value: RegoValue, depth: number): string {
    const members = this.#members(value)
    if (members === undefined) return ` ${this.#scalar(value, depth)}`
    if (members.length === 0) return value instanceof RegoObject ? ' {}' : ' []'
    return members.map((member) => `\n${'  '.repeat(depth)}${this.#member(member, depth)}`).join('')
  }

  /** A value behind a dash, which begins in the same line. */
  #item(value: RegoValue, depth: number): string {
    const members = this.#members(value)
    if (members === undefined || members.length === 0) return this.block(value, depth)
    const lines = members.map((member) => this.#member(member, depth))
    return ` ${lines.join(`\n${'  '.repeat(depth)}`)}`
  }

  #member([key, value]: readonly [string | undefined, RegoValue], depth: number): string {
    this.#context.spend(VALUE_COST)
    this.#length += 2 * depth
    if (this.#length > MAX_RESULT_LENGTH) throw new BuiltinError('result is too long')
    if (key === undefined) return `-${this.#item(value, depth + 1)}`
    const text = this.#key(key)
    const behind = `:${this.block(value, depth + 1)}`
    const simple = !key.includes('\n') && Buffer.byteLength(text) <= MAX_KEY_BYTES
    if (simple) return text + behind
    const whole = key.includes('\n') ? lines(key, depth + 1) : text
    return `? ${whole}\n${'  '.repeat(depth)}${behind}`
  }

  /** Of a list without a key; undefined where it is a scalar. */
  #members(value: RegoValue): (readonly [string | undefined, RegoValue])[] | undefined {
    if (value instanceof RegoObject) {
      return jsonEntries(value).sort(([a], [b]) => {
        this.#context.spend(COMPARE_COST + COMPARED_CHARACTER_COST * (a.length + b.length))
        return compareKeys(a, b)
      })
    }
    const list =
      value instanceof RegoSet
        ? value.members.toSorted((a, b) => compareValues(a, b, this.#context.spend))
        : value
    return Array.isArray(list) ? list.map((one) => [undefined, one] as const) : undefined
  }

  #key(text: string): string {
    this.#context.spend(CHARACTER_COST * text.length)
    return text === '' ? '""' : inline(text)
  }

  #scalar(value: RegoValue, depth: number): string {
    if (value instanceof RegoNumber) {
      this.#context.spend(NUMBER_COST)
      return numberText(value.literal)
    }
    if (typeof value !== 'string') return String(value)
    this.#context.spend(CHARACTER_COST * value.length)
    return value.includes('\n') ? lines(value, depth) : inline(value)
  }
}

function inline(text: string): string {
  if (!readsAsText(text)) return doubleQuoted(text)
  if (!/\n/.test(text) && isPlain(text)) return text
  return isSingleQuotable(text) ? `'${text.replaceAll("'", "''")}'` : doubleQuoted(text)
}

/** False where it would be a number, a date or so without quotes, also for YAML 1.1. */
function readsAsText(text: string): boolean {
  if (/^(?:y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF)$/.test(text)) return false
  if (/^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$/.test(text)) return false
  if (/^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$/.test(text)) return false
  if (/^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:$|[Tt ])/.test(text)) return isNoDate(text)
  return typeof plainValue(text) === 'string'
}

function isNoDate(text: string): boolean {
  const form =
    /^[0-9]{4}-(?:[0-9]{2}-[0-9]{2}|[0-9]{1,2}-[0-9]{1,2}[Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)$/
  return !form.test(text)
}

/** Without quotes in a block (yaml_emitter_analyze_scalar). */
function isPlain(text: string): boolean {
  if (/^[#,[\]{}&*!|>'"%@`]|^[-?:](?:[ \t]|$)|^---|^\.\.\./.test(text)) return false
  if (/^ | $|:(?:[ \t]|$)|[ \t]#/.test(text)) return false
  return isPrintableLine(text) && !/[\t\u2028\u2029]/.test(text)
}

function isSingleQuotable(text: string): boolean {
  return isPrintableLine(text) && !/[\t\n]| [\u2028\u2029]|[\u2028\u2029] /.test(text)
}

function isPrintableLine(text: string): boolean {
  return !/[\0-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]/.test(text)
}

/** Several lines: a literal block, unless it cannot say what the text is. */
function lines(text: string, depth: number): string {
  if (/ $| \n/.test(text) || !isPrintableLine(text) || text.includes('\r')) {
    return doubleQuoted(text)
  }
  const hint = /^[ \n]/.test(text) ? '2' : ''
  const chomp = !text.endsWith('\n') ? '-' : text === '\n' || text.endsWith('\n\n') ? '+' : ''
  const indent = '  '.repeat(Math.max(depth, 1))
  const body = (text.endsWith('\n') ? text.slice(0, -1) : text).replace(/^(?=[^\n])/gm, indent)
  return `|${hint}${chomp}\n${body}`
}

const SHORT: ReadonlyMap<string, string> = new Map([
  ['\0', '\\0'],
  ['\x07', '\\a'],
  ['\b', '\\b'],
  ['\t', '\\t'],
  ['\n', '\\n'],
  ['\v', '\\v'],
  ['\f', '\\f'],
  ['\r', '\\r'],
  ['\x1b', '\\e'],
  ['"', '\\"'],
  ['\\', '\\\\'],
  ['\x85', '\\N'],
  ['\u2028', '\\L'],
  ['\u2029', '\\P'],
])

function doubleQuoted(text: string): string {
  const quoted = text.replace(
    /["\\\0-\x1f\x7f-\x9f\ufeff\ufffe\uffff\u2028\u2029]/g,
    (character) => {
      const code = character.charCodeAt(0).toString(16).toUpperCase()
      const escaped = code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u${code}`
      return SHORT.get(character) ?? escaped
    },
  )
  return `"${quoted}"`
}

/** Through int64, uint64 or float64, as every number on its way from JSON to YAML in Go. */
function numberText(literal: string): string {
  const value = plainValue(literal)
  if (!(value instanceof RegoNumber)) throw new BuiltinError('number is too large')
  if (/^-?[0-9]+$/.test(literal) && value.literal === String(BigInt(literal))) return value.literal
  const float = Number(literal)
  const sign = float < 0 || Object.is(float, -0) ? '-' : ''
  return sign + formatFloat(Math.abs(float), 'g', undefined)
}

/** Numbers in keys are compared as numbers, and what is no letter comes before letters. */
function compareKeys(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)]
  let digits = false
  for (let i = 0; i < left.length && i < right.length; i++) {
    const [x, y] = [left[i] as string, right[i] as string]
    if (x === y) {
      digits = isDigit(x)
      continue
    }
    const [letterX, letterY] = [/\p{L}/u.test(x), /\p{L}/u.test(y)]
    if (letterX && letterY) return compareValues(x, y)
    if (letterX || letterY) return letterX === digits ? -1 : 1
    return compareDigits(left, right, i)
  }
  return left.length - right.length
}

function compareDigits(left: readonly string[], right: readonly string[], from: number): number {
  const run = (characters: readonly string[], start: number) => {
    let end = start
    while (isDigit(characters[end])) end++
    return characters.slice(start, end).join('')
  }
  let behindDigits = false
  if (left[from] === '0' || right[from] === '0') {
    for (let i = from - 1; isDigit(left[i]); i--) behindDigits ||= left[i] !== '0'
  }
  const [m, n] = [run(left, from), run(right, from)]
  // A zero inside of a number is a digit like others: the longer number is the larger one.
  const start = behindDigits ? '1' : '0'
  const byValue = compareValues(new RegoNumber(start + m), new RegoNumber(start + n))
  return (
    byValue || m.length - n.length || compareValues(left[from] as string, right[from] as string)
  )
}

function isDigit(character: string | undefined): boolean {
  return character !== undefined && character >= '0' && character <= '9'
}
