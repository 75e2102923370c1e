// Explains a certificate chain in words: which certificates it has, what would be said about them in a
// handshake, by which rule, and what to do. The verdict comes from the verifier that data threads use.
import type { AllowRule } from '../../config/config.ts'
import { validityText } from '../../identity/certificate.ts'
import { isSelfIssued, type Link, linkOf, publicKeyOf } from '../../identity/link.ts'
import type { TrustMaterial } from '../../identity/material.ts'
import type { RejectionReason, VerifiedPeer } from '../../identity/peer.ts'
import { readPem } from '../../identity/pem.ts'
import { readBlock } from '../../identity/trust.ts'
import { PeerVerifier } from '../../identity/verifier.ts'
import { compileAllowRules } from '../../policy/allow-rules.ts'

export interface ChainVerdict {
  readonly accepted: boolean
  readonly lines: readonly string[]
}

export interface AccessRules {
  readonly allow: readonly AllowRule[]
  readonly hasPolicy: boolean
}

/** `pem`: what a client would send, leaf first; keys between the certificates are passed over. */
export function explainPeer(
  { pem, file }: { readonly pem: string; readonly file: string },
  trust: TrustMaterial,
  access: AccessRules,
  nowMs: number,
): ChainVerdict {
  const { links, problems } = readChain(pem, file)
  if (links === undefined)
    return { accepted: false, lines: [`${file}: cannot be read`, ...problems] }
  const verdict = new PeerVerifier(trust).verify(
    links.map(({ certificate }) => certificate),
    nowMs,
  )
  if (verdict.kind === 'rejection') {
    return {
      accepted: false,
      lines: [
        `${file}: a client with this certificate is refused`,
        ...links.map(describe),
        `  rule:       ${verdict.reason}`,
        `  because:    ${verdict.detail}`,
        `  what to do: ${REMEDIES[verdict.reason]}`,
      ],
    }
  }
  return {
    accepted: true,
    lines: [
      `${file}: a client with this certificate is believed`,
      ...pathOf(verdict),
      `  anchor in:  ${bundlesOf(verdict, trust).join(', ')}`,
      `  principal:  ${verdict.principal}`,
      `  until:      ${new Date(verdict.acceptableUntilMs).toISOString()}`,
      `  access:     ${accessOf(verdict, access)}`,
    ],
  }
}

/** Our own chain as clients get it; whether they believe it is for them to say. */
export function describeChain(pem: string, file: string): readonly string[] {
  const { links = [] } = readChain(pem, file)
  const end = links.at(-1)
  return [
    `${file}: the chain that clients are shown`,
    ...links.map(describe),
    ...(end === undefined || isSelfIssued(end)
      ? ['  the last one is its own issuer: clients have it already, it may be left out']
      : [`  clients need, as a trusted root: ${end.reading.issuer}`]),
  ]
}

function readChain(
  pem: string,
  file: string,
): { readonly links?: readonly Link[]; readonly problems: readonly string[] } {
  const { blocks, problems } = readPem(pem, file)
  const wrong = problems.map(({ what, remedy }) => `  ${what}; ${remedy}`)
  const links: Link[] = []
  for (const { label, bytes, number } of blocks) {
    if (label !== 'CERTIFICATE') continue
    const link = readBlock(bytes ?? Buffer.alloc(0))
    if (typeof link === 'string') wrong.push(`  PEM block ${number}: ${link}`)
    else links.push(link)
  }
  if (links.length === 0 && wrong.length === 0) wrong.push('  it has no CERTIFICATE block')
  return wrong.length > 0 ? { problems: wrong } : { links, problems: [] }
}

const pathOf = ({ chain }: VerifiedPeer): string[] =>
  chain.flatMap((certificate, at) => {
    const link = linkOf(certificate)
    return link.kind === 'unreadable' ? [] : [describe(link, at)]
  })

function describe(link: Link, at: number): string {
  const { reading } = link
  const { asymmetricKeyType = 'unknown key', asymmetricKeyDetails } = publicKeyOf(link) ?? {}
  const size = asymmetricKeyDetails?.namedCurve ?? asymmetricKeyDetails?.modulusLength ?? ''
  const names = [...reading.uris, ...reading.dnsNames].join(', ')
  const kind = reading.basicConstraints?.ca ? 'CA' : 'leaf'
  return [
    `  ${at + 1}. ${kind} ${reading.subject || '(no subject)'}${names === '' ? '' : ` [${names}]`}`,
    `     serial ${reading.serial}, ${asymmetricKeyType} ${size}`.trimEnd(),
    `     issued by ${reading.issuer}`,
    `     ${validityText(reading, Date.now())}`,
  ].join('\n')
}

function bundlesOf({ chain }: VerifiedPeer, { bundles }: TrustMaterial): string[] {
  const anchor = chain.at(-1)
  return bundles
    .filter(({ certificates }) => certificates.some((der) => anchor?.raw.equals(der)))
    .map(({ file, trustDomain }) => (trustDomain === undefined ? file : `${file} (${trustDomain})`))
}

function accessOf(peer: VerifiedPeer, { allow, hasPolicy }: AccessRules): string {
  if (allow.length > 0 && !compileAllowRules(allow)(peer)) {
    return 'no allow rule admits this client: every request is denied'
  }
  const rules = allow.length > 0 ? 'an allow rule admits this client' : ''
  const policy = hasPolicy ? 'the policy decides about each request' : ''
  return [rules, policy].filter((text) => text !== '').join('; ')
}

const REMEDIES: Readonly<Record<RejectionReason, string>> = {
  no_certificate: 'configure the client with its certificate and key',
  untrusted:
    'add the root of its issuer to the trust bundle of its trust domain, send the intermediates after the leaf, or issue it from an authority that is trusted',
  expired: 'issue it anew; where clocks differ, correct them or set trust.clockSkew',
  not_yet_valid: 'wait for it; where clocks differ, correct them or set trust.clockSkew',
  revoked: 'issue it anew with another key; who revoked it should say why',
  deny_listed: 'remove the entry from trust.revoked, if it is there by mistake',
  revocation_unknown:
    'give the current CRL of that issuer in trust.crls; trust.revocation says what happens without',
  purpose:
    'issue it with digitalSignature and clientAuth, not as a CA, and within the limits of its issuer',
  bad_identity:
    'issue it with exactly one URI name, spiffe://trust-domain/path in lower case without anything encoded',
}
