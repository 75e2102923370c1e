// cast_*: deprecated, in policies of Rego v0. They change nothing but array and set.
import { type Builtin, BuiltinError } from './builtin.ts'
import { compareValues } from './compare.ts'
import { RegoObject, RegoSet, type RegoValue } from './value.ts'

export const castToArray: Builtin = ([value]) => membersOf(value).toSorted(compareValues)

/** The module itself drops members that occur twice. */
export const castToSet: Builtin = ([value]) => new RegoSet(membersOf(value))

export const castToString = only((value) => typeof value === 'string')
export const castToBoolean = only((value) => typeof value === 'boolean')
export const castToNull = only((value) => value === null)
export const castToObject = only((value) => value instanceof RegoObject)

function membersOf(value: RegoValue | undefined): readonly RegoValue[] {
  if (value instanceof RegoSet) return value.members
  if (Array.isArray(value)) return value
  throw new BuiltinError('operand 1 must be one of {array, set}')
}

function only(fits: (value: RegoValue) => boolean): Builtin {
  return ([value]) => {
    if (value !== undefined && fits(value)) return value
    throw new BuiltinError('operand 1 has another type')
  }
}
