// io.jwt.*: decoding and verification of JSON Web Tokens with the meaning of OPA 1.x, also where a
// stricter reading would be possible: policies rely on which mistakes are errors (undefined) and
// which are "not valid". Compact JWS only; RFC 7515, RFC 7519.
import { constants, createHmac, type KeyObject, timingSafeEqual, verify } from 'node:crypto'
import { type BuiltinContext, BuiltinError, objectArgument, stringArgument } from './builtin.ts'
import { compareNumbers } from './compare.ts'
import { formatFloat } from './go-float.ts'
import {
  isJwtAlgorithm,
  JWT_ALGORITHMS,
  type JwtAlgorithm,
  type JwtKeys,
  parseJwtKeys,
} from './jwt-keys.ts'
import { RegoNumber, RegoObject, type RegoValue, readJson, ValueSyntaxError } from './value.ts'

const MAX_TOKEN_LENGTH = 64 * 1024
const MAX_NESTING = 4
/** In loop iterations of wasm: RS256 takes some 30 us, parsing its key six times as long. */
const VERIFY_COST = 10_000
const PARSE_KEY_COST = 50_000

interface Token {
  readonly header: RegoObject
  /** `header.payload`, which the signature is over. */
  readonly signed: string
  readonly payload: string
  readonly signature: string
}

