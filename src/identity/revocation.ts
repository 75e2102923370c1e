// Whether a certificate has been revoked, from CRLs that the control thread has verified. What a CRL
// lists is revoked under every rule and at every age; the rules say what a CRL that is missing or out
// of date means.
import { isoTime } from './certificate.ts'
import { DenyList } from './deny-list.ts'
import type { Link } from './link.ts'
import type { CrlMaterial, RevocationRules, TrustMaterial } from './material.ts'
import { hasSerial } from './serials.ts'

export interface RevocationFinding {
  readonly reason: 'revoked' | 'revocation_unknown'
  readonly detail: string
}

/** The times between which the answer "not revoked" holds. */
export interface Window {
  readonly fromMs: number
  readonly untilMs: number
}

/** Why nobody can say whether a certificate has been revoked. */
export type RevocationGap = 'missing' | 'stale'

type RevocationMaterial = Pick<TrustMaterial, 'crls' | 'revocation' | 'clockSkewMs' | 'denied'>

export class Revocation {
  readonly clockSkewMs: number
  readonly denied: DenyList
  readonly #crls: ReadonlyMap<string, CrlMaterial>
  readonly #rules: RevocationRules

  constructor({ crls, revocation, clockSkewMs, denied }: RevocationMaterial) {
    this.#crls = byIssuer(crls)
    this.#rules = revocation
    this.clockSkewMs = clockSkewMs
    this.denied = new DenyList(denied)
  }

  /** Undefined: no objection. `depth` 0 is the leaf; `issuer` is the next certificate of its path. */
  find(child: Link, issuer: Link, depth: number, nowMs: number): RevocationFinding | undefined {
    const crl = this.#crls.get(issuer.authorityKey)
    const { serial } = child.reading
    if (crl !== undefined && hasSerial(crl.revokedSerials, serial)) {
      const detail = `the CRL ${crl.file} of ${crl.issuer} lists serial ${serial}`
      return { reason: 'revoked', detail }
    }
    if (this.#rules.mode === 'soft-fail') return undefined
    const gap = this.#gap(crl, depth, nowMs)
    if (gap === undefined) return undefined
    const detail =
      crl === undefined
        ? `there is no CRL of ${issuer.reading.subject}`
        : `the CRL ${crl.file} of ${crl.issuer} holds ${this.#windowText(crl)}, now ${isoTime(nowMs)}`
    return { reason: 'revocation_unknown', detail }
  }

  /** What is not known about a path (leaf first), and would refuse it in another mode. */
  gapOf(links: readonly Link[], nowMs: number): RevocationGap | undefined {
    for (const [depth, issuer] of links.slice(1).entries()) {
      const gap = this.#gap(this.#crls.get(issuer.authorityKey), depth, nowMs)
      if (gap !== undefined) return gap
    }
    return undefined
  }

  windowOf(issuer: Link, depth: number): Window {
    const crl = this.#crls.get(issuer.authorityKey)
    return crl === undefined || this.#rules.mode === 'soft-fail' || !this.#counts(depth)
      ? ALWAYS
      : this.#window(crl)
  }

  #gap(crl: CrlMaterial | undefined, depth: number, nowMs: number): RevocationGap | undefined {
    if (!this.#counts(depth)) return undefined
    if (crl === undefined) return this.#rules.required ? 'missing' : undefined
    const { fromMs, untilMs } = this.#window(crl)
    return nowMs >= fromMs && nowMs <= untilMs ? undefined : 'stale'
  }

  #counts(depth: number): boolean {
    return depth === 0 || this.#rules.scope === 'chain'
  }

  #window({ thisUpdateMs, nextUpdateMs }: CrlMaterial): Window {
    const until = nextUpdateMs ?? Number.POSITIVE_INFINITY
    return {
      fromMs: thisUpdateMs - this.clockSkewMs,
      untilMs: until + this.#rules.graceMs + this.clockSkewMs,
    }
  }

  #windowText(crl: CrlMaterial): string {
    const { thisUpdateMs, nextUpdateMs } = crl
    const { graceMs } = this.#rules
    const until = nextUpdateMs === undefined ? 'ever' : isoTime(nextUpdateMs)
    const grace = graceMs > 0 ? ` and ${graceMs / 1000} s of grace` : ''
    return `from ${isoTime(thisUpdateMs)} to ${until}${grace}`
  }
}

/** The authorities about which CRLs say something else than before; see `Link.authorityKey`. */
export const authoritiesWithNews = (
  older: readonly CrlMaterial[],
  newer: readonly CrlMaterial[],
): ReadonlySet<string> => {
  const [before, after] = [byIssuer(older), byIssuer(newer)]
  const keys = new Set([...before.keys(), ...after.keys()])
  return new Set([...keys].filter((key) => !sameCrl(before.get(key), after.get(key))))
}

const byIssuer = (crls: readonly CrlMaterial[]): ReadonlyMap<string, CrlMaterial> =>
  new Map(crls.map((crl) => [crl.issuerKey, crl]))

/** By content: each snapshot comes to a data thread as a copy. */
const sameCrl = (one: CrlMaterial | undefined, other: CrlMaterial | undefined): boolean =>
  one !== undefined &&
  other !== undefined &&
  one.thisUpdateMs === other.thisUpdateMs &&
  one.nextUpdateMs === other.nextUpdateMs &&
  Buffer.compare(one.revokedSerials, other.revokedSerials) === 0

const ALWAYS: Window = { fromMs: Number.NEGATIVE_INFINITY, untilMs: Number.POSITIVE_INFINITY }
