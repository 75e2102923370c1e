// Reads and checks everything that one generation is made of. Promises to tell all problems at once,
// to load nothing again that has not changed, and to keep the last good of whatever fails: a broken
// policy holds up no certificate, and a broken CRL file holds up no other CRL.
import type { DenyEntry, MaterialsConfig } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import type { CrlMaterial, IdentityMaterial, TrustBundleMaterial } from '../identity/material.ts'
import { parseSpiffeId } from '../identity/spiffe-id.ts'
import { type FileContent, readFiles } from './files.ts'
import { contentsOf, filesOf, type Origin, originOf } from './origin.ts'
import { PolicyBundles, type PolicyPiece } from './policy-bundles.ts'
import { candidatePolicy, readCandidate } from './policy-slots-candidate.ts'
import { warnOfSingleFileMounts } from './single-file-mounts.ts'
import {
  denyListRequests,
  digestOf,
  isError,
  OWN_TRUST_DOMAIN,
  type Piece,
  type Reading,
  readCrl,
  readDenied,
  readIdentity,
  readTrust,
} from './sources.ts'
import type { Delivery } from './workload-api-messages.ts'

export type Source = 'identity' | 'trust' | 'revocation' | 'policy' | 'candidate'

/** `failed`: what was loaded before stays in force, for the whole source or for its bad files. */
export type SourceResult = 'unchanged' | 'changed' | 'failed'

/** The materials in force, lists in the order of the configuration. Unchanged ones keep identity. */
export interface Loaded {
  readonly identity: Piece<IdentityMaterial>
  readonly trust: readonly Piece<TrustBundleMaterial>[]
  readonly crls: readonly Piece<readonly CrlMaterial[]>[]
  readonly denied?: Piece<readonly DenyEntry[]>
  /** Absent, too, while a bundle server has not delivered what the configuration asks for. */
  readonly policy?: PolicyPiece
  /** Absent, too, while it has never been good: nothing waits for it. */
  readonly candidate?: PolicyPiece
}

/** What clients are shown, and by what they are believed. */
export type Serving = Pick<Loaded, 'identity' | 'trust'>

export interface LoadOutcome {
  /** Absent when something failed that was never good before. */
  readonly loaded: Loaded | undefined
  readonly problems: readonly Problem[]
  /** Of a candidate only where one is configured. */
  readonly perSource: Readonly<Record<Exclude<Source, 'candidate'>, SourceResult>> & {
    readonly candidate?: SourceResult
  }
}

/**
 * `nowMs`: epoch milliseconds by which validity is judged. `delivery`: what the Workload API delivered
 * last, where it is configured. `bundles`: where policies come from, and `candidates`: where candidates
 * do; they outlive a single load where bundle servers are asked again and again. `identified` is told
 * who we are and whom we trust before policies are loaded, which takes the longest.
 */
