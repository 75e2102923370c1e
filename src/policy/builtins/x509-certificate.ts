// Certificates and requests (RFC 5280, RFC 2986) in the shape that Go's x509.Certificate and
// x509.CertificateRequest have in JSON: that is what policies written for OPA read.
import { createPublicKey } from 'node:crypto'
import { BuiltinError } from './builtin.ts'
import {
  type DerElement,
  DerReader,
  derBitString,
  derBoolean,
  derChildren,
  derElement,
  derInteger,
  derOid,
  malformed,
  TAG,
} from './der.ts'
import { goUrl } from './go-url.ts'
import { formatAddress, type IpAddress } from './ip-address.ts'
import { RegoNumber, RegoObject, type RegoValue } from './value.ts'

export interface Extension {
  readonly oid: string
  readonly critical: boolean
  readonly value: Buffer
}

export interface ParsedCertificate {
  readonly der: Buffer
  readonly json: RegoObject
  readonly uris: readonly string[]
  readonly extensions: readonly Extension[]
}

/** @throws BuiltinError */
export function parseCertificate(der: Buffer): ParsedCertificate {
  const outer = new DerReader(derElement(der, TAG.sequence).content)
  const body = outer.next(TAG.sequence)
  const algorithm = outer.next(TAG.sequence)
  const signature = derBitString(outer.next(TAG.bitString))
  const tbs = new DerReader(body.content)
  const version = tbs.optional(0xa0)
  const serial = derInteger(tbs.next(TAG.integer))
  if (!tbs.next(TAG.sequence).raw.equals(algorithm.raw)) throw malformed()
  const issuer = tbs.next(TAG.sequence)
  const validity = new DerReader(tbs.next(TAG.sequence).content)
  const [notBefore, notAfter] = [timeText(validity.next()), timeText(validity.next())]
  const subject = tbs.next(TAG.sequence)
  const key = tbs.next(TAG.sequence)
  tbs.optional(0x81)
  tbs.optional(0x82)
  const list = tbs.optional(0xa3)
  if (!tbs.isDone || !outer.isDone || !validity.isDone) throw malformed()
  const extensions = list === undefined ? [] : extensionsOf(derElement(list.content, TAG.sequence))
  const versionNumber =
    version === undefined ? 1 : Number(derInteger(derElement(version.content, TAG.integer))) + 1

  const json = object({
    Raw: base64(der),
    RawTBSCertificate: base64(body.raw),
    RawSubjectPublicKeyInfo: base64(key.raw),
    RawSubject: base64(subject.raw),
    RawIssuer: base64(issuer.raw),
    Signature: base64(signature.bytes),
    SignatureAlgorithm: number(signatureAlgorithm(algorithm)),
    ...publicKeyFields(key),
    Version: number(versionNumber),
    SerialNumber: number(serial),
    Issuer: nameJson(issuer),
    Subject: nameJson(subject),
    NotBefore: notBefore,
    NotAfter: notAfter,
    KeyUsage: number(0),
    Extensions: extensionsJson(extensions),
    ExtraExtensions: null,
    UnhandledCriticalExtensions: null,
    ExtKeyUsage: null,
    UnknownExtKeyUsage: null,
    BasicConstraintsValid: false,
    IsCA: false,
    MaxPathLen: number(0),
    MaxPathLenZero: false,
    SubjectKeyId: null,
    AuthorityKeyId: null,
    OCSPServer: null,
    IssuingCertificateURL: null,
    DNSNames: null,
    EmailAddresses: null,
    IPAddresses: null,
    URIs: null,
    PermittedDNSDomainsCritical: false,
    PermittedDNSDomains: null,
    ExcludedDNSDomains: null,
    PermittedIPRanges: null,
    ExcludedIPRanges: null,
    PermittedEmailAddresses: null,
    ExcludedEmailAddresses: null,
    PermittedURIDomains: null,
    ExcludedURIDomains: null,
    CRLDistributionPoints: null,
    PolicyIdentifiers: null,
    Policies: null,
    InhibitAnyPolicy: number(0),
    InhibitAnyPolicyZero: false,
    InhibitPolicyMapping: number(0),
    InhibitPolicyMappingZero: false,
    RequireExplicitPolicy: number(0),
    RequireExplicitPolicyZero: false,
    PolicyMappings: null,
  })
  const unhandled = extensions.filter((one) => !readExtension(one, json) && one.critical)
  if (unhandled.length > 0) {
    json.set(
      'UnhandledCriticalExtensions',
      unhandled.map((one) => oidJson(one.oid)),
    )
  }
  return { der, json, uris: urisOf(extensions), extensions }
}

