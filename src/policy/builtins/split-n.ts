// strings.split_n: the first parts of a text, or the last ones for a negative number.
import { type BuiltinContext, integerArgument, stringArgument } from './builtin.ts'
import type { RegoValue } from './value.ts'

/** Of one part, in loop iterations of wasm. */
const PART_COST = 20

export function splitN(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  const delimiter = stringArgument(args[1], 2)
  const wanted = integerArgument(args[2], 3)
  context.spend(text.length)
  // Go splits into characters where there is no delimiter, JavaScript into UTF-16 units.
  const parts = delimiter === '' ? Array.from(text) : text.split(delimiter)
  context.spend(PART_COST * parts.length)
  return wanted >= 0 ? parts.slice(0, wanted) : parts.slice(wanted)
}
