// Identity and trust as they travel in a snapshot: loaded and checked by the control thread, turned
// into OpenSSL contexts and lookup tables by each data thread.
import type { Config, DenyEntry } from '../config/config.ts'

/** Facts about one certificate that status pages, metrics and logs show. */
export interface CertificateFacts {
  readonly file: string
  /** RFC 4514 order is not promised; for people to read. */
  readonly subject: string
  readonly spiffeId?: string
  readonly serial: string
  /** SHA-256 of the DER, lower-case hex. */
  readonly fingerprint: string
  readonly notBeforeMs: number
  readonly notAfterMs: number
}

/** Our own certificate chain and key; the key has been checked to belong to the leaf. */
export interface IdentityMaterial {
  /** Leaf first, then intermediates; clean PEM, re-encoded from what was parsed. */
  readonly certificateChainPem: string
  readonly privateKeyPem: string
  readonly facts: CertificateFacts
  /** URI SANs of the leaf, for the `By` of XFCC. */
  readonly uris: readonly string[]
}

export interface TrustBundleMaterial {
  readonly trustDomain?: string
  readonly file: string
  /** DER of each CA certificate, without duplicates. Never empty. */
  readonly certificates: readonly Uint8Array[]
  readonly facts: readonly CertificateFacts[]
}

/** One CRL whose signature was checked against an issuer in the trust bundles. */
export interface CrlMaterial {
  readonly file: string
  /**
   * SHA-256 over the issuer's comparable name and public key, lower-case hex: what certificates are
   * looked up by. With the key, because authorities may share a name after a key rollover.
   */
  readonly issuerKey: string
  readonly issuer: string
  readonly thisUpdateMs: number
  /** Absent in a CRL without nextUpdate; such a CRL never goes stale. */
  readonly nextUpdateMs?: number
  readonly crlNumber?: string
  /** Made by `packSerials`: sorted, 20 bytes each. */
  readonly revokedSerials: Uint8Array
}

/** How the age and the absence of CRLs are judged; see the keys of `trust.revocation`. */
export interface RevocationRules {
  /** True where CRLs are configured: then an issuer without a current one denies. */
  readonly required: boolean
  readonly mode: Config['trust']['revocation']['mode']
  readonly graceMs: number
  readonly scope: Config['trust']['revocation']['scope']
}

export interface TrustMaterial {
  /** Counts trust and revocation changes only: what a verified peer remembers. */
  readonly generation: number
  /** Counts changes of the bundles only: a path found under the same ones still leads to an anchor. */
  readonly bundleGeneration: number
  readonly bundles: readonly TrustBundleMaterial[]
  readonly crls: readonly CrlMaterial[]
  readonly revocation: RevocationRules
  readonly denied: readonly DenyEntry[]
  readonly clockSkewMs: number
}