/** @throws BuiltinError */
export function parseCertificateRequest(der: Buffer): RegoObject {
  const outer = new DerReader(derElement(der, TAG.sequence).content)
  const body = outer.next(TAG.sequence)
  const algorithm = outer.next(TAG.sequence)
  const signature = derBitString(outer.next(TAG.bitString))
  const tbs = new DerReader(body.content)
  const version = derInteger(tbs.next(TAG.integer))
  const subject = tbs.next(TAG.sequence)
  const key = tbs.next(TAG.sequence)
  const attributes = tbs.optional(0xa0)
  if (!tbs.isDone || !outer.isDone) throw malformed()
  const requested = attributes === undefined ? [] : requestedExtensions(attributes)
  const extensions = requested.flatMap((one) => extensionsOf(one))
  const json = object({
    Raw: base64(der),
    RawTBSCertificateRequest: base64(body.raw),
    RawSubjectPublicKeyInfo: base64(key.raw),
    RawSubject: base64(subject.raw),
    Version: number(version),
    Signature: base64(signature.bytes),
    SignatureAlgorithm: number(signatureAlgorithm(algorithm)),
    ...publicKeyFields(key),
    Subject: nameJson(subject),
    Attributes: requested.length === 0 ? null : requested.map(attributeJson),
    Extensions: extensionsJson(extensions),
    ExtraExtensions: null,
    DNSNames: null,
    EmailAddresses: null,
    IPAddresses: null,
    URIs: null,
  })
  for (const extension of extensions) {
    if (extension.oid === SUBJECT_ALTERNATIVE_NAME) readExtension(extension, json)
  }
  return json
}

const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17'
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14'

function requestedExtensions(attributes: DerElement): DerElement[] {
  return derChildren(attributes).flatMap((attribute) => {
    const reader = new DerReader(attribute.content)
    if (derOid(reader.next(TAG.oid)).join('.') !== EXTENSION_REQUEST) return []
    return [derElement(reader.next(TAG.set).content, TAG.sequence)]
  })
}

function attributeJson(extensions: DerElement): RegoValue {
  const values = derChildren(extensions).map((extension) => {
    const [type, value] = derChildren(extension)
    if (type === undefined || value === undefined) throw malformed()
    return object({
      Type: oidJson(derOid(type).join('.')),
      Value: value.tag === TAG.boolean ? derBoolean(value) : base64(value.content),
    })
  })
  return object({ Type: oidJson(EXTENSION_REQUEST), Value: [values] })
}

function extensionsOf(list: DerElement): Extension[] {
  return derChildren(list).map((element) => {
    const reader = new DerReader(element.content)
    const oid = derOid(reader.next(TAG.oid)).join('.')
    const critical = reader.optional(TAG.boolean)
    const value = reader.next(TAG.octetString).content
    if (!reader.isDone) throw malformed()
    return { oid, critical: critical !== undefined && derBoolean(critical), value }
  })
}

function extensionsJson(extensions: readonly Extension[]): RegoValue {
  if (extensions.length === 0) return null
  return extensions.map(({ oid, critical, value }) =>
    object({ Id: oidJson(oid), Critical: critical, Value: base64(value) }),
  )
}

