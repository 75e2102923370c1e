// Where identity and trust come from: files that the configuration names, a directory with known
// names, or a Workload API. One answer for all three: what there is, each to be read or at hand already.
// What the usual case does not need is loaded only where it is needed: it would cost the start 10 ms.
import type { IdentityFiles, MaterialsConfig } from '../config/config.ts'
import { formatWorkloadApi } from '../config/values.ts'
import { type FileContent, type FileRequest, readFiles } from './files.ts'
import {
  crlRequests,
  identityRequests,
  type TrustFile,
  trustFiles,
  trustRequest,
} from './sources.ts'
import type { Delivery } from './workload-api-messages.ts'

/** A file to be read, or what was delivered in its place. */
export type Pending = FileRequest | FileContent

export interface Origin {
  /** What the identity's contents are. */
  readonly identity: IdentityFiles
  readonly identityContents: readonly Pending[]
  readonly bundles: readonly PendingBundle[]
  readonly crls: readonly PendingCrl[]
  /** False: there is no telling at this moment what comes with the identity. */
  readonly complete: boolean
}

export interface PendingBundle {
  readonly bundle: TrustFile
  readonly content: Pending
  /** It came with the identity: one that is bad, or that the configuration has, is left out. */
  readonly delivered: boolean
}

export interface PendingCrl {
  readonly file: string
  readonly content: Pending
  readonly delivered: boolean
}

/** `delivery`: what the Workload API delivered last, where it is configured. */
export async function originOf(
  config: MaterialsConfig,
  delivery: Delivery | undefined,
): Promise<Origin> {
  const { identity } = config
  const bundles = trustFiles(config).map((bundle) => pendingBundle(bundle, false))
  const crls = crlRequests(config).map((content) => {
    return { file: content.path, content, delivered: false }
  })
  if (identity.kind === 'workloadApi') {
    const { deliveredMaterials } = await import('./delivered-materials.ts')
    const from = formatWorkloadApi(identity.workloadApi)
    const delivered = deliveredMaterials(identity.workloadApi, identity.hint, delivery)
    return {
      identity: { kind: 'bundle', credentialBundle: from },
      identityContents: [delivered.identity],
      bundles: [
        ...bundles,
        ...delivered.bundles.map(({ content, ...bundle }) => ({
          bundle,
          content,
          delivered: true,
        })),
      ],
      crls: [...crls, ...delivered.crls.map((crl) => ({ ...crl, delivered: true }))],
      complete: delivered.identity.kind === 'bytes',
    }
  }
  if (identity.kind !== 'directory') {
    const identityContents = identityRequests(identity)
    return { identity, identityContents, bundles, crls, complete: true }
  }
  const { readIdentityDirectory } = await import('./identity-directory.ts')
  const found = await readIdentityDirectory(identity.directory, identity.passphraseFile)
  if (found.kind === 'problem') {
    const nothing = { kind: 'bundle', credentialBundle: identity.directory } as const
    return { identity: nothing, identityContents: [found], bundles, crls, complete: false }
  }
  return {
    identity: found.identity,
    identityContents: identityRequests(found.identity),
    bundles: [...bundles, ...found.bundles.map((bundle) => pendingBundle(bundle, true))],
    crls,
    complete: true,
  }
}

/** Reads all that is still to be read, as of one moment; in the order of `pending`. */
export async function contentsOf(pending: readonly Pending[]): Promise<FileContent[]> {
  const read = (await readFiles(filesOf(pending))).values()
  return pending.map((one) => (isRequest(one) ? (read.next().value as FileContent) : one))
}

export const filesOf = (pending: readonly Pending[]): FileRequest[] => pending.filter(isRequest)

const isRequest = (pending: Pending): pending is FileRequest => !('kind' in pending)

const pendingBundle = (bundle: TrustFile, delivered: boolean): PendingBundle => ({
  bundle,
  content: trustRequest(bundle),
  delivered,
})
