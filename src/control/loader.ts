// Reads and checks everything that one generation is made of. Promises to tell all problems at once,
// to load nothing again that has not changed, and to keep the last good of whatever fails: a broken
// policy holds up no certificate, and a broken CRL file holds up no other CRL.
import type { MaterialsConfig } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import type { CrlMaterial, IdentityMaterial, TrustBundleMaterial } from '../identity/material.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import { crossCheck } from './cross-check.ts'
import { type FileContent, readFiles } from './files.ts'
import { warnOfSingleFileMounts } from './single-file-mounts.ts'
import {
  crlRequests,
  identityRequests,
  isError,
  type Piece,
  type Reading,
  readCrl,
  readIdentity,
  readPolicy,
  readTrust,
  trustRequests,
} from './sources.ts'

export type Source = 'identity' | 'trust' | 'revocation' | 'policy'

/** `failed`: what was loaded before stays in force, for the whole source or for its bad files. */
export type SourceResult = 'unchanged' | 'changed' | 'failed'

/** The materials in force, lists in the order of the configuration. Unchanged ones keep identity. */
export interface Loaded {
  readonly identity: Piece<IdentityMaterial>
  readonly trust: readonly Piece<TrustBundleMaterial>[]
  readonly crls: readonly Piece<readonly CrlMaterial[]>[]
  readonly policy?: Piece<PolicyMaterial>
}

export interface LoadOutcome {
  /** Absent when something failed that was never good before. */
  readonly loaded: Loaded | undefined
  readonly problems: readonly Problem[]
  readonly perSource: Readonly<Record<Source, SourceResult>>
}

/** `nowMs`: epoch milliseconds by which validity is judged. */
export async function loadMaterials(
  config: MaterialsConfig,
  nowMs: number,
  previous?: Loaded,
): Promise<LoadOutcome> {
  const { bundles, crls: crlFiles } = config.trust
  // All in one go, so that what lies in one volume comes from one generation of it.
  const files = [...identityRequests(config), ...trustRequests(config), ...crlRequests(config)]
  const contents = await readFiles(files)
  const crlContents = contents.splice(contents.length - crlFiles.length)
  const trustContents = contents.splice(contents.length - bundles.length)

  const identity = settle(
    readIdentity(config, contents, nowMs, previous?.identity),
    previous?.identity,
  )
  const trust = together(
    bundles.map((bundle, at) => {
      const before = previous?.trust[at]
      return settle(readTrust(trustContents[at] as FileContent, bundle, nowMs, before), before)
    }),
  )
  const crls = loadCrls(config, crlContents, trust.pieces, nowMs, previous)
  const policy = settle(await readPolicy(config, previous?.policy), previous?.policy)

  const perSource = {
    identity: identity.result,
    trust: trust.result,
    revocation: crls.result,
    policy: policy.result,
  }
  const problems = [identity, trust, crls, policy].flatMap((one) => one.problems)
  if (previous === undefined) problems.push(...(await warnOfSingleFileMounts(files)))
  const policyLacks = config.policy !== undefined && policy.piece === undefined
  if (!identity.piece || !trust.pieces || !crls.pieces || policyLacks) {
    return { loaded: undefined, problems, perSource }
  }
  const loaded = {
    identity: identity.piece,
    trust: trust.pieces,
    crls: crls.pieces,
    ...(policy.piece && { policy: policy.piece }),
  }
  // Warnings come with what they are about, not again with every change of something else.
  if (identity.result !== 'unchanged' || trust.result !== 'unchanged') {
    problems.push(...crossCheck(loaded))
  }
  return { loaded, problems, perSource }
}

function loadCrls(
  config: MaterialsConfig,
  contents: readonly FileContent[],
  trust: readonly Piece<TrustBundleMaterial>[] | undefined,
  nowMs: number,
  previous: Loaded | undefined,
): Together<Piece<readonly CrlMaterial[]>> {
  // Without trust no CRL can be checked; that its file is missing can be said all the same.
  if (trust === undefined) {
    const problems = contents.flatMap((one) => (one.kind === 'problem' ? one.problem : []))
    return { pieces: undefined, problems, result: 'failed' }
  }
  const sameTrust = trust.every((piece, at) => piece === previous?.trust[at])
  const materials = trust.map((piece) => piece.material)
  return together(
    config.trust.crls.map((file, at) => {
      const before = previous?.crls[at]
      const reusable = sameTrust ? before : undefined
      const content = contents[at] as FileContent
      return settle(readCrl(content, file, materials, nowMs, reusable), before)
    }),
  )
}

interface Settled<P> extends Reading<P> {
  readonly result: SourceResult
}

function settle<P>({ piece, problems }: Reading<P>, before: P | undefined): Settled<P> {
  if (problems.some(isError)) {
    return { ...(before && { piece: before }), problems, result: 'failed' }
  }
  return { ...(piece && { piece }), problems, result: piece === before ? 'unchanged' : 'changed' }
}

interface Together<P> {
  /** Absent unless there is one for each file. */
  readonly pieces: readonly P[] | undefined
  readonly problems: readonly Problem[]
  readonly result: SourceResult
}

function together<P>(files: readonly Settled<P>[]): Together<P> {
  const pieces = files.flatMap(({ piece }) => (piece === undefined ? [] : [piece]))
  const result = (['failed', 'changed'] as const).find((one) =>
    files.some((file) => file.result === one),
  )
  return {
    pieces: pieces.length === files.length ? pieces : undefined,
    problems: files.flatMap(({ problems }) => problems),
    result: result ?? 'unchanged',
  }
}
