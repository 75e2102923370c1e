// A client that proved nothing about itself, let in by an option that says so. Of another kind than a
// VerifiedPeer and without any name, so that nothing can take the one for the other: allow rules never
// admit it, it has no identity headers, and a policy sees an empty principal.
import type { PeerRejection, VerifiedPeer } from './peer.ts'

export class AnonymousPeer {
  readonly kind = 'anonymous'
  /** What it came without: a certificate, or TLS altogether. */
  readonly lacks: 'certificate' | 'tls'
  readonly principal = ''
  readonly uris: readonly string[] = NONE
  readonly dnsNames: readonly string[] = NONE
  readonly commonName = undefined
  readonly serial = ''
  /** Whether it may stay is asked at every tick: a reload can take the option away. */
  readonly acceptableUntilMs = 0

  constructor(lacks: AnonymousPeer['lacks']) {
    this.lacks = lacks
    Object.freeze(this)
  }
}

export type Peer = VerifiedPeer | AnonymousPeer

/** The options that let such clients in, as the configuration has them. */
export interface UnsafeAdmission {
  readonly unsafeOptionalPeer: boolean
  readonly unsafePlaintext: boolean
}

/** The same peer, or why it may not come in or stay. */
export function admitAnonymous(
  peer: AnonymousPeer,
  { unsafeOptionalPeer, unsafePlaintext }: UnsafeAdmission,
): AnonymousPeer | PeerRejection {
  const admitted = peer.lacks === 'tls' ? unsafePlaintext : unsafeOptionalPeer
  return admitted
    ? peer
    : { kind: 'rejection', reason: 'no_certificate', detail: DETAIL[peer.lacks] }
}

const DETAIL = {
  certificate: 'the client presented no certificate',
  tls: 'the client spoke plain text',
} as const

const NONE: readonly string[] = Object.freeze([])
