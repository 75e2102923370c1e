// Numbers in JSON schemas: exact in comparisons, floats in constants and messages.
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { formatFloat } from './go-float.ts'
import { jsonText } from './json-marshal.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

export interface Rational {
  readonly top: bigint
  /** Above zero. */
  readonly bottom: bigint
}

const MAX_DIGITS = 10_000

export function rationalOf({ literal }: RegoNumber, context: BuiltinContext): Rational {
  const parts = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,6}))?$/.exec(literal)
  if (parts === null) throw new BuiltinError('not a number')
  const [, sign, whole = '', fraction = '', exponent = '0'] = parts
  const power = Number(exponent) - fraction.length
  const digits = whole.length + fraction.length + Math.abs(power)
  if (digits > MAX_DIGITS) throw new BuiltinError('number is too long')
  context.spend(digits)
  const top = BigInt(`${sign}${whole}${fraction}`)
  return power < 0
    ? { top, bottom: 10n ** BigInt(-power) }
    : { top: top * 10n ** BigInt(power), bottom: 1n }
}

export function compareRationals(a: Rational, b: Rational): number {
  const [left, right] = [a.top * b.bottom, b.top * a.bottom]
  return left < right ? -1 : left > right ? 1 : 0
}

export function isMultiple(value: Rational, of: Rational): boolean {
  return (value.top * of.bottom) % (value.bottom * of.top) === 0n
}

export function isWhole({ top, bottom }: Rational): boolean {
  return top % bottom === 0n
}

/** As a big.Float of Go is written. */
export function rationalText({ top, bottom }: Rational): string {
  const value = Number(top) / Number(bottom)
  return (value < 0 ? '-' : '') + formatFloat(Math.abs(value), 'g', undefined)
}

/** JSON in which equal numbers are written equally, since all of them are floats. */
export function plainJson(value: RegoValue): string {
  return jsonText(withFloats(value))
}

function withFloats(value: RegoValue): RegoValue {
  if (value instanceof RegoNumber) return new RegoNumber(String(Number(value.literal)))
  if (value instanceof RegoSet) return new RegoSet(value.members.map(withFloats))
  if (Array.isArray(value)) return value.map(withFloats)
  if (!(value instanceof RegoObject)) return value
  const object = new RegoObject()
  for (const [key, one] of value.entries()) object.set(key, withFloats(one))
  return object
}
