// Certificate revocation lists (RFC 5280 section 5), read with our own walk because a list may have
// 100,000 entries. What comes out is signed by an authority in the trust bundles, and complete: a list
// that covers only some certificates is refused, because absence from it would prove nothing.
import { X509Certificate } from 'node:crypto'
import type { Problem } from '../errors.ts'
import { isoTime, KEY_USAGE, readExtensions } from './certificate.ts'
import { contextTag, type DerElement, type DerItems, decodeDer, malformed, TAG } from './der.ts'
import { type Link, linkOf } from './link.ts'
import type { CrlMaterial, TrustBundleMaterial } from './material.ts'
import { readName } from './name.ts'
import { readPem } from './pem.ts'
import { packSerials } from './serials.ts'
import { readSignatureAlgorithm, type SignatureAlgorithm, signatureMatches } from './signature.ts'

export interface ParsedCrls {
  readonly crls: readonly CrlMaterial[]
  readonly problems: readonly Problem[]
}

/** `bytes`: DER, or PEM with one or more `X509 CRL` blocks. */
export const parseCrl = (
  bytes: Buffer,
  file: string,
  trust: readonly TrustBundleMaterial[],
  nowMs: number,
): ParsedCrls => {
  const { lists, problems: broken } = derOf(bytes, file)
  const authorities = authoritiesOf(trust)
  const crls: CrlMaterial[] = []
  const problems: Problem[] = [...broken]
  for (const { der, where } of lists) {
    const complain = (what: string, remedy: string, severity: Problem['severity']): void => {
      problems.push({
        where: file,
        what: `${where} ${what}`,
        remedy,
        severity: severity ?? 'error',
      })
    }
    const list = decodeDer(der, decodeList)
    if (list.kind === 'malformed') {
      complain(
        `cannot be used: ${list.what}`,
        'Give a complete X.509 CRL as its CA wrote it',
        'error',
      )
      continue
    }
    const issuer = issuerOf(list, authorities)
    if (typeof issuer === 'string') {
      // A CA leaves the trust bundle before its CRL leaves the volume: that must not fail a reload,
      // and nobody is let in by it, since leaves need a CRL of their issuer.
      const severity = issuer === UNKNOWN_ISSUER ? 'warning' : 'error'
      complain(`of ${list.issuer} ${issuer}`, UNKNOWN_ISSUER_REMEDY, severity)
      continue
    }
    const { thisUpdateMs, nextUpdateMs, crlNumber } = list
    const stale = nextUpdateMs !== undefined && nowMs > nextUpdateMs
    if (stale || nowMs < thisUpdateMs) {
      const until = nextUpdateMs === undefined ? 'ever' : isoTime(nextUpdateMs)
      complain(
        `of ${list.issuer} is not current: from ${isoTime(thisUpdateMs)} to ${until}, now ${isoTime(nowMs)}`,
        'Publish a new CRL, or correct the clock; trust.revocation says what happens to peers of this issuer',
        'warning',
      )
    }
    crls.push({
      file,
      issuerKey: issuer.authorityKey,
      issuer: list.issuer,
      thisUpdateMs,
      ...(nextUpdateMs === undefined ? {} : { nextUpdateMs }),
      ...(crlNumber === undefined ? {} : { crlNumber }),
      revokedSerials: packSerials(list.revokedSerials),
    })
  }
  return { crls, problems }
}

/** One per issuer: the newest wins, among equals the first. */
export const mergeCrls = (crls: readonly CrlMaterial[]): CrlMaterial[] => {
  const newest = new Map<string, CrlMaterial>()
  for (const crl of crls) {
    const other = newest.get(crl.issuerKey)
    if (other === undefined || isOlder(other, crl)) newest.set(crl.issuerKey, crl)
  }
  return [...newest.values()]
}

/** By number where both have one (RFC 5280 section 5.2.3), else by the time they were issued. */
export const isOlder = (one: CrlMaterial, other: CrlMaterial): boolean => {
  const [number, otherNumber] = [one.crlNumber, other.crlNumber]
  return number === undefined || otherNumber === undefined || number === otherNumber
    ? one.thisUpdateMs < other.thisUpdateMs
    : number.length < otherNumber.length ||
        (number.length === otherNumber.length && number < otherNumber)
}

