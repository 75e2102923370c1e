// object.subset(super, sub): for objects, sets and arrays, with OPA's meaning of each pair.
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { compareValues } from './compare.ts'
import { RegoObject, RegoSet, type RegoValue } from './value.ts'

/** In loop iterations of wasm: one comparison of two small values. */
const COMPARE_COST = 10

export function isSubset(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [whole, part] = args as [RegoValue, RegoValue]
  const answer = subsetOf(whole, part, context)
  if (answer !== undefined) return answer
  if (Array.isArray(whole) && part instanceof RegoSet) return arrayHasSet(whole, part, context)
  throw new BuiltinError('both arguments must be of the same type, or array and set')
}

/** Undefined where no meaning is defined for the pair. */
function subsetOf(whole: RegoValue, part: RegoValue, context: BuiltinContext): boolean | undefined {
  if (whole instanceof RegoObject && part instanceof RegoObject) {
    return objectHasObject(whole, part, context)
  }
  if (whole instanceof RegoSet && part instanceof RegoSet) return setHasSet(whole, part, context)
  if (Array.isArray(whole) && Array.isArray(part)) return arrayHasArray(whole, part, context)
  return undefined
}

/** Each key of `part` is there, with an equal value or a subset of it. */
function objectHasObject(whole: RegoObject, part: RegoObject, context: BuiltinContext): boolean {
  for (const [key, value] of part.entries()) {
    const other = valueAt(whole, key, context)
    if (other === undefined) return false
    if (equal(other, value, context)) continue
    if (subsetOf(other, value, context) !== true) return false
  }
  return true
}

function valueAt(
  object: RegoObject,
  key: RegoValue,
  context: BuiltinContext,
): RegoValue | undefined {
  if (typeof key === 'string') return object.get(key)
  // Equal keys may be written in different ways (1 and 1.0, members of a set in another order).
  for (const [other, value] of object.entries()) if (equal(other, key, context)) return value
  return undefined
}

function setHasSet(whole: RegoSet, part: RegoSet, context: BuiltinContext): boolean {
  const has = membership(whole.members, context)
  return part.members.every(has)
}

/** `part` stands in `whole` as it is, without gaps. */
function arrayHasArray(
  whole: readonly RegoValue[],
  part: readonly RegoValue[],
  context: BuiltinContext,
): boolean {
  for (let start = 0; start + part.length <= whole.length; start++) {
    const matches = part.every((value, i) => equal(whole[start + i] as RegoValue, value, context))
    if (matches) return true
  }
  return false
}

/** OPA counts members of the array, so that one which is there twice counts twice. */
function arrayHasSet(whole: readonly RegoValue[], part: RegoSet, context: BuiltinContext): boolean {
  const has = membership(part.members, context)
  let missing = part.members.length
  for (const value of whole) {
    if (has(value)) missing--
    if (missing === 0) return true
  }
  return false
}

function membership(
  members: readonly RegoValue[],
  context: BuiltinContext,
): (value: RegoValue) => boolean {
  context.spend(COMPARE_COST * members.length)
  const compare = (a: RegoValue, b: RegoValue) => {
    context.spend(COMPARE_COST)
    return compareValues(a, b, (steps) => context.spend(steps))
  }
  const sorted = members.toSorted(compare)
  return (value) => {
    let [low, high] = [0, sorted.length]
    while (low < high) {
      const middle = (low + high) >> 1
      const order = compare(sorted[middle] as RegoValue, value)
      if (order === 0) return true
      if (order < 0) low = middle + 1
      else high = middle
    }
    return false
  }
}

function equal(a: RegoValue, b: RegoValue, context: BuiltinContext): boolean {
  context.spend(COMPARE_COST)
  return compareValues(a, b, (steps) => context.spend(steps)) === 0
}
