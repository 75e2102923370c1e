// SPIFFE IDs of workloads (SPIFFE-ID specification, sections 2.1 to 2.3). A value of this type is
// well formed: no percent-encoding, no dot segments, nothing that two readers could read differently.

export interface SpiffeId {
  readonly id: string
  readonly trustDomain: string
  /** With its leading slash; never just the slash. */
  readonly path: string
}

/**
 * Undefined for anything but the ID of a workload, also for the ID of a trust domain itself: a leaf
 * with a root path authenticates nobody (X509-SVID specification, section 5.2).
 */
export const parseSpiffeId = (text: string): SpiffeId | undefined => {
  // The pattern lets only ASCII through, so its length in characters is its length in bytes.
  if (text.length > MAX_BYTES) return undefined
  const parts = FORM.exec(text)
  if (parts === null) return undefined
  const [, trustDomain, path] = parts as unknown as [string, string, string]
  if (trustDomain.length > MAX_TRUST_DOMAIN_BYTES || DOT_SEGMENT.test(path)) return undefined
  return { id: text, trustDomain, path }
}

/** True where a URI claims to be a SPIFFE ID, well formed or not (RFC 3986: schemes ignore case). */
export const claimsSpiffe = (uri: string): boolean => /^spiffe:/i.test(uri)

const FORM = /^spiffe:\/\/([a-z0-9._-]+)((?:\/[A-Za-z0-9._-]+)+)$/
const DOT_SEGMENT = /\/\.\.?(?=\/|$)/
const MAX_BYTES = 2048
const MAX_TRUST_DOMAIN_BYTES = 255