/** io.jwt.decode(token) = [header, payload, signature in hex] */
export function decodeJwt(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  let text = stringArgument(args[0], 1)
  for (let depth = 0; depth < MAX_NESTING; depth++) {
    const token = splitToken(text, context)
    const payload = decodeBase64Url(token.payload).toString('utf8')
    const contentType = token.header.get('cty')
    if (contentType !== undefined && typeof contentType !== 'string') {
      throw new BuiltinError('cty: must be a string')
    }
    if (contentType === 'JWT') {
      text = payload.replace(/^["']+/, '').replace(/["']+$/, '')
      continue
    }
    return [token.header, jsonObject(payload), decodeBase64Url(token.signature).toString('hex')]
  }
  throw new BuiltinError('tokens are nested too deeply')
}

/** io.jwt.verify_<algorithm>(token, key) = boolean */
export function verifyJwt(
  algorithm: JwtAlgorithm,
): (args: readonly RegoValue[], context: BuiltinContext) => RegoValue {
  return (args, context) => {
    const text = stringArgument(args[0], 1)
    const keyText = stringArgument(args[1], 2)
    if (JWT_ALGORITHMS[algorithm].family === 'hmac') {
      const [header, payload, encoded] = sections(text, context)
      const signature = decodeBase64Url(encoded)
      context.spend(VERIFY_COST)
      return hmacMatches(algorithm, Buffer.from(keyText, 'utf8'), `${header}.${payload}`, signature)
    }
    const keys = cachedKeys(keyText, context)
    const token = splitToken(text, context)
    const signature = decodeBase64Url(token.signature)
    const { alg, kid } = headerFields(token.header)
    return verifiesWithAny(
      keys,
      { algorithm, declared: alg, kid },
      token.signed,
      signature,
      context,
    )
  }
}

/** io.jwt.decode_verify(token, constraints) = [valid, header, payload] */
export function decodeVerifyJwt(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const constraints = parseConstraints(objectArgument(args[1], 2), context)
  const unverified: RegoValue = [false, new RegoObject(), new RegoObject()]
  let text = stringArgument(args[0], 1)
  for (let depth = 0; depth < MAX_NESTING; depth++) {
    const token = splitToken(text, context)
    const header = headerFields(token.header)
    if (header.alg === '' || header.hasUnknownCritical) return unverified
    if (constraints.alg !== '' && constraints.alg !== header.alg) return unverified
    const signature = decodeBase64Url(token.signature)
    if (!isJwtAlgorithm(header.alg)) return unverified
    const { family } = JWT_ALGORITHMS[header.alg]
    const valid =
      constraints.keys === undefined
        ? family === 'hmac' &&
          hmacMatches(header.alg, Buffer.from(constraints.secret), token.signed, signature)
        : verifiesWithAny(
            constraints.keys,
            { algorithm: header.alg, declared: header.alg, kid: header.kid },
            token.signed,
            signature,
            context,
          )
    context.spend(VERIFY_COST)
    if (!valid) return unverified
    const payloadText = decodeBase64Url(token.payload).toString('utf8')
    if (header.cty.toUpperCase() === 'JWT') {
      text = payloadText
      continue
    }
    const payload = jsonObject(payloadText)
    return claimsHold(payload, constraints) ? [true, token.header, payload] : unverified
  }
  throw new BuiltinError('tokens are nested too deeply')
}

interface Constraints {
  keys: JwtKeys | undefined
  secret: string
  alg: string
  iss: string
  aud: string
  /** Nanoseconds since 1970. */
  time: number
}

function parseConstraints(object: RegoObject, context: BuiltinContext): Constraints {
  const constraints: Constraints = {
    keys: undefined,
    secret: '',
    alg: '',
    iss: '',
    aud: '',
    time: Number(context.timeNs),
  }
  for (const [name, value] of object.entries()) {
    switch (name) {
      case 'cert':
        constraints.keys = cachedKeys(constraintText(name, value), context)
        break
      case 'secret':
      case 'alg':
      case 'iss':
      case 'aud':
        constraints[name] = constraintText(name, value)
        break
      case 'time': {
        const time = value instanceof RegoNumber ? Number(value.literal) : Number.NaN
        if (!(time >= 0 && time < Number.POSITIVE_INFINITY)) {
          throw new BuiltinError('token time constraint: must be a number that is not negative')
        }
        constraints.time = time
        break
      }
      default:
        throw new BuiltinError(`unknown token validation constraint: ${String(name)}`)
    }
  }
  if (constraints.keys !== undefined && constraints.secret !== '') {
    throw new BuiltinError('duplicate key constraints')
  }
  if (constraints.keys === undefined && constraints.secret === '') {
    throw new BuiltinError('no key constraint')
  }
  return constraints
}

function constraintText(name: string, value: RegoValue): string {
  if (typeof value === 'string') return value
  throw new BuiltinError(`${name} constraint: must be a string`)
}

function claimsHold(payload: RegoObject, constraints: Constraints): boolean {
  const issuer = payload.get('iss')
  if (constraints.iss !== '' && issuer !== constraints.iss) return false
  const audience = payload.get('aud')
  // A token for somebody may not be accepted by a policy that does not say who it is.
  if (audience === undefined ? constraints.aud !== '' : !isFor(audience, constraints.aud)) {
    return false
  }
  const now = new RegoNumber(formatFloat(constraints.time / 1e9, 'g', undefined))
  const expiry = claimTime(payload, 'exp')
  if (expiry !== undefined && compareNumbers(now, expiry) >= 0) return false
  const notBefore = claimTime(payload, 'nbf')
  return notBefore === undefined || compareNumbers(now, notBefore) >= 0
}

function isFor(audience: RegoValue, wanted: string): boolean {
  return Array.isArray(audience) ? audience.includes(wanted) : audience === wanted
}

function claimTime(payload: RegoObject, name: string): RegoNumber | undefined {
  const value = payload.get(name)
  if (value === undefined || value instanceof RegoNumber) return value
  throw new BuiltinError(`${name} value must be a number`)
}

interface HeaderFields {
  readonly alg: string
  readonly kid: string
  readonly cty: string
  readonly hasUnknownCritical: boolean
}

const KNOWN_HEADER_FIELDS = ['alg', 'kid', 'typ', 'cty', 'crit']

function headerFields(header: RegoObject): HeaderFields {
  const text = (name: string): string => {
    const value = header.get(name)
    if (value === undefined || typeof value === 'string') return value ?? ''
    throw new BuiltinError(`${name}: must be a string`)
  }
  const hasUnknownCritical = criticalFields(header).some(
    (name) => !KNOWN_HEADER_FIELDS.includes(name) && header.get(name) !== undefined,
  )
  text('typ')
  return { alg: text('alg'), kid: text('kid'), cty: text('cty'), hasUnknownCritical }
}

/** RFC 7515 section 4.1.11; a list that does not begin with a name is an error, as in OPA. */
function criticalFields(header: RegoObject): string[] {
  const critical = header.get('crit')
  if (critical === undefined) return []
  const names: string[] = []
  for (const name of Array.isArray(critical) ? (critical as readonly RegoValue[]) : []) {
    if (typeof name !== 'string') break
    names.push(name)
  }
  if (names.length === 0) throw new BuiltinError('crit: must be a nonempty list of strings')
  return names
}

interface Wanted {
  /** What to verify with. */
  readonly algorithm: JwtAlgorithm
  /** What the token says. */
  readonly declared: string
  readonly kid: string
}

function verifiesWithAny(
  keys: JwtKeys,
  wanted: Wanted,
  signed: string,
  signature: Buffer,
  context: BuiltinContext,
): boolean {
  const named = wanted.kid === '' ? undefined : keys.find((key) => key.id === wanted.kid)
  if (named !== undefined) {
    context.spend(VERIFY_COST)
    return signatureMatches(wanted.algorithm, named.key, signed, signature)
  }
  for (const { algorithm, key } of keys) {
    if (algorithm !== '' && algorithm !== wanted.declared) continue
    context.spend(VERIFY_COST)
    if (signatureMatches(wanted.algorithm, key, signed, signature)) return true
  }
  return false
}

function signatureMatches(
  algorithm: JwtAlgorithm,
  key: KeyObject,
  signed: string,
  signature: Buffer,
): boolean {
  const { family, hash } = JWT_ALGORITHMS[algorithm]
  const data = Buffer.from(signed, 'utf8')
  const type = key.asymmetricKeyType
  // The kind of key decides, not the token: a public key is never taken for an HMAC secret.
  switch (family) {
    case 'hmac':
      return key.type === 'secret' && hmacMatches(algorithm, key, signed, signature)
    case 'rsa':
      return type === 'rsa' && verify(hash, data, key, signature)
    case 'pss':
      return (
        type === 'rsa' &&
        verify(
          hash,
          data,
          {
            key,
            padding: constants.RSA_PKCS1_PSS_PADDING,
            saltLength: constants.RSA_PSS_SALTLEN_AUTO,
          },
          signature,
        )
      )
    case 'ecdsa':
      return type === 'ec' && verify(hash, data, { key, dsaEncoding: 'ieee-p1363' }, signature)
    case 'eddsa':
      return type === 'ed25519' && verify(null, data, key, signature)
  }
}

function hmacMatches(
  algorithm: JwtAlgorithm,
  secret: Buffer | KeyObject,
  signed: string,
  signature: Buffer,
): boolean {
  const hash = JWT_ALGORITHMS[algorithm].hash ?? 'sha256'
  const expected = createHmac(hash, secret).update(signed, 'utf8').digest()
  return expected.length === signature.length && timingSafeEqual(expected, signature)
}

function cachedKeys(text: string, context: BuiltinContext): JwtKeys {
  return context.jwtKeys.get(text, () => {
    context.spend(PARSE_KEY_COST)
    return parseJwtKeys(text)
  })
}

function sections(text: string, context: BuiltinContext): [string, string, string] {
  if (text.length > MAX_TOKEN_LENGTH) throw new BuiltinError('token is too long')
  context.spend(4 * text.length)
  const parts = text.split('.', 4)
  if (parts.length !== 3) throw new BuiltinError('encoded JWT must have 3 sections')
  return parts as [string, string, string]
}

function splitToken(text: string, context: BuiltinContext): Token {
  const [headerText, payload, signature] = sections(text, context)
  const header = jsonObject(decodeBase64Url(headerText).toString('utf8'))
  if (header.get('enc') !== undefined) {
    throw new BuiltinError('JWT is a JWE object, which is not supported')
  }
  return { header, signed: `${headerText}.${payload}`, payload, signature }
}

function jsonObject(text: string): RegoObject {
  try {
    const value = readJson(text)
    if (value instanceof RegoObject) return value
  } catch (error) {
    if (!(error instanceof ValueSyntaxError)) throw error
  }
  throw new BuiltinError('a section of the JWT is not a JSON object')
}

/** As Go's base64.URLEncoding, padding optional; Buffer alone would skip what it does not know. */
function decodeBase64Url(text: string): Buffer {
  const unpadded = text.length % 4 === 0 ? text.replace(/={1,2}$/, '') : text
  if (!/^[A-Za-z0-9_-]*$/.test(unpadded) || unpadded.length % 4 === 1) {
    throw new BuiltinError('illegal base64url string')
  }
  return Buffer.from(unpadded, 'base64url')
}
