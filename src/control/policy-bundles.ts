// Where the policy comes from: files, directories and bundle servers, one bundle or several, signed
// or not. Promises that a bundle goes on only when a configured key vouches for it, that one which
// fails keeps its last good version, and that together they go into force or not at all.
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { BundleServiceConfig, MaterialsConfig, SigningConfig } from '../config/config.ts'
import { isRemote } from '../config/values.ts'
import type { Problem } from '../errors.ts'
import { type Signing, verifyBundle } from '../policy/bundle/signature.ts'
import { readVerificationKey, type VerificationKey } from '../policy/bundle/verification-key.ts'
import {
  ARCHIVE_LIMITS,
  type BundleEntries,
  type BundlePart,
  combineBundles,
  unpackArchive,
} from '../policy/bundle.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import type { DownloadTimeouts } from './bundle-download.ts'
import { BundleServer, type BundleServerStatus } from './bundle-server.ts'
import { readFiles, readTree } from './files.ts'
import { loadBundleAside, readPartAside } from './policy-aside.ts'
import { digestOf, isError, type Piece } from './sources.ts'

type PolicyConfig = NonNullable<MaterialsConfig['policy']>

/** A policy with the bundles that it was made of. */
export interface PolicyPiece extends Piece<PolicyMaterial> {
  readonly parts: readonly VerifiedPart[]
  /** Digest of the descriptors for gRPC bodies; '' without any. */
  readonly descriptor: string
}

/** One bundle, in the order of the configuration. */
export interface VerifiedPart {
  /** Of what was read. */
  readonly digest: string
  /** Digest of the keys that it was verified with. */
  readonly keys: string
  readonly part: BundlePart
  readonly keyId?: string
  /** Epoch seconds. */
  readonly issuedAt?: number
}

export interface PolicyReading {
  /** Absent: `before` stays, if there is one. */
  readonly piece?: PolicyPiece
  readonly problems: readonly Problem[]
  /** Nothing is wrong here: a bundle server has not delivered yet. */
  readonly pending: boolean
}

export interface PolicyBundlesOptions {
  /** Epoch milliseconds. */
  readonly clock: () => number
  /** Something came from a server, or it has something else to tell. */
  readonly changed?: () => void
  /** Wait for the first answer of each server; what none delivers is a problem. For `check`. */
  readonly patient?: boolean
  readonly timeouts?: DownloadTimeouts
}

export class PolicyBundles {
  readonly #options: PolicyBundlesOptions
  readonly #servers = new Map<string, BundleServer>()
  /** When what went into force was signed, by bundle; it outlives a change of the configuration. */
  readonly #issuedAt = new Map<string, number>()

  constructor(options: PolicyBundlesOptions) {
    this.#options = options
  }

  /** Never rejects: a fault of the policy host must hold up nothing else. */
  async read(policy: PolicyConfig, before: PolicyPiece | undefined): Promise<PolicyReading> {
    try {
      return await this.#read(policy, before)
    } catch (error) {
      const what = `loading it ended in a fault: ${error instanceof Error ? error.stack : error}`
      const problem = { where: policy.bundle, what, remedy: 'please report it' }
      return { problems: [problem], pending: false }
    }
  }

  /** Lets go of the servers that this configuration does not name. */
  keep(policy: PolicyConfig | undefined): void {
    const wanted = new Set(policy === undefined ? [] : remotesOf(policy).map(({ key }) => key))
    for (const [key, server] of this.#servers) {
      if (wanted.has(key)) continue
      server.stop()
      this.#servers.delete(key)
    }
  }

  stop(): void {
    this.keep(undefined)
  }

