// What the codec returns in place of a value when a client's bytes are refused: one frozen object per
// code of the error table, so that refusing costs no allocation and can be compared by identity.
import { ERRORS, type ErrorCode } from '../errors.ts'

export interface Rejection {
  readonly kind: 'rejection'
  readonly code: ErrorCode
}

export function rejection(code: ErrorCode): Rejection {
  return BY_CODE.get(code)!
}

const BY_CODE: ReadonlyMap<ErrorCode, Rejection> = new Map(
  (Object.keys(ERRORS) as ErrorCode[]).map((code) => [
    code,
    Object.freeze({ kind: 'rejection', code }),
  ]),
)