/** Fills in the fields of an extension; false where Go does not know it. */
function readExtension({ oid, critical, value }: Extension, json: RegoObject): boolean {
  const set = (name: string, one: RegoValue) => json.set(name, one)
  switch (oid) {
    case '2.5.29.14':
      if (critical) throw malformed()
      set('SubjectKeyId', base64(derElement(value, TAG.octetString).content))
      return true
    case '2.5.29.15': {
      const { bytes, bits } = derBitString(derElement(value, TAG.bitString))
      let usage = 0
      for (let i = 0; i < Math.min(bits, 9); i++) {
        if (((bytes[i >> 3] as number) >> (7 - (i & 7))) & 1) usage |= 1 << i
      }
      set('KeyUsage', number(usage))
      return true
    }
    case SUBJECT_ALTERNATIVE_NAME: {
      const names = generalNames(value)
      const texts = (tag: number) =>
        orNull(names.filter((one) => one.tag === tag).map((one) => ia5(one.content)))
      set('EmailAddresses', texts(0x81))
      set('DNSNames', texts(0x82))
      set(
        'URIs',
        orNull(names.filter((one) => one.tag === 0x86).map((one) => goUrl(ia5(one.content)))),
      )
      set(
        'IPAddresses',
        orNull(names.filter((one) => one.tag === 0x87).map((one) => addressText(one.content))),
      )
      return names.some((one) => [0x81, 0x82, 0x86, 0x87].includes(one.tag))
    }
    case '2.5.29.19': {
      const reader = new DerReader(derElement(value, TAG.sequence).content)
      const isCa = reader.optional(TAG.boolean)
      const length = reader.optional(TAG.integer)
      const maximum = length === undefined ? -1n : derInteger(length)
      set('BasicConstraintsValid', true)
      set('IsCA', isCa !== undefined && derBoolean(isCa))
      set('MaxPathLen', number(maximum))
      set('MaxPathLenZero', maximum === 0n)
      return true
    }
    case '2.5.29.30':
      return readNameConstraints(value, critical, json)
    case '2.5.29.31':
      set('CRLDistributionPoints', orNull(distributionPoints(value)))
      return true
    case '2.5.29.32': {
      const policies = derChildren(derElement(value, TAG.sequence)).map((policy) =>
        derOid(new DerReader(policy.content).next(TAG.oid)).join('.'),
      )
      set('Policies', policies)
      set('PolicyIdentifiers', policies.map(oidJson))
      return true
    }
    case '2.5.29.33': {
      const mappings = derChildren(derElement(value, TAG.sequence)).map((mapping) => {
        const [issuer, subject] = derChildren(mapping)
        if (issuer === undefined || subject === undefined) throw malformed()
        return object({
          IssuerDomainPolicy: derOid(issuer).join('.'),
          SubjectDomainPolicy: derOid(subject).join('.'),
        })
      })
      set('PolicyMappings', orNull(mappings))
      return true
    }
    case '2.5.29.35': {
      if (critical) throw malformed()
      const id = new DerReader(derElement(value, TAG.sequence).content).optional(0x80)
      set('AuthorityKeyId', id === undefined ? null : base64(id.content))
      return true
    }
    case '2.5.29.36': {
      const reader = new DerReader(derElement(value, TAG.sequence).content)
      for (const [tag, name] of [
        [0x80, 'RequireExplicitPolicy'],
        [0x81, 'InhibitPolicyMapping'],
      ] as const) {
        const skip = reader.optional(tag)
        if (skip === undefined) continue
        set(name, number(derInteger(skip)))
        set(`${name}Zero`, derInteger(skip) === 0n)
      }
      return true
    }
    case '2.5.29.37': {
      const oids = derChildren(derElement(value, TAG.sequence)).map((one) => derOid(one).join('.'))
      const known = oids.flatMap((one) => EXTENDED_KEY_USAGES.get(one) ?? [])
      set('ExtKeyUsage', orNull(known.map(number)))
      set(
        'UnknownExtKeyUsage',
        orNull(oids.filter((one) => !EXTENDED_KEY_USAGES.has(one)).map(oidJson)),
      )
      return true
    }
    case '2.5.29.54': {
      const skip = derInteger(derElement(value, TAG.integer))
      set('InhibitAnyPolicy', number(skip))
      set('InhibitAnyPolicyZero', skip === 0n)
      return true
    }
    case '1.3.6.1.5.5.7.1.1': {
      if (critical) throw malformed()
      const places = derChildren(derElement(value, TAG.sequence)).map(derChildren)
      const urls = (method: string) =>
        orNull(
          places.flatMap(([type, place]) =>
            type !== undefined && derOid(type).join('.') === method && place?.tag === 0x86
              ? [latin1(place.content)]
              : [],
          ),
        )
      set('OCSPServer', urls('1.3.6.1.5.5.7.48.1'))
      set('IssuingCertificateURL', urls('1.3.6.1.5.5.7.48.2'))
      return true
    }
    default:
      return false
  }
}

/** By number in Go's x509.ExtKeyUsage. */
export const EXTENDED_KEY_USAGES: ReadonlyMap<string, number> = new Map([
  ['2.5.29.37.0', 0],
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((id) => [`1.3.6.1.5.5.7.3.${id}`, id] as const),
  ['1.3.6.1.4.1.311.10.3.3', 10],
  ['2.16.840.1.113730.4.1', 11],
  ['1.3.6.1.4.1.311.2.1.22', 12],
  ['1.3.6.1.4.1.311.61.1.1', 13],
])

function urisOf(extensions: readonly Extension[]): string[] {
  const names = extensions.find((one) => one.oid === SUBJECT_ALTERNATIVE_NAME)
  if (names === undefined) return []
  return generalNames(names.value).flatMap((one) => (one.tag === 0x86 ? [ia5(one.content)] : []))
}

function generalNames(value: Buffer): readonly DerElement[] {
  return derChildren(derElement(value, TAG.sequence))
}

