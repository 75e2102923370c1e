// Our own certificate chain and key: what we show to clients. The key is checked to belong to the
// leaf, the chain to hold together; what comes out is re-encoded, free of whatever else was in the file.
import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { Problem } from '../errors.ts'
import { EXTENDED_KEY_USAGE, factsOf, validityText } from './certificate.ts'
import { hasSigned, type Link, mayHaveIssued } from './link.ts'
import type { IdentityMaterial } from './material.ts'
import { type PemBlock, readPem, writePem } from './pem.ts'
import { strengthObjection } from './purpose.ts'
import { claimsSpiffe, parseSpiffeId } from './spiffe-id.ts'
import { readBlock } from './trust.ts'

export type IdentityInput = (
  | {
      readonly certificatePem: string
      readonly privateKeyPem: string
      readonly certificateFile: string
      readonly privateKeyFile: string
    }
  /** A credential bundle: key and chain in one file (Kubernetes podCertificate). */
  | { readonly pem: string; readonly file: string }
) & { readonly passphrase?: Passphrase }

/** Opens an encrypted key. */
export interface Passphrase {
  readonly text: string
  readonly file: string
}

export interface LoadedIdentity {
  /** Undefined as soon as one problem is an error. */
  readonly material: IdentityMaterial | undefined
  readonly problems: readonly Problem[]
}

export const loadIdentity = (input: IdentityInput, nowMs: number): LoadedIdentity => {
  const problems: Problem[] = []
  const sorted = 'pem' in input ? fromBundle(input, problems) : fromFiles(input, problems)
  const key = keyOf(sorted.keys, sorted.keyFile, input.passphrase, problems)
  const chain = chainOf(sorted.certificates, sorted.certificateFile, problems)
  const leaf = chain?.[0]
  if (chain !== undefined && leaf !== undefined) {
    checkLeaf(leaf, sorted.certificateFile, nowMs, problems)
    checkOrder(chain, sorted.certificateFile, problems)
    if (key !== undefined) checkKey(key, chain, sorted, problems)
  }
  const failed = problems.some(({ severity }) => severity !== 'warning')
  if (failed || key === undefined || chain === undefined || leaf === undefined) {
    return { material: undefined, problems }
  }
  return {
    material: {
      certificateChainPem: chain
        .map(({ certificate }) => writePem('CERTIFICATE', certificate.raw))
        .join(''),
      privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }) as string,
      facts: factsOf(leaf.reading, leaf.certificate.raw, sorted.certificateFile),
      uris: leaf.reading.uris,
    },
    problems,
  }
}

interface Sorted {
  readonly keys: readonly PemBlock[]
  readonly certificates: readonly PemBlock[]
  readonly keyFile: string
  readonly certificateFile: string
}

const fromBundle = (input: BundleInput, problems: Problem[]): Sorted => {
  const blocks = blocksOf(input.pem, input.file, problems)
  return {
    keys: blocks.filter(isKey),
    certificates: blocks.filter(isCertificate),
    keyFile: input.file,
    certificateFile: input.file,
  }
}

type BundleInput = Extract<IdentityInput, { pem: string }>

const fromFiles = (input: Exclude<IdentityInput, BundleInput>, problems: Problem[]): Sorted => {
  const { certificateFile, privateKeyFile } = input
  const inCertificateFile = blocksOf(input.certificatePem, certificateFile, problems)
  const inKeyFile = blocksOf(input.privateKeyPem, privateKeyFile, problems)
  const keyIsCertificate = inKeyFile.length > 0 && inKeyFile.every(isCertificate)
  if (keyIsCertificate && inCertificateFile.length > 0 && inCertificateFile.every(isKey)) {
    problems.push({
      where: certificateFile,
      what: `It holds the private key, and ${privateKeyFile} the certificate`,
      remedy: 'Swap identity.certificate and identity.privateKey',
    })
    return {
      keys: inCertificateFile,
      certificates: inKeyFile,
      keyFile: certificateFile,
      certificateFile: privateKeyFile,
    }
  }
  if (inCertificateFile.some(isKey)) {
    problems.push({
      where: certificateFile,
      what: 'The certificate file holds a private key too',
      remedy: 'Use identity.credentialBundle for key and chain in one file, or remove the key',
    })
  }
  if (inKeyFile.some(isCertificate)) {
    problems.push({
      where: privateKeyFile,
      what: keyIsCertificate
        ? 'The key file holds a certificate and no private key'
        : 'The key file holds a certificate too',
      remedy:
        'Give the file with the PRIVATE KEY block, or use identity.credentialBundle for both in one',
    })
  }
  return {
    keys: inKeyFile.filter(isKey),
    certificates: inCertificateFile.filter(isCertificate),
    keyFile: privateKeyFile,
    certificateFile,
  }
}