interface List {
  readonly kind: 'list'
  readonly issuer: string
  /** See `Name.comparable`. */
  readonly issuerComparable: readonly string[]
  readonly thisUpdateMs: number
  readonly nextUpdateMs: number | undefined
  readonly crlNumber: string | undefined
  readonly revokedSerials: readonly string[]
  readonly signed: Buffer
  readonly algorithm: SignatureAlgorithm | undefined
  readonly signature: Buffer
}

const decodeList = (element: DerElement): List => {
  const outer = element.as(TAG.sequence, 'the CRL').items('the CRL')
  const signed = outer.next(TAG.sequence, 'tbsCertList')
  const outerAlgorithm = outer.next(TAG.sequence, 'signatureAlgorithm')
  const signature = outer.next(TAG.bitString, 'signatureValue').content
  outer.end('signatureValue')
  if (signature[0] !== 0) malformed('signatureValue has unused bits')

  const tbs = signed.items('tbsCertList')
  const version = tbs.optional(TAG.integer, 'version')?.small('version')
  if (version !== undefined && version !== 1) malformed('its version is unknown')
  const algorithm = tbs.next(TAG.sequence, 'signature')
  if (!algorithm.raw.equals(outerAlgorithm.raw)) malformed('its two signature algorithms differ')
  const issuer = readName(tbs.next(TAG.sequence, 'issuer'), 'issuer')
  const thisUpdateMs = tbs.any('thisUpdate').timeMs('thisUpdate')
  const nextUpdateMs = isTime(tbs.tag) ? tbs.any('nextUpdate').timeMs('nextUpdate') : undefined
  const revoked = tbs.optional(TAG.sequence, 'revokedCertificates')?.items('revokedCertificates')
  const revokedSerials = revoked === undefined ? [] : readEntries(revoked)
  const extensions = readExtensions(
    tbs.optional(contextTag(0, 'constructed'), 'crlExtensions'),
    'crlExtensions',
  )
  tbs.end('crlExtensions')
  for (const [oid, { critical }] of extensions) {
    const partial = PARTIAL.get(oid)
    if (partial !== undefined) malformed(partial)
    if (critical && !UNDERSTOOD.has(oid)) malformed(`it has the unknown critical extension ${oid}`)
  }
  return {
    kind: 'list',
    issuer: issuer.text,
    issuerComparable: issuer.comparable,
    thisUpdateMs,
    nextUpdateMs,
    crlNumber: extensions
      .get(CRL_NUMBER)
      ?.value.wrapped('cRLNumber')
      .as(TAG.integer, 'cRLNumber')
      .unsignedHex('cRLNumber'),
    revokedSerials,
    signed: signed.raw,
    algorithm: readSignatureAlgorithm(algorithm, 'signature'),
    signature: signature.subarray(1),
  }
}

const readEntries = (revoked: DerItems): string[] => {
  const serials: string[] = []
  // The same few extensions (a reason code) come with every entry: each is looked at once.
  const harmless = new Set<string>()
  while (revoked.more) {
    const entry = revoked.next(TAG.sequence, 'an entry').items('an entry')
    const serial = entry.next(TAG.integer, 'the serial of an entry')
    // Some authorities once issued negative serials. No such certificate is accepted anyway.
    if (!serial.isNegative) serials.push(serial.unsignedHex('the serial of an entry'))
    if (!isTime(entry.tag)) malformed('an entry has no revocation date')
    entry.any('revocationDate')
    const extensions = entry.optional(TAG.sequence, 'the extensions of an entry')
    entry.end('an entry')
    if (extensions === undefined) continue
    const bytes = extensions.raw.toString('latin1')
    if (harmless.has(bytes)) continue
    checkEntryExtensions(extensions)
    if (harmless.size < MAX_HARMLESS) harmless.add(bytes)
  }
  return serials
}

