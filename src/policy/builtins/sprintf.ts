// sprintf with the meaning of Go's fmt.Sprintf, for the four kinds of value that OPA hands to it:
// int64, *big.Int, float64 and string. Booleans, null and composites come as text in Rego notation.
// Not supplied: %b and %x of floats, which are "wrong verb" here.
import { arrayArgument, type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { formatFloat } from './go-float.ts'
import { isPrintable, quoteGo, valueText } from './go-text.ts'
import { RegoNumber, type RegoValue } from './value.ts'

type Argument =
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'int64' | '*big.Int'; readonly value: bigint }
  | { readonly kind: 'float64'; readonly value: number }

interface Spec {
  plus: boolean
  minus: boolean
  sharp: boolean
  /** `#` of %v, which means Go syntax. */
  sharpV: boolean
  space: boolean
  zero: boolean
  width: number | undefined
  precision: number | undefined
}

const MAX_WIDTH = 1_000_000 // as Go: beyond it is an error in the text
const MAX_RESULT_LENGTH = 1024 * 1024
const INT64_LIMIT = 1n << 63n

export function sprintf(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const format = stringArgument(args[0], 1)
  const values = arrayArgument(args[1], 2).map(argumentOf)
  context.spend(format.length + 20 * values.length)
  return new Formatter(format, values).run()
}

function argumentOf(value: RegoValue): Argument {
  if (typeof value === 'string') return { kind: 'string', value }
  if (!(value instanceof RegoNumber)) return { kind: 'string', value: valueText(value) }
  if (/^-?[0-9]+$/.test(value.literal)) {
    if (value.literal.length > 10_000) throw new BuiltinError('number is too long')
    const integer = BigInt(value.literal)
    const small = integer >= -INT64_LIMIT && integer < INT64_LIMIT
    return { kind: small ? 'int64' : '*big.Int', value: integer }
  }
  const float = Number(value.literal)
  return Number.isFinite(float)
    ? { kind: 'float64', value: float }
    : { kind: 'string', value: value.literal }
}

class Formatter {
  readonly #format: readonly string[]
  readonly #args: readonly Argument[]
  readonly #lastBracket: number
  #at = 0
  #next = 0
  #reordered = false
  #goodIndex = true

  constructor(format: string, args: readonly Argument[]) {
    this.#format = Array.from(format)
    this.#args = args
    this.#lastBracket = this.#format.lastIndexOf(']')
  }

