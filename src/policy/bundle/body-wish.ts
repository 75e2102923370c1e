// Whether a bundle asks for request bodies, in its manifest under `metadata.postern.input.body`.
import { RegoNumber, RegoObject, type RegoValue } from '../builtins/value.ts'
import { DEFAULT_BODY_BYTES, MOST_BODY_BYTES } from '../input-settings.ts'
import { BundleError } from './archive.ts'

/**
 * @param metadata of the manifest
 * @returns bytes to collect, 0 for none; undefined when it does not say
 * @throws BundleError
 */
export function readBodyWish(metadata: RegoValue | undefined): number | undefined {
  const body = ['postern', 'input', 'body'].reduce<RegoValue | undefined>(
    (value, key) => (value instanceof RegoObject ? value.get(key) : undefined),
    metadata,
  )
  if (body === undefined) return undefined
  if (typeof body === 'boolean') return body ? DEFAULT_BODY_BYTES : 0
  const maxBytes = body instanceof RegoObject ? body.get('maxBytes') : undefined
  const bytes = maxBytes instanceof RegoNumber ? Number(maxBytes.literal) : Number.NaN
  if (Number.isInteger(bytes) && bytes >= 0 && bytes <= MOST_BODY_BYTES) return bytes
  throw new BundleError(
    '.manifest: metadata.postern.input.body says neither true nor false nor how much',
    `write true, or {"maxBytes": N} with N from 0 to ${MOST_BODY_BYTES}`,
  )
}
