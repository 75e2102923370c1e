// The proof that a peer was verified, and what it is called. Only the verifier of this room can make
// one: the constructor is private, the brand cannot be imitated, and a test watches the imports.
import type { X509Certificate } from 'node:crypto'
import { sha256 } from './certificate.ts'
import type { Link } from './link.ts'
import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts'

export type RejectionReason =
  | 'no_certificate'
  | 'untrusted'
  | 'expired'
  | 'not_yet_valid'
  | 'revoked'
  /** By the deny list. */
  | 'deny_listed'
  | 'revocation_unknown'
  | 'purpose'
  | 'bad_identity'

export interface PeerRejection {
  readonly kind: 'rejection'
  readonly reason: RejectionReason
  /** For the operator; names the limits and the current time where time is the reason. */
  readonly detail: string
}

/** What the verifier found out; `links` is the verified chain, leaf first, never empty. */
export interface PeerEvidence {
  readonly links: readonly Link[]
  /** The trust bundle vouches for SPIFFE IDs alone. */
  readonly spiffeIdOnly: boolean
  readonly acceptableFromMs: number
  readonly acceptableUntilMs: number
  readonly trustGeneration: number
  readonly bundleGeneration: number
}

let admit: (evidence: PeerEvidence) => VerifiedPeer
let links: (peer: VerifiedPeer) => readonly Link[]

export class VerifiedPeer {
  static {
    admit = (evidence) => new VerifiedPeer(evidence)
    links = (peer) => peer.#links
  }

  readonly kind = 'peer'
  /** URI SAN, else DNS SAN, else subject: what policies know as `source.principal`. Never empty. */
  readonly principal: string
  readonly spiffeId: SpiffeId | undefined
  readonly trustDomain: string | undefined
  readonly uris: readonly string[]
  /** Empty, too, where a bundle of one trust domain vouches: it knows of no other names. */
  readonly dnsNames: readonly string[]
  /** Undefined without a common name or with several, and where `dnsNames` is empty for that reason. */
  readonly commonName: string | undefined
  /** RFC 2253, as in XFCC. */
  readonly subject: string
  readonly issuer: string
  /** Lower-case hex without leading zeros. */
  readonly serial: string
  /** SHA-256 of the DER, lower-case hex. */
  readonly fingerprint: string
  /** SHA-256 of the SubjectPublicKeyInfo, lower-case hex. */
  readonly spkiFingerprint: string
  readonly notBeforeMs: number
  readonly notAfterMs: number
  /** Latest notBefore of the chain and latest thisUpdate of the CRLs that count. */
  readonly acceptableFromMs: number
  /** Earliest notAfter of the chain and earliest end of the CRLs that count. */
  readonly acceptableUntilMs: number
  /** Verified, leaf to trust anchor. */
  readonly chain: readonly X509Certificate[]
  readonly trustGeneration: number
  readonly bundleGeneration: number
  readonly #links: readonly Link[]

  private constructor(evidence: PeerEvidence) {
    const { reading, fingerprint } = evidence.links[0]!
    const { spiffeIdOnly } = evidence
    this.uris = Object.freeze([...reading.uris])
    this.dnsNames = Object.freeze(spiffeIdOnly ? [] : [...reading.dnsNames])
    this.principal = reading.uris[0] ?? this.dnsNames[0] ?? reading.subject
    this.spiffeId = parseSpiffeId(reading.uris[0] ?? '')
    this.trustDomain = this.spiffeId?.trustDomain
    this.commonName = spiffeIdOnly ? undefined : reading.commonName
    this.subject = reading.subject
    this.issuer = reading.issuer
    this.serial = reading.serial
    this.fingerprint = fingerprint
    this.spkiFingerprint = sha256(reading.spkiDer)
    this.notBeforeMs = reading.notBeforeMs
    this.notAfterMs = reading.notAfterMs
    this.acceptableFromMs = evidence.acceptableFromMs
    this.acceptableUntilMs = evidence.acceptableUntilMs
    this.chain = Object.freeze(evidence.links.map(({ certificate }) => certificate))
    this.trustGeneration = evidence.trustGeneration
    this.bundleGeneration = evidence.bundleGeneration
    this.#links = evidence.links
    Object.freeze(this)
  }
}

/** For `verifier.ts` alone. */
export const vouchFor = admit!
/** For `verifier.ts` alone: the readings behind `chain`. */
export const linksOf = links!
