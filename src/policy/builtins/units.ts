// units.parse and units.parse_bytes: amounts such as 10Ki, 1.5GB or 200m, exactly as OPA computes
// them: the one with rational numbers, the other with 64 bits of precision.
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { RegoNumber, type RegoValue } from './value.ts'

/** Powers of a thousand and of 1024 by the letter that stands for them. */
const LETTERS = ['k', 'm', 'g', 't', 'p', 'e'] as const
const SI: ReadonlyMap<string, bigint> = new Map(
  LETTERS.map((letter, i) => [letter, 1000n ** BigInt(i + 1)]),
)
const BINARY: ReadonlyMap<string, bigint> = new Map(
  LETTERS.map((letter, i) => [letter, 1024n ** BigInt(i + 1)]),
)

/** Go takes the float nearest to a thousandth: this many, of 2^-62. */
const MILLI = { top: 4_611_686_018_427_388n, bottom: 1n << 62n }
const FRACTION_DIGITS = 10
const FLOAT_BITS = 64

export function parseUnits(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const { amount, unit } = split(stringArgument(args[0], 1).replaceAll('"', ''), context)
  // A lower-case m is a thousandth, so the first letter keeps its case.
  const scale = unit === 'm' ? MILLI : { top: siUnit(unit), bottom: 1n }
  const [top, bottom] = [amount.top * scale.top, amount.bottom * scale.bottom]
  return new RegoNumber(top % bottom === 0n ? String(top / bottom) : decimal(top, bottom))
}

export function parseBytes(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1).toLowerCase().replaceAll('"', '')
  const { amount, unit } = split(text, context)
  const scale = byteUnit(unit)
  const float = nearestFloat(amount.top, amount.bottom)
  const product = nearestFloat(float.top * scale, float.bottom)
  return new RegoNumber(String(product.top / product.bottom))
}

function siUnit(unit: string): bigint {
  const rest = unit.slice(1).toLowerCase()
  const letter = unit[0] ?? ''
  if (unit === '') return 1n
  // Of the letters without i, only k may be either case besides those above mega.
  const known = rest === 'i' ? BINARY : rest === '' ? SI : undefined
  const scale = known?.get(letter.toLowerCase())
  if (scale === undefined) throw new BuiltinError(`unit ${unit} not recognized`)
  return scale
}

function byteUnit(unit: string): bigint {
  if (unit === '') return 1n
  const [, letter, binary] = /^([kmgtpe])(?:(i)b?|b)?$/.exec(unit) ?? []
  const scale = (binary === undefined ? SI : BINARY).get(letter ?? '')
  if (scale === undefined) throw new BuiltinError(`byte unit ${unit} not recognized`)
  return scale
}

interface Rational {
  readonly top: bigint
  readonly bottom: bigint
}

/** The number goes on to the first character that no number has; an e without digits is a unit. */
function split(text: string, context: BuiltinContext): { amount: Rational; unit: string } {
  if (text.includes(' ')) throw new BuiltinError('spaces not allowed in resource strings')
  const number = /^(?:[0-9.+-]|[eE](?:[+-]|[0-9]))*/.exec(text)?.[0] ?? ''
  if (number === '') throw new BuiltinError('no amount provided')
  const parts = /^([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,6}))?$/.exec(
    number,
  )
  if (parts === null) throw new BuiltinError('could not parse amount to a number')
  const [, sign, whole = '', after = '', only = '', exponent = '0'] = parts
  const fraction = after + only
  const power = Number(exponent) - fraction.length
  // Integers of that many digits are computed with.
  context.spend(30 * (number.length + Math.abs(power)))
  const digits = BigInt(whole + fraction) * (sign === '-' ? -1n : 1n)
  const amount =
    power < 0
      ? { top: digits, bottom: 10n ** BigInt(-power) }
      : { top: digits * 10n ** BigInt(power), bottom: 1n }
  return { amount, unit: text.slice(number.length) }
}

/** Rat.FloatString: the last digit rounded, halves away from zero. */
function decimal(top: bigint, bottom: bigint): string {
  const size = top < 0n ? -top : top
  const scaled = (2n * size * 10n ** BigInt(FRACTION_DIGITS) + bottom) / (2n * bottom)
  const digits = String(scaled).padStart(FRACTION_DIGITS + 1, '0')
  const point = digits.length - FRACTION_DIGITS
  return `${top < 0n ? '-' : ''}${digits.slice(0, point)}.${digits.slice(point)}`
}

/** The nearest number with 64 significant bits, a tie to the even one. */
function nearestFloat(top: bigint, bottom: bigint): Rational {
  if (top === 0n) return { top, bottom: 1n }
  const size = top < 0n ? -top : top
  let shift = FLOAT_BITS - (bitLength(size) - bitLength(bottom))
  let bits = quotient(size, bottom, shift)
  if (bits >= 1n << BigInt(FLOAT_BITS)) {
    shift--
    bits = quotient(size, bottom, shift)
  }
  const [over, under] = shifted(size, bottom, shift)
  const rest = 2n * (over - bits * under)
  if (rest > under || (rest === under && bits % 2n === 1n)) bits++
  const mantissa = top < 0n ? -bits : bits
  return shift >= 0
    ? { top: mantissa, bottom: 1n << BigInt(shift) }
    : { top: mantissa << BigInt(-shift), bottom: 1n }
}

function quotient(top: bigint, bottom: bigint, shift: number): bigint {
  const [over, under] = shifted(top, bottom, shift)
  return over / under
}

function shifted(top: bigint, bottom: bigint, shift: number): readonly [bigint, bigint] {
  return shift >= 0 ? [top << BigInt(shift), bottom] : [top, bottom << BigInt(-shift)]
}

function bitLength(value: bigint): number {
  const hex = value.toString(16)
  return 4 * (hex.length - 1) + Number.parseInt(hex[0] as string, 16).toString(2).length
}
