// What a certificate says, read from its DER and not from formatted text: text can be made to say
// anything (CVE-2021-44532). Whoever gets a reading need not look at the bytes again.
import { hash, type X509Certificate } from 'node:crypto'
import { contextTag, type DerElement, type DerItems, decodeDer, malformed, TAG } from './der.ts'
import type { CertificateFacts } from './material.ts'
import { readName } from './name.ts'
import { type NameConstraints, readNameConstraints } from './name-constraints.ts'
import { SERIAL_BYTES } from './serials.ts'
import { readSignatureAlgorithm, type SignatureAlgorithm } from './signature.ts'
import { parseSpiffeId } from './spiffe-id.ts'

export interface CertificateReading {
  readonly kind: 'certificate'
  /** 1, 2 or 3. */
  readonly version: number
  /** Lower-case hex without leading zeros. */
  readonly serial: string
  readonly issuerDer: Buffer
  readonly subjectDer: Buffer
  /** RFC 2253 text, most specific attribute first. */
  readonly issuer: string
  readonly subject: string
  /** See `Name.comparable`. */
  readonly subjectComparable: readonly string[]
  readonly commonName: string | undefined
  readonly notBeforeMs: number
  readonly notAfterMs: number
  readonly spkiDer: Buffer
  /** Undefined when signed with an algorithm that is not believed (SHA-1, MD5, DSA). */
  readonly signature: SignatureAlgorithm | undefined
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  readonly basicConstraints:
    | { readonly ca: boolean; readonly pathLength: number | undefined }
    | undefined
  /** Bits of `KEY_USAGE`; undefined without the extension, which then limits nothing. */
  readonly keyUsage: number | undefined
  /** Undefined without the extension, which then limits nothing. */
  readonly extendedKeyUsages: readonly string[] | undefined
  readonly nameConstraints: NameConstraints | undefined
  /** OIDs of critical extensions that nobody here understands. */
  readonly unknownCritical: readonly string[]
}

export interface Unreadable {
  readonly kind: 'unreadable'
  readonly what: string
}

/** Reads a certificate and holds its names against what OpenSSL found in the same bytes. */
export const readCertificate = (certificate: X509Certificate): CertificateReading | Unreadable => {
  const reading = readCertificateDer(certificate.raw)
  if (reading.kind === 'unreadable' || namesAgree(reading, certificate)) return reading
  return { kind: 'unreadable', what: 'two readers disagree about its subject alternative names' }
}

/** The walk alone, over bytes that may be anything. */
export const readCertificateDer = (der: Buffer): CertificateReading | Unreadable => {
  if (der.length > MAX_BYTES) return { kind: 'unreadable', what: `larger than ${MAX_BYTES} bytes` }
  const reading = decodeDer(der, decodeCertificate)
  return reading.kind === 'malformed' ? { kind: 'unreadable', what: reading.what } : reading
}

/** Lower-case hex SHA-256, the form of every fingerprint here. */
export const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'hex')

export const factsOf = (
  reading: CertificateReading,
  raw: Uint8Array,
  file: string,
): CertificateFacts => {
  const spiffeId = parseSpiffeId(reading.uris[0] ?? '')
  return {
    file,
    subject: reading.subject,
    ...(spiffeId === undefined ? {} : { spiffeId: spiffeId.id }),
    serial: reading.serial,
    fingerprint: sha256(raw),
    notBeforeMs: reading.notBeforeMs,
    notAfterMs: reading.notAfterMs,
  }
}

/** Time, and the limits that time is held against, for the eyes of an operator. */
export const validityText = (
  reading: Pick<CertificateReading, 'notBeforeMs' | 'notAfterMs'>,
  nowMs: number,
): string =>
  `valid from ${isoTime(reading.notBeforeMs)} to ${isoTime(reading.notAfterMs)}, now ${isoTime(nowMs)}`

export const isoTime = (timeMs: number): string => new Date(timeMs).toISOString()

/** RFC 5280 section 4.2.1.3: bit n of the BIT STRING is 1 << n. */
export const KEY_USAGE = { digitalSignature: 1 << 0, keyCertSign: 1 << 5, cRLSign: 1 << 6 } as const

