// Turns the chain of a handshake into a VerifiedPeer or a reason why not. The second gate behind
// OpenSSL's, and the only one that knows trust domains, CRLs and what changed since the handshake.
import { X509Certificate } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { sha256 } from './certificate.ts'
import { DenyList, entriesAdded } from './deny-list.ts'
import { isSelfIssued, type Link, linkOf } from './link.ts'
import type { TrustMaterial } from './material.ts'
import { findPath, judgeNow, type Lapse, lapseOf, type Path, reject, windowOf } from './path.ts'
import { linksOf, type PeerRejection, type VerifiedPeer, vouchFor } from './peer.ts'
import { leafObjection } from './purpose.ts'
import { authoritiesWithNews, Revocation, type RevocationGap } from './revocation.ts'
import { claimsSpiffe, parseSpiffeId } from './spiffe-id.ts'

/** One per trust generation and thread. */
export class PeerVerifier {
  readonly trustGeneration: number
  readonly clockSkewMs: number
  readonly #bundleGeneration: number
  /** By trust domain; '' (no trust domain has that name) for bundles that vouch for any identity. */
  readonly #anchors: ReadonlyMap<string, readonly Link[]>
  readonly #revocation: Revocation
  readonly #trust: TrustMaterial
  readonly #change: Change
  /** What issued a verified leaf, by its fingerprint, the one used last at the end. */
  readonly #known: Map<string, Known>
  /** Intermediates of verified chains by fingerprint, so that a thousand peers share one object. */
  readonly #intermediates: Map<string, Link>

  /** @param before the verifier in force; what it found out under the same bundles stays known */
  constructor(trust: TrustMaterial, before?: PeerVerifier) {
    this.trustGeneration = trust.generation
    this.clockSkewMs = trust.clockSkewMs
    this.#bundleGeneration = trust.bundleGeneration
    this.#revocation = new Revocation(trust)
    const same = before !== undefined && before.#bundleGeneration === trust.bundleGeneration
    this.#anchors = same ? before.#anchors : anchorsOf(trust)
    this.#known = same ? before.#known : new Map()
    this.#intermediates = same ? before.#intermediates : new Map()
    this.#change = same ? changeBetween(before.#trust, trust) : { kind: 'all' }
    this.#trust = trust
  }

  /**
   * `chain` is what the peer sent, leaf first; a resumed session has only the leaf, and is
   * recognised by it. A leaf verified before costs no signature check again, but is held against
   * the clock, the CRLs and the deny list.
   */
  verify(
    chain: readonly X509Certificate[],
    nowMs: number,
    session: 'new' | 'resumed' = 'new',
  ): VerifiedPeer | PeerRejection {
    const [leaf, ...others] = chain
    if (leaf === undefined) return rejection('untrusted', 'the peer sent no certificate')
    const link = linkOf(leaf)
    if (link.kind === 'unreadable')
      return rejection('bad_identity', `its certificate: ${link.what}`)

    const known = this.#known.get(link.fingerprint)
    const again = known && this.#again(link, known, nowMs)
    if (again?.kind === 'peer') return again
    if (again?.depth === 0) return again.rejection
    const sent = session === 'resumed' ? [...this.#intermediates.values()] : this.#linksOf(others)
    const path = this.#search(link, sent, nowMs)
    if (path.kind === 'path') return this.#vouch(path.links)
    return again?.rejection ?? path
  }

  /**
   * Whether a peer verified before, perhaps under an older generation, is still acceptable. Under the
   * same generation only time can have changed that. A peer that is called otherwise now is refused,
   * since what policy is told about a connection was written down at its start. What was valid once
   * is not too new again where somebody puts the clock back.
   */
  recheck(peer: VerifiedPeer, nowMs: number): VerifiedPeer | PeerRejection {
    const links = linksOf(peer)
    const atMs = Math.max(nowMs, peer.acceptableFromMs)
    if (peer.trustGeneration === this.trustGeneration) {
      return judgeNow(links, this.#revocation, atMs) ?? peer
    }
    const again = this.#onThePathOf(peer, links, atMs) ?? this.verify(peer.chain, atMs)
    if (again.kind === 'rejection') return again
    const sameNames =
      again.dnsNames.length === peer.dnsNames.length && again.commonName === peer.commonName
    return sameNames ? again : reject('untrusted', links[0]!, 'its names need a new handshake')
  }

  /** Spares the signatures where the path is as good as it was; undefined where it has to be found anew. */
  #onThePathOf(
    peer: VerifiedPeer,
    links: readonly Link[],
    nowMs: number,
  ): VerifiedPeer | PeerRejection | undefined {
    const sameBundles = peer.bundleGeneration === this.#bundleGeneration
    if (!sameBundles && !this.#endsHere(links)) return undefined
    const [leaf, ...issuers] = links
    const known = this.#known.get(peer.fingerprint) ?? { issuers, peer: new WeakRef(peer) }
    const again = this.#again(leaf!, known, nowMs)
    if (again.kind === 'peer') return again
    return again.depth === 0 ? again.rejection : undefined
  }

  /** Whether a path found under other bundles ends under these as well, and nowhere else. */
  #endsHere(links: readonly Link[]): boolean {
    const identity = identityOf(links[0]!)
    const last = links.at(-1)!
    return (
      identity.kind === 'identity' &&
      isSelfIssued(last) &&
      this.#anchorsFor(identity.trustDomain).some(
        ({ fingerprint }) => fingerprint === last.fingerprint,
      )
    )
  }

