// Reads a bundle as `opa build` writes it: a gzipped tar, or the same files unpacked. Bytes are
// given by the caller and nothing in them is trusted: sizes are capped before anything is kept.
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { extract } from 'tar-stream'
import type { Problem } from '../errors.ts'
import {
  RegoObject,
  type RegoValue,
  readJson,
  ValueSyntaxError,
  writeValue,
} from './builtins/value.ts'

export interface ArchiveLimits {
  readonly fileBytes: number
  /** After decompression. */
  readonly totalBytes: number
  readonly fileCount: number
}

export const ARCHIVE_LIMITS: ArchiveLimits = {
  fileBytes: 64 * 1024 * 1024,
  totalBytes: 128 * 1024 * 1024,
  fileCount: 2_000,
}

/** Names without a leading slash. */
export type BundleEntries = ReadonlyMap<string, Buffer>

export type Unpacked =
  | { readonly kind: 'entries'; readonly entries: BundleEntries }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

/** @param file where the bytes came from, for messages only. */
export async function unpackArchive(
  bytes: Buffer,
  file: string,
  limits: ArchiveLimits = ARCHIVE_LIMITS,
): Promise<Unpacked> {
  try {
    const tar = await promisify(gunzip)(bytes, { maxOutputLength: limits.totalBytes })
    return { kind: 'entries', entries: await readTar(tar, limits) }
  } catch (error) {
    const what =
      error instanceof BundleError
        ? error.message
        : `not a readable gzipped tar: ${(error as Error).message}`
    const remedy =
      error instanceof BundleError ? error.remedy : 'give the file that `opa build -t wasm` wrote'
    return { kind: 'problems', problems: [{ where: file, what, remedy }] }
  }
}

async function readTar(tar: Buffer, limits: ArchiveLimits): Promise<BundleEntries> {
  const entries = new Map<string, Buffer>()
  const reader = extract()
  reader.end(tar)
  for await (const entry of reader) {
    const { name, type, size } = entry.header
    if (type !== 'file' && type !== 'directory') {
      throw new BundleError(`${name} is a ${type}`, 'put regular files into the bundle only')
    }
    const chunks: Buffer[] = []
    if ((size ?? 0) > limits.fileBytes) throw tooMuch(`${name} is larger than`, limits.fileBytes)
    for await (const chunk of entry) chunks.push(chunk as Buffer)
    if (type === 'directory') continue
    addEntry(entries, name, Buffer.concat(chunks))
    if (entries.size > limits.fileCount) throw tooMuch('more files than', limits.fileCount)
  }
  return entries
}

function addEntry(entries: Map<string, Buffer>, name: string, bytes: Buffer): void {
  const clean = name.replace(/^(?:\.?\/)+/, '')
  if (
    clean === '' ||
    clean.split('/').some((part) => part === '..' || part === '.' || part === '')
  ) {
    throw new BundleError(`${JSON.stringify(name)} is not a plain path`, 'build the bundle anew')
  }
  if (entries.has(clean)) throw new BundleError(`${clean} occurs twice`, 'build the bundle anew')
  entries.set(clean, bytes)
}

function tooMuch(what: string, limit: number): BundleError {
  return new BundleError(`${what} ${limit}`, 'make the bundle smaller')
}

class BundleError extends Error {
  readonly remedy: string

  constructor(what: string, remedy: string) {
    super(what)
    this.remedy = remedy
  }
}

export interface Bundle {
  readonly revision: string
  readonly wasm: Buffer
  /** As the manifest has them; empty where there is no manifest. */
  readonly entrypoints: readonly string[]
  /** The merged data document as JSON text. */
  readonly dataJson: string
}

export type ReadBundle =
  | { readonly kind: 'bundle'; readonly bundle: Bundle }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

export function readBundle(entries: BundleEntries, file: string): ReadBundle {
  const problems: Problem[] = []
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof BundleError)) throw error
      problems.push({ where: file, what: error.message, remedy: error.remedy })
      return undefined
    }
  }
  for (const name of entries.keys()) attempt(() => refuseUnsupported(name))
  const manifest = attempt(() => readManifest(entries.get('.manifest')))
  const wasm = attempt(() => wasmModule(entries, manifest))
  const data = attempt(() => mergedData(entries))
  if (manifest !== undefined) {
    for (const entrypoint of manifest.entrypoints) {
      attempt(() => checkRoots(manifest.roots, entrypoint, `entrypoint ${entrypoint}`))
    }
    if (data !== undefined) attempt(() => checkDataRoots(manifest.roots, data, ''))
  }
  if (manifest === undefined || wasm === undefined || data === undefined || problems.length > 0) {
    return { kind: 'problems', problems }
  }
  const { revision, entrypoints } = manifest
  return { kind: 'bundle', bundle: { revision, wasm, entrypoints, dataJson: writeValue(data) } }
}

function refuseUnsupported(name: string): void {
  const base = name.slice(name.lastIndexOf('/') + 1)
  if (name === '.signatures.json') {
    throw new BundleError(
      'the bundle is signed, and no key to verify it with can be configured yet',
      'build the bundle without --signing-key',
    )
  }
  if (name === 'patch.json') {
    throw new BundleError('this is a delta bundle', 'give a complete bundle')
  }
  if (base === 'data.yaml' || base === 'data.yml') {
    throw new BundleError(
      `${name}: data in YAML is not read`,
      'let `opa build` write it as data.json',
    )
  }
}

