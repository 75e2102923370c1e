// The keys that bundles may be signed with. The algorithm belongs to the key, never to a signature:
// so a public RSA key can never be used as the secret of an HMAC, and `none` does not exist.
import {
  constants,
  createHmac,
  createPublicKey,
  createSecretKey,
  type KeyObject,
  timingSafeEqual,
  verify,
} from 'node:crypto'
import type { Problem } from '../../errors.ts'

export const SIGNING_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'HS256',
  'HS384',
  'HS512',
] as const

export type SigningAlgorithm = (typeof SIGNING_ALGORITHMS)[number]

export interface VerificationKey {
  readonly id: string
  readonly algorithm: SigningAlgorithm
  readonly verifies: (signed: Buffer, signature: Buffer) => boolean
}

export type ReadKey =
  | { readonly kind: 'key'; readonly key: VerificationKey }
  | { readonly kind: 'problem'; readonly problem: Problem }

/** @param given absent: the usual one for this kind of key; a secret has none. */
export function readVerificationKey(
  id: string,
  bytes: Buffer,
  file: string,
  given: SigningAlgorithm | undefined,
): ReadKey {
  const wrong = (what: string, remedy: string): ReadKey => ({
    kind: 'problem',
    problem: { where: file, what, remedy },
  })
  const text = bytes.toString('latin1')
  const label = /-----BEGIN ([A-Z0-9 ]{1,40})-----/.exec(text)?.[1]
  if (given?.startsWith('HS')) {
    const fault = label === undefined ? secretFault(bytes, given) : 'is a PEM file, and no secret'
    if (fault !== undefined) {
      return wrong(`${fault} for ${given}`, 'generate one, as with `openssl rand -hex 64`')
    }
    return { kind: 'key', key: hmacKey(id, given, createSecretKey(bytes)) }
  }
  if (label === undefined) {
    return wrong(
      'holds no PEM block',
      'give the public key that belongs to the signing key; for a shared secret set its algorithm, as HS256',
    )
  }
  if (!PUBLIC.includes(label)) {
    return wrong(
      `holds a ${label}, and only public keys belong here`,
      'give the public key: `openssl pkey -in KEY -pubout`',
    )
  }
  let key: KeyObject
  try {
    key = createPublicKey(bytes)
  } catch {
    return wrong(`its ${label} cannot be read`, 'write the file again')
  }
  const algorithm = given ?? usualAlgorithm(key)
  if (algorithm === undefined) {
    return wrong(`its ${kindOf(key)} key cannot be used`, `use ${USABLE}`)
  }
  if (!fits(algorithm, key)) {
    return wrong(`its ${kindOf(key)} key does not go with ${algorithm}`, `use ${USABLE}`)
  }
  return { kind: 'key', key: publicKey(id, algorithm, key) }
}

const PUBLIC: readonly string[] = ['PUBLIC KEY', 'RSA PUBLIC KEY', 'CERTIFICATE']
const USABLE = 'RSA of 2048 bits or more, or EC on P-256 (ES256), P-384 (ES384) or P-521 (ES512)'
const LEAST_RSA_BITS = 2048

/** RFC 7518 section 3.4: one curve for each. */
const CURVES: Readonly<Record<string, SigningAlgorithm>> = {
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
}

function usualAlgorithm({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject) {
  if (asymmetricKeyType === 'rsa') return 'RS256'
  if (asymmetricKeyType === 'rsa-pss') return 'PS256'
  return asymmetricKeyType === 'ec' ? CURVES[asymmetricKeyDetails?.namedCurve ?? ''] : undefined
}

function fits(algorithm: SigningAlgorithm, key: KeyObject): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (algorithm.startsWith('ES')) {
    return type === 'ec' && CURVES[details?.namedCurve ?? ''] === algorithm
  }
  const isRsa = type === 'rsa' || (type === 'rsa-pss' && algorithm.startsWith('PS'))
  return isRsa && (details?.modulusLength ?? 0) >= LEAST_RSA_BITS
}

const kindOf = ({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string =>
  [type, details?.namedCurve ?? details?.modulusLength].filter((one) => one !== undefined).join(' ')

/** RFC 7518 section 3.2: a key no shorter than the hash. */
function secretFault(bytes: Buffer, algorithm: SigningAlgorithm): string | undefined {
  const least = Number(algorithm.slice(2)) / 8
  return bytes.length < least ? `has ${bytes.length} bytes, and ${least} are the least` : undefined
}

const hashOf = (algorithm: SigningAlgorithm): string => `sha${algorithm.slice(2)}`

function hmacKey(id: string, algorithm: SigningAlgorithm, secret: KeyObject): VerificationKey {
  const verifies = (signed: Buffer, signature: Buffer): boolean => {
    const expected = createHmac(hashOf(algorithm), secret).update(signed).digest()
    return expected.length === signature.length && timingSafeEqual(expected, signature)
  }
  return { id, algorithm, verifies }
}

function publicKey(id: string, algorithm: SigningAlgorithm, key: KeyObject): VerificationKey {
  const options = algorithm.startsWith('PS')
    ? {
        key,
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
      }
    : algorithm.startsWith('ES')
      ? { key, dsaEncoding: 'ieee-p1363' as const }
      : key
  const verifies = (signed: Buffer, signature: Buffer): boolean =>
    verify(hashOf(algorithm), signed, options, signature)
  return { id, algorithm, verifies }
}
