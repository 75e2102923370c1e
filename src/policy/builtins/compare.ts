// The order of Rego values: null, booleans, numbers, strings, arrays, objects, sets.
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

export function compareValues(a: RegoValue, b: RegoValue): number {
  const byType = rank(a) - rank(b)
  if (byType !== 0) return byType
  if (typeof a === 'boolean') return Number(a) - Number(b)
  if (typeof a === 'string') return compareText(a, b as string)
  if (a instanceof RegoNumber) return compareNumbers(a, b as RegoNumber)
  if (a === null) return 0
  if (a instanceof RegoObject) return compareObjects(a, b as RegoObject)
  if (a instanceof RegoSet) {
    const [left, right] = [a.members, (b as RegoSet).members].map((one) =>
      one.toSorted(compareValues),
    )
    return compareLists(left as RegoValue[], right as RegoValue[])
  }
  return compareLists(a, b as readonly RegoValue[])
}

/** By value, exactly: also where a float could not tell two integers apart. */
export function compareNumbers(a: RegoNumber, b: RegoNumber): number {
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
function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (x !== y) return isSurrogate(x) === isSurrogate(y) ? x - y : isSurrogate(x) ? 1 : -1
  }
  return a.length - b.length
}

/** Half of a code point that is above all others. */
function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff
}

function compareLists(a: readonly RegoValue[], b: readonly RegoValue[]): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const order = compareValues(a[i] as RegoValue, b[i] as RegoValue)
    if (order !== 0) return order
  }
  return a.length - b.length
}

function compareObjects(a: RegoObject, b: RegoObject): number {
  const [left, right] = [a, b].map((one) =>
    Array.from(one.entries()).toSorted(([x], [y]) => compareValues(x, y)),
  ) as [(readonly [RegoValue, RegoValue])[], (readonly [RegoValue, RegoValue])[]]
  for (let i = 0; i < left.length && i < right.length; i++) {
    const [x, y] = [left[i], right[i]] as [[RegoValue, RegoValue], [RegoValue, RegoValue]]
    const order = compareValues(x[0], y[0]) || compareValues(x[1], y[1])
    if (order !== 0) return order
  }
  return left.length - right.length
}
