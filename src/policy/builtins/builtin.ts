// What a builtin is. The host calls it in the middle of an evaluation, outside of wasm's fuel: it
// has to account for its own work, and it answers the same for the whole of one evaluation.
import type { BoundedCache } from './bounded-cache.ts'
import type { JwtKeys } from './jwt-keys.ts'
import type { Regex } from './regex.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

/** @throws BuiltinError where OPA's builtin gives an error: the expression is undefined then. */
export type Builtin = (args: readonly RegoValue[], context: BuiltinContext) => RegoValue

export interface BuiltinContext {
  /** Time of the evaluation in nanoseconds since 1970. */
  readonly timeNs: bigint
  readonly regexes: BoundedCache<Regex>
  readonly jwtKeys: BoundedCache<JwtKeys>
  /** What was drawn by chance in this evaluation, by what it was asked for. */
  readonly drawn: Map<string, RegoValue>
  /**
   * Takes fuel for work done here, in loop iterations of wasm (about 5 ns each).
   * @throws FuelSpent when none is left.
   */
  spend(iterations: number): void
}

/** An error in the terms of Rego; anything else that a builtin throws is a fault and denies. */
export class BuiltinError extends Error {
  override readonly name = 'BuiltinError'
}

/** The evaluation has used up its budget inside a builtin. */
export class FuelSpent extends Error {
  override readonly name = 'FuelSpent'
}

export function stringArgument(value: RegoValue | undefined, position: number): string {
  if (typeof value === 'string') return value
  throw new BuiltinError(`operand ${position} must be string but got ${typeName(value)}`)
}

export function objectArgument(value: RegoValue | undefined, position: number): RegoObject {
  if (value instanceof RegoObject) return value
  throw new BuiltinError(`operand ${position} must be object but got ${typeName(value)}`)
}

export function arrayArgument(
  value: RegoValue | undefined,
  position: number,
): readonly RegoValue[] {
  if (Array.isArray(value)) return value
  throw new BuiltinError(`operand ${position} must be array but got ${typeName(value)}`)
}

/** An int64 as OPA reads it: `2.0` is one, `2e0` is not; above 2^53 the nearest number. */
export function integerArgument(value: RegoValue | undefined, position: number): number {
  if (!(value instanceof RegoNumber)) {
    throw new BuiltinError(`operand ${position} must be number but got ${typeName(value)}`)
  }
  const { literal } = value
  const integer =
    literal.length <= 20 && /^-?[0-9]+(?:\.0*)?$/.test(literal) ? Number(literal) : NaN
  if (Math.abs(integer) < 2 ** 63) return integer
  throw new BuiltinError(`operand ${position} must be integer number but got another`)
}

/** The members of an array or a set, all of them strings. */
export function textsArgument(value: RegoValue | undefined, position: number): readonly string[] {
  const members = value instanceof RegoSet ? value.members : arrayArgument(value, position)
  return members.map((member) => stringArgument(member, position))
}

function typeName(value: RegoValue | undefined): string {
  if (value === null || value === undefined) return 'null'
  if (value instanceof RegoNumber) return 'number'
  if (value instanceof RegoSet) return 'set'
  if (value instanceof RegoObject) return 'object'
  return Array.isArray(value) ? 'array' : typeof value
}
