// The bundles that `opa` signed, their keys, and signatures of any shape made on the spot.
import { createHash, createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readJson } from '../../../src/policy/builtins/value.ts'
import type { BundleEntries } from '../../../src/policy/bundle/archive.ts'
import {
  SIGNATURE_FILE,
  type Signing,
  type Verified,
  verifyBundle,
} from '../../../src/policy/bundle/signature.ts'
import { structuredHash } from '../../../src/policy/bundle/structured-hash.ts'
import {
  readVerificationKey,
  type SigningAlgorithm,
  type VerificationKey,
} from '../../../src/policy/bundle/verification-key.ts'
import { unpackFile } from '../support.ts'

export const signedUrl = (name: string) => new URL(`bundles/${name}`, import.meta.url)

/** Algorithm and file of its public key. */
export const SIGNED_WITH = {
  RS256: 'rsa.pem',
  RS384: 'rsa.pem',
  RS512: 'rsa.pem',
  PS256: 'rsa.pem',
  PS384: 'rsa.pem',
  PS512: 'rsa.pem',
  ES256: 'p256.pem',
  ES384: 'p384.pem',
  ES512: 'p521.pem',
  HS256: 'secret',
  HS384: 'secret',
  HS512: 'secret',
} as const satisfies Record<SigningAlgorithm, string>

export function keyOf(file: string, algorithm?: SigningAlgorithm, id = 'default'): VerificationKey {
  const read = readVerificationKey(id, readFileSync(signedUrl(file)), file, algorithm)
  if (read.kind === 'problem') throw new Error(JSON.stringify(read.problem))
  return read.key
}

export const signing = (key: VerificationKey, more: Partial<Signing> = {}): Signing => ({
  keys: [key],
  scope: '',
  ...more,
})

export const entriesOf = (name: string): Promise<BundleEntries> =>
  unpackFile(signedUrl(`${name}.tar.gz`))

/** What is wrong, or `verified`. */
export function verdict(entries: BundleEntries, by: Signing): string {
  const verified: Verified = verifyBundle(entries, by, 'bundle')
  return verified.kind === 'verified' ? 'verified' : verified.problem.what
}

export const SECRET = 'a secret of the tests, thirty-two bytes or more'

export function secretKey(id = 'k1'): VerificationKey {
  const read = readVerificationKey(id, Buffer.from(SECRET), 'secret', 'HS256')
  if (read.kind === 'problem') throw new Error(JSON.stringify(read.problem))
  return read.key
}

/** Signed with `SECRET` whatever it says, so that only what it says can be the reason to refuse it. */
export function signatures(
  payload: unknown,
  header: unknown = { alg: 'HS256', kid: 'k1' },
): Buffer {
  return Buffer.from(JSON.stringify({ signatures: [token(payload, header)] }))
}

export function token(payload: unknown, header: unknown = { alg: 'HS256', kid: 'k1' }): string {
  const part = (value: unknown) =>
    Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
  const signed = `${part(header)}.${part(payload)}`
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

/** The files with a signature made with `SECRET`. */
export function signed(entries: BundleEntries, claims: object = {}): Map<string, Buffer> {
  const files = [...entries].map(([name, bytes]) => {
    const isStructured = /(^|\/)(data\.json|\.manifest)$/.test(name)
    const hash = isStructured
      ? structuredHash(readJson(bytes.toString()), 'sha256')
      : createHash('sha256').update(bytes).digest('hex')
    return { name, hash, algorithm: 'SHA-256' }
  })
  return new Map([...entries, [SIGNATURE_FILE, signatures({ files, ...claims })]])
}