interface Manifest {
  readonly revision: string
  readonly roots: readonly string[]
  readonly entrypoints: readonly string[]
  /** Named by the entrypoints. */
  readonly modules: ReadonlySet<string>
}

const NO_MANIFEST: Manifest = { revision: '', roots: [''], entrypoints: [], modules: new Set() }
const MANIFEST_REMEDY = 'let `opa build` write the manifest'

function readManifest(bytes: Buffer | undefined): Manifest {
  if (bytes === undefined) return NO_MANIFEST
  const manifest = jsonObject(bytes, '.manifest')
  const revision = manifest.get('revision') ?? ''
  const roots = manifest.get('roots') ?? ['']
  const wasm = manifest.get('wasm') ?? []
  if (typeof revision !== 'string' || !isStringArray(roots) || !Array.isArray(wasm)) {
    throw new BundleError('.manifest: revision, roots or wasm has a wrong type', MANIFEST_REMEDY)
  }
  const cleanRoots = roots.map((root) => root.replace(/^\/+|\/+$/g, ''))
  for (const [i, root] of cleanRoots.entries()) {
    if (cleanRoots.some((other, j) => i !== j && isUnder(other, root))) {
      throw new BundleError(`.manifest: root "${root}" overlaps another`, 'make roots disjoint')
    }
  }
  const entrypoints: string[] = []
  const modules = new Set<string>()
  for (const resolver of wasm) {
    const entrypoint = resolver instanceof RegoObject ? resolver.get('entrypoint') : undefined
    const module = resolver instanceof RegoObject ? resolver.get('module') : undefined
    if (typeof entrypoint !== 'string' || typeof module !== 'string') {
      throw new BundleError('.manifest: wasm has an item without names', MANIFEST_REMEDY)
    }
    entrypoints.push(entrypoint)
    modules.add(module.replace(/^\/+/, ''))
  }
  return { revision, roots: cleanRoots, entrypoints, modules }
}

function wasmModule(entries: BundleEntries, manifest: Manifest | undefined): Buffer {
  const named = [...(manifest?.modules ?? [])]
  const names =
    named.length > 0 ? named : [...entries.keys()].filter((name) => /\.wasm$/.test(name))
  const [name, ...others] = names
  if (name === undefined) {
    throw new BundleError(
      'there is no WebAssembly module in it',
      'build with `opa build -t wasm -e PACKAGE/RULE`',
    )
  }
  if (others.length > 0) {
    throw new BundleError(
      `it has ${names.length} WebAssembly modules (${names.join(', ')})`,
      'build all entrypoints into one module, with one `opa build` and several -e',
    )
  }
  const bytes = entries.get(name)
  if (bytes === undefined) {
    throw new BundleError(`.manifest names ${name}, which is not there`, MANIFEST_REMEDY)
  }
  return bytes
}

/** Each `data.json` stands at the path of its directory; two may not say the same thing. */
function mergedData(entries: BundleEntries): RegoObject {
  const root = new RegoObject()
  for (const [name, bytes] of entries) {
    if (name !== 'data.json' && !name.endsWith('/data.json')) continue
    const path = name.split('/').slice(0, -1)
    let value = jsonObject(bytes, name)
    for (const part of path.toReversed()) {
      const outer = new RegoObject()
      outer.set(part, value)
      value = outer
    }
    mergeInto(root, value, name)
  }
  return root
}

function mergeInto(target: RegoObject, source: RegoObject, name: string): void {
  for (const [key, value] of source.entries()) {
    const known = target.get(key as string)
    if (known === undefined) target.set(key, value)
    else if (known instanceof RegoObject && value instanceof RegoObject) {
      mergeInto(known, value, name)
    } else {
      throw new BundleError(`${name} says ${String(key)} a second time`, 'keep it in one data.json')
    }
  }
}

function checkDataRoots(roots: readonly string[], data: RegoObject, path: string): void {
  for (const [key, value] of data.entries()) {
    const inner = path === '' ? String(key) : `${path}/${String(key)}`
    if (roots.some((root) => isUnder(inner, root))) continue
    const leadsToRoot = roots.some((root) => isUnder(root, inner))
    if (leadsToRoot && value instanceof RegoObject) checkDataRoots(roots, value, inner)
    else checkRoots(roots, inner, `data at ${inner}`)
  }
}

function checkRoots(roots: readonly string[], path: string, what: string): void {
  if (roots.some((root) => isUnder(path, root))) return
  throw new BundleError(
    `${what} is not under a root of the manifest`,
    `add its package to "roots" in .manifest, which has ${roots.map((root) => `"${root}"`).join(', ')}`,
  )
}

function isUnder(path: string, root: string): boolean {
  return root === '' || path === root || path.startsWith(`${root}/`)
}

function jsonObject(bytes: Buffer, name: string): RegoObject {
  try {
    const value = readJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    if (value instanceof RegoObject) return value
  } catch (error) {
    // TypeError: not UTF-8.
    if (!(error instanceof ValueSyntaxError) && !(error instanceof TypeError)) throw error
    throw new BundleError(`${name} is not JSON in UTF-8: ${error.message}`, `correct ${name}`)
  }
  throw new BundleError(`${name} is not a JSON object`, 'put the data into an object')
}

function isStringArray(value: RegoValue): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}
