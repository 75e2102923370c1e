// A development certificate authority in memory: what `postern pki`, `call` and `demo` issue with,
// and what tests make good and bad certificates with. Says nothing about files. By default every
// leaf is one that the X509-SVID profile allows; each deviation has to be asked for by name.
import 'reflect-metadata'
import { createPrivateKey, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import * as x509 from '@peculiar/x509'

type CryptoKey = webcrypto.CryptoKey
type CryptoKeyPair = webcrypto.CryptoKeyPair

export type KeyType =
  | 'ec-p256'
  | 'ec-p384'
  | 'ec-p521'
  | 'rsa-1024'
  | 'rsa-2048'
  | 'rsa-3072'
  | 'rsa-4096'
  | 'ed25519'
export type KeyUsage = keyof typeof KEY_USAGE_FLAGS
export type SignatureHash = 'SHA-1' | 'SHA-256' | 'SHA-384' | 'SHA-512'

/** An extension that the options have no word for, as DER of its value. */
export interface RawExtension {
  readonly oid: string
  readonly critical?: boolean
  readonly der: Uint8Array
}

export interface AuthorityOptions {
  readonly commonName?: string
  readonly keyType?: KeyType
  /** Put into the certificate as `spiffe://DOMAIN` (X509-SVID section 3.1). */
  readonly trustDomain?: string
  readonly notBefore?: Date
  readonly notAfter?: Date
  /** Intermediates allowed below this one; absent: any number. */
  readonly pathLength?: number
  readonly signatureHash?: SignatureHash
  readonly extraExtensions?: readonly RawExtension[]
}

export interface IssueOptions {
  readonly commonName?: string
  readonly uris?: readonly string[]
  readonly dns?: readonly string[]
  readonly ips?: readonly string[]
  readonly keyType?: KeyType
  readonly notBefore?: Date
  readonly notAfter?: Date
  /** Extended key usage; default both `serverAuth` and `clientAuth`; `none`: no such extension. */
  readonly usages?: readonly ('clientAuth' | 'serverAuth' | 'codeSigning')[] | 'none'
  /** Default `digitalSignature` (of a CA: `keyCertSign` and `cRLSign`); `none`: no extension. */
  readonly keyUsage?: readonly KeyUsage[] | 'none'
  readonly ca?: boolean
  /** Hexadecimal; default 16 random bytes. */
  readonly serial?: string
  readonly extraExtensions?: readonly RawExtension[]
  readonly signatureHash?: SignatureHash
}

export interface IssuedCertificate {
  readonly certificatePem: string
  /** PKCS#8. */
  readonly privateKeyPem: string
  /** The leaf, then the intermediates up to but without the root. */
  readonly chainPem: string
  /** Hexadecimal, as in the certificate. */
  readonly serial: string
}

export interface CrlOptions {
  readonly revoked: readonly { readonly serial: string; readonly at?: Date }[]
  readonly thisUpdate?: Date
  readonly nextUpdate?: Date
  readonly number?: number
}

const HOUR_MS = 3_600_000
/** Clocks of containers and their hosts differ by seconds (linkerd2#3980). */
const BACKDATE_MS = 60_000

export class Authority {
  readonly certificatePem: string
  readonly privateKeyPem: string
  /** This authority's certificate, then those above it without the root; empty for a root. */
  readonly chainPem: string
  readonly #certificate: x509.X509Certificate
  readonly #signingKey: CryptoKey

  private constructor(
    certificate: x509.X509Certificate,
    signingKey: CryptoKey,
    privateKeyPem: string,
    chainPem: string,
  ) {
    this.certificatePem = pem(certificate)
    this.privateKeyPem = privateKeyPem
    this.chainPem = chainPem
    this.#certificate = certificate
    this.#signingKey = signingKey
  }

  /** A self-signed root. */
  static async create(options: AuthorityOptions = {}): Promise<Authority> {
    const keys = await generateKeys(options.keyType ?? 'ec-p256')
    const name = { commonName: 'Postern development root', ...options }
    const certificate = await certify(name, authorityProfile(options), keys, undefined)
    return new Authority(certificate, keys.privateKey, await exportKey(keys.privateKey), '')
  }

  /**
   * An authority from PEM text: its own certificate first in `chainPem`, PKCS#8 key. Throws when
   * they cannot be read or do not belong together.
   */
  static async load(options: {
    readonly certificatePem: string
    readonly privateKeyPem: string
    /** As `chainPem` of the authority that was stored. */
    readonly chainPem?: string
  }): Promise<Authority> {
    const certificate = new x509.X509Certificate(options.certificatePem)
    const signingKey = await importKey(options.privateKeyPem)
    if (
      !new X509Certificate(options.certificatePem).checkPrivateKey(
        createPrivateKey(options.privateKeyPem),
      )
    ) {
      throw new Error('the private key does not belong to the certificate')
    }
    return new Authority(certificate, signingKey, options.privateKeyPem, options.chainPem ?? '')
  }

  async intermediate(options: AuthorityOptions = {}): Promise<Authority> {
    const keys = await generateKeys(options.keyType ?? 'ec-p256')
    const name = { commonName: 'Postern development intermediate', ...options }
    const certificate = await certify(name, authorityProfile(options), keys, this.#issuer())
    return new Authority(
      certificate,
      keys.privateKey,
      await exportKey(keys.privateKey),
      pem(certificate) + this.chainPem,
    )
  }

  async issue(options: IssueOptions = {}): Promise<IssuedCertificate> {
    const keys = await generateKeys(options.keyType ?? 'ec-p256')
    const certificate = await certify(options, leafProfile(options), keys, this.#issuer())
    return {
      certificatePem: pem(certificate),
      privateKeyPem: await exportKey(keys.privateKey),
      chainPem: pem(certificate) + this.chainPem,
      serial: certificate.serialNumber,
    }
  }

  /** A complete CRL of this authority, version 2, with CRL number and authority key identifier. */
  async crl(options: CrlOptions): Promise<string> {
    const thisUpdate = options.thisUpdate ?? new Date(Date.now() - BACKDATE_MS)
    const crl = await x509.X509CrlGenerator.create({
      issuer: this.#certificate.subjectName,
      thisUpdate,
      nextUpdate: options.nextUpdate ?? new Date(Date.now() + 7 * 24 * HOUR_MS),
      entries: options.revoked.map(({ serial, at }) => ({
        serialNumber: serial,
        revocationDate: at ?? thisUpdate,
      })),
      extensions: [
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate.publicKey),
        new x509.Extension('2.5.29.20', false, derInteger(options.number ?? 1)),
      ],
      signingKey: this.#signingKey,
      signingAlgorithm: signingAlgorithm(this.#signingKey, undefined),
    })
    // `crl.toString('pem')` says BEGIN CRL, a label that OpenSSL does not read.
    return pemBlock('X509 CRL', crl.rawData)
  }

  #issuer(): Issuer {
    return { certificate: this.#certificate, key: this.#signingKey }
  }
}

interface Issuer {
  readonly certificate: x509.X509Certificate
  readonly key: CryptoKey
}

/** The extensions that tell a CA from a leaf; names and dates are the same for both. */
interface Profile {
  readonly uris: readonly string[]
  readonly basicConstraints: x509.BasicConstraintsExtension
  readonly keyUsage: readonly KeyUsage[] | 'none'
  readonly usages: readonly ('clientAuth' | 'serverAuth' | 'codeSigning')[] | 'none'
  readonly lifetimeMs: number
}

function authorityProfile(options: AuthorityOptions): Profile {
  return {
    uris: options.trustDomain === undefined ? [] : [`spiffe://${options.trustDomain}`],
    basicConstraints: new x509.BasicConstraintsExtension(true, options.pathLength, true),
    keyUsage: ['keyCertSign', 'cRLSign'],
    usages: 'none',
    lifetimeMs: 365 * 24 * HOUR_MS,
  }
}

function leafProfile(options: IssueOptions): Profile {
  const ca = options.ca ?? false
  return {
    uris: options.uris ?? [],
    basicConstraints: new x509.BasicConstraintsExtension(ca, undefined, true),
    keyUsage: options.keyUsage ?? (ca ? ['keyCertSign', 'cRLSign'] : ['digitalSignature']),
    usages: options.usages ?? ['serverAuth', 'clientAuth'],
    lifetimeMs: 24 * HOUR_MS,
  }
}

async function certify(
  options: AuthorityOptions | IssueOptions,
  profile: Profile,
  keys: CryptoKeyPair,
  issuer: Issuer | undefined,
): Promise<x509.X509Certificate> {
  const subject = nameOf(options.commonName)
  const signingKey = issuer?.key ?? keys.privateKey
  const notBefore = options.notBefore ?? new Date(Date.now() - BACKDATE_MS)
  return x509.X509CertificateGenerator.create({
    serialNumber: ('serial' in options ? options.serial : undefined) ?? randomSerial(),
    subject,
    issuer: issuer?.certificate.subjectName ?? subject,
    notBefore,
    notAfter:
      options.notAfter ?? new Date(Math.max(notBefore.getTime(), Date.now()) + profile.lifetimeMs),
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: signingAlgorithm(signingKey, options.signatureHash),
    extensions: [
      profile.basicConstraints,
      ...keyUsageExtensions(profile),
      ...subjectAlternativeNames(options, profile, options.commonName === undefined),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(
        issuer?.certificate.publicKey ?? keys.publicKey,
      ),
      ...(options.extraExtensions ?? []).map(
        ({ oid, critical, der }) =>
          new x509.Extension(oid, critical ?? false, Uint8Array.from(der)),
      ),
    ],
  })
}

function keyUsageExtensions({ keyUsage, usages }: Profile): x509.Extension[] {
  const extensions: x509.Extension[] = []
  if (keyUsage !== 'none') {
    const flags = keyUsage.reduce((sum, name) => sum | KEY_USAGE_FLAGS[name], 0)
    extensions.push(new x509.KeyUsagesExtension(flags, true))
  }
  if (usages !== 'none') {
    const oids = usages.map((usage) => x509.ExtendedKeyUsage[usage])
    extensions.push(new x509.ExtendedKeyUsageExtension(oids, false))
  }
  return extensions
}

function subjectAlternativeNames(
  options: AuthorityOptions | IssueOptions,
  { uris }: Profile,
  emptySubject: boolean,
): x509.Extension[] {
  const dns = 'dns' in options ? (options.dns ?? []) : []
  const ips = 'ips' in options ? (options.ips ?? []) : []
  const names = [
    ...uris.map((value) => ({ type: 'url' as const, value })),
    ...dns.map((value) => ({ type: 'dns' as const, value })),
    ...ips.map((value) => ({ type: 'ip' as const, value })),
  ]
  // RFC 5280 section 4.2.1.6: critical where the subject is empty.
  return names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names, emptySubject)]
}

/** As a structure, not as text: a comma or a leading `#` in a name must mean nothing. */
function nameOf(commonName: string | undefined): x509.Name {
  return new x509.Name(commonName === undefined ? [] : [{ CN: [{ utf8String: commonName }] }])
}

/** 16 bytes, positive, no leading zero: one spelling whoever prints it. */
function randomSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] as number) & 0x3f) | 0x40
  return bytes.toString('hex')
}