function distributionPoints(value: Buffer): string[] {
  return derChildren(derElement(value, TAG.sequence)).flatMap((point) => {
    const name = new DerReader(point.content).optional(0xa0)
    const fullName = name === undefined ? undefined : new DerReader(name.content).optional(0xa0)
    if (fullName === undefined) return []
    const uris: string[] = []
    for (const one of derChildren(fullName)) {
      if (one.tag !== 0x86) break
      uris.push(latin1(one.content))
    }
    return uris
  })
}

function readNameConstraints(value: Buffer, critical: boolean, json: RegoObject): boolean {
  const reader = new DerReader(derElement(value, TAG.sequence).content)
  let handled = true
  for (const [tag, prefix] of [
    [0xa0, 'Permitted'],
    [0xa1, 'Excluded'],
  ] as const) {
    const subtrees = reader.optional(tag)
    const bases =
      subtrees === undefined ? [] : derChildren(subtrees).map((one) => derChildren(one)[0])
    const of = (wanted: number) => bases.filter((one) => one?.tag === wanted) as DerElement[]
    const texts = (wanted: number) => orNull(of(wanted).map((one) => ia5(one.content)))
    json.set(`${prefix}EmailAddresses`, texts(0x81))
    json.set(`${prefix}DNSDomains`, texts(0x82))
    json.set(`${prefix}URIDomains`, texts(0x86))
    json.set(`${prefix}IPRanges`, orNull(of(0x87).map((one) => rangeJson(one.content))))
    if (bases.some((one) => ![0x81, 0x82, 0x86, 0x87].includes(one?.tag ?? 0))) handled = false
  }
  json.set('PermittedDNSDomainsCritical', critical)
  return handled
}

function rangeJson(bytes: Buffer): RegoValue {
  if (bytes.length !== 8 && bytes.length !== 32) throw malformed()
  const half = bytes.length / 2
  return object({ IP: addressText(bytes.subarray(0, half)), Mask: base64(bytes.subarray(half)) })
}

function addressText(bytes: Buffer): string {
  if (bytes.length !== 4 && bytes.length !== 16) throw malformed()
  const value: IpAddress = BigInt(`0x${bytes.toString('hex')}`)
  return formatAddress(bytes.length === 4 ? (0xffffn << 32n) | value : value)
}

const NAME_FIELDS: ReadonlyMap<string, string> = new Map([
  ['2.5.4.6', 'Country'],
  ['2.5.4.10', 'Organization'],
  ['2.5.4.11', 'OrganizationalUnit'],
  ['2.5.4.7', 'Locality'],
  ['2.5.4.8', 'Province'],
  ['2.5.4.9', 'StreetAddress'],
  ['2.5.4.17', 'PostalCode'],
])

function nameJson(name: DerElement): RegoObject {
  const lists = new Map<string, string[]>()
  const single = new Map([
    ['2.5.4.3', ''],
    ['2.5.4.5', ''],
  ])
  const names: RegoValue[] = []
  for (const attribute of derChildren(name).flatMap(derChildren)) {
    const [type, value] = derChildren(attribute)
    if (type === undefined || value === undefined) throw malformed()
    const oid = derOid(type).join('.')
    const text = directoryText(value)
    names.push(object({ Type: oidJson(oid), Value: text }))
    if (single.has(oid)) single.set(oid, text)
    const field = NAME_FIELDS.get(oid)
    if (field !== undefined) lists.set(field, [...(lists.get(field) ?? []), text])
  }
  const json = object({
    CommonName: single.get('2.5.4.3') ?? '',
    SerialNumber: single.get('2.5.4.5') ?? '',
    Names: orNull(names),
    ExtraNames: null,
  })
  for (const field of NAME_FIELDS.values()) json.set(field, lists.get(field) ?? null)
  return json
}

function directoryText({ tag, content }: DerElement): string {
  switch (tag) {
    case 0x0c:
      return content.toString('utf8')
    case 0x12:
    case 0x13:
    case 0x16:
      return ia5(content)
    case 0x14:
      return latin1(content)
    case 0x1e: {
      if (content.length % 2 !== 0) throw malformed()
      return Buffer.from(content).swap16().toString('utf16le').toWellFormed()
    }
    default:
      throw malformed()
  }
}

