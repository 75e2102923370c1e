// Certificates and CRLs byte by byte, for what a proper authority would never issue. A writer of DER
// and a signer, nothing more; whatever is not said is as the X509-SVID profile wants it.
import {
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate,
} from 'node:crypto'

export const der = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts)
  const length = content.length
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content])
  const hex = length.toString(16)
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  return Buffer.concat([Buffer.from([tag, 0x80 | bytes.length]), bytes, content])
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts)
export const octets = (...parts: readonly Uint8Array[]): Buffer => der(0x04, ...parts)
export const bits = (content: Uint8Array): Buffer => der(0x03, Buffer.from([0]), content)
export const boolean = (value: boolean): Buffer => der(0x01, Buffer.from([value ? 0xff : 0]))
export const text = (tag: number, value: string): Buffer => der(tag, Buffer.from(value, 'latin1'))

export const integer = (hex: string): Buffer => {
  const even = hex.length % 2 === 0 ? hex : `0${hex}`
  const bytes = Buffer.from(even, 'hex')
  return der(0x02, bytes[0]! >= 0x80 ? Buffer.from([0]) : Buffer.alloc(0), bytes)
}

export const oid = (dotted: string): Buffer => {
  const [first, second, ...rest] = dotted.split('.').map(Number) as [number, number, ...number[]]
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const groups = [arc & 0x7f]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      groups.unshift(0x80 | (left & 0x7f))
    }
    return groups
  })
  return der(0x06, Buffer.from(bytes))
}

export const time = (date: Date): Buffer => {
  const digits = date.toISOString().replace(/[-:T]|\.\d+/g, '')
  return date.getUTCFullYear() < 2050 ? text(0x17, digits.slice(2)) : text(0x18, digits)
}

/** Attributes as OID and value; each in a set of its own. */
export const name = (...attributes: readonly (readonly [string, Buffer])[]): Buffer =>
  sequence(...attributes.map(([type, value]) => der(0x31, sequence(oid(type), value))))

export const commonName = (value: string): Buffer =>
  name(['2.5.4.3', der(0x0c, Buffer.from(value, 'utf8'))])

export const extension = (type: string, value: Uint8Array, critical = false): Buffer =>
  sequence(oid(type), ...(critical ? [boolean(true)] : []), octets(value))

export const altNames = (...names: readonly Buffer[]): Buffer =>
  extension('2.5.29.17', sequence(...names))
export const uriName = (value: string): Buffer => text(0x86, value)
export const dnsName = (value: string): Buffer => text(0x82, value)

export const CA = extension('2.5.29.19', sequence(boolean(true)), true)

export const ECDSA_SHA256 = sequence(oid('1.2.840.10045.4.3.2'))

export interface Forgery {
  readonly key?: KeyObject
  readonly issuer?: { readonly key: KeyObject; readonly subject: Buffer }
  readonly version?: Buffer
  readonly serial?: Buffer
  readonly algorithm?: Buffer
  /** Signed and unsigned copy of the algorithm differ when this is given. */
  readonly outerAlgorithm?: Buffer
  readonly subject?: Buffer
  readonly notBefore?: Buffer
  readonly notAfter?: Buffer
  readonly extensions?: readonly Buffer[]
  readonly sign?: (tbs: Buffer, key: KeyObject) => Buffer
}

export interface Forged {
  readonly der: Buffer
  readonly key: KeyObject
  readonly subject: Buffer
  readonly certificate: X509Certificate
}

/** Self-signed without an issuer. */
export const forge = (options: Forgery = {}): Forged => {
  const bytes = forgeDer(options)
  return { ...bytes, certificate: new X509Certificate(bytes.der) }
}

/** The same for what OpenSSL would not even read. */
export const forgeDer = (options: Forgery = {}): Omit<Forged, 'certificate'> => {
  const key = options.key ?? newKey()
  const subject = options.subject ?? commonName('forged')
  const issuer = options.issuer ?? { key, subject }
  const algorithm = options.algorithm ?? ECDSA_SHA256
  const tbs = sequence(
    options.version ?? der(0xa0, integer('02')),
    options.serial ?? integer('1234'),
    algorithm,
    issuer.subject,
    sequence(
      options.notBefore ?? time(new Date(START_MS - 60_000)),
      options.notAfter ?? time(new Date(START_MS + 3_600_000)),
    ),
    subject,
    publicKeyDer(key),
    ...(options.extensions === undefined ? [] : [der(0xa3, sequence(...options.extensions))]),
  )
  const signer = options.sign ?? ((data, signingKey) => sign('sha256', data, signingKey))
  const outer = options.outerAlgorithm ?? algorithm
  return { der: sequence(tbs, outer, bits(signer(tbs, issuer.key))), key, subject }
}

export interface CrlForgery {
  readonly issuer: { readonly key: KeyObject; readonly subject: Buffer }
  readonly entries?: readonly Buffer[]
  readonly version?: Buffer
  readonly algorithm?: Buffer
  readonly thisUpdate?: Date
  /** `null`: none. */
  readonly nextUpdate?: Date | null
  readonly extensions?: readonly Buffer[]
  readonly sign?: (tbs: Buffer, key: KeyObject) => Buffer
}

export const forgeCrl = (options: CrlForgery): Buffer => {
  const { nextUpdate = new Date(START_MS + 3_600_000), entries = [] } = options
  const tbs = sequence(
    options.version ?? integer('01'),
    options.algorithm ?? ECDSA_SHA256,
    options.issuer.subject,
    time(options.thisUpdate ?? new Date(START_MS - 60_000)),
    ...(nextUpdate === null ? [] : [time(nextUpdate)]),
    ...(entries.length === 0 ? [] : [sequence(Buffer.concat(entries))]),
    ...(options.extensions === undefined ? [] : [der(0xa0, sequence(...options.extensions))]),
  )
  const signer = options.sign ?? ((data, key) => sign('sha256', data, key))
  return sequence(tbs, options.algorithm ?? ECDSA_SHA256, bits(signer(tbs, options.issuer.key)))
}

export const revoked = (serial: string, ...extensions: readonly Buffer[]): Buffer =>
  sequence(
    integer(serial),
    time(new Date(Date.UTC(2026, 0, 1))),
    ...(extensions.length === 0 ? [] : [sequence(...extensions)]),
  )

/** The same with a public key of an algorithm that nobody knows; its own signature is spoilt by that. */
export const withUnknownKey = ({ der: good }: Pick<Forged, 'der'>): Buffer => {
  const bytes = Buffer.from(good)
  const at = bytes.indexOf(EC_PUBLIC_KEY) + EC_PUBLIC_KEY.length - 1
  bytes[at] = 0x7f
  return bytes
}

const EC_PUBLIC_KEY = oid('1.2.840.10045.2.1')

export const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey

const publicKeyDer = (key: KeyObject): Buffer =>
  createPublicKey(key).export({ type: 'spki', format: 'der' })

/** One moment for all, so that certificates made across a full second have the same validity. */
const START_MS = Date.now()