const blocksOf = (pem: string, file: string, problems: Problem[]): PemBlock[] => {
  const { blocks, problems: broken } = readPem(pem, file)
  problems.push(...broken)
  for (const block of blocks) {
    if (isKey(block) || isCertificate(block) || block.label === 'EC PARAMETERS') continue
    problems.push({
      where: file,
      what: `PEM block ${block.number} is a ${block.label}`,
      remedy: 'Give CERTIFICATE blocks, leaf first, and one PRIVATE KEY block',
    })
  }
  // `openssl ecparam -genkey` writes the curve in front of the key; the key names it again.
  return blocks.filter(({ label }) => label !== 'EC PARAMETERS')
}

const keyOf = (
  blocks: readonly PemBlock[],
  file: string,
  passphrase: Passphrase | undefined,
  problems: Problem[],
): KeyObject | undefined => {
  const complain = (what: string, remedy: string): undefined => {
    problems.push({ where: file, what, remedy })
    return undefined
  }
  const [block] = blocks
  if (block === undefined || blocks.length > 1) {
    // A file that is broken, empty or the wrong one has its own problem already.
    if (block === undefined && problems.some(({ where }) => where === file)) return undefined
    return complain(
      `The file has ${blocks.length} private keys`,
      'Give exactly one PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY block',
    )
  }
  const encrypted = block.bytes === undefined || block.label === 'ENCRYPTED PRIVATE KEY'
  if (encrypted && passphrase === undefined) {
    return complain(
      'The private key is encrypted',
      'Name the file with its passphrase as identity.passphraseFile, or give the key in plain PKCS#8, readable by this process alone (openssl pkcs8 -topk8 -nocrypt)',
    )
  }
  if (!encrypted && passphrase !== undefined) {
    problems.push({
      where: passphrase.file,
      what: `The private key in ${file} is not encrypted, so that the passphrase has no effect`,
      remedy: 'Leave identity.passphraseFile out, or encrypt the key',
      severity: 'warning',
    })
  }
  try {
    const pem = block.bytes === undefined ? (block.text ?? '') : writePem(block.label, block.bytes)
    const key = createPrivateKey({ key: pem, passphrase: encrypted ? passphrase?.text : undefined })
    const type = key.asymmetricKeyType ?? 'unknown'
    if (KEY_TYPES.includes(type)) return key
    return complain(
      `The private key is of the type ${type}, which TLS does not take`,
      'Issue a certificate with an ECDSA, Ed25519 or RSA key',
    )
  } catch (error) {
    // OpenSSL says "bad decrypt" where the padding shows it; one wrong passphrase in 256 does not.
    if (encrypted && passphrase !== undefined) {
      const { code = 'no code' } = error as NodeJS.ErrnoException
      return complain(
        `The private key cannot be decrypted with the passphrase in ${passphrase.file} (${code})`,
        'Give the passphrase that the key was encrypted with, in a file with nothing else',
      )
    }
    // OpenSSL's message names the decoder, not the mistake, and key bytes have no place in a log.
    return complain(
      `PEM block ${block.number} (${block.label}) is not a private key that OpenSSL can read`,
      'Give a PKCS#8, SEC 1 or PKCS#1 key',
    )
  }
}

const KEY_TYPES: readonly string[] = ['ec', 'rsa', 'rsa-pss', 'ed25519']

