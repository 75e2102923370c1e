// Trust as a snapshot carries it, made from forged authorities through the real parsers.
import assert from 'node:assert/strict'
import type { DenyEntry } from '../../src/config/config.ts'
import { mergeCrls, parseCrl } from '../../src/identity/crl.ts'
import type {
  RevocationRules,
  TrustBundleMaterial,
  TrustMaterial,
} from '../../src/identity/material.ts'
import type { PeerRejection, VerifiedPeer } from '../../src/identity/peer.ts'
import { writePem } from '../../src/identity/pem.ts'
import { parseTrustBundle } from '../../src/identity/trust.ts'
import type { Forged } from './forge.ts'

type Der = Pick<Forged, 'der'>

export const bundleOf = (
  authorities: readonly Der[],
  trustDomain?: string,
): TrustBundleMaterial => {
  const pem = authorities.map(({ der }) => writePem('CERTIFICATE', der)).join('')
  const { material, problems } = parseTrustBundle(pem, 'ca.crt', trustDomain, Date.now())
  assert.ok(material !== undefined, JSON.stringify(problems))
  return material
}

export const trustOf = (
  bundles: readonly TrustBundleMaterial[],
  options: {
    crls?: readonly Buffer[]
    generation?: number
    bundleGeneration?: number
    revocation?: Partial<RevocationRules>
    denied?: readonly DenyEntry[]
    clockSkewMs?: number
  } = {},
): TrustMaterial => {
  const parsed = (options.crls ?? []).map((crl) => parseCrl(crl, 'ca.crl', bundles, Date.now()))
  for (const { problems } of parsed) {
    assert.deepEqual(
      problems.filter(({ severity }) => severity !== 'warning'),
      [],
    )
  }
  return {
    generation: options.generation ?? 1,
    bundles,
    crls: mergeCrls(parsed.flatMap(({ crls }) => crls)),
    bundleGeneration: options.bundleGeneration ?? options.generation ?? 1,
    revocation: {
      required: options.crls !== undefined,
      mode: 'hard-fail',
      graceMs: 0,
      scope: 'leaf',
      ...options.revocation,
    },
    denied: options.denied ?? [],
    clockSkewMs: options.clockSkewMs ?? 0,
  }
}

export const accepted = (result: VerifiedPeer | PeerRejection): VerifiedPeer => {
  assert.equal(result.kind, 'peer', JSON.stringify(result))
  return result as VerifiedPeer
}

export const rejected = (
  result: VerifiedPeer | PeerRejection,
  reason: PeerRejection['reason'],
  detail: RegExp,
): void => {
  assert.equal(result.kind, 'rejection')
  const { reason: actual, detail: text } = result as PeerRejection
  assert.deepEqual([actual, detail.test(text) ? detail.source : text], [reason, detail.source])
}
