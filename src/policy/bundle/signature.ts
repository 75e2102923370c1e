// Whether a bundle is exactly what the holder of a configured key signed: every file listed with its
// digest, no file missing, none added. Promises that a bundle which passes was issued for this scope
// and, where asked for, is no older than the one it replaces.
import { createHash } from 'node:crypto'
import type { Problem } from '../../errors.ts'
import {
  RegoNumber,
  RegoObject,
  type RegoValue,
  readJson,
  ValueSyntaxError,
} from '../builtins/value.ts'
import { type BundleEntries, BundleError } from './archive.ts'
import { structuredHash } from './structured-hash.ts'
import type { VerificationKey } from './verification-key.ts'

export interface Signing {
  readonly keys: readonly VerificationKey[]
  readonly scope: string
  /** Epoch seconds; absent: a signature needs no `iat`. */
  readonly notBefore?: number
}

export type Verified =
  | {
      readonly kind: 'verified'
      /** Without the signature: nothing that was not signed goes any further. */
      readonly entries: BundleEntries
      readonly keyId: string
      /** Epoch seconds. */
      readonly issuedAt?: number
    }
  | { readonly kind: 'problem'; readonly problem: Problem }

export const SIGNATURE_FILE = '.signatures.json'

export function verifyBundle(entries: BundleEntries, signing: Signing, file: string): Verified {
  try {
    const { key, payload } = verifiedPayload(entries, signing)
    const issuedAt = checkClaims(payload, signing)
    const signed = checkFiles(entries, payload)
    const age = issuedAt === undefined ? {} : { issuedAt }
    return { kind: 'verified', entries: signed, keyId: key.id, ...age }
  } catch (error) {
    if (!(error instanceof BundleError)) throw error
    return {
      kind: 'problem',
      problem: { where: file, what: error.message, remedy: error.remedy },
    }
  }
}

const SIGN_AGAIN = 'sign the bundle again, with `opa build --signing-key`'

function verifiedPayload(entries: BundleEntries, { keys }: Signing) {
  const file = entries.get(SIGNATURE_FILE)
  if (file === undefined) {
    throw new BundleError('the bundle is not signed, and policy.signing asks for it', SIGN_AGAIN)
  }
  const content = jsonObject(file, SIGNATURE_FILE)
  const [token, ...more] = arrayOf(content.get('signatures'))
  if (typeof token !== 'string' || more.length > 0) {
    throw new BundleError(`${SIGNATURE_FILE} does not hold exactly one signature`, SIGN_AGAIN)
  }
  const plugin = content.get('plugin') ?? '_default'
  if (plugin !== '_default') {
    throw new BundleError('the signature wants a plugin to be verified with', SIGN_AGAIN)
  }
  const parts = token.split('.')
  const [header, payload, signature] = parts.map(base64url)
  if (parts.length !== 3 || !header || !payload || !signature) {
    throw new BundleError('the signature is no compact JWS', SIGN_AGAIN)
  }
  const claims = jsonObject(payload, 'the payload of the signature')
  const key = chosenKey(keys, jsonObject(header, 'the header of the signature'), claims)
  const signed = Buffer.from(token.slice(0, token.lastIndexOf('.')))
  if (!key.verifies(signed, signature)) {
    throw new BundleError(
      `the signature was not made with the key ${key.id}`,
      'sign with the private key that belongs to it, or correct policy.signing.keys',
    )
  }
  return { key, payload: claims }
}

/** What header and payload say is only used to choose among the keys that are configured. */
function chosenKey(
  keys: readonly VerificationKey[],
  header: RegoObject,
  payload: RegoObject,
): VerificationKey {
  if (header.get('crit') !== undefined) {
    throw new BundleError('the signature has critical extensions', SIGN_AGAIN)
  }
  const kid = header.get('kid')
  const id = kid === undefined ? payload.get('keyid') : kid
  const known = keys.map((one) => one.id).join(', ')
  if (id === undefined && keys.length > 1) {
    throw new BundleError(
      'the signature does not say which key it was made with',
      `put one of these into the claims as "keyid": ${known}`,
    )
  }
  const key = id === undefined ? keys[0] : keys.find((one) => one.id === id)
  if (key === undefined) {
    throw new BundleError(
      `the bundle is signed with the key ${show(id)}, which is not configured`,
      `sign with one of ${known} (--verification-key-id), or add it to policy.signing.keys`,
    )
  }
  const algorithm = header.get('alg')
  if (algorithm !== key.algorithm) {
    throw new BundleError(
      `the signature says ${show(algorithm)}, and the key ${key.id} is for ${key.algorithm}`,
      `sign with --signing-alg ${key.algorithm}, or set the algorithm of the key`,
    )
  }
  return key
}

