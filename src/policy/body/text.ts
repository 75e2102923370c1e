// The bytes of a body as text. What is not UTF-8 has no one meaning, so it is refused.
import { InputError } from '../input-error.ts'

const STRICT = { fatal: true, ignoreBOM: true }

/** @throws InputError */
export function textOf(bytes: Uint8Array, what: string): string {
  const text = textIfUtf8(bytes)
  if (text === undefined) throw new InputError(`${what} is not UTF-8`)
  return text
}

export function textIfUtf8(bytes: Uint8Array): string | undefined {
  try {
    // A byte order mark is kept: JSON does not allow one, so a reader may not overlook it.
    return new TextDecoder('utf-8', STRICT).decode(bytes)
  } catch {
    return undefined
  }
}