  /**
   * Whether what is new since the verifier before this one may be about this peer, which that one
   * admitted: a CRL of one of its issuers, an entry of the deny list. All others need no second look.
   */
  concerns(peer: VerifiedPeer, nowMs: number): boolean {
    const change = this.#change
    if (change.kind === 'all') return true
    const links = linksOf(peer)
    return (
      links.some(({ authorityKey }) => change.authorities.has(authorityKey)) ||
      change.denied.find(links, nowMs) !== undefined
    )
  }

  /** What is not known about the revocation of a peer that was admitted all the same (`soft-fail`). */
  revocationGap(peer: VerifiedPeer, nowMs: number): RevocationGap | undefined {
    return this.#revocation.gapOf(linksOf(peer), nowMs)
  }

  /** A leaf that was verified before, held against all that can have changed since. */
  #again(leaf: Link, { issuers, peer }: Known, nowMs: number): VerifiedPeer | Lapse {
    const links = [leaf, ...issuers]
    const lapse = lapseOf(links, this.#revocation, nowMs)
    if (lapse !== undefined) return lapse
    // The connections of one peer share its certificate: a reading weighs some kilobytes.
    const shared = peer.deref()
    if (shared?.trustGeneration !== this.trustGeneration) return this.#vouch(links)
    this.#remember(leaf.fingerprint, { issuers, peer })
    return shared
  }

  #search(leaf: Link, sent: readonly Link[], nowMs: number): Path | PeerRejection {
    const identity = identityOf(leaf)
    if (identity.kind === 'rejection') return identity
    const anchors = this.#anchorsFor(identity.trustDomain)
    if (anchors.length === 0) {
      const domain = identity.trustDomain
      const whom = domain === ANY ? 'peers without SPIFFE ID' : `the trust domain ${domain}`
      return reject('untrusted', leaf, `there is no trust bundle for ${whom}`)
    }
    const objection = leafObjection(leaf)
    if (objection !== undefined) return reject('purpose', leaf, objection)

    return findPath({ leaf, sent, anchors, revocation: this.#revocation, nowMs })
  }

  /** What cannot be read cannot vouch for anything; a path may do without it. */
  #linksOf(certificates: readonly X509Certificate[]): Link[] {
    return certificates.flatMap((certificate) => {
      const link = this.#intermediates.get(sha256(certificate.raw)) ?? linkOf(certificate)
      return link.kind === 'unreadable' ? [] : [link]
    })
  }