  run(): string {
    const { length } = this.#format
    let text = ''
    while (this.#at < length) {
      const character = this.#format[this.#at++] as string
      text += character === '%' ? this.#directive() : character
      if (text.length > MAX_RESULT_LENGTH) throw new BuiltinError('result is too long')
    }
    if (!this.#reordered && this.#next < this.#args.length) text += this.#extra()
    return text
  }

  #directive(): string {
    const spec = this.#flags()
    this.#goodIndex = true
    let afterIndex = this.#index()
    let text = ''

    if (this.#takes('*')) {
      const width = this.#intArgument()
      if (width === undefined) text += '%!(BADWIDTH)'
      else if (width < 0) {
        spec.width = -width
        spec.minus = true
        spec.zero = false
      } else spec.width = width
      afterIndex = false
    } else {
      spec.width = this.#number()
      if (afterIndex && spec.width !== undefined) this.#goodIndex = false
    }

    if (this.#takes('.')) {
      if (afterIndex) this.#goodIndex = false
      afterIndex = this.#index()
      if (this.#takes('*')) {
        const precision = this.#intArgument()
        if (precision === undefined) text += '%!(BADPREC)'
        else if (precision >= 0) spec.precision = precision
        else text += '%!(BADPREC)'
        afterIndex = false
      } else {
        spec.precision = this.#number() ?? 0
      }
    }
    if (!afterIndex) afterIndex = this.#index()

    const verb = this.#format[this.#at++]
    if (verb === undefined) return `${text}%!(NOVERB)`
    if (verb === '%') return `${text}%`
    if (!this.#goodIndex) return `${text}%!${verb}(BADINDEX)`
    const argument = this.#args[this.#next]
    if (argument === undefined) return `${text}%!${verb}(MISSING)`
    this.#next++
    if (verb === 'v') {
      spec.sharpV = spec.sharp
      spec.sharp = false
      // Of %v it means field names; a big.Int looks at it all the same.
      if (argument.kind !== '*big.Int') spec.plus = false
    }
    return text + formatArgument(verb, argument, spec)
  }

  #flags(): Spec {
    const spec: Spec = { ...PLAIN }
    for (;;) {
      if (this.#takes('#')) spec.sharp = true
      else if (this.#takes('0')) spec.zero = true
      else if (this.#takes('+')) spec.plus = true
      else if (this.#takes('-')) spec.minus = true
      else if (this.#takes(' ')) spec.space = true
      else return spec
    }
  }

  /** `[3]`: which argument is next. Returns whether there was one. */
  #index(): boolean {
    if (this.#format[this.#at] !== '[') return false
    this.#reordered = true
    // Without this, each of many open brackets would be a search to the end.
    const close = this.#at > this.#lastBracket ? -1 : this.#format.indexOf(']', this.#at)
    const text = close < 0 ? '' : this.#format.slice(this.#at + 1, close).join('')
    this.#at = close < 0 ? this.#at + 1 : close + 1
    const index = /^[0-9]{1,7}$/.test(text) ? Number(text) : 0
    if (index < 1 || index > this.#args.length) {
      this.#goodIndex = false
      return close >= 0
    }
    this.#next = index - 1
    return true
  }

  #number(): number | undefined {
    let digits = ''
    while (/^[0-9]$/.test(this.#format[this.#at] ?? '')) digits += this.#format[this.#at++]
    if (digits === '') return undefined
    const value = Number(digits)
    return value > MAX_WIDTH ? undefined : value
  }

  #intArgument(): number | undefined {
    const argument = this.#args[this.#next]
    if (argument === undefined) return undefined
    this.#next++
    if (argument.kind !== 'int64') return undefined
    const value = Number(argument.value)
    return Math.abs(value) > MAX_WIDTH ? undefined : value
  }

  #takes(expected: string): boolean {
    if (this.#format[this.#at] !== expected) return false
    this.#at++
    return true
  }

  #extra(): string {
    const rest = this.#args.slice(this.#next)
    return `%!(EXTRA ${rest.map((one) => `${one.kind}=${plain(one)}`).join(', ')})`
  }
}

const PLAIN: Spec = {
  plus: false,
  minus: false,
  sharp: false,
  sharpV: false,
  space: false,
  zero: false,
  width: undefined,
  precision: undefined,
}

function plain(argument: Argument): string {
  return formatArgument('v', argument, PLAIN)
}

function formatArgument(verb: string, argument: Argument, spec: Spec): string {
  if (verb === 'T') return pad(truncate(argument.kind, spec), spec)
  if (argument.kind === 'string') return formatString(verb, argument, spec)
  if (argument.kind === 'float64') return formatFloatArgument(verb, argument, spec)
  return formatInteger(verb, argument, spec)
}

function wrongVerb(verb: string, argument: Argument, spec: Spec): string {
  // big.Int formats itself, and does not know that it is behind a pointer.
  if (argument.kind === '*big.Int') return `%!${verb}(big.Int=${argument.value})`
  return `%!${verb}(${argument.kind}=${formatArgument('v', argument, spec)})`
}

function formatString(verb: string, argument: Argument & { kind: 'string' }, spec: Spec): string {
  const { value } = argument
  switch (verb) {
    case 'v':
      return spec.sharpV ? pad(quoteGo(value, false), spec) : pad(truncate(value, spec), spec)
    case 's':
      return pad(truncate(value, spec), spec)
    case 'q': {
      const text = truncate(value, spec)
      const raw = spec.sharp && /^[^`\p{Cc}\ufeff]*$/u.test(text.replaceAll('\t', ''))
      return pad(raw ? `\`${text}\`` : quoteGo(text, spec.plus), spec)
    }
    case 'x':
    case 'X': {
      const bytes = Buffer.from(value, 'utf8')
      const hex = bytes.subarray(0, spec.precision ?? bytes.length).toString('hex')
      const pairs = hex.match(/../g) ?? []
      const prefix = spec.sharp && pairs.length > 0 ? '0x' : ''
      const text = spec.space
        ? pairs.map((pair) => (spec.sharp ? `0x${pair}` : pair)).join(' ')
        : prefix + hex
      return pad(verb === 'X' ? text.toUpperCase() : text, spec)
    }
    default:
      return wrongVerb(verb, argument, spec)
  }
}

function truncate(text: string, spec: Spec): string {
  if (spec.precision === undefined || text.length <= spec.precision) return text
  return Array.from(text).slice(0, spec.precision).join('')
}

const BASES: Readonly<Record<string, number>> = { b: 2, o: 8, O: 8, d: 10, v: 10, x: 16, X: 16 }

function formatInteger(verb: string, argument: Argument & { value: bigint }, spec: Spec): string {
  const { value, kind } = argument
  const base = verb === 's' && kind === '*big.Int' ? 10 : BASES[verb]
  if (base !== undefined) return integerText(verb, value, base, spec)
  if (kind === 'int64' && (verb === 'c' || verb === 'q' || verb === 'U')) {
    const valid = value >= 0n && value <= 0x10ffffn && !(value >= 0xd800n && value <= 0xdfffn)
    const character = valid ? String.fromCodePoint(Number(value)) : '\ufffd'
    if (verb === 'c') return pad(character, spec)
    if (verb === 'q') {
      const quoted = character === "'" ? "\\'" : quoteGo(character, spec.plus).slice(1, -1)
      return pad(`'${quoted === '\\"' ? '"' : quoted}'`, spec)
    }
    const hex = BigInt.asUintN(64, value).toString(16).toUpperCase()
    const text = `U+${hex.padStart(Math.max(4, spec.precision ?? 0), '0')}`
    return pad(spec.sharp && valid && isPrintable(character) ? `${text} '${character}'` : text, {
      ...spec,
      zero: false,
    })
  }
  return wrongVerb(verb, argument, spec)
}

function integerText(verb: string, value: bigint, base: number, spec: Spec): string {
  const negative = value < 0n
  const sign = negative ? '-' : spec.plus ? '+' : spec.space ? ' ' : ''
  let digits = (negative ? -value : value).toString(base)
  if (verb === 'X') digits = digits.toUpperCase()
  if (spec.precision !== undefined) {
    if (spec.precision === 0 && value === 0n) return pad('', { ...spec, zero: false })
    digits = digits.padStart(spec.precision, '0')
  } else if (spec.zero && !spec.minus && spec.width !== undefined) {
    digits = digits.padStart(spec.width - sign.length, '0')
  }
  let prefix = verb === 'O' ? '0o' : ''
  if (spec.sharp) {
    if (verb === 'b') prefix = '0b'
    else if (base === 8 && !digits.startsWith('0')) prefix += '0'
    else if (verb === 'x' || verb === 'X') prefix = `0${verb}`
  }
  return pad(sign + prefix + digits, { ...spec, zero: false })
}

function formatFloatArgument(
  verb: string,
  argument: Argument & { kind: 'float64' },
  spec: Spec,
): string {
  const style = verb === 'v' ? 'g' : verb === 'F' ? 'f' : verb
  if (style !== 'e' && style !== 'E' && style !== 'f' && style !== 'g' && style !== 'G') {
    return wrongVerb(verb, argument, spec)
  }
  const { value } = argument
  // %e and %f have six digits unless told otherwise, %g as many as are needed.
  const precision = spec.precision ?? (style === 'g' || style === 'G' ? undefined : 6)
  const negative = value < 0 || Object.is(value, -0)
  const digits = formatFloat(Math.abs(value), style, precision, spec.sharp)
  const sign = negative ? '-' : spec.plus ? '+' : spec.space ? ' ' : ''
  if (spec.zero && !spec.minus && spec.width !== undefined) {
    return sign + digits.padStart(spec.width - sign.length, '0')
  }
  return pad(sign + digits, spec)
}

function pad(text: string, spec: Spec): string {
  if (spec.width === undefined) return text
  const missing = spec.width - Array.from(text).length
  if (missing <= 0) return text
  if (spec.minus) return text + ' '.repeat(missing)
  return (spec.zero ? '0' : ' ').repeat(missing) + text
}
