// One reader for each source: bytes in, piece or problems out. A piece whose bytes are the same as
// before is the same object as before: nothing is parsed, compiled or published twice.
import { createHash } from 'node:crypto'
import type { DenyEntry, IdentityFiles, MaterialsConfig } from '../config/config.ts'
import { readDenyList } from '../config/deny-list.ts'
import type { Problem } from '../errors.ts'
import { loadIdentity } from '../identity/credentials.ts'
import { isOlder, mergeCrls, parseCrl } from '../identity/crl.ts'
import { sameNameText } from '../identity/deny-list.ts'
import type { CrlMaterial, IdentityMaterial, TrustBundleMaterial } from '../identity/material.ts'
import { parseTrustBundle } from '../identity/trust.ts'
import type { FileContent, FileRequest } from './files.ts'

/** What came out of one file or one set of files. */
export interface Piece<Material> {
  /** SHA-256 of the bytes it was made from, lower-case hex. */
  readonly digest: string
  readonly material: Material
}

/** No piece: there is none to read, or it is bad and a problem says why. */
export interface Reading<P> {
  readonly piece?: P
  readonly problems: readonly Problem[]
}

/** A trust bundle with the place that named it. */
export interface TrustFile {
  readonly file: string
  readonly where: string
  readonly trustDomain?: string
}

/** Stands for the trust domain of the identity beside it; no trust domain has upper-case letters. */
export const OWN_TRUST_DOMAIN = 'OWN'

/** The passphrase comes last. */
export function identityRequests(identity: IdentityFiles): FileRequest[] {
  const { passphraseFile } = identity
  return [
    ...(identity.kind === 'bundle'
      ? [request(identity.credentialBundle, 'identity.credentialBundle')]
      : [
          request(identity.certificate, 'identity.certificate'),
          request(identity.privateKey, 'identity.privateKey'),
        ]),
    ...(passphraseFile === undefined ? [] : [request(passphraseFile, 'identity.passphraseFile')]),
  ]
}

export const trustFiles = ({ trust }: MaterialsConfig): TrustFile[] =>
  trust.bundles.map((bundle, at) => ({ ...bundle, where: `trust.bundles[${at}].file` }))

export const trustRequest = ({ file, where }: TrustFile): FileRequest => request(file, where)

export const crlRequests = ({ trust }: MaterialsConfig): FileRequest[] =>
  trust.crls.map((file, at) => request(file, `trust.crls[${at}]`))

/** `identity` says what the contents are; their order is that of `identityRequests`. */
export function readIdentity(
  identity: IdentityFiles,
  contents: readonly FileContent[],
  nowMs: number,
  before: Piece<IdentityMaterial> | undefined,
): Reading<Piece<IdentityMaterial>> {
  const problems = contents.flatMap((one) => (one.kind === 'problem' ? one.problem : []))
  if (problems.length > 0) return { problems }
  const parts = contents.flatMap((one) => (one.kind === 'bytes' ? one.bytes : []))
  const digest = digestOf(parts)
  if (before?.digest === digest) return { piece: before, problems }
  const [first = '', second = '', third = ''] = parts.map((bytes) => bytes.toString('utf8'))
  const read = loadIdentity(
    identity.kind === 'bundle'
      ? { pem: first, file: identity.credentialBundle, ...passphraseOf(identity, second) }
      : {
          certificatePem: first,
          privateKeyPem: second,
          certificateFile: identity.certificate,
          privateKeyFile: identity.privateKey,
          ...passphraseOf(identity, third),
        },
    nowMs,
  )
  const { material } = read
  if (material && before && isValid(before.material, nowMs) && !isValid(material, nowMs)) {
    return { problems: [outOfTime(material, nowMs)] }
  }
  return reading(digest, material, read.problems)
}

/** Editors and `echo` end a file with a line break that is no part of the passphrase. */
const passphraseOf = ({ passphraseFile: file }: IdentityFiles, text: string) =>
  file === undefined ? {} : { passphrase: { text: text.replace(/\r?\n$/, ''), file } }

const isValid = ({ facts }: IdentityMaterial, nowMs: number): boolean =>
  facts.notBeforeMs <= nowMs && nowMs <= facts.notAfterMs

/** Clocks differ by seconds: the certificate of the future goes in at a later attempt. */
function outOfTime({ facts }: IdentityMaterial, nowMs: number): Problem {
  const [from, to, now] = [facts.notBeforeMs, facts.notAfterMs, nowMs].map((ms) =>
    new Date(ms).toISOString(),
  )
  return {
    where: facts.file,
    what: `the new certificate is valid from ${from} to ${to}, and it is ${now}`,
    remedy: 'renew it, or correct the clock; the one before is still valid and stays',
  }
}

export function readTrust(
  content: FileContent,
  { file, trustDomain }: TrustFile,
  nowMs: number,
  before: Piece<TrustBundleMaterial> | undefined,
): Reading<Piece<TrustBundleMaterial>> {
  if (content.kind === 'problem') return { problems: [content.problem] }
  const digest = digestOf([content.bytes])
  if (before?.digest === digest) return { piece: before, problems: [] }
  const read = parseTrustBundle(content.bytes.toString('utf8'), file, trustDomain, nowMs)
  return reading(digest, read.material, read.problems)
}

