// Where a message ends. Decides body length from Content-Length and Transfer-Encoding in the only two
// spellings that every recipient reads alike; promises that everything else is refused.
import { type Rejection, rejection } from './rejection.ts'

export type Framing =
  | { readonly kind: 'none' }
  /** `length` in bytes, possibly 0. */
  | { readonly kind: 'length'; readonly length: number }
  | { readonly kind: 'chunked' }

export const NO_BODY: Framing = Object.freeze({ kind: 'none' })
export const CHUNKED: Framing = Object.freeze({ kind: 'chunked' })

/** Not a byte follows the head, whether that was said or not. */
export function isEmpty(body: Framing): boolean {
  return body.kind === 'none' || (body.kind === 'length' && body.length === 0)
}

/**
 * The framing of a request body from the values of its only Content-Length and Transfer-Encoding
 * (RFC 9112 section 6.3). Both together are refused, as section 6.1 allows a server to: two
 * recipients that prefer different ones are how requests are smuggled. A transfer coding in HTTP/1.0
 * is faulty framing for the same reason.
 */
export function framingOf(
  length: string | undefined,
  encoding: string | undefined,
  minorVersion: 0 | 1,
): Framing | Rejection {
  if (encoding !== undefined) {
    if (length !== undefined || minorVersion === 0) return rejection('bad_framing')
    return isChunked(encoding) ? CHUNKED : rejection('unsupported_encoding')
  }
  if (length === undefined) return NO_BODY
  const bytes = parseLength(length)
  return bytes === undefined ? rejection('bad_framing') : { kind: 'length', length: bytes }
}

/** Coding names are case-insensitive (RFC 9112 section 7). */
export function isChunked(encoding: string): boolean {
  return encoding === 'chunked' || encoding.toLowerCase() === 'chunked'
}

/**
 * Decimal digits in canonical form, at most Number.MAX_SAFE_INTEGER. No sign, no list, even of equal
 * numbers, and no leading zero: RFC 9110 section 8.6 allows one, but some recipients read octal.
 */
export function parseLength(text: string): number | undefined {
  if (text.length === 0 || text.length > 16) return undefined
  let value = 0
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9) return undefined
    value = value * 10 + digit
  }
  if (text.charCodeAt(0) === 0x30 && text.length > 1) return undefined
  return value <= Number.MAX_SAFE_INTEGER ? value : undefined
}
