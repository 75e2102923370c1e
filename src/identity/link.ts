// A certificate as a link of a chain: node's object for signatures, our reading for everything else.
import type { X509Certificate } from 'node:crypto'
import { type CertificateReading, readCertificate, sha256, type Unreadable } from './certificate.ts'

export interface Link {
  readonly kind: 'link'
  readonly certificate: X509Certificate
  readonly reading: CertificateReading
  /** SHA-256 of the DER, lower-case hex. */
  readonly fingerprint: string
}

export const linkOf = (certificate: X509Certificate): Link | Unreadable => {
  const reading = readCertificate(certificate)
  if (reading.kind === 'unreadable') return reading
  return { kind: 'link', certificate, reading, fingerprint: sha256(certificate.raw) }
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
  if (child.reading.signature === undefined) return false
  try {
    return child.certificate.verify(issuer.certificate.publicKey)
  } catch {
    return false
  }
}
