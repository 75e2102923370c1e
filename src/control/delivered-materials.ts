// What a Workload API delivered, in the form of the files that it stands for: so that everything is
// read, checked and kept by the same code, wherever it came from.
import type { Address } from '../config/config.ts'
import { formatWorkloadApi, parseTrustDomain } from '../config/values.ts'
import type { Problem } from '../errors.ts'
import { readCertificateDer } from '../identity/certificate.ts'
import { writePem } from '../identity/pem.ts'
import { parseSpiffeId } from '../identity/spiffe-id.ts'
import type { FileContent } from './files.ts'
import type { TrustFile } from './sources.ts'
import { notDelivered, WHERE } from './workload-api.ts'
import type { DeliveredSvid, Delivery } from './workload-api-messages.ts'

export interface DeliveredMaterials {
  /** Key and chain, or why there is none. */
  readonly identity: FileContent
  readonly bundles: readonly (TrustFile & { readonly content: FileContent })[]
  readonly crls: readonly { readonly file: string; readonly content: FileContent }[]
}

/** `delivery` undefined: nothing has come yet. */
export function deliveredMaterials(
  address: Address,
  hint: string | undefined,
  delivery: Delivery | undefined,
): DeliveredMaterials {
  if (delivery === undefined) return refused(notDelivered(address))
  const from = formatWorkloadApi(address)
  const svid = chooseSvid(delivery, hint, from)
  if ('what' in svid) return refused(svid)
  const trustDomain = parseSpiffeId(svid.spiffeId)?.trustDomain
  if (trustDomain === undefined) {
    const what = `${from} delivered ${quoted(svid.spiffeId)}, which is no SPIFFE ID of a workload`
    return refused({ where: WHERE, what, remedy: 'correct its registration entry' })
  }
  const shown = leafIdOf(svid.chain)
  if (shown !== undefined && shown !== svid.spiffeId) {
    // The bundle would count for one trust domain, and the certificate be of another.
    const what = `${from} delivered ${quoted(svid.spiffeId)} with a certificate of ${quoted(shown)}`
    return refused({ where: WHERE, what, remedy: 'see what is wrong with the agent' })
  }
  const federated = [...delivery.federated].sort(([one], [other]) => (one < other ? -1 : 1))
  return {
    identity: bytesOf(writePem('PRIVATE KEY', svid.key) + pemOf(svid.chain)),
    bundles: [
      bundle(from, trustDomain, svid.bundle),
      ...federated.map(([id, der]) => bundle(from, id.replace(/^spiffe:\/\//, ''), der)),
    ],
    crls: delivery.crls.map((der, at) => ({
      file: `${from} (CRL ${at + 1})`,
      content: { kind: 'bytes', bytes: Buffer.from(der) },
    })),
  }
}

/** The one with the hint, else the first (SPIFFE Workload API section 5.3). */
export function chooseSvid(
  { svids }: Delivery,
  hint: string | undefined,
  from: string,
): DeliveredSvid | Problem {
  const chosen = hint === undefined ? svids[0] : svids.find((one) => one.hint === hint)
  if (chosen !== undefined) return chosen
  if (svids.length === 0) {
    return {
      where: WHERE,
      what: `${from} delivered a message without any identity`,
      remedy: 'register this workload with its agent',
    }
  }
  const hints = svids.slice(0, 10).map((one) => (one.hint === '' ? 'none' : quoted(one.hint)))
  return {
    where: 'identity.hint',
    what: `none of the ${svids.length} identities that ${from} delivered has the hint ${quoted(hint ?? '')}; theirs are: ${hints.join(', ')}`,
    remedy: 'correct identity.hint, or the hint of the registration entry',
  }
}

function bundle(from: string, trustDomain: string, der: Uint8Array) {
  const file = `${from} (${trustDomain})`
  return {
    file,
    where: WHERE,
    trustDomain,
    content:
      parseTrustDomain(trustDomain).kind === 'value'
        ? bytesOf(pemOf(der))
        : problemOf({
            where: WHERE,
            what: `${from} delivered a bundle for ${quoted(trustDomain)}, which is no trust domain`,
            remedy: 'correct the federation of the server',
          }),
  } as const
}

const refused = (problem: Problem): DeliveredMaterials => ({
  identity: problemOf(problem),
  bundles: [],
  crls: [],
})

const problemOf = (problem: Problem): FileContent => ({ kind: 'problem', problem })
const bytesOf = (pem: string): FileContent => ({ kind: 'bytes', bytes: Buffer.from(pem) })

/** Undefined where it cannot be read, which its reader says better. */
function leafIdOf(chain: Uint8Array): string | undefined {
  const leaf = readCertificateDer(Buffer.from(chain.subarray(0, elementLength(chain, 0))))
  return leaf.kind === 'certificate' ? (leaf.uris[0] ?? '') : undefined
}

/** One block for each DER element; what is left over, if it is none, goes into a block of its own. */
function pemOf(der: Uint8Array): string {
  const blocks: string[] = []
  for (let at = 0; at < der.length; ) {
    const end = at + elementLength(der, at)
    blocks.push(writePem('CERTIFICATE', der.subarray(at, end)))
    at = end
  }
  return blocks.join('')
}

/** Of a SEQUENCE with a definite length (X.690 section 8.1.3); otherwise everything that follows. */
function elementLength(der: Uint8Array, at: number): number {
  const rest = der.length - at
  const first = der[at + 1] ?? 0
  if (first < 0x80) return Math.min(2 + first, rest)
  const count = first & 0x7f
  if (count === 0 || count > 4) return rest
  let length = 0
  for (let i = 0; i < count; i++) length = length * 256 + (der[at + 2 + i] ?? 0)
  return Math.min(2 + count + length, rest)
}

/** Text of the agent, shortened and on one line. */
const quoted = (text: string): string => JSON.stringify(text.slice(0, 200))