function generateKeys(keyType: KeyType): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY_ALGORITHMS[keyType], true, [
    'sign',
    'verify',
  ]) as Promise<CryptoKeyPair>
}

async function exportKey(key: CryptoKey): Promise<string> {
  return pemBlock('PRIVATE KEY', await webcrypto.subtle.exportKey('pkcs8', key))
}

async function importKey(privateKeyPem: string): Promise<CryptoKey> {
  const key = createPrivateKey(privateKeyPem)
  const curve = key.asymmetricKeyDetails?.namedCurve
  const keyType =
    key.asymmetricKeyType === 'ed25519'
      ? 'ed25519'
      : key.asymmetricKeyType === 'rsa'
        ? 'rsa-2048'
        : curve === 'secp384r1'
          ? 'ec-p384'
          : curve === 'secp521r1'
            ? 'ec-p521'
            : 'ec-p256'
  const pkcs8 = key.export({ type: 'pkcs8', format: 'der' })
  return webcrypto.subtle.importKey('pkcs8', pkcs8, KEY_ALGORITHMS[keyType], true, ['sign'])
}

function signingAlgorithm(key: CryptoKey, hash: SignatureHash | undefined) {
  const name = key.algorithm.name
  return name === 'Ed25519' ? { name } : { name, hash: hash ?? 'SHA-256' }
}

