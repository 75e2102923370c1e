// Keys that tokens are verified with, from what a policy gives: a PEM certificate, a PEM public key,
// one JWK or a set of them. Parsing costs several times a verification, so that callers cache it.
import { createPublicKey, createSecretKey, type KeyObject, X509Certificate } from 'node:crypto'
import { BuiltinError } from './builtin.ts'
import { RegoObject, type RegoValue, readJson, ValueSyntaxError, writeValue } from './value.ts'

export interface JwtKey {
  /** '' where the key does not say. */
  readonly algorithm: string
  readonly id: string
  readonly key: KeyObject
}

export type JwtKeys = readonly JwtKey[]

export type JwtAlgorithm = keyof typeof JWT_ALGORITHMS

/** RFC 7518 section 3.1 and RFC 8037. */
export const JWT_ALGORITHMS = {
  HS256: { family: 'hmac', hash: 'sha256' },
  HS384: { family: 'hmac', hash: 'sha384' },
  HS512: { family: 'hmac', hash: 'sha512' },
  RS256: { family: 'rsa', hash: 'sha256' },
  RS384: { family: 'rsa', hash: 'sha384' },
  RS512: { family: 'rsa', hash: 'sha512' },
  PS256: { family: 'pss', hash: 'sha256' },
  PS384: { family: 'pss', hash: 'sha384' },
  PS512: { family: 'pss', hash: 'sha512' },
  ES256: { family: 'ecdsa', hash: 'sha256' },
  ES384: { family: 'ecdsa', hash: 'sha384' },
  ES512: { family: 'ecdsa', hash: 'sha512' },
  EdDSA: { family: 'eddsa', hash: undefined },
} as const

export function isJwtAlgorithm(name: string): name is JwtAlgorithm {
  return Object.hasOwn(JWT_ALGORITHMS, name)
}

/** Registered, and of no use for verifying tokens: a key set may well have such keys beside. */
const OTHER_ALGORITHMS =
  /^(?:RSA1_5|RSA-OAEP(?:-256|-384|-512)?|dir|none|ES256K|(?:ECDH-ES\+)?A(?:128|192|256)KW|ECDH-ES|A(?:128|192|256)GCMKW|PBES2-HS(?:256|384|512)\+A(?:128|192|256)KW)$/

const MAX_KEYS = 100
const MAX_TEXT_LENGTH = 256 * 1024
const PEM = /^\s*-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----([\s\S]*)$/

/** @throws BuiltinError */
export function parseJwtKeys(text: string): JwtKeys {
  if (text.length > MAX_TEXT_LENGTH) throw new BuiltinError('the key text is too long')
  const pem = PEM.exec(text)
  if (pem !== null) return [{ algorithm: '', id: '', key: pemKey(text, pem) }]
  const document = jsonObject(text)
  const set = document.get('keys')
  const jwks = set === undefined ? [document] : Array.isArray(set) ? set : []
  if (jwks.length > MAX_KEYS) throw new BuiltinError(`more than ${MAX_KEYS} keys`)
  return jwks.flatMap(jwkKey)
}

function pemKey(text: string, [, label, rest]: RegExpExecArray): KeyObject {
  if (rest !== undefined && rest.trim() !== '') {
    throw new BuiltinError('extra data after a PEM certificate block')
  }
  try {
    if (label === 'CERTIFICATE') return new X509Certificate(text).publicKey
    if (label === 'PUBLIC KEY') return createPublicKey(text)
  } catch {
    throw new BuiltinError(`failed to parse a PEM ${label}`)
  }
  throw new BuiltinError('failed to extract a key from the PEM certificate')
}

function jwkKey(jwk: RegoValue): JwtKey[] {
  if (!(jwk instanceof RegoObject)) throw new BuiltinError('a JWK that is not an object')
  const algorithm = text(jwk, 'alg')
  const kind = text(jwk, 'kty')
  let key: KeyObject
  try {
    if (kind === 'oct') {
      const secret = Buffer.from(text(jwk, 'k'), 'base64url')
      // Anybody can sign with the empty key.
      if (secret.length === 0) throw new BuiltinError('a JWK without a key')
      key = createSecretKey(secret)
    } else {
      // createPublicKey also takes private JWKs, and keeps the public half.
      key = createPublicKey({ key: JSON.parse(writeValue(jwk)), format: 'jwk' })
    }
  } catch {
    throw new BuiltinError('failed to parse a JWK key (set)')
  }
  if (algorithm !== '' && !isJwtAlgorithm(algorithm)) {
    if (OTHER_ALGORITHMS.test(algorithm)) return []
    throw new BuiltinError('a JWK with an unknown algorithm')
  }
  return [{ algorithm, id: text(jwk, 'kid'), key }]
}

function text(object: RegoObject, name: string): string {
  const value = object.get(name)
  return typeof value === 'string' ? value : ''
}

function jsonObject(source: string): RegoObject {
  try {
    const value = readJson(source)
    if (value instanceof RegoObject) return value
  } catch (error) {
    if (!(error instanceof ValueSyntaxError)) throw error
  }
  throw new BuiltinError('failed to parse a JWK key (set)')
}