  /** One domain's bundle or the general ones, never both: no domain can mint names of another. */
  #anchorsFor(trustDomain: string): readonly Link[] {
    return this.#anchors.get(trustDomain) ?? this.#anchors.get(ANY) ?? []
  }

  #vouch(links: readonly Link[]): VerifiedPeer {
    const [leaf, ...issuers] = links
    const { fromMs, untilMs } = windowOf(links, this.#revocation)
    // A partner's authority may write any DNS name beside its SPIFFE ID: rules on DNS names and common
    // names are meant for those that a general bundle vouches for.
    const trustDomain = parseSpiffeId(leaf!.reading.uris[0] ?? '')?.trustDomain
    const peer = vouchFor({
      links,
      spiffeIdOnly: trustDomain !== undefined && this.#anchors.has(trustDomain),
      acceptableFromMs: fromMs,
      acceptableUntilMs: untilMs,
      trustGeneration: this.trustGeneration,
      bundleGeneration: this.#bundleGeneration,
    })
    this.#remember(leaf!.fingerprint, { issuers, peer: new WeakRef(peer) })
    return peer
  }

  #remember(fingerprint: string, known: Known): void {
    refresh(this.#known, fingerprint, known, MAX_REMEMBERED)
    for (const issuer of known.issuers) {
      refresh(this.#intermediates, issuer.fingerprint, issuer, MAX_INTERMEDIATES)
    }
  }
}

/** Adds an entry or moves it to the end; whatever was used longest ago makes room. */
const refresh = <T>(map: Map<string, T>, key: string, value: T, most: number): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size <= most) return
  const oldest = map.keys().next()
  if (!oldest.done) map.delete(oldest.value)
}

/** What one verifier may say otherwise than the one before it. */
type Change =
  | { readonly kind: 'all' }
  | {
      readonly kind: 'some'
      /** See `Link.authorityKey`. */
      readonly authorities: ReadonlySet<string>
      readonly denied: DenyList
    }

/** Under the same bundles. Rules change with the configuration, and then nothing is left out. */
const changeBetween = (older: TrustMaterial, newer: TrustMaterial): Change =>
  older.clockSkewMs === newer.clockSkewMs && isDeepStrictEqual(older.revocation, newer.revocation)
    ? {
        kind: 'some',
        authorities: authoritiesWithNews(older.crls, newer.crls),
        denied: new DenyList(entriesAdded(older.denied, newer.denied)),
      }
    : { kind: 'all' }

const anchorsOf = ({ bundles }: TrustMaterial): ReadonlyMap<string, readonly Link[]> => {
  const anchors = new Map<string, Link[]>()
  for (const bundle of bundles) {
    const domain = bundle.trustDomain ?? ANY
    anchors.set(domain, [...(anchors.get(domain) ?? []), ...bundle.certificates.map(anchorOf)])
  }
  return anchors
}

/**
 * What is kept of a leaf that was verified. The peer itself only while a connection holds it: a
 * thousand leaves would weigh 16 MB (measured), and each comes again anyway.
 */
interface Known {
  readonly issuers: readonly Link[]
  readonly peer: WeakRef<VerifiedPeer>
}

/** Who the leaf says it is; a SPIFFE ID that is not quite right never falls back to other names. */
const identityOf = (leaf: Link): { kind: 'identity'; trustDomain: string } | PeerRejection => {
  const { uris, dnsNames, subject } = leaf.reading
  if (uris.some(claimsSpiffe)) {
    if (uris.length !== 1) {
      return reject('bad_identity', leaf, `a SPIFFE ID beside ${uris.length - 1} other URI names`)
    }
    const spiffeId = parseSpiffeId(uris[0]!)
    return spiffeId === undefined
      ? reject('bad_identity', leaf, `${JSON.stringify(uris[0])} is not a SPIFFE ID of a workload`)
      : { kind: 'identity', trustDomain: spiffeId.trustDomain }
  }
  if (uris.length === 0 && dnsNames.length === 0 && subject === '') {
    return reject('bad_identity', leaf, 'it names nobody')
  }
  return { kind: 'identity', trustDomain: ANY }
}

/** The control thread has read these bytes with the same reader before it sent them. */
const anchorOf = (der: Uint8Array): Link => {
  const link = linkOf(new X509Certificate(der))
  if (link.kind === 'unreadable') throw new TypeError(`trust anchor: ${link.what}`)
  return link
}

const rejection = (reason: PeerRejection['reason'], detail: string): PeerRejection => ({
  kind: 'rejection',
  reason,
  detail,
})

const ANY = ''
const MAX_REMEMBERED = 4096
const MAX_INTERMEDIATES = 256