const pem = (certificate: x509.X509Certificate): string =>
  pemBlock('CERTIFICATE', certificate.rawData)

function pemBlock(label: string, der: ArrayBuffer): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

function derInteger(value: number): Uint8Array<ArrayBuffer> {
  const hex = value.toString(16)
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  const padding = (bytes[0] as number) > 0x7f ? [0] : []
  return Uint8Array.from([0x02, padding.length + bytes.length, ...padding, ...bytes])
}

const RSA = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  publicExponent: new Uint8Array([1, 0, 1]),
} as const

const KEY_ALGORITHMS: Readonly<
  Record<KeyType, webcrypto.EcKeyGenParams | webcrypto.RsaHashedKeyGenParams | { name: 'Ed25519' }>
> = {
  'ec-p256': { name: 'ECDSA', namedCurve: 'P-256' },
  'ec-p384': { name: 'ECDSA', namedCurve: 'P-384' },
  'ec-p521': { name: 'ECDSA', namedCurve: 'P-521' },
  'rsa-1024': { ...RSA, modulusLength: 1024 },
  'rsa-2048': { ...RSA, modulusLength: 2048 },
  'rsa-3072': { ...RSA, modulusLength: 3072 },
  'rsa-4096': { ...RSA, modulusLength: 4096 },
  ed25519: { name: 'Ed25519' },
}

/** RFC 5280 section 4.2.1.3. */
const KEY_USAGE_FLAGS = {
  digitalSignature: x509.KeyUsageFlags.digitalSignature,
  keyEncipherment: x509.KeyUsageFlags.keyEncipherment,
  keyAgreement: x509.KeyUsageFlags.keyAgreement,
  keyCertSign: x509.KeyUsageFlags.keyCertSign,
  cRLSign: x509.KeyUsageFlags.cRLSign,
} as const