const checkEntryExtensions = (extensions: DerElement): void => {
  for (const items = extensions.items('an entry'); items.more; ) {
    const extension = items.next(TAG.sequence, 'an entry').items('an entry')
    const oid = extension.next(TAG.oid, 'an entry').oid('an entry')
    const critical = extension.optional(TAG.boolean, oid)?.boolean(oid) ?? false
    extension.next(TAG.octetString, oid)
    extension.end(oid)
    if (oid === CERTIFICATE_ISSUER) malformed('it is an indirect CRL (entries of other issuers)')
    if (critical && !UNDERSTOOD_IN_ENTRY.has(oid)) {
      malformed(`an entry has the unknown critical extension ${oid}`)
    }
  }
}

/** The authority whose key signed the list, or what is wrong. */
const issuerOf = (list: List, authorities: readonly Link[]): Link | string => {
  const { algorithm } = list
  if (algorithm === undefined) return 'is signed with an algorithm that is not believed'
  const named = authorities.filter(({ reading }) =>
    sameName(reading.subjectComparable, list.issuerComparable),
  )
  if (named.length === 0) return UNKNOWN_ISSUER
  const signer = named.find(({ certificate }) =>
    signatureMatches(algorithm, certificate.publicKey, list.signed, list.signature),
  )
  if (signer === undefined)
    return 'is not signed by the authority of that name in the trust bundles'
  const { keyUsage } = signer.reading
  return keyUsage === undefined || (keyUsage & KEY_USAGE.cRLSign) !== 0
    ? signer
    : 'is signed by an authority whose key usage lacks cRLSign'
}

const sameName = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && one.every((part, index) => part === other[index])

const authoritiesOf = (trust: readonly TrustBundleMaterial[]): Link[] =>
  trust
    .flatMap(({ certificates }) => certificates)
    .map((der) => linkOf(new X509Certificate(der)))
    .filter((link) => link.kind === 'link')

const derOf = (
  bytes: Buffer,
  file: string,
): { lists: { der: Buffer; where: string }[]; problems: readonly Problem[] } => {
  if (bytes[0] === TAG.sequence) return { lists: [{ der: bytes, where: 'The CRL' }], problems: [] }
  const { blocks, problems } = readPem(bytes.toString('latin1'), file)
  const lists: { der: Buffer; where: string }[] = []
  const wrong: Problem[] = []
  for (const { number, label, bytes: der } of blocks) {
    if (label === 'X509 CRL' && der !== undefined) lists.push({ der, where: `PEM block ${number}` })
    else {
      wrong.push({
        where: file,
        what: `PEM block ${number} is a ${label}`,
        remedy: 'A CRL file holds X509 CRL blocks only',
      })
    }
  }
  return { lists, problems: [...problems, ...wrong] }
}

const isTime = (tag: number | undefined): boolean =>
  tag === TAG.utcTime || tag === TAG.generalizedTime

const UNKNOWN_ISSUER = 'has an issuer that is in no trust bundle'
const UNKNOWN_ISSUER_REMEDY =
  'Add the certificate of the CA that signs the CRL, also where it is an intermediate, to a trust bundle'

const CRL_NUMBER = '2.5.29.20'
const CERTIFICATE_ISSUER = '2.5.29.29'
const MAX_HARMLESS = 1024

/** Lists from which nothing follows for a certificate that is not in them. */
const PARTIAL: ReadonlyMap<string, string> = new Map([
  ['2.5.29.27', 'it is a delta CRL; give the complete one'],
  ['2.5.29.28', 'it is a partitioned or indirect CRL (issuing distribution point)'],
])

const UNDERSTOOD: ReadonlySet<string> = new Set([CRL_NUMBER, '2.5.29.35', '2.5.29.18'])
/** Reason code, hold instruction, invalidity date: whatever they say, the certificate is revoked. */
const UNDERSTOOD_IN_ENTRY: ReadonlySet<string> = new Set(['2.5.29.21', '2.5.29.23', '2.5.29.24'])
