// Which signatures and keys are strong enough to believe. A list of what is allowed: SHA-1, MD5, DSA,
// short RSA keys and whatever is invented later are refused until named here.
import { constants, type KeyObject, verify } from 'node:crypto'
import { type DerElement, TAG } from './der.ts'

export interface SignatureAlgorithm {
  readonly keyTypes: readonly string[]
  /** Undefined where the algorithm brings its own (EdDSA, ML-DSA). */
  readonly hash: string | undefined
  /** Present for RSASSA-PSS. */
  readonly saltLength?: number
}

/** Undefined for an algorithm that is not believed. */
export const readSignatureAlgorithm = (
  algorithm: DerElement,
  what: string,
): SignatureAlgorithm | undefined => {
  const items = algorithm.items(what)
  const oid = items.next(TAG.oid, what).oid(what)
  if (oid === RSASSA_PSS) return readPss(items.optional(TAG.sequence, what), what)
  return ALGORITHMS.get(oid)
}

export const signatureMatches = (
  algorithm: SignatureAlgorithm,
  key: KeyObject,
  data: Uint8Array,
  signature: Uint8Array,
): boolean => {
  if (!algorithm.keyTypes.includes(key.asymmetricKeyType ?? '')) return false
  const options =
    algorithm.saltLength === undefined
      ? { key }
      : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: algorithm.saltLength }
  try {
    return verify(algorithm.hash, data, options, signature)
  } catch {
    return false
  }
}

/** What is wrong with a public key, or undefined. OpenSSL's security level 2 draws the same line. */
export const weaknessOf = (key: KeyObject): string | undefined => {
  const type = key.asymmetricKeyType ?? 'unknown'
  const details = key.asymmetricKeyDetails
  if (type === 'rsa' || type === 'rsa-pss') {
    const bits = details?.modulusLength ?? 0
    return bits >= 2048 && bits <= 8192 ? undefined : `an RSA key of ${bits} bits`
  }
  if (type === 'ec') {
    const curve = details?.namedCurve ?? 'unnamed'
    return CURVES.has(curve) ? undefined : `a key on the curve ${curve}`
  }
  return OTHER_KEYS.has(type) ? undefined : `a key of type ${type}`
}

/** RFC 4055 section 3.1; its defaults are SHA-1, so hash and mask must be given, and be the same. */
const readPss = (
  parameters: DerElement | undefined,
  what: string,
): SignatureAlgorithm | undefined => {
  if (parameters === undefined) return undefined
  const items = parameters.items(what)
  const explicit = (number: number): DerElement | undefined => {
    const inner = items.optional(0xa0 | number, what)?.items(what)
    const element = inner?.any(what)
    inner?.end(what)
    return element
  }
  const [hashAlgorithm, mask, salt, trailer] = [0, 1, 2, 3].map(explicit)
  items.end(what)
  if (hashAlgorithm === undefined || mask === undefined || salt === undefined) return undefined
  if (trailer !== undefined && trailer.small(what) !== 1) return undefined
  const maskItems = mask.items(what)
  if (maskItems.next(TAG.oid, what).oid(what) !== MGF1) return undefined
  const hash = hashOf(hashAlgorithm, what)
  const maskHash = hashOf(maskItems.next(TAG.sequence, what), what)
  if (hash === undefined || hash !== maskHash) return undefined
  const saltLength = salt.small(what)
  return { keyTypes: ['rsa', 'rsa-pss'], hash, saltLength }
}

const hashOf = (algorithm: DerElement, what: string): string | undefined =>
  HASHES.get(algorithm.items(what).next(TAG.oid, what).oid(what))

const RSASSA_PSS = '1.2.840.113549.1.1.10'
const MGF1 = '1.2.840.113549.1.1.8'

const HASHES: ReadonlyMap<string, string> = new Map([
  ['2.16.840.1.101.3.4.2.1', 'sha256'],
  ['2.16.840.1.101.3.4.2.2', 'sha384'],
  ['2.16.840.1.101.3.4.2.3', 'sha512'],
])

const ALGORITHMS: ReadonlyMap<string, SignatureAlgorithm> = new Map([
  ['1.2.840.113549.1.1.11', { keyTypes: ['rsa'], hash: 'sha256' }],
  ['1.2.840.113549.1.1.12', { keyTypes: ['rsa'], hash: 'sha384' }],
  ['1.2.840.113549.1.1.13', { keyTypes: ['rsa'], hash: 'sha512' }],
  ['1.2.840.10045.4.3.2', { keyTypes: ['ec'], hash: 'sha256' }],
  ['1.2.840.10045.4.3.3', { keyTypes: ['ec'], hash: 'sha384' }],
  ['1.2.840.10045.4.3.4', { keyTypes: ['ec'], hash: 'sha512' }],
  ['1.3.101.112', { keyTypes: ['ed25519'], hash: undefined }],
  ['1.3.101.113', { keyTypes: ['ed448'], hash: undefined }],
  ['2.16.840.1.101.3.4.3.17', { keyTypes: ['ml-dsa-44'], hash: undefined }],
  ['2.16.840.1.101.3.4.3.18', { keyTypes: ['ml-dsa-65'], hash: undefined }],
  ['2.16.840.1.101.3.4.3.19', { keyTypes: ['ml-dsa-87'], hash: undefined }],
])

const CURVES: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])
const OTHER_KEYS: ReadonlySet<string> = new Set([
  'ed25519',
  'ed448',
  'ml-dsa-44',
  'ml-dsa-65',
  'ml-dsa-87',
])