export const denyListRequests = ({ trust }: MaterialsConfig): FileRequest[] =>
  trust.revoked === undefined ? [] : [request(trust.revoked, 'trust.revoked')]

export function readDenied(
  content: FileContent,
  file: string,
  trust: readonly TrustBundleMaterial[],
  nowMs: number,
  before: Piece<readonly DenyEntry[]> | undefined,
): Reading<Piece<readonly DenyEntry[]>> {
  if (content.kind === 'problem') return { problems: [content.problem] }
  const digest = digestOf([content.bytes])
  if (before?.digest === digest) return { piece: before, problems: [] }
  const { entries, problems } = readDenyList(
    { path: file, text: content.bytes.toString('utf8') },
    nowMs,
  )
  const unknown = (entries ?? []).flatMap((entry) => warnOfUnknownIssuer(entry, trust))
  return reading(digest, entries, [...problems, ...unknown])
}

/** A slip of the pen in a name would leave somebody in. It may be an intermediate that clients send, though. */
function warnOfUnknownIssuer(
  { what, where }: DenyEntry,
  trust: readonly TrustBundleMaterial[],
): Problem[] {
  if (what.kind !== 'certificate') return []
  const name = sameNameText(what.issuer)
  const isKnown = trust.some(({ facts }) =>
    facts.some(({ subject }) => sameNameText(subject) === name),
  )
  if (isKnown) return []
  return [
    {
      where: `trust.revoked (${where})`,
      what: `no authority of the trust bundles is called ${what.issuer}`,
      remedy:
        'compare the name with the issuer in the log, unless it is an intermediate that clients send',
      severity: 'warning',
    },
  ]
}

/**
 * `before` has to be absent when trust has changed since: then issuers are looked for again. What a
 * bad file said before may stay all the same, because a CRL only counts for the key that signed it.
 * For the same reason none goes back behind `lastGood`, whatever trust has become.
 */
export function readCrl(
  content: FileContent,
  file: string,
  trust: readonly TrustBundleMaterial[],
  nowMs: number,
  before: Piece<readonly CrlMaterial[]> | undefined,
  lastGood: Piece<readonly CrlMaterial[]> | undefined = before,
): Reading<Piece<readonly CrlMaterial[]>> {
  if (content.kind === 'problem') return { problems: [content.problem] }
  const digest = digestOf([content.bytes])
  if (before?.digest === digest) return { piece: before, problems: [] }
  const read = parseCrl(content.bytes, file, trust, nowMs)
  const { problems } = read
  const warnings: Problem[] = []
  const crls = mergeCrls(read.crls).map((crl) => {
    const newer = lastGood?.material.find(
      (old) => old.issuerKey === crl.issuerKey && isOlder(crl, old),
    )
    if (newer === undefined) return crl
    warnings.push(olderThanBefore(crl, newer))
    return newer
  })
  // Under the same trust every authority of before is still believed. Without its CRL an intermediate
  // that it has revoked would be, too; what else is new in the file counts all the same.
  const lost = (before?.material ?? []).filter(
    (old) => !crls.some(({ issuerKey }) => issuerKey === old.issuerKey),
  )
  for (const { issuer } of lost) {
    warnings.push({
      where: file,
      what: `the file no longer has the CRL of ${issuer}, which is still trusted: the last one stays`,
      remedy: 'put a CRL of this authority back, or remove the authority from trust.bundles',
      severity: 'warning',
    })
  }
  return reading(digest, [...crls, ...lost], [...problems, ...warnings])
}

/** Whoever can write the file could otherwise bring a revoked certificate back with an old CRL. */
function olderThanBefore(crl: CrlMaterial, newer: CrlMaterial): Problem {
  const [offered, inForce] = [crl, newer].map(({ crlNumber, thisUpdateMs }) => {
    const number = crlNumber === undefined ? '' : `number ${crlNumber} `
    return `${number}of ${new Date(thisUpdateMs).toISOString()}`
  })
  return {
    where: crl.file,
    what: `the CRL of ${crl.issuer} (${offered}) is older than the one before (${inForce}), which stays`,
    remedy: 'put the newer one back; if the authority numbers its CRLs anew, restart',
    severity: 'warning',
  }
}

export const isError = (problem: Problem): boolean => problem.severity !== 'warning'

function reading<M>(
  digest: string,
  material: M | undefined,
  problems: readonly Problem[],
): Reading<Piece<M>> {
  if (material === undefined || problems.some(isError)) return { problems }
  return { piece: { digest, material }, problems }
}

/** Every part goes in with its length, so that bytes cannot move from one to the next unseen. */
export function digestOf(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part.length}:`).update(part)
  return hash.digest('hex')
}

const request = (path: string, where: string): FileRequest => ({
  path,
  where,
  maxBytes: 32 * 1024 * 1024,
})
