// semver.*: versions and their order after semver.org 2.0.0, with a leading `v` allowed as in OPA.
import { BuiltinError, stringArgument } from './builtin.ts'
import { compareValues } from './compare.ts'
import { RegoNumber, type RegoValue } from './value.ts'

interface Version {
  readonly numbers: readonly bigint[]
  readonly preRelease: readonly string[]
}

const MAX_INT64 = (1n << 63n) - 1n
const IDENTIFIER = /^[0-9A-Za-z-]+$/
const DIGITS = /^[0-9]+$/

/** semver.compare(a, b) = -1, 0 or 1 */
export function compareVersions(args: readonly RegoValue[]): RegoValue {
  const [a, b] = [0, 1].map((at) => {
    const version = parseVersion(stringArgument(args[at], at + 1))
    if (version === undefined) throw new BuiltinError(`operand ${at + 1}: not a valid SemVer`)
    return version
  }) as [Version, Version]
  return new RegoNumber(String(Math.sign(order(a, b))))
}

export function isVersion(args: readonly RegoValue[]): RegoValue {
  return typeof args[0] === 'string' && parseVersion(args[0]) !== undefined
}

function parseVersion(text: string): Version | undefined {
  const [withoutBuild, build] = cut(text.startsWith('v') ? text.slice(1) : text, '+')
  if (build !== undefined && !build.split('.').every((one) => IDENTIFIER.test(one)))
    return undefined
  const [core, preRelease] = cut(withoutBuild, '-')
  const identifiers = preRelease?.split('.') ?? []
  if (!identifiers.every((one) => IDENTIFIER.test(one) && !isPaddedNumber(one))) return undefined
  const parts = core.split('.', 4)
  if (parts.length !== 3) return undefined
  if (!parts.every((one) => DIGITS.test(one) && !isPaddedNumber(one) && one.length < 20)) {
    return undefined
  }
  const numbers = parts.map((one) => BigInt(one))
  return numbers.every((one) => one <= MAX_INT64) ? { numbers, preRelease: identifiers } : undefined
}

function cut(text: string, separator: string): [before: string, after: string | undefined] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

function isPaddedNumber(identifier: string): boolean {
  return identifier.length > 1 && identifier.startsWith('0') && DIGITS.test(identifier)
}

function order(a: Version, b: Version): number {
  for (const [i, number] of a.numbers.entries()) {
    const other = b.numbers[i] as bigint
    if (number !== other) return number < other ? -1 : 1
  }
  // Of two versions that are else equal the one without a pre-release is the later one.
  if (a.preRelease.length === 0 || b.preRelease.length === 0) {
    return b.preRelease.length - a.preRelease.length
  }
  for (let i = 0; i < a.preRelease.length && i < b.preRelease.length; i++) {
    const byIdentifier = orderIdentifiers(a.preRelease[i] as string, b.preRelease[i] as string)
    if (byIdentifier !== 0) return byIdentifier
  }
  return a.preRelease.length - b.preRelease.length
}

/** Numbers come before words. */
function orderIdentifiers(a: string, b: string): number {
  const [aIsNumber, bIsNumber] = [DIGITS.test(a), DIGITS.test(b)]
  if (aIsNumber !== bIsNumber) return aIsNumber ? -1 : 1
  if (!aIsNumber) return compareValues(a, b)
  const [x, y] = [int64(a), int64(b)]
  return x < y ? -1 : x > y ? 1 : 0
}

/** As Go's strconv.Atoi with its error ignored: what is larger is the largest. */
function int64(digits: string): bigint {
  if (digits.length > 19) return MAX_INT64
  const value = BigInt(digits)
  return value < MAX_INT64 ? value : MAX_INT64
}
