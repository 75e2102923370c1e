// What no source can know alone. Only warnings: each of these can be meant.
import { X509Certificate } from 'node:crypto'
import type { Problem } from '../errors.ts'
import type { Loaded } from './loader.ts'

export function crossCheck({ identity, trust }: Loaded): Problem[] {
  const { certificateChainPem, facts } = identity.material
  const chain = certificateChainPem.match(ONE_CERTIFICATE)?.map((pem) => new X509Certificate(pem))
  const anchors = trust.flatMap(({ material }) =>
    material.certificates.map((der) => new X509Certificate(der)),
  )
  if (leadsToAnchor(chain ?? [], anchors)) return []
  return [
    {
      where: facts.file,
      what: 'our own certificate leads to no certificate of the trust bundles',
      remedy:
        'nothing, if clients believe another authority than we do; else add its root to trust.bundles',
      severity: 'warning',
    },
  ]
}

/** Signatures only: whether a peer accepts us is for the peer to say. */
function leadsToAnchor(
  [leaf, ...rest]: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
): boolean {
  if (leaf === undefined) return false
  const issued = (issuer: X509Certificate, subject: X509Certificate) =>
    subject.checkIssued(issuer) && subject.verify(issuer.publicKey)
  let current = leaf
  const unused = new Set(rest)
  for (;;) {
    if (anchors.some((anchor) => anchor.raw.equals(current.raw) || issued(anchor, current))) {
      return true
    }
    const next = [...unused].find((issuer) => issued(issuer, current))
    if (next === undefined) return false
    unused.delete(next)
    current = next
  }
}

const ONE_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g