  status(): readonly BundleServerStatus[] {
    return [...this.#servers.values()].map((server) => server.status)
  }

  async #read(policy: PolicyConfig, before: PolicyPiece | undefined): Promise<PolicyReading> {
    const sources = await this.#sources(policy)
    const keys = await readKeys(policy.signing)
    if (keys.kind === 'problems') return { problems: keys.problems, pending: false }
    const descriptor = await readDescriptor(policy)
    if (descriptor?.kind === 'problem') return { problems: [descriptor.problem], pending: false }
    const parts = await Promise.all(
      sources.map((source, at) => readPart(source, policy.signing, keys, before?.parts[at])),
    )
    const problems = parts.flatMap((one) => one.problems)
    const whole = parts.flatMap(({ verified }) => verified ?? [])
    if (whole.length < parts.length) {
      return this.#lacking(
        problems,
        sources.filter((_, at) => parts[at]?.verified === undefined),
      )
    }
    if (
      before !== undefined &&
      before.descriptor === (descriptor?.digest ?? '') &&
      whole.every((one, at) => one === before.parts[at])
    ) {
      return { piece: before, problems, pending: false }
    }
    const loaded = await load(policy, whole, descriptor, before)
    if (loaded.kind === 'problems') {
      const remote = sources.filter(({ server }) => server !== undefined)
      return this.#lacking([...problems, ...loaded.problems], remote)
    }
    for (const { part, issuedAt } of whole) {
      if (issuedAt !== undefined) this.#issuedAt.set(part.file, issuedAt)
    }
    await Promise.all(sources.map(({ server }, at) => server?.activated(whole[at]?.digest ?? '')))
    return { piece: loaded.piece, problems: [...problems, ...loaded.warnings], pending: false }
  }

  /** Another answer of these servers may cure it, if they are servers and can be asked. */
  #lacking(problems: readonly Problem[], sources: readonly Source[]): PolicyReading {
    const curable = sources.every(({ server }) => server !== undefined && !server.isLocalProblem)
    return { problems, pending: curable && sources.length > 0 && !this.#options.patient }
  }

  async #sources(policy: PolicyConfig): Promise<readonly Source[]> {
    const remotes = remotesOf(policy)
    const began: Promise<void>[] = []
    for (const { key, url, where, service } of remotes) {
      if (this.#servers.has(key)) continue
      const { clock, changed = () => {}, timeouts } = this.#options
      const more = timeouts === undefined ? {} : { timeouts }
      const server = new BundleServer({ url, where, service, clock, changed, ...more })
      this.#servers.set(key, server)
      began.push(this.#begin(server))
    }
    await Promise.all(began)
    return bundlesOf(policy).map(({ file, where }) => {
      const key = remotes.find((one) => one.where === where)?.key
      const server = key === undefined ? undefined : this.#servers.get(key)
      return { file, where, server, lastIssuedAt: this.#issuedAt.get(file) ?? 0 }
    })
  }

  /** A start should find its policy if it is there to be had, and not wait for one that is not. */
  async #begin(server: BundleServer): Promise<void> {
    await server.start()
    if (this.#options.patient) return server.firstAnswer
    if (server.newest !== undefined) return
    const waited = new AbortController()
    const late = delay(FIRST_WAIT_MS, undefined, { signal: waited.signal }).catch(() => {})
    await Promise.race([server.firstAnswer, late])
    waited.abort()
  }
}

const FIRST_WAIT_MS = 2_000

interface Source {
  /** Path or address. */
  readonly file: string
  readonly where: string
  readonly server: BundleServer | undefined
  /** Epoch seconds; 0 where nothing is known. */
  readonly lastIssuedAt: number
}

const bundlesOf = ({ bundle, data }: PolicyConfig) => [
  { file: bundle, where: 'policy.bundle' },
  ...data.map((file, at) => ({ file, where: `policy.data[${at}]` })),
]

interface Remote {
  /** The same for the same server, asked in the same way. */
  readonly key: string
  readonly url: string
  readonly where: string
  readonly service: BundleServiceConfig
}

function remotesOf(policy: PolicyConfig): readonly Remote[] {
  const { service } = policy
  if (service === undefined) return []
  return bundlesOf(policy)
    .filter(({ file }) => isRemote(file))
    .map(({ file, where }) => {
      return { key: JSON.stringify([where, file, service]), url: file, where, service }
    })
}

interface Keys {
  readonly kind: 'keys'
  readonly keys: readonly VerificationKey[]
  readonly digest: string
}

async function readKeys(
  signing: SigningConfig | undefined,
): Promise<Keys | { readonly kind: 'problems'; readonly problems: readonly Problem[] }> {
  const configured = signing?.keys ?? []
  const contents = await readFiles(
    configured.map(({ id, file }) => ({
      path: file,
      where: `policy.signing.keys.${id}`,
      maxBytes: LARGEST_KEY_BYTES,
    })),
  )
  const keys: VerificationKey[] = []
  const problems: Problem[] = []
  for (const [at, content] of contents.entries()) {
    const { id, file, algorithm } = configured[at] as (typeof configured)[number]
    if (content.kind === 'problem') {
      problems.push(content.problem)
      continue
    }
    const read = readVerificationKey(id, content.bytes, file, algorithm)
    if (read.kind === 'key') keys.push(read.key)
    else problems.push(read.problem)
  }
  if (problems.length > 0) return { kind: 'problems', problems }
  const bytes = contents.flatMap((one) => (one.kind === 'bytes' ? one.bytes : []))
  return { kind: 'keys', keys, digest: digestOf(bytes) }
}

const LARGEST_KEY_BYTES = 64 * 1024

/** A FileDescriptorSet, for gRPC bodies. */
interface Descriptor {
  readonly kind: 'descriptor'
  readonly file: string
  readonly bytes: Buffer
  readonly digest: string
}

async function readDescriptor({
  input,
}: PolicyConfig): Promise<
  Descriptor | { readonly kind: 'problem'; readonly problem: Problem } | undefined
> {
  const file = input.protoDescriptor
  if (file === undefined) return undefined
  const where = 'policy.input.protoDescriptor'
  const [content] = await readFiles([{ path: file, where, maxBytes: LARGEST_DESCRIPTOR_BYTES }])
  if (content?.kind !== 'bytes') return content
  const { bytes } = content
  return { kind: 'descriptor', file, bytes, digest: digestOf([bytes]) }
}

/** Reading one of this size takes a data thread some tens of milliseconds. */
const LARGEST_DESCRIPTOR_BYTES = 4 * 1024 * 1024

interface PartReading {
  /** The newest good version; absent: there never was one. */
  readonly verified: VerifiedPart | undefined
  readonly problems: readonly Problem[]
}

async function readPart(
  source: Source,
  signing: SigningConfig | undefined,
  keys: Keys,
  before: VerifiedPart | undefined,
): Promise<PartReading> {
  const { server } = source
  if (server === undefined) {
    return attempt(await readLocal(source), source, signing, keys, before)
  }
  const { newest, active, problems } = server
  if (newest === undefined) {
    const none = problems.length > 0 ? problems : [notDelivered(source)]
    return { verified: before, problems: none }
  }
  const content = { kind: 'bytes', ...newest } as const
  const read = await attempt(content, source, signing, keys, before)
  if (read.verified !== undefined || active === undefined || active === newest) {
    return { ...read, problems: [...problems, ...read.problems] }
  }
  // Under a new configuration nothing of before is left: what the server had last is good still.
  const again = await attempt({ kind: 'bytes', ...active }, source, signing, keys, before)
  return { ...again, problems: [...problems, ...read.problems, ...again.problems] }
}

type Content =
  | { readonly kind: 'bytes'; readonly bytes: Buffer; readonly digest: string }
  | { readonly kind: 'entries'; readonly entries: BundleEntries; readonly digest: string }
  | { readonly kind: 'problem'; readonly problem: Problem }

async function attempt(
  content: Content,
  source: Source,
  signing: SigningConfig | undefined,
  keys: Keys,
  before: VerifiedPart | undefined,
): Promise<PartReading> {
  const { file } = source
  const failed = (problems: readonly Problem[]): PartReading => ({ verified: before, problems })
  if (content.kind === 'problem') return failed([content.problem])
  const { digest } = content
  if (before?.digest === digest && before.keys === keys.digest) {
    return { verified: before, problems: [] }
  }
  const unpacked = content.kind === 'entries' ? content : await unpackArchive(content.bytes, file)
  if (unpacked.kind === 'problems') return failed(unpacked.problems)
  const verified = verify(unpacked.entries, signing, keys, source)
  if (verified.kind === 'problem') return failed([verified.problem])
  const read = await readPartAside(verified.entries, file)
  if (read.kind === 'problems') return failed(read.problems)
  const { keyId, issuedAt } = verified
  return {
    verified: {
      digest,
      keys: keys.digest,
      part: read.part,
      ...(keyId === undefined ? {} : { keyId }),
      ...(issuedAt === undefined ? {} : { issuedAt }),
    },
    problems: [],
  }
}

type Verification =
  | ReturnType<typeof verifyBundle>
  | { kind: 'verified'; entries: BundleEntries; keyId?: string; issuedAt?: number }

function verify(
  entries: BundleEntries,
  signing: SigningConfig | undefined,
  { keys }: Keys,
  { file, lastIssuedAt }: Source,
): Verification {
  // Whoever reads the files refuses a signature that nobody has looked at.
  if (signing === undefined) return { kind: 'verified', entries }
  const { scope = '', minimumIssuedAtMs, monotonic } = signing
  const bounds = [
    ...(minimumIssuedAtMs === undefined ? [] : [minimumIssuedAtMs / 1000]),
    ...(monotonic ? [lastIssuedAt] : []),
  ]
  const by: Signing = {
    keys,
    scope,
    ...(bounds.length > 0 ? { notBefore: Math.max(...bounds) } : {}),
  }
  return verifyBundle(entries, by, file)
}

async function readLocal({ file, where }: Source): Promise<Content> {
  if (await isDirectory(file)) {
    const tree = await readTree(file, where, ARCHIVE_LIMITS)
    if (tree.kind === 'problem') return tree
    const parts = [...tree.entries].flatMap(([name, bytes]) => [Buffer.from(name), bytes])
    return { ...tree, digest: digestOf(parts) }
  }
  const [content] = await readFiles([{ path: file, where, maxBytes: ARCHIVE_LIMITS.fileBytes }])
  if (content?.kind !== 'bytes') return content as Extract<Content, { kind: 'problem' }>
  // Of the file as it is, so that `sha256sum` of the bundle gives the same.
  const digest = createHash('sha256').update(content.bytes).digest('hex')
  return { ...content, digest }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch {
    return false
  }
}

type Load =
  | { readonly kind: 'piece'; readonly piece: PolicyPiece; readonly warnings: readonly Problem[] }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

async function load(
  { entrypoint, fuel, memoryBytes, input }: PolicyConfig,
  parts: readonly VerifiedPart[],
  descriptor: Descriptor | undefined,
  before: PolicyPiece | undefined,
): Promise<Load> {
  const digests = parts.map(({ digest }) => digest)
  const [only, ...others] = digests
  const digest =
    only !== undefined && others.length === 0
      ? only
      : digestOf(digests.map((one) => Buffer.from(one)))
  // Verified anew, with other keys, and the same still.
  if (before?.digest === digest && before.descriptor === (descriptor?.digest ?? '')) {
    return { kind: 'piece', piece: { ...before, parts }, warnings: [] }
  }
  const combined = combineBundles(parts.map(({ part }) => part))
  if (combined.kind === 'problems') return combined
  const file = parts.map(({ part }) => part.file).join(', ')
  const source = { file, digest, bundle: combined.bundle }
  const options = { entrypoint, fuel, memoryBytes, input: { ...input, descriptor } }
  const read = await loadBundleAside(source, options)
  if (read.kind === 'problems') return read
  const { material, warnings } = read
  if (warnings.some(isError)) return { kind: 'problems', problems: warnings }
  const piece = { digest, material, parts, descriptor: descriptor?.digest ?? '' }
  return { kind: 'piece', piece, warnings }
}

const notDelivered = ({ file, where }: Source): Problem => ({
  where,
  what: `${file} has not answered yet`,
  remedy: 'wait, or look into the log of the bundle server',
})
