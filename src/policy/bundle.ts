// Reads what is in a bundle: manifest, module, data and tests, and puts several bundles together into
// one policy. Promises that each says only what lies under its roots, so that none can change what
// another one means.
import type { Problem } from '../errors.ts'
import {
  RegoObject,
  type RegoValue,
  readJson,
  ValueSyntaxError,
  writeValue,
} from './builtins/value.ts'
import { type BundleEntries, BundleError } from './bundle/archive.ts'
import { readBodyWish } from './bundle/body-wish.ts'
import { readSelfTests, type SelfTest } from './bundle/self-tests.ts'
import { SIGNATURE_FILE } from './bundle/signature.ts'

export {
  ARCHIVE_LIMITS,
  type BundleEntries,
  type Unpacked,
  unpackArchive,
} from './bundle/archive.ts'

/** One bundle by itself; with others it makes a policy. */
export interface BundlePart {
  /** Where it came from, for messages. */
  readonly file: string
  readonly revision: string
  /** Without slashes around; `''` is everything. */
  readonly roots: readonly string[]
  /** Absent in a bundle that brings data only. */
  readonly wasm: Buffer | undefined
  /** As the manifest has them; empty where there is no manifest. */
  readonly entrypoints: readonly string[]
  /** Its data document as JSON text. */
  readonly dataJson: string
  readonly tests: readonly SelfTest[]
  /** How much of a request body it asks for; undefined when it does not say. */
  readonly bodyBytes: number | undefined
}

/** Everything that a policy is made of. */
export interface Bundle extends Omit<BundlePart, 'file' | 'roots'> {
  readonly wasm: Buffer
}

export type ReadPart =
  | { readonly kind: 'part'; readonly part: BundlePart }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

export type ReadBundle =
  | { readonly kind: 'bundle'; readonly bundle: Bundle }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

/** A bundle that is a policy by itself. */
export function readBundle(entries: BundleEntries, file: string): ReadBundle {
  const read = readBundlePart(entries, file)
  return read.kind === 'problems' ? read : combineBundles([read.part])
}

export function readBundlePart(entries: BundleEntries, file: string): ReadPart {
  const problems: Problem[] = []
  const attempt = <T>(read: () => T): { readonly value: T } | undefined => {
    try {
      return { value: read() }
    } catch (error) {
      if (!(error instanceof BundleError)) throw error
      problems.push({ where: file, what: error.message, remedy: error.remedy })
      return undefined
    }
  }
  for (const name of entries.keys()) attempt(() => refuseUnsupported(name))
  const manifest = attempt(() => readManifest(entries.get('.manifest')))?.value
  const wasm = attempt(() => wasmModule(entries, manifest))
  const data = attempt(() => mergedData(entries))?.value
  if (manifest !== undefined) {
    for (const entrypoint of manifest.entrypoints) {
      attempt(() => checkRoots(manifest.roots, entrypoint, `entrypoint ${entrypoint}`))
    }
    if (data !== undefined) attempt(() => checkDataRoots(manifest.roots, data, ''))
  }
  if (!manifest || !wasm || !data || problems.length > 0) return { kind: 'problems', problems }
  const { revision, roots, entrypoints, tests, bodyBytes } = manifest
  const dataJson = writeValue(data)
  const code = { wasm: wasm.value, entrypoints }
  const part = { file, revision, roots, ...code, dataJson, tests, bodyBytes }
  return { kind: 'part', part }
}

/** Puts bundles together; one of them, and only one, has the module. */
export function combineBundles(parts: readonly BundlePart[]): ReadBundle {
  const files = parts.map(({ file }) => file).join(', ')
  const withModule = parts.filter(({ wasm }) => wasm !== undefined)
  const [policy, another] = withModule
  const problems = overlaps(parts)
  if (policy?.wasm === undefined) {
    problems.push({
      where: files,
      what: `there is no WebAssembly module in ${parts.length === 1 ? 'it' : 'any of them'}`,
      remedy: 'build with `opa build -t wasm -e PACKAGE/RULE`',
    })
  }
  if (another !== undefined) {
    problems.push({
      where: withModule.map(({ file }) => file).join(', '),
      what: 'each of them has a WebAssembly module',
      remedy: 'keep the policy in one bundle; the others bring data',
    })
  }
  if (policy?.wasm === undefined || problems.length > 0) return { kind: 'problems', problems }
  const { revision, wasm, entrypoints, bodyBytes } = policy
  const dataJson = combinedData(parts)
  const tests = parts.flatMap((part) => part.tests)
  return { kind: 'bundle', bundle: { revision, wasm, entrypoints, dataJson, tests, bodyBytes } }
}

function overlaps(parts: readonly BundlePart[]): Problem[] {
  return parts.flatMap((part, at) =>
    parts.slice(at + 1).flatMap((other) => {
      const found = part.roots
        .flatMap((root) => other.roots.map((one) => [root, one] as const))
        .find(([root, one]) => isUnder(root, one) || isUnder(one, root))
      if (found === undefined) return []
      const [own, theirs] = found
      return {
        where: `${part.file}, ${other.file}`,
        what: `root "${own}" of the first overlaps root "${theirs}" of the second`,
        remedy: 'give each bundle "roots" of its own in .manifest; without them it has everything',
      }
    }),
  )
}

/** Roots that do not overlap cannot say the same thing twice. */
function combinedData(parts: readonly BundlePart[]): string {
  const [only, ...others] = parts.map(({ dataJson }) => dataJson).filter((text) => text !== '{}')
  if (only === undefined) return '{}'
  if (others.length === 0) return only
  const root = new RegoObject()
  for (const text of [only, ...others]) {
    mergeInto(root, jsonObject(Buffer.from(text), 'data'), 'a bundle')
  }
  return writeValue(root)
}

function refuseUnsupported(name: string): void {
  const base = name.slice(name.lastIndexOf('/') + 1)
  if (name === SIGNATURE_FILE) {
    throw new BundleError(
      'the bundle is signed, and no key to verify it with is configured',
      'set policy.signing.keys, or build the bundle without --signing-key',
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
  readonly tests: readonly SelfTest[]
  readonly bodyBytes: number | undefined
}

const NO_MANIFEST: Manifest = {
  revision: '',
  roots: [''],
  entrypoints: [],
  modules: new Set(),
  tests: [],
  bodyBytes: undefined,
}
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
  const metadata = manifest.get('metadata')
  const tests = readSelfTests(metadata)
  const bodyBytes = readBodyWish(metadata)
  return { revision, roots: cleanRoots, entrypoints, modules, tests, bodyBytes }
}

function wasmModule(entries: BundleEntries, manifest: Manifest | undefined): Buffer | undefined {
  const named = [...(manifest?.modules ?? [])]
  const names =
    named.length > 0 ? named : [...entries.keys()].filter((name) => /\.wasm$/.test(name))
  const [name, ...others] = names
  if (name === undefined) return undefined
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
  // A copy: a view would keep the whole archive in memory.
  return Buffer.from(bytes)
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
