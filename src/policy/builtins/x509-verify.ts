// Verifies a chain as Go's x509.Certificate.Verify does, and where it would have to do more than is
// here (name constraints, policy constraints) it says "not valid": never more is valid than in OPA.
import { X509Certificate } from 'node:crypto'
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { formatAddress, parseAddress } from './ip-address.ts'
import { RegoNumber, type RegoObject, RegoSet, type RegoValue } from './value.ts'
import type { ParsedCertificate } from './x509-certificate.ts'

export interface VerifyOptions {
  readonly dnsName: string
  /** Nanoseconds since 1970; undefined: the time of the evaluation. */
  readonly timeNs: bigint | undefined
  /** By number in Go's x509.ExtKeyUsage; one of them is enough. */
  readonly keyUsages: readonly number[]
}

const SERVER_AUTH = 1
const ANY_USAGE = 0
export const DEFAULT_OPTIONS: VerifyOptions = {
  dnsName: '',
  timeNs: undefined,
  keyUsages: [SERVER_AUTH],
}
/** In loop iterations of wasm: checking a signature, with reading both certificates again. */
const SIGNATURE_COST = 60_000
const MAX_DEPTH = 10
const CERT_SIGN = 1 << 5
/** Signatures with MD5, SHA-1 or something unknown prove nothing. */
const TRUSTED_ALGORITHMS = [4, 5, 6, 10, 11, 12, 13, 14, 15, 16]
/** Name constraints, policy mappings, policy constraints, inhibit any policy. */
const NOT_CHECKED = ['2.5.29.30', '2.5.29.33', '2.5.29.36', '2.5.29.54']

const USAGES: ReadonlyMap<string, number> = new Map(
  [
    'Any',
    'ServerAuth',
    'ClientAuth',
    'CodeSigning',
    'EmailProtection',
    'IPSECEndSystem',
    'IPSECTunnel',
    'IPSECUser',
    'TimeStamping',
    'OCSPSigning',
    'MicrosoftServerGatedCrypto',
    'NetscapeServerGatedCrypto',
    'MicrosoftCommercialCodeSigning',
    'MicrosoftKernelCodeSigning',
  ].map((name, i) => [`KeyUsage${name}`, i]),
)

/** @throws BuiltinError */
export function verifyOptions(object: RegoObject): VerifyOptions {
  let { dnsName, timeNs, keyUsages } = DEFAULT_OPTIONS
  for (const [name, value] of object.entries()) {
    if (name === 'DNSName' && typeof value === 'string') {
      dnsName = unquoted(value)
    } else if (name === 'CurrentTime' && value instanceof RegoNumber) {
      if (!/^-?[0-9]{1,19}$/.test(value.literal)) throw new BuiltinError('CurrentTime: no int64')
      timeNs = BigInt(value.literal)
    } else if (name === 'KeyUsages') {
      keyUsages = usagesOf(value)
    } else if (!(name === 'MaxConstraintComparisons' && value instanceof RegoNumber)) {
      throw new BuiltinError(`invalid option ${String(name)}`)
    }
  }
  return { dnsName, timeNs, keyUsages }
}

function usagesOf(value: RegoValue): readonly number[] {
  const members = value instanceof RegoSet ? value.members : value
  if (!Array.isArray(members)) throw new BuiltinError('KeyUsages should be an Array or Set')
  const usages = members
    .filter((one: RegoValue) => typeof one === 'string')
    .map((one: string) => {
      const usage = USAGES.get(unquoted(one))
      if (usage === undefined) throw new BuiltinError('invalid entries for KeyUsages')
      return usage
    })
  return usages.length === 0 ? DEFAULT_OPTIONS.keyUsages : usages
}

function unquoted(text: string): string {
  return text.replace(/^"+/, '').replace(/"+$/, '')
}

/** @param certificates root, intermediates, leaf. @returns the chain from the leaf on. */
export function verifyChain(
  certificates: readonly ParsedCertificate[],
  options: VerifyOptions,
  context: BuiltinContext,
): readonly ParsedCertificate[] | undefined {
  const [root, ...others] = certificates
  const leaf = others.pop()
  if (root === undefined || leaf === undefined) return undefined
  const nowNs = options.timeNs ?? context.timeNs
  const isUsable = (one: ParsedCertificate) =>
    flag(one, 'UnhandledCriticalExtensions') === null &&
    !one.extensions.some(({ oid }) => NOT_CHECKED.includes(oid)) &&
    isInTime(one, nowNs)
  if (!isUsable(root) || !isUsable(leaf)) return undefined
  if (options.dnsName !== '' && !isNamed(leaf, options.dnsName)) return undefined
  const found = extend([leaf], root, others.filter(isUsable), options, context)
  return found
}

