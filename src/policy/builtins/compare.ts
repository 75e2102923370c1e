// The order of Rego values: null, booleans, numbers, strings, arrays, objects, sets.
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

type Spend = (iterations: number) => void

/** In loop iterations of wasm: of two values, whatever is in them. */
const PAIR_COST = 10
const free: Spend = () => {}

/** @param spend is told about the work, which may be that of all that is in both */
export function compareValues(a: RegoValue, b: RegoValue, spend: Spend = free): number {
  const byType = rank(a) - rank(b)
  if (byType !== 0) return byType
  spend(PAIR_COST)
  if (typeof a === 'boolean') return Number(a) - Number(b)
  if (typeof a === 'string') return compareText(a, b as string, spend)
  if (a instanceof RegoNumber) return compareNumbers(a, b as RegoNumber)
  if (a === null) return 0
  if (a instanceof RegoObject) return compareObjects(a, b as RegoObject, spend)
  if (a instanceof RegoSet) {
    const [left, right] = [a.members, (b as RegoSet).members].map((one) =>
      one.toSorted((x, y) => compareValues(x, y, spend)),
    )
    return compareLists(left as RegoValue[], right as RegoValue[], spend)
  }
  return compareLists(a, b as readonly RegoValue[], spend)
}

/** By value, exactly: also where a float could not tell two integers apart. */
export function compareNumbers(a: RegoNumber, b: RegoNumber): number {
  if (a.literal === b.literal) return 0
  const [x, y] = [Number(a.literal), Number(b.literal)]
  if (x !== y) return x < y ? -1 : 1
  if (!isInteger(a) || !isInteger(b)) return 0
  const [m, n] = [BigInt(a.literal), BigInt(b.literal)]
  return m < n ? -1 : m > n ? 1 : 0
}

function isInteger(number: RegoNumber): boolean {
  return number.literal.length <= 1_000 && /^-?[0-9]+$/.test(number.literal)
}

function rank(value: RegoValue): number {
  if (value === null) return 0
  if (typeof value === 'boolean') return 1
  if (value instanceof RegoNumber) return 2
  if (typeof value === 'string') return 3
  if (value instanceof RegoObject) return 5
  return value instanceof RegoSet ? 6 : 4
}

/** Go compares the bytes of UTF-8, which is the order of code points, not of UTF-16 units. */
function compareText(a: string, b: string, spend: Spend): number {
  if (a === b) {
    spend(a.length >> 4)
    return 0
  }
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (x === y) continue
    spend(i >> 2)
    return isSurrogate(x) === isSurrogate(y) ? x - y : isSurrogate(x) ? 1 : -1
  }
  spend(length >> 2)
  return a.length - b.length
}

/** Half of a code point that is above all others. */
function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff
}

function compareLists(a: readonly RegoValue[], b: readonly RegoValue[], spend: Spend): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const order = compareValues(a[i] as RegoValue, b[i] as RegoValue, spend)
    if (order !== 0) return order
  }
  return a.length - b.length
}

function compareObjects(a: RegoObject, b: RegoObject, spend: Spend): number {
  const [left, right] = [a, b].map((one) =>
    Array.from(one.entries()).toSorted(([x], [y]) => compareValues(x, y, spend)),
  ) as [(readonly [RegoValue, RegoValue])[], (readonly [RegoValue, RegoValue])[]]
  for (let i = 0; i < left.length && i < right.length; i++) {
    const [x, y] = [left[i], right[i]] as [[RegoValue, RegoValue], [RegoValue, RegoValue]]
    const order = compareValues(x[0], y[0], spend) || compareValues(x[1], y[1], spend)
    if (order !== 0) return order
  }
  return left.length - right.length
}
