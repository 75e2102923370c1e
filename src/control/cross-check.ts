// What no source can know alone: would we be believed by ourselves? Only warnings: each of these can
// be meant, since those who call us decide whom they believe.
import { X509Certificate } from 'node:crypto'
import type { Problem } from '../errors.ts'
import { mergeCrls } from '../identity/crl.ts'
import type { TrustMaterial } from '../identity/material.ts'
import { PeerVerifier } from '../identity/verifier.ts'
import type { Loaded } from './loader.ts'

export function crossCheck(loaded: Loaded, nowMs: number): Problem[] {
  const { certificateChainPem, facts } = loaded.identity.material
  const chain = (certificateChainPem.match(ONE_CERTIFICATE) ?? []).map(
    (pem) => new X509Certificate(pem),
  )
  const verdict = new PeerVerifier(trustOf(loaded)).verify(chain, nowMs)
  const warning = (what: string, remedy: string): Problem[] => [
    { where: facts.file, what, remedy, severity: 'warning' },
  ]
  if (verdict.kind === 'peer') return []
  switch (verdict.reason) {
    case 'untrusted':
      return warning(
        'our own certificate leads to no certificate of the trust bundles',
        'nothing, if clients believe another authority than we do; else add its root to trust.bundles',
      )
    case 'revoked':
    case 'deny_listed':
      return warning(
        `our own certificate is one that we would refuse: ${verdict.detail}`,
        'issue another one; clients with the same lists refuse it',
      )
    default:
      // What is wrong with the leaf itself was said when it was read.
      return []
  }
}

/** As strict as revocation can be known, and not about what is missing. */
const trustOf = ({ trust, crls, denied }: Loaded): TrustMaterial => ({
  generation: 0,
  bundleGeneration: 0,
  bundles: trust.map(({ material }) => material),
  crls: mergeCrls(crls.flatMap(({ material }) => material)),
  revocation: { mode: 'soft-fail', graceMs: 0, scope: 'chain', required: false },
  denied: denied?.material ?? [],
  clockSkewMs: 0,
})

const ONE_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g