export const EXTENDED_KEY_USAGE = {
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const

const decodeCertificate = (certificate: DerElement): CertificateReading => {
  const outer = certificate.as(TAG.sequence, 'the certificate').items('the certificate')
  const tbs = outer.next(TAG.sequence, 'tbsCertificate').items('tbsCertificate')
  const outerAlgorithm = outer.next(TAG.sequence, 'signatureAlgorithm')
  outer.next(TAG.bitString, 'signatureValue')
  outer.end('signatureValue')

  const version = readVersion(tbs)
  const serial = tbs.next(TAG.integer, 'serialNumber').unsignedHex('serialNumber')
  if (serial.length > 2 * SERIAL_BYTES) malformed('serialNumber is longer than RFC 5280 allows')
  const algorithm = tbs.next(TAG.sequence, 'signature')
  // RFC 5280 section 4.1.1.2: the signed copy must say the same as the unsigned one.
  if (!algorithm.raw.equals(outerAlgorithm.raw)) malformed('its two signature algorithms differ')
  const issuer = tbs.next(TAG.sequence, 'issuer')
  const validity = tbs.next(TAG.sequence, 'validity').items('validity')
  const notBeforeMs = validity.any('notBefore').timeMs('notBefore')
  const notAfterMs = validity.any('notAfter').timeMs('notAfter')
  validity.end('notAfter')
  const subject = tbs.next(TAG.sequence, 'subject')
  const spki = tbs.next(TAG.sequence, 'subjectPublicKeyInfo')
  tbs.optional(contextTag(1, 'primitive'), 'issuerUniqueID')
  tbs.optional(contextTag(2, 'primitive'), 'subjectUniqueID')
  const extensions = readExtensions(
    tbs.optional(contextTag(3, 'constructed'), 'extensions'),
    'extensions',
  )
  tbs.end('extensions')
  if (version !== 3 && extensions.size > 0) malformed('it has extensions but is not version 3')

  const subjectName = readName(subject, 'subject')
  return {
    kind: 'certificate',
    version,
    serial,
    issuerDer: issuer.raw,
    subjectDer: subject.raw,
    issuer: readName(issuer, 'issuer').text,
    subject: subjectName.text,
    subjectComparable: subjectName.comparable,
    commonName: subjectName.commonName,
    notBeforeMs,
    notAfterMs,
    spkiDer: spki.raw,
    signature: readSignatureAlgorithm(algorithm, 'signature'),
    ...readAlternativeNames(extensions.get(OID.subjectAltName)),
    basicConstraints: readBasicConstraints(extensions.get(OID.basicConstraints)),
    keyUsage: extensions
      .get(OID.keyUsage)
      ?.value.wrapped('keyUsage')
      .as(TAG.bitString, 'keyUsage')
      .namedBits('keyUsage'),
    extendedKeyUsages: readExtendedKeyUsages(extensions.get(OID.extKeyUsage)),
    nameConstraints: readNameConstraints(extensions.get(OID.nameConstraints)),
    unknownCritical: [...extensions]
      .filter(([oid, { critical }]) => critical && !UNDERSTOOD.has(oid))
      .map(([oid]) => oid),
  }
}

const readVersion = (tbs: DerItems): number => {
  const explicit = tbs.optional(contextTag(0, 'constructed'), 'version')?.items('version')
  if (explicit === undefined) return 1
  const version = explicit.next(TAG.integer, 'version').small('version') + 1
  explicit.end('version')
  return version <= 3 ? version : malformed('its version is unknown')
}

export interface Extension {
  readonly critical: boolean
  readonly value: DerElement
}

/** Certificates and CRLs have the same list of extensions; one that comes twice is refused. */
export const readExtensions = (
  wrapper: DerElement | undefined,
  what: string,
): ReadonlyMap<string, Extension> => {
  const extensions = new Map<string, Extension>()
  const explicit = wrapper?.items(what)
  const list = explicit?.next(TAG.sequence, what).items(what)
  explicit?.end(what)
  while (list?.more) {
    const items = list.next(TAG.sequence, 'an extension').items('an extension')
    const oid = items.next(TAG.oid, 'an extension').oid('an extension')
    const critical = items.optional(TAG.boolean, oid)?.boolean(oid) ?? false
    const value = items.next(TAG.octetString, oid)
    items.end(oid)
    if (extensions.has(oid)) malformed(`the extension ${oid} is there twice`)
    extensions.set(oid, { critical, value })
    if (extensions.size > MAX_EXTENSIONS) malformed(`more than ${MAX_EXTENSIONS} extensions`)
  }
  return extensions
}

const readBasicConstraints = (
  extension: Extension | undefined,
): CertificateReading['basicConstraints'] => {
  const what = 'basicConstraints'
  const items = extension?.value.wrapped(what).as(TAG.sequence, what).items(what)
  if (items === undefined) return undefined
  const ca = items.optional(TAG.boolean, what)?.boolean(what) ?? false
  const pathLength = items.optional(TAG.integer, what)?.small(what)
  items.end(what)
  if (!ca && pathLength !== undefined) malformed('a path length without cA')
  return { ca, pathLength }
}

const readExtendedKeyUsages = (extension: Extension | undefined): readonly string[] | undefined => {
  const what = 'extKeyUsage'
  const items = extension?.value.wrapped(what).as(TAG.sequence, what).items(what)
  if (items === undefined) return undefined
  const usages: string[] = []
  while (items.more) {
    usages.push(items.next(TAG.oid, what).oid(what))
    if (usages.length > MAX_NAMES) malformed(`more than ${MAX_NAMES} extended key usages`)
  }
  return usages
}

const readAlternativeNames = (
  extension: Extension | undefined,
): Pick<CertificateReading, 'uris' | 'dnsNames'> => {
  const what = 'subjectAltName'
  const uris: string[] = []
  const dnsNames: string[] = []
  const items = extension?.value.wrapped(what).as(TAG.sequence, what).items(what)
  for (let count = 0; items?.more; count += 1) {
    if (count === MAX_NAMES) malformed(`more than ${MAX_NAMES} subject alternative names`)
    const name = items.any(what)
    if ((name.tag & 0xc0) !== 0x80) malformed(`${what} has something that is no GeneralName`)
    if (name.tag === URI) uris.push(nameText(name, URI_FORM, 2048, 'URI'))
    else if (name.tag === DNS) dnsNames.push(nameText(name, DNS_FORM, 253, 'DNS'))
  }
  return { uris, dnsNames }
}

const nameText = (name: DerElement, form: RegExp, maxBytes: number, kind: string): string => {
  const text = name.content.toString('latin1')
  return text.length <= maxBytes && form.test(text)
    ? text
    : malformed(`a ${kind} name in subjectAltName has characters or a length it must not have`)
}

/**
 * Node quotes whatever could be mistaken for a separator, so its items can be told apart, and none of
 * the names that are let through here needs quotes.
 */
const namesAgree = (reading: CertificateReading, certificate: X509Certificate): boolean => {
  const items = (certificate.subjectAltName ?? '').split(', ')
  const theirs = items.filter((item) => item.startsWith('URI:') || item.startsWith('DNS:')).sort()
  const ours = [
    ...reading.uris.map((uri) => `URI:${uri}`),
    ...reading.dnsNames.map((name) => `DNS:${name}`),
  ].sort()
  return ours.length === theirs.length && ours.every((item, index) => item === theirs[index])
}

const OID = {
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  extKeyUsage: '2.5.29.37',
  inhibitAnyPolicy: '2.5.29.54',
} as const

/**
 * May be critical. Policies limit nothing here: any policy will do (RFC 5280 section 6.1.1 c), except
 * under policyConstraints, which is therefore not in the list.
 */
const UNDERSTOOD: ReadonlySet<string> = new Set(Object.values(OID))

const URI = contextTag(6, 'primitive')
const DNS = contextTag(2, 'primitive')
/** Visible ASCII without the four characters that Node prints in quotes. */
const URI_FORM = /^[!#-&(-+\--[\]-~]+$/
const DNS_FORM = /^[A-Za-z0-9._*-]+$/

const MAX_BYTES = 64 * 1024
const MAX_NAMES = 100
const MAX_EXTENSIONS = 64
