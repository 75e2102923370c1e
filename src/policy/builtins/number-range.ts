// numbers.range_step: from one integer to another, in steps, up or down.
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { RegoNumber, type RegoValue } from './value.ts'

/** Of one number: it is made here, written, and read again by the module. */
const NUMBER_COST = 30
/** Digits, and the exponent, of an integer that is worth computing with. */
const MAX_DIGITS = 1_000

export function rangeStep(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [from, to, step] = [0, 1, 2].map((i) => bigIntArgument(args[i], i + 1)) as [
    bigint,
    bigint,
    bigint,
  ]
  if (step <= 0n) throw new BuiltinError('step must be a positive integer')
  const numbers: RegoValue[] = []
  const push = (value: bigint) => {
    context.spend(NUMBER_COST)
    numbers.push(new RegoNumber(String(value)))
  }
  if (from <= to) for (let value = from; value <= to; value += step) push(value)
  else for (let value = from; value >= to; value -= step) push(value)
  return numbers
}

/** An integer of any size; `1.0` and `1e2` are integers. */
function bigIntArgument(value: RegoValue | undefined, position: number): bigint {
  const fail = () => new BuiltinError(`operand ${position} must be integer number`)
  if (!(value instanceof RegoNumber)) throw fail()
  const parts = /^(-?[0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,4}))?$/.exec(value.literal)
  if (parts === null) throw fail()
  const [, whole = '', fraction = '', exponent = '0'] = parts
  const power = Number(exponent) - fraction.length
  if (whole.length + fraction.length + Math.abs(power) > MAX_DIGITS) throw fail()
  const digits = BigInt(whole + fraction)
  if (power >= 0) return digits * 10n ** BigInt(power)
  const divisor = 10n ** BigInt(-power)
  if (digits % divisor !== 0n) throw fail()
  return digits / divisor
}
