// A certificate as a link of a chain: node's object for signatures, our reading for everything else.
import type { KeyObject, X509Certificate } from 'node:crypto'
import { type CertificateReading, readCertificate, sha256, type Unreadable } from './certificate.ts'

export interface Link {
  readonly kind: 'link'
  readonly certificate: X509Certificate
  readonly reading: CertificateReading
  /** SHA-256 of the DER, lower-case hex. */
  readonly fingerprint: string
  /**
   * What the CRLs of an authority are found by: SHA-256 over its subject name and public key, '' for
   * who is no authority. The name in its comparable form, as one may be there twice with its name
   * encoded in two ways; with the key, as after a key rollover two may share a name and its serials.
   */
  readonly authorityKey: string
}

export const linkOf = (certificate: X509Certificate): Link | Unreadable => {
  const reading = readCertificate(certificate)
  if (reading.kind === 'unreadable') return reading
  return {
    kind: 'link',
    certificate,
    reading,
    fingerprint: sha256(certificate.raw),
    authorityKey: reading.basicConstraints?.ca ? authorityKeyOf(reading) : '',
  }
}

const authorityKeyOf = ({ subjectComparable, spkiDer }: CertificateReading): string =>
  sha256(Buffer.concat([Buffer.from(JSON.stringify(subjectComparable)), spkiDer]))

/** Undefined where OpenSSL cannot read it: an algorithm that it does not know, or a broken point. */
export const publicKeyOf = ({ certificate }: Link): KeyObject | undefined => {
  try {
    return certificate.publicKey
  } catch {
    return undefined
  }
}

/** Names only: whether `issuer` may have issued `child`; says nothing about signatures. */
export const isSelfIssued = ({ reading }: Link): boolean =>
  reading.subjectDer.equals(reading.issuerDer)

/**
 * Names, key identifiers and key usage (OpenSSL's `X509_check_issued`). Throws nothing, costs little;
 * the signature is checked apart from it, because that is what has to be counted.
 */
export const mayHaveIssued = (issuer: Link, child: Link): boolean =>
  child.certificate.checkIssued(issuer.certificate)

export const hasSigned = (issuer: Link, child: Link): boolean => {
  const key = publicKeyOf(issuer)
  if (child.reading.signature === undefined || key === undefined) return false
  try {
    return child.certificate.verify(key)
  } catch {
    return false
  }
}