function extend(
  chain: readonly ParsedCertificate[],
  root: ParsedCertificate,
  intermediates: readonly ParsedCertificate[],
  options: VerifyOptions,
  context: BuiltinContext,
): readonly ParsedCertificate[] | undefined {
  const last = chain.at(-1) as ParsedCertificate
  if (last.der.equals(root.der)) return serves(chain, options.keyUsages) ? chain : undefined
  if (chain.length >= MAX_DEPTH) return undefined
  if (isIssuedBy(last, root, chain.length - 1, context)) {
    const whole = [...chain, root]
    if (serves(whole, options.keyUsages)) return whole
  }
  for (const one of intermediates) {
    if (chain.some((other) => other.der.equals(one.der))) continue
    if (!isIssuedBy(last, one, chain.length - 1, context)) continue
    const found = extend([...chain, one], root, intermediates, options, context)
    if (found !== undefined) return found
  }
  return undefined
}

/** @param below intermediates between the issuer and the leaf */
function isIssuedBy(
  child: ParsedCertificate,
  issuer: ParsedCertificate,
  below: number,
  context: BuiltinContext,
): boolean {
  context.spend(100)
  if (flag(child, 'RawIssuer') !== flag(issuer, 'RawSubject')) return false
  if (flag(issuer, 'BasicConstraintsValid') !== true || flag(issuer, 'IsCA') !== true) return false
  const usage = numeric(issuer, 'KeyUsage')
  if (usage !== 0 && (usage & CERT_SIGN) === 0) return false
  const most = numeric(issuer, 'MaxPathLen')
  if (most >= 0 && below > most) return false
  if (!TRUSTED_ALGORITHMS.includes(numeric(child, 'SignatureAlgorithm'))) return false
  context.spend(SIGNATURE_COST)
  try {
    return new X509Certificate(child.der).verify(new X509Certificate(issuer.der).publicKey)
  } catch {
    return false
  }
}

/** One of the usages has to be allowed by every certificate that restricts them. */
function serves(chain: readonly ParsedCertificate[], usages: readonly number[]): boolean {
  if (usages.includes(ANY_USAGE)) return true
  return usages.some((usage) =>
    chain.every((one) => {
      const known = flag(one, 'ExtKeyUsage')
      const allowed = Array.isArray(known)
        ? (known as RegoNumber[]).map((id) => Number(id.literal))
        : []
      if (allowed.length === 0 && flag(one, 'UnknownExtKeyUsage') === null) return true
      return allowed.includes(ANY_USAGE) || allowed.includes(usage)
    }),
  )
}

function isInTime(certificate: ParsedCertificate, nowNs: bigint): boolean {
  const [from, to] = ['NotBefore', 'NotAfter'].map(
    (name) => BigInt(Date.parse(String(flag(certificate, name)))) * 1_000_000n,
  ) as [bigint, bigint]
  return nowNs >= from && nowNs <= to
}

/** RFC 6125: an address in brackets or not, else a DNS name; `*` is the whole first label. */
function isNamed(certificate: ParsedCertificate, name: string): boolean {
  const bare = name.startsWith('[') && name.endsWith(']') ? name.slice(1, -1) : name
  const address = parseAddress(bare)
  if (address !== undefined) {
    const addresses = flag(certificate, 'IPAddresses')
    return Array.isArray(addresses) && addresses.includes(formatAddress(address.address))
  }
  const wanted = labels(name)
  const names = flag(certificate, 'DNSNames')
  if (wanted === undefined || !Array.isArray(names)) return false
  return (names as string[]).some((pattern) => {
    const parts = pattern.endsWith('.') ? undefined : labels(pattern)
    if (parts === undefined || parts.length !== wanted.length) return false
    return parts.every((part, i) => (i === 0 && part === '*') || part === wanted[i])
  })
}

function labels(name: string): readonly string[] | undefined {
  const parts = name.replace(/\.$/, '').toLowerCase().split('.')
  const isName = parts.every(
    (part, i) => /^[a-z0-9_-]{1,63}$/.test(part) || (i === 0 && part === '*'),
  )
  return isName ? parts : undefined
}

function flag(certificate: ParsedCertificate, name: string): RegoValue | undefined {
  return certificate.json.get(name)
}

function numeric(certificate: ParsedCertificate, name: string): number {
  const value = flag(certificate, name)
  return value instanceof RegoNumber ? Number(value.literal) : 0
}
