// Short forms for the tests of the codec.
import type { HeadLimits, RequestHead } from '../../src/http/head.ts'
import { parseRequestHead } from '../../src/http/head.ts'
import type { ResponseHead } from '../../src/http/response.ts'
import { parseResponseHead } from '../../src/http/response.ts'

export const LIMITS: HeadLimits = {
  headBytes: 16384,
  headerCount: 100,
  targetBytes: 8192,
  allowAmbiguousPaths: false,
}

export function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

/** The head, the code it is refused with, or undefined while incomplete. */
export function request(
  text: string,
  limits: Partial<HeadLimits> = {},
): RequestHead | string | undefined {
  const buffer = bytes(text)
  const head = parseRequestHead(buffer, 0, buffer.length, { ...LIMITS, ...limits })
  return head?.kind === 'rejection' ? head.code : head
}

export function accepted(text: string, limits: Partial<HeadLimits> = {}): RequestHead {
  const head = request(text, limits)
  if (typeof head !== 'object') throw new Error(`not accepted: ${head}`)
  return head
}

/** A request with the given field lines after Host, each without CRLF. */
export function withFields(...fieldLines: string[]): string {
  return `${['POST / HTTP/1.1', 'Host: a', ...fieldLines].join('\r\n')}\r\n\r\n`
}

/** The head, what is wrong with it, or undefined while incomplete. */
export function response(
  text: string,
  to: { readonly method?: string; readonly upgrade?: boolean } = {},
  limits: { readonly headBytes?: number; readonly headerCount?: number } = {},
): ResponseHead | string | undefined {
  const buffer = bytes(text)
  const head = parseResponseHead(
    buffer,
    0,
    buffer.length,
    { method: 'GET', upgrade: false, ...to },
    { ...LIMITS, ...limits },
  )
  return head?.kind === 'bad_response' ? head.what : head
}