const chainOf = (
  blocks: readonly PemBlock[],
  file: string,
  problems: Problem[],
): readonly Link[] | undefined => {
  if (blocks.length === 0 && !problems.some(({ where }) => where === file)) {
    problems.push({
      where: file,
      what: 'The file has no certificate',
      remedy: 'Give the leaf, then its intermediates, as CERTIFICATE blocks',
    })
  }
  const chain: Link[] = []
  for (const { number, bytes } of blocks) {
    const link = readBlock(bytes ?? Buffer.alloc(0))
    if (typeof link !== 'string') chain.push(link)
    else {
      const what = `PEM block ${number} is not a readable certificate: ${link}`
      problems.push({ where: file, what, remedy: 'Replace the block' })
    }
  }
  return chain.length === blocks.length && chain.length > 0 ? chain : undefined
}

const checkLeaf = (leaf: Link, file: string, nowMs: number, problems: Problem[]): void => {
  const { extendedKeyUsages, notBeforeMs, notAfterMs, uris, subject } = leaf.reading
  if (
    extendedKeyUsages !== undefined &&
    !extendedKeyUsages.includes(EXTENDED_KEY_USAGE.serverAuth)
  ) {
    problems.push({
      where: file,
      what: `The leaf (${subject}) is not for servers: its extended key usage lacks serverAuth`,
      remedy: 'Issue it with serverAuth and clientAuth',
    })
  }
  const weakness = strengthObjection(leaf)
  if (weakness !== undefined) {
    problems.push({
      where: file,
      what: `The leaf (${subject}) cannot be used: ${weakness}`,
      remedy: 'Issue an X.509 v3 certificate for an ECDSA, Ed25519 or RSA key of 2048 bits or more',
    })
  }
  if (nowMs < notBeforeMs || nowMs > notAfterMs) {
    problems.push({
      where: file,
      what: `The leaf (${subject}) is outside its validity: ${validityText(leaf.reading, nowMs)}`,
      remedy: 'Renew it, or correct the clock; clients will refuse it',
      severity: 'warning',
    })
  }
  const spiffe = uris.filter(claimsSpiffe)
  if (spiffe.length > 0 && (uris.length > 1 || parseSpiffeId(spiffe[0]!) === undefined)) {
    problems.push({
      where: file,
      what: `The leaf (${subject}) is no X509-SVID: ${uris.map((uri) => JSON.stringify(uri)).join(', ')}`,
      remedy: 'Issue it with one URI name, a SPIFFE ID with a path; SPIFFE clients will refuse it',
      severity: 'warning',
    })
  }
}

const checkOrder = (chain: readonly Link[], file: string, problems: Problem[]): void => {
  for (const [index, link] of chain.slice(0, -1).entries()) {
    const issuer = chain[index + 1]!
    if (mayHaveIssued(issuer, link) && hasSigned(issuer, link)) continue
    problems.push({
      where: file,
      what: `Certificate ${index + 1} (${link.reading.subject}) was not issued by the next one (${issuer.reading.subject})`,
      remedy: 'Put the leaf first, then each issuer; remove what does not belong to the chain',
      severity: 'warning',
    })
    return
  }
}

const checkKey = (
  key: KeyObject,
  chain: readonly Link[],
  { keyFile, certificateFile }: Sorted,
  problems: Problem[],
): void => {
  const owner = chain.findIndex(({ certificate }) => certificate.checkPrivateKey(key))
  if (owner === 0) return
  problems.push(
    owner > 0
      ? {
          where: certificateFile,
          what: `The private key belongs to certificate ${owner + 1}, not to the first`,
          remedy: 'Put the leaf first, then its intermediates',
        }
      : {
          where: keyFile,
          what: `The private key does not belong to the certificate in ${certificateFile}`,
          remedy:
            'Give the pair that was issued together; a rotation may have replaced only one yet',
        },
  )
}

const isKey = ({ label }: PemBlock): boolean =>
  label === 'PRIVATE KEY' || label.endsWith(' PRIVATE KEY')
const isCertificate = ({ label }: PemBlock): boolean => label === 'CERTIFICATE'
