// Compiles cases with `opa build`, a few at a time. What was compiled once is kept in a temporary
// directory under the digest of its sources, so that the next run takes seconds.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { unpackArchive } from '../../src/policy/bundle.ts'
import { OPA_VERSION } from '../opa.ts'
import type { Case, Tree } from './cases.ts'

/** How the answer of the compiled module is to be read. */
export type Asked =
  /** It is the value of this variable. */
  | { readonly kind: 'value'; readonly variable: string }
  /** It is the set of bindings. */
  | { readonly kind: 'bindings' }

export type Compiled =
  | {
      readonly kind: 'module'
      readonly wasm: Buffer
      readonly entrypoint: string
      readonly asked: Asked
    }
  | { readonly kind: 'refused'; readonly reason: string }

const CACHE = join(tmpdir(), `postern-conformance-${OPA_VERSION}`)
const WRAPPER = 'postern_conformance'

export async function compileCase(opa: string, one: Case): Promise<Compiled> {
  const direct = /^data\.([\w.]+) = (?!(?:data|input|true|false|null)$)([a-z]\w*)$/.exec(
    one.query.trim(),
  )
  if (direct !== null && one.inputTerm === undefined) {
    const [, path, variable] = direct as unknown as [string, string, string]
    const entrypoint = path.replaceAll('.', '/')
    const wasm = await buildWasm(opa, one.tree, one.modules, entrypoint)
    // What is no rule, but data, cannot be an entrypoint.
    if (Buffer.isBuffer(wasm)) {
      return { kind: 'module', wasm, entrypoint, asked: { kind: 'value', variable } }
    }
  }
  const entrypoint = `${WRAPPER}/bindings`
  const wasm = await buildWasm(opa, one.tree, [...one.modules, wrapper(one)], entrypoint)
  if (typeof wasm === 'string') return { kind: 'refused', reason: wasm }
  return { kind: 'module', wasm, entrypoint, asked: { kind: 'bindings' } }
}

/** A rule that answers with the bindings of the variables that the case asks for. */
function wrapper({ tree, query, inputTerm, want }: Case): string {
  const first = want.kind === 'bindings' ? (JSON.parse(want.json) as unknown[])[0] : {}
  const names = Object.keys((first as object | undefined) ?? {})
  const bindings = names.map((name) => `"${name}": ${name}`).join(', ')
  const using = inputTerm === undefined ? '' : ` with input as ${inputTerm}`
  const body = `${query.trim()}${using}`
  return tree === 'v1'
    ? `package ${WRAPPER}\n\nbindings contains {${bindings}} if { ${body} }\n`
    : `package ${WRAPPER}\n\nbindings[binding] { ${body}; binding := {${bindings}} }\n`
}

/** The module, or what the compiler has against the sources. */
export async function buildWasm(
  opa: string,
  tree: Tree,
  modules: readonly string[],
  entrypoint: string,
): Promise<Buffer | string> {
  const digest = createHash('sha256').update(JSON.stringify([tree, modules, entrypoint]))
  const bundle = join(CACHE, `${digest.digest('hex')}.tar.gz`)
  const complaint = `${bundle}.txt`
  if (existsSync(complaint)) return await readFile(complaint, 'utf8')
  if (!existsSync(bundle)) {
    mkdirSync(CACHE, { recursive: true })
    const directory = mkdtempSync(join(CACHE, 'build-'))
    try {
      await build(opa, tree, modules, entrypoint, directory)
      renameSync(join(directory, 'bundle.tar.gz'), bundle)
    } catch (error) {
      const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
      const reason = `${stdout}${stderr}` || String(error)
      writeFileSync(complaint, reason)
      return reason
    } finally {
      rmSync(directory, { recursive: true })
    }
  }
  const unpacked = await unpackArchive(await readFile(bundle), bundle)
  const wasm = unpacked.kind === 'entries' ? unpacked.entries.get('policy.wasm') : undefined
  if (wasm === undefined) throw new Error(`${bundle} has no module: delete it`)
  return wasm
}

async function build(
  opa: string,
  tree: Tree,
  modules: readonly string[],
  entrypoint: string,
  directory: string,
): Promise<void> {
  const files = modules.map((text, index) => {
    const file = `module-${index}.rego`
    writeFileSync(join(directory, file), text)
    return file
  })
  const version = tree === 'v0' ? ['--v0-compatible'] : []
  await promisify(execFile)(
    opa,
    ['build', '-t', 'wasm', ...version, '-e', entrypoint, '-o', 'bundle.tar.gz', ...files],
    { cwd: directory },
  )
}
