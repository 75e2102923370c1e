// Builds and judges certification paths (RFC 5280 section 6): leaf, intermediates that the peer sent
// or the bundle has, trust anchor. Depth and signature checks are bounded: what a chain costs does
// not depend on who sends it.
import { validityText } from './certificate.ts'
import { hasSigned, isSelfIssued, type Link, mayHaveIssued } from './link.ts'
import type { PeerRejection, RejectionReason } from './peer.ts'
import { issuerObjection, strengthObjection } from './purpose.ts'
import type { Revocation, Window } from './revocation.ts'

export interface Path {
  readonly kind: 'path'
  /** Leaf first, trust anchor last. */
  readonly links: readonly Link[]
}

export interface PathSearch {
  readonly leaf: Link
  /** Sent by the peer: believed only as far as an anchor vouches for them. */
  readonly sent: readonly Link[]
  readonly anchors: readonly Link[]
  readonly revocation: Revocation
  readonly nowMs: number
}

/** The first path on which everything is right, else what was wrong with the first one found. */
export const findPath = (search: PathSearch): Path | PeerRejection => {
  const { sent, anchors, revocation, nowMs } = search
  let checks = 0
  let found: PeerRejection | undefined

  const signed = (issuer: Link, child: Link): boolean => {
    checks += 1
    return checks <= MAX_SIGNATURE_CHECKS && hasSigned(issuer, child)
  }

  const climb = (links: readonly Link[]): Path | undefined => {
    const child = links.at(-1)!
    const issuersIn = (from: readonly Link[]): Link[] =>
      from.filter((issuer) => !isIn(issuer, links) && mayHaveIssued(issuer, child))

    const anchored = links.length > 1 && isIn(child, anchors)
    const known =
      anchored && isSelfIssued(child)
        ? []
        : issuersIn(anchors).filter((issuer) => signed(issuer, child))
    // A bundle may hold an intermediate beside its root. Like OpenSSL, go on to the root then: the
    // intermediate alone would hide that the root expired, or that it revoked the intermediate.
    if (anchored && known.length === 0 && checks <= MAX_SIGNATURE_CHECKS) {
      const rejection = judge(links) ?? judgeNow(links, revocation, nowMs)
      if (rejection === undefined) return { kind: 'path', links }
      found ??= rejection
      return undefined
    }
    if (links.length > MAX_ISSUERS) return undefined
    for (const issuer of known) {
      const path = climb([...links, issuer])
      if (path !== undefined) return path
    }
    for (const issuer of issuersIn(sent)) {
      if (isIn(issuer, known) || !signed(issuer, child)) continue
      const path = climb([...links, issuer])
      if (path !== undefined) return path
    }
    return undefined
  }

  return climb([search.leaf]) ?? found ?? noPath(search, checks)
}

/** An objection that there may not have been before, or may not be later. */
export interface Lapse {
  readonly kind: 'lapse'
  /** Of the certificate that it is about. At 0, the leaf, no other path helps: its issuer is fixed. */
  readonly depth: number
  readonly rejection: PeerRejection
}

/** What may change while the bundles stay the same: the clock, CRLs and their age, the deny list. */
export const lapseOf = (
  links: readonly Link[],
  revocation: Revocation,
  nowMs: number,
): Lapse | undefined => {
  const lapse = (depth: number, reason: RejectionReason, detail: string): Lapse => ({
    kind: 'lapse',
    depth,
    rejection: reject(reason, links[depth]!, detail),
  })
  const { clockSkewMs } = revocation
  for (const [depth, { reading }] of links.entries()) {
    const early = nowMs < reading.notBeforeMs - clockSkewMs
    if (!early && nowMs <= reading.notAfterMs + clockSkewMs) continue
    const skew = clockSkewMs > 0 ? `, with clocks ${clockSkewMs / 1000} s apart` : ''
    const detail = validityText(reading, nowMs) + skew
    return lapse(depth, early ? 'not_yet_valid' : 'expired', detail)
  }
  const denial = revocation.denied.find(links, nowMs)
  if (denial !== undefined) return lapse(denial.depth, 'deny_listed', denial.detail)
  for (const [depth, link] of links.slice(0, -1).entries()) {
    const finding = revocation.find(link, links[depth + 1]!, depth, nowMs)
    if (finding !== undefined) return lapse(depth, finding.reason, finding.detail)
  }
  return undefined
}

export const judgeNow = (
  links: readonly Link[],
  revocation: Revocation,
  nowMs: number,
): PeerRejection | undefined => lapseOf(links, revocation, nowMs)?.rejection

/** The times between which `judgeNow` has no objection. */
export const windowOf = (links: readonly Link[], revocation: Revocation): Window => {
  const { clockSkewMs } = revocation
  const windows = links.slice(1).map((issuer, depth) => revocation.windowOf(issuer, depth))
  return {
    fromMs: Math.max(
      ...links.map(({ reading }) => reading.notBeforeMs - clockSkewMs),
      ...windows.map(({ fromMs }) => fromMs),
    ),
    untilMs: Math.min(
      ...links.map(({ reading }) => reading.notAfterMs + clockSkewMs),
      ...windows.map(({ untilMs }) => untilMs),
    ),
  }
}

export const reject = (reason: RejectionReason, link: Link, detail: string): PeerRejection => ({
  kind: 'rejection',
  reason,
  detail: `${link.reading.subject || `serial ${link.reading.serial}`}: ${detail}`,
})

/** What will never change about a path. The leaf's own purpose has been judged before. */
const judge = (links: readonly Link[]): PeerRejection | undefined => {
  for (const [index, link] of links.entries()) {
    const weakness = strengthObjection(link)
    if (weakness !== undefined) return reject('untrusted', link, weakness)
    const objection = index === 0 ? undefined : issuerObjection(link, links.slice(0, index))
    if (objection !== undefined) return reject('purpose', link, objection)
  }
  return undefined
}

const noPath = ({ leaf, anchors }: PathSearch, checks: number): PeerRejection => {
  if (checks > MAX_SIGNATURE_CHECKS) {
    return reject('untrusted', leaf, `no path within ${MAX_SIGNATURE_CHECKS} signature checks`)
  }
  if (leaf.reading.signature === undefined) {
    return reject('untrusted', leaf, 'it is signed with an algorithm that is not believed')
  }
  return reject(
    'untrusted',
    leaf,
    `no path from its issuer ${leaf.reading.issuer} to one of ${anchors.length} trust anchors`,
  )
}

const isIn = (link: Link, links: readonly Link[]): boolean =>
  links.some(({ fingerprint }) => fingerprint === link.fingerprint)

/** Deeper than hierarchies of workloads are: root, policy, issuing and cluster authority, and one more. */
const MAX_ISSUERS = 5
const MAX_SIGNATURE_CHECKS = 16
