import { randomBytes } from 'node:crypto'

/** Fields of about all that a head may have by default. */
export const LARGE_HEAD: Readonly<Record<string, string>> = Object.fromEntries(
  Array.from({ length: 15 }, (_, i) => [`x-large-${i}`, randomBytes(1_000).toString('hex')]),
)