/** Gives the time of issue, in epoch seconds. */
function checkClaims(payload: RegoObject, { scope, notBefore }: Signing): number | undefined {
  const signedFor = payload.get('scope') ?? ''
  if (signedFor !== scope) {
    throw new BundleError(
      `the bundle is signed for the scope ${show(signedFor)}, not ${show(scope)}`,
      'give the bundle that was made for this place, or correct policy.signing.scope',
    )
  }
  const literal = payload.get('iat')
  const issuedAt = literal instanceof RegoNumber ? Number(literal.literal) : undefined
  if (literal !== undefined && !Number.isFinite(issuedAt)) {
    throw new BundleError('"iat" of the signature is no time', SIGN_AGAIN)
  }
  if (notBefore === undefined) return issuedAt
  if (issuedAt === undefined) {
    throw new BundleError(
      'the signature does not say when it was issued',
      'put "iat", in seconds, into the claims (--claims-file)',
    )
  }
  if (issuedAt < notBefore) {
    throw new BundleError(
      `the bundle was issued at ${iso(issuedAt)}, and nothing before ${iso(notBefore)} is accepted`,
      'give a newer bundle',
    )
  }
  return issuedAt
}

function checkFiles(entries: BundleEntries, payload: RegoObject): BundleEntries {
  const listed = listedFiles(payload)
  const signed = new Map<string, Buffer>()
  for (const [name, bytes] of entries) {
    if (name === SIGNATURE_FILE) continue
    const one = listed.get(name)
    if (one === undefined) throw new BundleError(`${name} is not signed`, SIGN_AGAIN)
    listed.delete(name)
    if (digestOf(name, bytes, one.algorithm) !== one.hash) {
      throw new BundleError(`${name} is not what was signed`, SIGN_AGAIN)
    }
    signed.set(name, bytes)
  }
  const [missing] = listed.keys()
  if (missing !== undefined) {
    throw new BundleError(`${show(missing)} is signed, and is not there`, SIGN_AGAIN)
  }
  return signed
}

interface ListedFile {
  /** For OpenSSL. */
  readonly algorithm: string
  readonly hash: string
}

/** What OPA calls them; weaker ones and the truncated ones are refused. */
const HASHES: ReadonlyMap<RegoValue | undefined, string> = new Map([
  ['SHA-256', 'sha256'],
  ['SHA-384', 'sha384'],
  ['SHA-512', 'sha512'],
])

function listedFiles(payload: RegoObject): Map<string, ListedFile> {
  const listed = new Map<string, ListedFile>()
  for (const item of arrayOf(payload.get('files'))) {
    const at = (key: string) => (item instanceof RegoObject ? item.get(key) : undefined)
    const [given, hash] = [at('name'), at('hash')]
    const algorithm = HASHES.get(at('algorithm'))
    if (typeof given !== 'string' || typeof hash !== 'string') {
      throw new BundleError('the signature lists a file without name or hash', SIGN_AGAIN)
    }
    if (algorithm === undefined) {
      throw new BundleError(
        `the signature gives ${given} as ${show(at('algorithm'))}, which is not accepted`,
        'use SHA-256, SHA-384 or SHA-512',
      )
    }
    const name = given.replace(/^\/+/, '')
    if (listed.has(name)) throw new BundleError(`the signature lists ${name} twice`, SIGN_AGAIN)
    listed.set(name, { algorithm, hash: hash.toLowerCase() })
  }
  return listed
}

function digestOf(name: string, bytes: Buffer, algorithm: string): string {
  const base = name.slice(name.lastIndexOf('/') + 1)
  if (base === 'data.yaml' || base.endsWith('signatures.json')) {
    // OPA hashes the first by content as well and takes the second for the signature itself.
    throw new BundleError(`${name} does not belong into a signed bundle`, SIGN_AGAIN)
  }
  return base === 'data.json' || base === '.manifest'
    ? structuredHash(jsonValue(bytes, name), algorithm)
    : createHash(algorithm).update(bytes).digest('hex')
}

/** Strict: one text has one meaning, or signatures could be changed and still be good. */
function base64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return text !== '' && bytes.toString('base64url') === text ? bytes : undefined
}

function jsonObject(bytes: Buffer, name: string): RegoObject {
  const value = jsonValue(bytes, name)
  if (value instanceof RegoObject) return value
  throw new BundleError(`${name} is no JSON object`, SIGN_AGAIN)
}

function jsonValue(bytes: Buffer, name: string): RegoValue {
  try {
    return readJson(UTF8.decode(bytes))
  } catch (error) {
    // TypeError: not UTF-8.
    if (!(error instanceof ValueSyntaxError) && !(error instanceof TypeError)) throw error
    throw new BundleError(`${name} is not JSON in UTF-8: ${error.message}`, SIGN_AGAIN)
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const arrayOf = (value: RegoValue | undefined): readonly RegoValue[] =>
  Array.isArray(value) ? value : []

const show = (value: RegoValue | undefined): string =>
  typeof value === 'string' ? JSON.stringify(value.slice(0, 100)) : 'nothing'

function iso(seconds: number): string {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime()) ? `${seconds} s` : date.toISOString()
}