function timeText({ tag, content }: DerElement): string {
  const text = latin1(content)
  const found =
    tag === TAG.utcTime
      ? /^([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z$/.exec(text)
      : tag === TAG.generalizedTime
        ? /^([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z$/.exec(text)
        : null
  if (found === null) throw malformed()
  const [, digits = '', ...rest] = found
  const year = digits.length === 4 ? digits : `${Number(digits) >= 50 ? '19' : '20'}${digits}`
  const [month, day, hour, minute, second] = rest
  const written = `${year}-${month}-${day}T${hour}:${minute}:${second}Z`
  if (new Date(written).toJSON()?.replace('.000', '') !== written) throw malformed()
  return written
}

const SIGNATURE_ALGORITHMS: ReadonlyMap<string, number> = new Map([
  ['1.2.840.113549.1.1.4', 2],
  ['1.2.840.113549.1.1.5', 3],
  ['1.2.840.113549.1.1.11', 4],
  ['1.2.840.113549.1.1.12', 5],
  ['1.2.840.113549.1.1.13', 6],
  ['1.2.840.10040.4.3', 7],
  ['2.16.840.1.101.3.4.3.2', 8],
  ['1.2.840.10045.4.1', 9],
  ['1.2.840.10045.4.3.2', 10],
  ['1.2.840.10045.4.3.3', 11],
  ['1.2.840.10045.4.3.4', 12],
  ['1.3.101.112', 16],
])
const PSS = '1.2.840.113549.1.1.10'
const PSS_HASHES = ['2.16.840.1.101.3.4.2.1', '2.16.840.1.101.3.4.2.2', '2.16.840.1.101.3.4.2.3']

/** The number of Go's x509.SignatureAlgorithm; 0 is unknown. */
function signatureAlgorithm(algorithm: DerElement): number {
  const reader = new DerReader(algorithm.content)
  const oid = derOid(reader.next(TAG.oid)).join('.')
  if (oid !== PSS) return SIGNATURE_ALGORITHMS.get(oid) ?? 0
  const hash = new DerReader(reader.next(TAG.sequence).content).optional(0xa0)
  if (hash === undefined) return 0
  const hashOid = derOid(
    new DerReader(derElement(hash.content, TAG.sequence).content).next(TAG.oid),
  )
  const at = PSS_HASHES.indexOf(hashOid.join('.'))
  return at < 0 ? 0 : 13 + at
}

function publicKeyFields(key: DerElement): Record<string, RegoValue> {
  const reader = new DerReader(key.content)
  const algorithm = derOid(new DerReader(reader.next(TAG.sequence).content).next(TAG.oid)).join('.')
  const bits = derBitString(reader.next(TAG.bitString)).bytes
  switch (algorithm) {
    case '1.2.840.113549.1.1.1': {
      const [modulus, exponent] = derChildren(derElement(bits, TAG.sequence))
      if (modulus === undefined || exponent === undefined) throw malformed()
      return {
        PublicKeyAlgorithm: number(1),
        PublicKey: object({ N: number(derInteger(modulus)), E: number(derInteger(exponent)) }),
      }
    }
    case '1.2.840.10045.2.1': {
      const { x, y } = curvePoint(key.raw)
      return {
        PublicKeyAlgorithm: number(3),
        PublicKey: object({ Curve: new RegoObject(), X: number(x), Y: number(y) }),
      }
    }
    case '1.3.101.112':
      return { PublicKeyAlgorithm: number(4), PublicKey: base64(bits) }
    default:
      return { PublicKeyAlgorithm: number(0), PublicKey: null }
  }
}

function curvePoint(spki: Buffer): { x: bigint; y: bigint } {
  try {
    const jwk = createPublicKey({ key: spki, format: 'der', type: 'spki' }).export({
      format: 'jwk',
    })
    return { x: unsigned(jwk.x), y: unsigned(jwk.y) }
  } catch {
    throw new BuiltinError('unsupported elliptic curve')
  }
}

/** A coordinate or a number of a JWK. */
export function unsigned(text: string | undefined): bigint {
  return BigInt(`0x${Buffer.from(text ?? '', 'base64url').toString('hex') || '0'}`)
}

export function object(fields: Readonly<Record<string, RegoValue>>): RegoObject {
  const made = new RegoObject()
  for (const [name, value] of Object.entries(fields)) made.set(name, value)
  return made
}

export function number(value: number | bigint): RegoNumber {
  return new RegoNumber(String(value))
}

export function base64(bytes: Buffer): string {
  return bytes.toString('base64')
}

function oidJson(oid: string): RegoValue {
  return oid.split('.').map((part) => new RegoNumber(part))
}

/** Of an empty list Go keeps nil. */
function orNull(values: readonly RegoValue[]): RegoValue {
  return values.length === 0 ? null : values
}

function ia5(bytes: Buffer): string {
  if (bytes.some((byte) => byte > 0x7f)) throw malformed()
  return latin1(bytes)
}

function latin1(bytes: Buffer): string {
  return bytes.toString('latin1')
}