export async function loadMaterials(
  config: MaterialsConfig,
  nowMs: number,
  previous?: Loaded,
  delivery?: Delivery,
  bundles = new PolicyBundles({ clock: () => nowMs }),
  candidates = new PolicyBundles({ clock: () => nowMs }),
  identified: (serving: Serving) => void = () => {},
): Promise<LoadOutcome> {
  const origin = await originOf(config, delivery)
  // All in one go, so that what lies in one volume comes from one generation of it.
  const pending = [
    ...origin.identityContents,
    ...origin.bundles.map(({ content }) => content),
    ...origin.crls.map(({ content }) => content),
  ]
  const contents = await contentsOf(pending)
  const crlContents = contents.splice(contents.length - origin.crls.length)
  const trustContents = contents.splice(contents.length - origin.bundles.length)

  const identity = settle(
    readIdentity(origin.identity, contents, nowMs, previous?.identity),
    previous?.identity,
  )
  const trust = loadTrust(origin, trustContents, identity.piece, nowMs, previous)
  const crls = loadCrls(origin, crlContents, trust.pieces, nowMs, previous)
  if (identity.piece && trust.pieces) {
    identified({ identity: identity.piece, trust: trust.pieces })
  }
  const denied = await loadDenied(config, trust.pieces, nowMs, previous)
  const policy = await loadPolicy(config, bundles, previous)
  const candidate = await loadCandidate(config, candidates, previous, policy.piece)

  const perSource = {
    identity: identity.result,
    trust: trust.result,
    revocation: worseOf(crls.result, denied.result),
    policy: policy.result,
    ...(config.policy?.candidate && { candidate: candidate.result }),
  }
  const problems = [identity, trust, crls, denied, policy, candidate].flatMap((one) => one.problems)
  const files = [...filesOf(pending), ...denyListRequests(config)]
  if (previous === undefined) problems.push(...(await warnOfSingleFileMounts(files)))
  const policyLacks = config.policy !== undefined && !policy.piece && !policy.pending
  const deniedLacks = config.trust.revoked !== undefined && denied.piece === undefined
  if (!identity.piece || !trust.pieces || !crls.pieces || deniedLacks || policyLacks) {
    return { loaded: undefined, problems, perSource }
  }
  const loaded = {
    identity: identity.piece,
    trust: trust.pieces,
    crls: crls.pieces,
    ...(denied.piece && { denied: denied.piece }),
    ...(policy.piece && { policy: policy.piece }),
    ...(candidate.piece && { candidate: candidate.piece }),
  }
  return { loaded, problems, perSource }
}

function loadTrust(
  { bundles: pending, complete }: Origin,
  contents: readonly FileContent[],
  identity: Piece<IdentityMaterial> | undefined,
  nowMs: number,
  previous: Loaded | undefined,
): Together<Piece<TrustBundleMaterial>> {
  const own = parseSpiffeId(identity?.material.facts.spiffeId ?? '')?.trustDomain
  const problems: Problem[] = []
  const taken = new Map<string, string>()
  const hasGeneral = pending.some(
    ({ bundle, delivered }) => !delivered && bundle.trustDomain === undefined,
  )
  const settled = pending.flatMap(({ bundle, delivered }, at) => {
    const { trustDomain: named, ...rest } = bundle
    const trustDomain = named === OWN_TRUST_DOMAIN ? own : named
    const wanted = { ...rest, ...(trustDomain === undefined ? {} : { trustDomain }) }
    const other = taken.get(trustDomain ?? '')
    if (delivered && trustDomain !== undefined && other !== undefined) {
      // A union would let each vouch for what the other was chosen for.
      const what = `${bundle.file} is a bundle for ${trustDomain}, which already has ${other}`
      const remedy = 'keep one of them; until then the one that came with the identity is not used'
      problems.push({ where: bundle.where, what, remedy })
      return []
    }
    if (trustDomain !== undefined) taken.set(trustDomain, bundle.file)
    const before = previous?.trust.find(
      ({ material }) => material.file === bundle.file && material.trustDomain === trustDomain,
    )
    const one = settle(readTrust(contents[at] as FileContent, wanted, nowMs, before), before)
    // At the start, a general bundle would vouch for its trust domain in its place.
    const missed = previous === undefined && hasGeneral
    if (one.piece !== undefined || !delivered || missed) return one
    problems.push(...one.problems)
    return []
  })
  const all = together(settled)
  if (settled.length === 0 && complete && identity !== undefined) {
    problems.push({
      where: 'trust.bundles',
      what: 'is missing, and no bundle came with the identity: no client could be believed',
      remedy: 'list at least one bundle with its file',
    })
  }
  // While nobody can tell what comes with the identity, what came with it before stays.
  const kept = complete ? [] : (previous?.trust.slice(pending.length) ?? [])
  const gone = previous !== undefined && previous.trust.length !== settled.length + kept.length
  return {
    pieces: settled.length + kept.length > 0 ? all.pieces && [...all.pieces, ...kept] : undefined,
    problems: [...all.problems, ...problems],
    result:
      problems.length > 0 ? 'failed' : gone && all.result === 'unchanged' ? 'changed' : all.result,
  }
}

