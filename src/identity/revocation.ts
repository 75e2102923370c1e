// Whether a certificate has been revoked, from CRLs that the control thread has verified. A CRL counts
// for one name *and* one key: after a key rollover two authorities may share a name and its serials.
import { type CertificateReading, isoTime, sha256 } from './certificate.ts'
import type { CrlMaterial } from './material.ts'
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

/**
 * What CRLs are found by: SHA-256 over subject name and public key of the issuing authority. The name
 * in its comparable form, as an authority may be there twice with its name encoded in two ways.
 */
export const issuerKeyOf = (issuer: CertificateReading): string =>
  sha256(Buffer.concat([Buffer.from(JSON.stringify(issuer.subjectComparable)), issuer.spkiDer]))

export class Revocation {
  readonly #crls: ReadonlyMap<string, CrlMaterial>
  readonly #required: boolean

  constructor(crls: readonly CrlMaterial[], required: boolean) {
    this.#crls = new Map(crls.map((crl) => [crl.issuerKey, crl]))
    this.#required = required
  }

  /**
   * Undefined: not revoked. A leaf needs a CRL of its issuer where CRLs are required; for an
   * authority one is used where it is there, since most roots publish none.
   */
  find(
    child: CertificateReading,
    issuer: CertificateReading,
    isLeaf: boolean,
    nowMs: number,
  ): RevocationFinding | undefined {
    const crl = this.#crls.get(issuerKeyOf(issuer))
    if (crl === undefined) {
      if (!isLeaf || !this.#required) return undefined
      return { reason: 'revocation_unknown', detail: `there is no CRL of ${issuer.subject}` }
    }
    // Before staleness: what an old CRL revoked stays revoked.
    if (hasSerial(crl.revokedSerials, child.serial)) {
      const detail = `the CRL ${crl.file} of ${crl.issuer} lists serial ${child.serial}`
      return { reason: 'revoked', detail }
    }
    const { fromMs, untilMs } = windowOf(crl)
    if (nowMs >= fromMs && nowMs <= untilMs) return undefined
    return {
      reason: 'revocation_unknown',
      detail: `the CRL ${crl.file} of ${crl.issuer} holds from ${isoTime(fromMs)} to ${
        untilMs === Number.POSITIVE_INFINITY ? 'ever' : isoTime(untilMs)
      }, now ${isoTime(nowMs)}`,
    }
  }

  windowOf(issuer: CertificateReading): Window {
    const crl = this.#crls.get(issuerKeyOf(issuer))
    return crl === undefined ? ALWAYS : windowOf(crl)
  }
}

const windowOf = (crl: CrlMaterial): Window => ({
  fromMs: crl.thisUpdateMs,
  untilMs: crl.nextUpdateMs ?? Number.POSITIVE_INFINITY,
})

const ALWAYS: Window = { fromMs: Number.NEGATIVE_INFINITY, untilMs: Number.POSITIVE_INFINITY }
