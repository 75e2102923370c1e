// crypto.x509.* and crypto.parse_private_keys. Certificates come from policies and from clients
// (x-forwarded-client-cert): reading one is paid for before it is read.
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { DerReader, derElement } from './der.ts'
import { decodeBase64, neededBase64, type PemBlock, pemBlocks } from './pem.ts'
import { RegoObject, type RegoValue } from './value.ts'
import {
  base64,
  number,
  object,
  type ParsedCertificate,
  parseCertificate,
  parseCertificateRequest,
  unsigned,
} from './x509-certificate.ts'
import { DEFAULT_OPTIONS, type VerifyOptions, verifyChain, verifyOptions } from './x509-verify.ts'

const MAX_LENGTH = 256 * 1024
/** In loop iterations of wasm: some 150 us for a certificate, for a private key more. */
const CERTIFICATE_COST = 30_000
const KEY_COST = 100_000

/** crypto.x509.parse_certificates(PEM, or PEM or DER in base64) = [certificate] */
export function parseCertificates(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  return certificatesOf(stringArgument(args[0], 1), context).map(withUriStrings)
}

/** crypto.x509.parse_and_verify_certificates(root, intermediates, leaf) = [valid, chain] */
export function verifyCertificates(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  return verified(stringArgument(args[0], 1), () => DEFAULT_OPTIONS, withUriStrings, context)
}

export function verifyCertificatesWithOptions(
  args: readonly RegoValue[],
  context: BuiltinContext,
): RegoValue {
  const text = stringArgument(args[0], 1)
  if (!(args[1] instanceof RegoObject)) throw new BuiltinError('operand 2 must be object')
  const options = args[1]
  return verified(
    text,
    () => verifyOptions(options),
    ({ json }) => json,
    context,
  )
}

export function parseRequest(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = textArgument(args[0], 1, context)
  context.spend(CERTIFICATE_COST)
  const bytes = text.startsWith('-----BEGIN CERTIFICATE REQUEST-----')
    ? Buffer.from(text)
    : neededBase64(text)
  const [block] = pemBlocks(bytes.toString('latin1'))
  if (block !== undefined && block.type !== 'CERTIFICATE REQUEST') {
    throw new BuiltinError('invalid PEM-encoded certificate signing request')
  }
  return parseCertificateRequest(block?.bytes ?? bytes)
}

/** crypto.x509.parse_rsa_private_key(pem) = JWK, of any kind of key in spite of the name */
export function privateKeyJwk(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = textArgument(args[0], 1, context)
  if (text === '') throw new BuiltinError('input PEM data was empty')
  const pem = text.startsWith('-----BEGIN') ? text : neededBase64(text).toString('latin1')
  const [key] = privateKeysOf(pem, context)
  if (key === undefined) return null
  const jwk = key.export({ format: 'jwk' })
  return object(jwk as Record<string, string>)
}

/** crypto.parse_private_keys(pem) = [key], as Go shows its key types in JSON */
export function parsePrivateKeys(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = textArgument(args[0], 1, context)
  if (text === '') return null
  return privateKeysOf(text, context).map(keyJson)
}

/** crypto.x509.parse_keypair(certificate, key): as Go shows a tls.Certificate */
export function parseKeyPair(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [certificateText, keyText] = [
    textArgument(args[0], 1, context),
    textArgument(args[1], 1, context),
  ]
  const certificates = blocksOf(certificateText, 'CERTIFICATE').filter(
    ({ type }) => type === 'CERTIFICATE',
  )
  const keyBlock = blocksOf(keyText, 'PRIVATE KEY').find(({ type }) => type.endsWith('PRIVATE KEY'))
  const [first] = certificates
  if (first === undefined || keyBlock === undefined) throw new BuiltinError('no certificate or key')
  context.spend(CERTIFICATE_COST)
  const leaf = parseCertificate(first.bytes)
  // Whatever its label says, as crypto/tls does.
  const key = readPrivateKey(keyBlock.bytes, ['pkcs1', 'pkcs8', 'sec1'], context)
  if (!certificateOf(leaf).checkPrivateKey(key)) {
    throw new BuiltinError('private key does not match public key')
  }
  return object({
    Certificate: certificates.map(({ bytes }) => base64(bytes)),
    PrivateKey: keyJson(key),
    SupportedSignatureAlgorithms: null,
    OCSPStaple: null,
    SignedCertificateTimestamps: null,
    Leaf: leaf.json,
  })
}

