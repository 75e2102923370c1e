// Writes policies/capabilities.json for `opa build --capabilities`: what OPA's compiler knows, less
// what a policy could not call here. node tools/capabilities.ts; with --check it writes nothing.
// Either way it holds the file against the compiler: a module with every builtin of it must build
// and be activated, and one with any other must not build.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BUILTINS, REFUSED_BUILTINS } from '../src/policy/builtins/table.ts'
import { unpackArchive } from '../src/policy/bundle.ts'
import { inspectModule } from '../src/policy/inspect.ts'
import { findOpa, run } from './opa.ts'

interface Capabilities {
  readonly builtins: readonly Declaration[]
}

interface Declaration {
  readonly name: string
  readonly decl: { readonly args?: readonly unknown[] }
}

const FILE = fileURLToPath(new URL('../policies/capabilities.json', import.meta.url))
/** The compiler replaces these, so that no module ever calls them. */
const REWRITTEN = ['assign', 'eq', 'print', 'rego.metadata.chain', 'rego.metadata.rule']

const directory = mkdtempSync(join(tmpdir(), 'postern-capabilities-'))
try {
  const opa = findOpa()
  const current = JSON.parse(run(opa, ['capabilities', '--current'])) as Capabilities
  const imported = await importsOf(opa, current.builtins.filter(isPlainCall))
  const builtins = current.builtins.filter(
    ({ name }) => !REFUSED_BUILTINS.has(name) && (!imported.has(name) || BUILTINS.has(name)),
  )
  const text = textOf({ ...current, builtins, allow_net: [] })
  const check = process.argv.includes('--check')
  if (!check) writeFileSync(FILE, text)
  else if (readFileSync(FILE, 'utf8') !== text) {
    throw new Error('policies/capabilities.json is stale: run `node tools/capabilities.ts`')
  }
  const unknown = [...BUILTINS.keys()].filter((name) => !builtins.some((one) => one.name === name))
  if (unknown.length > 0) throw new Error(`supplied, but unknown to opa: ${unknown.join(', ')}`)
  await holdAgainstCompiler(opa, current.builtins, builtins)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
} finally {
  rmSync(directory, { recursive: true })
}

async function holdAgainstCompiler(
  opa: string,
  all: readonly Declaration[],
  builtins: readonly Declaration[],
): Promise<void> {
  const given = ['--capabilities', FILE]
  const wanting = [...(await importsOf(opa, builtins.filter(isPlainCall), given))].filter(
    (name) => !BUILTINS.has(name),
  )
  if (wanting.length > 0) throw new Error(`would not be activated: ${wanting.join(', ')}`)
  const others = all.filter((one) => !builtins.includes(one))
  for (const other of others) {
    const built = await importsOf(opa, [other], given).then(
      () => true,
      () => false,
    )
    if (built) throw new Error(`a policy with ${other.name} builds`)
  }
  const left = others.filter(({ name }) => !REFUSED_BUILTINS.has(name)).map(({ name }) => name)
  console.log(`${builtins.length} of ${all.length} builtins; ${others.length} do not build`)
  if (left.length > 0) console.log(`neither supplied nor refused: ${left.join(', ')}`)
}

/** A line for each builtin, without what is for reading only. */
function textOf({ builtins, ...rest }: Capabilities & Record<string, unknown>): string {
  const lines = builtins.map((one) => `    ${JSON.stringify(one, withoutProse)}`)
  const others = Object.entries(rest).map(
    ([name, value]) => `,\n  ${JSON.stringify(name)}: ${JSON.stringify(value)}`,
  )
  return `{\n  "builtins": [\n${lines.join(',\n')}\n  ]${others.join('')}\n}\n`
}

/** Arguments have names too, but theirs say nothing to the compiler. */
function withoutProse(this: unknown, key: string, value: unknown): unknown {
  const prose = key === 'description' || key === 'categories'
  const label = key === 'name' && !Object.hasOwn(this as object, 'decl')
  return prose || label ? undefined : value
}

function isPlainCall({ name }: Declaration): boolean {
  return !REWRITTEN.includes(name)
}

/** The builtins that a module which calls all of these asks its host for. */
async function importsOf(
  opa: string,
  builtins: readonly Declaration[],
  options: readonly string[] = [],
): Promise<ReadonlySet<string>> {
  const rules = builtins.map(({ name, decl }, i) => {
    const args = (decl.args ?? []).map((_, j) => `input.x${j}`).join(', ')
    return `p[${i}] { ${name}(${args}) }`
  })
  const source = join(directory, 'all.rego')
  const bundle = join(directory, 'all.tar.gz')
  writeFileSync(source, `package all\n\n${rules.join('\n')}\n`)
  // Rego v0, for it may still call what is deprecated.
  const version = ['--v0-compatible', '-t', 'wasm', '-e', 'all/p']
  run(opa, ['build', ...version, ...options, '-o', bundle, source])
  const unpacked = await unpackArchive(readFileSync(bundle), bundle)
  const wasm = unpacked.kind === 'entries' ? unpacked.entries.get('policy.wasm') : undefined
  if (wasm === undefined) throw new Error('opa built no module')
  const inspected = inspectModule(await WebAssembly.compile(wasm))
  if (inspected.kind === 'refused') throw new Error(inspected.reason)
  return new Set(inspected.facts.builtins.values())
}
