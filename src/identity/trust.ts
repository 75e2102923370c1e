// Trust bundles: a file of CA certificates becomes anchors, or problems that say which block is wrong.
// All or nothing: a bundle with one bad block is not used, because nobody would notice the gap.
import { X509Certificate } from 'node:crypto'
import type { Problem } from '../errors.ts'
import { factsOf, KEY_USAGE, validityText } from './certificate.ts'
import { type Link, linkOf } from './link.ts'
import type { TrustBundleMaterial } from './material.ts'
import { type PemBlock, readPem } from './pem.ts'
import { strengthObjection } from './purpose.ts'

export interface ParsedTrustBundle {
  /** Undefined as soon as one problem is an error. */
  readonly material: TrustBundleMaterial | undefined
  readonly problems: readonly Problem[]
}

/** `trustDomain` undefined: the bundle vouches for identities of any kind. */
export const parseTrustBundle = (
  pem: string,
  file: string,
  trustDomain: string | undefined,
  nowMs: number,
): ParsedTrustBundle => {
  const { blocks, problems: broken } = readPem(pem, file)
  const problems: Problem[] = [...broken]
  const anchors = new Map<string, Link>()
  for (const block of blocks) {
    const anchor = anchorOf(block, file)
    if ('what' in anchor) {
      problems.push(anchor)
      continue
    }
    anchors.set(anchor.fingerprint, anchor)
    const { notBeforeMs, notAfterMs, subject } = anchor.reading
    if (nowMs < notBeforeMs || nowMs > notAfterMs) {
      problems.push({
        where: file,
        what: `PEM block ${block.number} (${subject}) is outside its validity: ${validityText(anchor.reading, nowMs)}`,
        remedy: 'Replace the CA certificate, or correct the clock',
        severity: 'warning',
      })
    }
  }
  if (problems.some(({ severity }) => severity !== 'warning')) {
    return { material: undefined, problems }
  }
  const links = [...anchors.values()]
  return {
    material: {
      ...(trustDomain === undefined ? {} : { trustDomain }),
      file,
      // Copies: the buffers of node are slices of a shared pool, too large to send to a thread.
      certificates: links.map(({ certificate }) => new Uint8Array(certificate.raw)),
      facts: links.map(({ reading, certificate }) => factsOf(reading, certificate.raw, file)),
    },
    problems,
  }
}

const anchorOf = (block: PemBlock, file: string): Link | Problem => {
  const problem = (what: string, remedy: string): Problem => ({
    where: file,
    what: `PEM block ${block.number} ${what}`,
    remedy,
  })
  if (block.label.endsWith('PRIVATE KEY')) {
    return problem('is a private key', 'Remove it: a trust bundle is not secret')
  }
  if (block.label !== 'CERTIFICATE' || block.bytes === undefined) {
    return problem(`is a ${block.label}`, 'A trust bundle holds CERTIFICATE blocks only')
  }
  const link = readBlock(block.bytes)
  if (typeof link === 'string') {
    return problem(`is not a readable certificate: ${link}`, 'Replace the block')
  }
  const { basicConstraints, keyUsage, subject } = link.reading
  if (!basicConstraints?.ca) {
    return problem(
      `(${subject}) is not a CA certificate`,
      'Put the certificate of its issuer into the bundle instead',
    )
  }
  if (keyUsage !== undefined && (keyUsage & KEY_USAGE.keyCertSign) === 0) {
    return problem(
      `(${subject}) may not sign certificates (key usage)`,
      'Use a CA certificate with keyCertSign',
    )
  }
  const weakness = strengthObjection(link)
  return weakness === undefined
    ? link
    : problem(`(${subject}) cannot be an anchor: ${weakness}`, 'Issue a stronger CA certificate')
}

/** The link, or what is wrong with the bytes. */
export const readBlock = (bytes: Buffer): Link | string => {
  try {
    const certificate = new X509Certificate(bytes)
    // Both OpenSSL and node read past the end of a certificate without a word.
    if (!certificate.raw.equals(bytes)) return 'it is followed by other bytes'
    const link = linkOf(certificate)
    return link.kind === 'unreadable' ? link.what : link
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