function verified(
  text: string,
  options: () => VerifyOptions,
  show: (certificate: ParsedCertificate) => RegoValue,
  context: BuiltinContext,
): RegoValue {
  let certificates: readonly ParsedCertificate[]
  try {
    certificates = certificatesOf(text, context)
  } catch (error) {
    // What cannot be read is not valid, rather than an error.
    if (error instanceof BuiltinError) return [false, []]
    throw error
  }
  const chain = verifyChain(certificates, options(), context)
  return chain === undefined ? [false, []] : [true, chain.map(show)]
}

function certificatesOf(text: string, context: BuiltinContext): readonly ParsedCertificate[] {
  if (text.length > MAX_LENGTH) throw new BuiltinError('too long')
  context.spend(text.length)
  const bytes = text.startsWith('-----BEGIN') ? Buffer.from(text) : neededBase64(text)
  const isPem = bytes.subarray(0, 10).equals(Buffer.from('-----BEGIN'))
  const blocks = isPem ? pemBlocks(bytes.toString('latin1')) : [{ type: 'CERTIFICATE', bytes }]
  if (blocks.some(({ type }) => type !== 'CERTIFICATE')) {
    throw new BuiltinError('a PEM block that is not a certificate')
  }
  const reader = new DerReader(Buffer.concat(blocks.map((block) => block.bytes)))
  const certificates: ParsedCertificate[] = []
  while (!reader.isDone) {
    context.spend(CERTIFICATE_COST)
    certificates.push(parseCertificate(reader.next().raw))
  }
  return certificates
}

function withUriStrings({ json, uris }: ParsedCertificate): RegoObject {
  json.set('URIStrings', uris.length === 0 ? null : uris)
  return json
}

function certificateOf({ der }: ParsedCertificate): X509Certificate {
  try {
    return new X509Certificate(der)
  } catch {
    throw new BuiltinError('malformed certificate')
  }
}

function privateKeysOf(text: string, context: BuiltinContext): readonly KeyObject[] {
  const pem = decodeBase64(text)?.toString('latin1') ?? text
  return pemBlocks(pem)
    .filter(({ type }) => /^(?:RSA |EC )?PRIVATE KEY$/.test(type))
    .map((block) => privateKeyOf(block, context))
}

function privateKeyOf({ type, bytes }: PemBlock, context: BuiltinContext): KeyObject {
  const form = type === 'RSA PRIVATE KEY' ? 'pkcs1' : type === 'EC PRIVATE KEY' ? 'sec1' : 'pkcs8'
  return readPrivateKey(bytes, [form], context)
}

function readPrivateKey(
  bytes: Buffer,
  forms: readonly ('pkcs1' | 'pkcs8' | 'sec1')[],
  context: BuiltinContext,
): KeyObject {
  derElement(bytes)
  for (const type of forms) {
    context.spend(KEY_COST)
    try {
      return createPrivateKey({ key: bytes, format: 'der', type })
    } catch {
      // Not of this form.
    }
  }
  throw new BuiltinError('failed to parse private key')
}

function keyJson(key: KeyObject): RegoValue {
  const jwk = key.export({ format: 'jwk' })
  const value = (name: 'n' | 'e' | 'd' | 'p' | 'q' | 'dp' | 'dq' | 'qi' | 'x' | 'y') =>
    number(unsigned(jwk[name]))
  switch (jwk.kty) {
    case 'RSA':
      return object({
        N: value('n'),
        E: value('e'),
        D: value('d'),
        Primes: [value('p'), value('q')],
        Precomputed: object({
          Dp: value('dp'),
          Dq: value('dq'),
          Qinv: value('qi'),
          CRTValues: [],
        }),
      })
    case 'EC':
      return object({ Curve: new RegoObject(), X: value('x'), Y: value('y'), D: value('d') })
    default: {
      const parts = [jwk.d, jwk.x].map((part) => Buffer.from(part ?? '', 'base64url'))
      return base64(Buffer.concat(parts))
    }
  }
}

/** PEM, PEM in base64, or DER in base64, which is then of the given type. */
function blocksOf(text: string, type: string): readonly PemBlock[] {
  const bytes = text.startsWith('-----BEGIN ') ? Buffer.from(text) : neededBase64(text)
  const isPem = bytes.subarray(0, 10).equals(Buffer.from('-----BEGIN'))
  return isPem ? pemBlocks(bytes.toString('latin1')) : [{ type, bytes }]
}

function textArgument(
  value: RegoValue | undefined,
  position: number,
  context: BuiltinContext,
): string {
  const text = stringArgument(value, position)
  if (text.length > MAX_LENGTH) throw new BuiltinError('too long')
  context.spend(text.length)
  return text
}
