// glob.quote_meta: a text as a glob that matches nothing but it.
import { stringArgument } from './builtin.ts'
import type { RegoValue } from './value.ts'

export function quoteGlob(args: readonly RegoValue[]): RegoValue {
  return stringArgument(args[0], 1).replace(/[*?\\[\]{}]/g, '\\$&')
}