function loadCrls(
  { crls, complete }: Origin,
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
  const sameTrust =
    trust.length === previous?.trust.length &&
    trust.every((piece, at) => piece === previous.trust[at])
  const materials = trust.map((piece) => piece.material)
  const configured = crls.filter(({ delivered }) => !delivered).length
  const old = previous?.crls.slice(configured) ?? []
  const deliveredBefore = { digest: '', material: old.flatMap(({ material }) => material) }
  const settled = crls.map(({ file, delivered }, at) => {
    const content = contents[at] as FileContent
    // Those of a message have no order and no names: each is known again by its bytes.
    const before = delivered ? sameBytes(old, content) : previous?.crls[at]
    const reusable = sameTrust ? before : undefined
    const lastGood = delivered ? deliveredBefore : before
    return settle(readCrl(content, file, materials, nowMs, reusable, lastGood), before)
  })
  const all = together(settled)
  const broken = settled.slice(configured).some(({ result }) => result === 'failed')
  if (previous === undefined || (complete && !broken)) {
    const gone = previous !== undefined && previous.crls.length !== settled.length
    return gone && all.result === 'unchanged' ? { ...all, result: 'changed' } : all
  }
  // One that cannot be read may have been meant to replace any of these; and it holds up nothing else.
  const ours = together(settled.slice(0, configured)).pieces
  const good = settled.slice(configured).flatMap(({ piece }) => piece ?? [])
  const kept = old.filter((piece) => !good.includes(piece))
  return { ...all, pieces: ours && [...ours, ...good, ...kept] }
}

const sameBytes = <P extends Piece<unknown>>(
  pieces: readonly P[],
  content: FileContent,
): P | undefined =>
  content.kind === 'bytes'
    ? pieces.find(({ digest }) => digest === digestOf([content.bytes]))
    : undefined

async function loadDenied(
  config: MaterialsConfig,
  trust: readonly Piece<TrustBundleMaterial>[] | undefined,
  nowMs: number,
  previous: Loaded | undefined,
): Promise<Settled<Piece<readonly DenyEntry[]>>> {
  const [file] = denyListRequests(config)
  if (file === undefined) return { problems: [], result: 'unchanged' }
  const [content] = await readFiles([file])
  const before = previous?.denied
  const authorities = (trust ?? []).map(({ material }) => material)
  return settle(readDenied(content as FileContent, file.path, authorities, nowMs, before), before)
}

const worseOf = (...results: readonly SourceResult[]): SourceResult =>
  (['failed', 'changed'] as const).find((one) => results.includes(one)) ?? 'unchanged'

/** What is pending has failed for the metrics; for the operator it is no error of the start. */
async function loadPolicy(
  { policy }: MaterialsConfig,
  bundles: PolicyBundles,
  previous: Loaded | undefined,
): Promise<Settled<PolicyPiece> & { readonly pending: boolean }> {
  const before = previous?.policy
  if (policy === undefined) return { problems: [], result: 'unchanged', pending: false }
  const reading = await bundles.read(policy, before)
  const { problems } = reading
  const piece = reading.piece ?? before
  if (piece === undefined && reading.pending) {
    const warnings = problems.map((one): Problem => ({ ...one, severity: 'warning' }))
    return { problems: warnings, result: 'failed', pending: true }
  }
  // One bundle may have failed while another is new: then that one counts all the same.
  const settled = settle({ ...(piece && { piece }), problems }, before)
  return { ...settled, ...(piece && { piece }), pending: false }
}

/** Its problems are warnings, and its result is what says that it failed. */
async function loadCandidate(
  { policy }: MaterialsConfig,
  candidates: PolicyBundles,
  previous: Loaded | undefined,
  active: PolicyPiece | undefined,
): Promise<Settled<PolicyPiece>> {
  const before = previous?.candidate
  const wanted = candidatePolicy(policy)
  if (wanted === undefined || policy?.candidate === undefined) {
    return { problems: [], result: 'unchanged' }
  }
  const { failed, ...reading } = await readCandidate(
    wanted,
    policy.candidate,
    candidates,
    before,
    active?.material,
  )
  const result = failed ? 'failed' : reading.piece === before ? 'unchanged' : 'changed'
  return { ...reading, result }
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
