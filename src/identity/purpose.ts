// What a certificate may be used for: proving a client's identity, or issuing such certificates
// (RFC 5280 sections 4.2.1 and 6.1.4, X509-SVID sections 4 and 5). Time and signatures are not
// looked at here, so that the answer for one chain never changes.
import { EXTENDED_KEY_USAGE, KEY_USAGE } from './certificate.ts'
import { isSelfIssued, type Link, publicKeyOf } from './link.ts'
import { constraintObjection } from './name-constraints.ts'
import { weaknessOf } from './signature.ts'

/** Why a leaf cannot authenticate a client, or undefined. */
export const leafObjection = (leaf: Link): string | undefined => {
  const { basicConstraints, keyUsage } = leaf.reading
  if (basicConstraints?.ca) return 'it is a CA certificate, which never authenticates'
  if (keyUsage !== undefined && (keyUsage & SIGNING) !== 0) {
    return 'its key usage allows signing certificates or CRLs, which never authenticates'
  }
  if (keyUsage !== undefined && (keyUsage & KEY_USAGE.digitalSignature) === 0) {
    return 'its key usage lacks digitalSignature'
  }
  return extendedUsageObjection(leaf)
}

/** Why a certificate cannot have issued the chain below it (`below`: leaf first), or undefined. */
export const issuerObjection = (issuer: Link, below: readonly Link[]): string | undefined => {
  const { basicConstraints, keyUsage } = issuer.reading
  if (!basicConstraints?.ca) return 'it is not a CA certificate'
  if (keyUsage !== undefined && (keyUsage & KEY_USAGE.keyCertSign) === 0) {
    return 'its key usage lacks keyCertSign'
  }
  // RFC 5280 section 4.2.1.9: the leaf does not count, nor does a certificate issued to oneself.
  const intermediates = below.slice(1).filter((link) => !isSelfIssued(link)).length
  if (basicConstraints.pathLength !== undefined && intermediates > basicConstraints.pathLength) {
    return `its path length ${basicConstraints.pathLength} allows no chain this long`
  }
  // OpenSSL, too, lets the extended usages of an authority limit those below it, the root included.
  return extendedUsageObjection(issuer) ?? constraintObjection(issuer, below)
}

/** Why a certificate is not strong or clear enough at all, or undefined. */
export const strengthObjection = (link: Link): string | undefined => {
  const { version, unknownCritical } = link.reading
  if (version !== 3) return 'it is not an X.509 version 3 certificate'
  if (unknownCritical.length > 0) {
    return `it has a critical extension that is not understood (${unknownCritical.join(', ')})`
  }
  const key = publicKeyOf(link)
  if (key === undefined) return 'its public key is of a kind that OpenSSL does not know'
  const weakness = weaknessOf(key)
  return weakness === undefined ? undefined : `it has ${weakness}`
}

const extendedUsageObjection = ({ reading }: Link): string | undefined => {
  const usages = reading.extendedKeyUsages
  return usages === undefined || usages.includes(EXTENDED_KEY_USAGE.clientAuth)
    ? undefined
    : 'its extended key usage lacks clientAuth'
}

const SIGNING = KEY_USAGE.keyCertSign | KEY_USAGE.cRLSign
