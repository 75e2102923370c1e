// rand.intn and uuid.rfc4122: random, but the same for the same argument within one evaluation.
import { randomInt, randomUUID } from 'node:crypto'
import { type BuiltinContext, BuiltinError, integerArgument, stringArgument } from './builtin.ts'
import { RegoNumber, type RegoValue } from './value.ts'

/** randomInt of Node.js goes no further. */
const MAX_INTN = 2 ** 48 - 1
const RANDOM_COST = 500

export function randomUuid(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const key = stringArgument(args[0], 1)
  return once(context, `uuid.rfc4122 ${key}`, () => randomUUID())
}

export function randomBelow(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const key = stringArgument(args[0], 1)
  const limit = Math.abs(integerArgument(args[1], 2))
  if (limit === 0) return new RegoNumber('0')
  if (limit > MAX_INTN) throw new BuiltinError(`rand.intn goes to ${MAX_INTN}`)
  return once(context, `rand.intn ${limit} ${key}`, () => new RegoNumber(String(randomInt(limit))))
}

function once({ spend, drawn }: BuiltinContext, key: string, draw: () => RegoValue): RegoValue {
  spend(RANDOM_COST)
  const known = drawn.get(key)
  if (known !== undefined) return known
  const value = draw()
  drawn.set(key, value)
  return value
}
