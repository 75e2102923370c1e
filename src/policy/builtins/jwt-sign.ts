// io.jwt.encode_sign and io.jwt.encode_sign_raw: compact JWS (RFC 7515) with a private JWK that the
// policy holds. The key is read at each call: signing costs many times what reading it does.
import { constants, createHmac, createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { marshalWithOptions } from './json-marshal.ts'
import { isJwtAlgorithm, JWT_ALGORITHMS, type JwtAlgorithm } from './jwt-keys.ts'
import { RegoObject, type RegoValue, readJson, ValueSyntaxError, writeValue } from './value.ts'

const MAX_LENGTH = 64 * 1024
/** In loop iterations of wasm: RSA signs in about a millisecond, the others in tens of us. */
const SIGN_COST = { hmac: 2_000, ecdsa: 40_000, eddsa: 40_000, rsa: 300_000, pss: 300_000 } as const
const CURVES: Readonly<Record<string, string>> = {
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
}

/** io.jwt.encode_sign(headers, payload, key), all of them values */
export function encodeSign(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [header, payload, key] = args.map((value) => {
    return marshalWithOptions([value, new RegoObject()], context) as string
  }) as [string, string, string]
  return signedToken(header, payload, key, context)
}

/** io.jwt.encode_sign_raw(headers, payload, key), all of them JSON text */
export function encodeSignRaw(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [header, payload, key] = [0, 1, 2].map((at) => stringArgument(args[at], at + 1)) as [
    string,
    string,
    string,
  ]
  return signedToken(header, payload, key, context)
}

function signedToken(
  header: string,
  payload: string,
  key: string,
  context: BuiltinContext,
): string {
  const length = header.length + payload.length + key.length
  if (length > MAX_LENGTH) throw new BuiltinError('token is too long')
  context.spend(8 * length)
  const jwk = firstKey(json(key))
  const fields = json(header)
  const algorithm = fields instanceof RegoObject ? fields.get('alg') : undefined
  if (typeof algorithm !== 'string' || !isJwtAlgorithm(algorithm)) {
    throw new BuiltinError('missing or unknown alg header')
  }
  const type = (fields as RegoObject).get('typ')
  // Also without a type it is a JWT.
  if (typeof type !== 'string' || type === 'JWT') json(payload)
  const signed = `${base64Url(header)}.${base64Url(payload)}`
  context.spend(SIGN_COST[JWT_ALGORITHMS[algorithm].family])
  return `${signed}.${signature(algorithm, jwk, Buffer.from(signed)).toString('base64url')}`
}

function signature(algorithm: JwtAlgorithm, jwk: RegoObject, data: Buffer): Buffer {
  const { family, hash } = JWT_ALGORITHMS[algorithm]
  if (family === 'hmac') return createHmac(hash, secretOf(jwk)).update(data).digest()
  const key = privateKey(jwk)
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  try {
    if (family === 'eddsa' && type === 'ed25519') return sign(null, data, key)
    if (family === 'rsa' && type === 'rsa') return sign(hash, data, key)
    if (family === 'pss' && type === 'rsa') {
      const padding = constants.RSA_PKCS1_PSS_PADDING
      return sign(hash, data, { key, padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST })
    }
    if (family === 'ecdsa' && type === 'ec' && details?.namedCurve === CURVES[algorithm]) {
      return sign(hash, data, { key, dsaEncoding: 'ieee-p1363' })
    }
  } catch {
    // Such as a modulus that is too small for the digest.
    throw new BuiltinError('the key cannot sign')
  }
  throw new BuiltinError('the key is not for this algorithm')
}

function secretOf(jwk: RegoObject): Buffer {
  const secret = jwk.get('k')
  if (jwk.get('kty') !== 'oct' || typeof secret !== 'string' || secret === '') {
    throw new BuiltinError('the key is not for this algorithm')
  }
  return Buffer.from(secret, 'base64url')
}

function privateKey(jwk: RegoObject): KeyObject {
  try {
    return createPrivateKey({ key: JSON.parse(writeValue(jwk)), format: 'jwk' })
  } catch {
    throw new BuiltinError('failed to parse a private JWK')
  }
}

/** A JWK, or the first one of a set. */
function firstKey(document: RegoValue): RegoObject {
  const set = document instanceof RegoObject ? document.get('keys') : undefined
  const key = Array.isArray(set) ? (set[0] as RegoValue | undefined) : document
  if (key instanceof RegoObject && typeof key.get('kty') === 'string') return key
  throw new BuiltinError('no keys found in JWK set')
}

function json(text: string): RegoValue {
  try {
    return readJson(text)
  } catch (error) {
    if (error instanceof ValueSyntaxError) throw new BuiltinError('not JSON')
    throw error
  }
}

function base64Url(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64url')
}
