// How the verified peer is told to the workload: x-forwarded-client-cert in Envoy's format, and
// client-cert of RFC 9440. Promises visible ASCII and that no certificate can say more than one value.
import type { ForwardedClientCertMode } from '../config/config.ts'

export interface XfccPeer {
  /** URI SANs of our own certificate. */
  readonly by: readonly string[]
  /** SHA-256 of the peer's certificate in DER, hex. */
  readonly hash: string
  readonly uris: readonly string[]
  readonly subject?: string
  readonly dns?: readonly string[]
  readonly certPem?: string
  /** Leaf included. */
  readonly chainPem?: string
}

/**
 * One element: By, Hash, Cert, Chain, Subject, URI, DNS, in Envoy's order. A value with `,` `;` `=`
 * or `"` is quoted; Subject, Cert and Chain always are.
 */
export function xfccElement(peer: XfccPeer): string {
  const pairs: string[] = []
  for (const uri of peer.by) pairs.push(`By=${quotedIfNeeded(uri)}`)
  pairs.push(`Hash=${peer.hash}`)
  if (peer.certPem !== undefined) pairs.push(`Cert="${encodeURIComponent(peer.certPem)}"`)
  if (peer.chainPem !== undefined) pairs.push(`Chain="${encodeURIComponent(peer.chainPem)}"`)
  if (peer.subject !== undefined) pairs.push(`Subject=${quoted(peer.subject)}`)
  for (const uri of peer.uris) pairs.push(`URI=${quotedIfNeeded(uri)}`)
  for (const name of peer.dns ?? []) pairs.push(`DNS=${quotedIfNeeded(name)}`)
  return pairs.join(';')
}

/**
 * The value to forward, or undefined for no field at all (Envoy's modes of the same names).
 *
 * @param received the client's fields of that name, joined with commas.
 * @param own the element made for the verified peer.
 */
export function combineXfcc(
  mode: ForwardedClientCertMode,
  received: string | undefined,
  own: string | undefined,
): string | undefined {
  switch (mode) {
    case 'sanitize':
      return undefined
    case 'sanitize_set':
      return own
    case 'forward_only':
    case 'always_forward_only':
      return received
    case 'append_forward':
      return received && own && QUOTES_CLOSE.test(received) ? `${received},${own}` : own || received
  }
}

/** The value of client-cert: the peer's certificate as a structured-field byte sequence. */
export function clientCertField(der: Uint8Array): string {
  return `:${Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64')}:`
}

/** Else what is appended would be read as part of the client's last value. */
const QUOTES_CLOSE = /^(?:[^"\\]|"(?:[^"\\]|\\.)*")*$/

function quotedIfNeeded(value: string): string {
  return /[^\w\-./:@%+*!$&'()~?#]/.test(value) ? quoted(value) : value
}

/**
 * Envoy escapes `"` only. A backslash is doubled besides, or a value that ends in one would take the
 * closing quote with it and begin to speak for the keys after it. Anything but visible ASCII and
 * space is percent-encoded as UTF-8.
 */
function quoted(value: string): string {
  const escaped = value.replaceAll(/["\\]/g, '\\$&').toWellFormed()
  return `"${escaped.replaceAll(/[^\x20-\x7e]/gu, encodeURIComponent)}"`
}
