// Reads OPA's conformance cases (Apache-2.0; they stay where they are) from a checkout or from the
// Go module cache, where `go install` of opa has put them.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { OPA_PACKAGE } from '../opa.ts'

export interface Case {
  /** `v0` or `v1`: the version of the language. */
  readonly tree: Tree
  readonly category: string
  /** Unique within a tree, by a number at the end where OPA's is not. */
  readonly note: string
  readonly query: string
  readonly modules: readonly string[]
  readonly dataJson: string
  /** Absent: the case has no input, which is not the same as an empty one. */
  readonly inputJson: string | undefined
  /** Input in the notation of Rego, where JSON cannot say it. */
  readonly inputTerm: string | undefined
  readonly want: Want
}

export type Tree = 'v0' | 'v1'

export type Want =
  /** JSON text of the array of bindings. */
  | { readonly kind: 'bindings'; readonly json: string }
  | { readonly kind: 'defined'; readonly defined: boolean }
  | { readonly kind: 'conflict' }

/** What a case may say; see TestCase in v1/test/cases/cases.go of OPA. */
interface CaseDocument {
  readonly note: string
  readonly query: string
  readonly modules?: readonly string[]
  readonly data?: unknown
  readonly input?: unknown
  readonly input_term?: string
  readonly want_defined?: boolean
  readonly want_result?: readonly unknown[]
  readonly want_error?: string
  readonly want_error_code?: string
  readonly strict_error?: boolean
}

export function readCases(directory: string): Case[] {
  return (['v0', 'v1'] as const).flatMap((tree) =>
    readdirSync(join(directory, tree), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && /\.ya?ml$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .flatMap((file) => readFile(file, tree, file.slice(join(directory, tree).length + 1)))
      .map(numbered()),
  )
}

/** A name that occurs again gets a number, so that exceptions can tell the cases apart. */
function numbered(): (one: Case) => Case {
  const seen = new Map<string, number>()
  return (one) => {
    const count = (seen.get(one.note) ?? 0) + 1
    seen.set(one.note, count)
    return count === 1 ? one : { ...one, note: `${one.note} (${count})` }
  }
}

function readFile(file: string, tree: Tree, name: string): Case[] {
  const { cases } = parse(readFileSync(file, 'utf8'), { intAsBigInt: true }) as {
    readonly cases: readonly CaseDocument[]
  }
  const category = name.split(/[\\/]/)[0] as string
  return cases.map((one) => ({
    tree,
    category,
    note: one.note,
    query: one.query,
    modules: one.modules ?? [],
    dataJson: json(one.data ?? {}),
    inputJson: 'input' in one ? json(one.input) : undefined,
    inputTerm: one.input_term,
    want: wanted(one),
  }))
}

/** The order in which OPA's own runner of wasm looks at them; errors of builtins are undefined. */
function wanted(one: CaseDocument): Want {
  if (one.want_defined !== undefined) return { kind: 'defined', defined: one.want_defined }
  if (one.want_result !== undefined) return { kind: 'bindings', json: json(one.want_result) }
  return one.strict_error ? { kind: 'bindings', json: '[]' } : { kind: 'conflict' }
}

/** As JSON.stringify, with integers of any size. */
function json(value: unknown): string {
  if (typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return `[${value.map(json).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const members = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}:${json(one)}`)
  return `{${members.join(',')}}`
}

/** The directory with `v0` and `v1`. */
export function findCases(): string {
  const given = process.env['OPA_TEST_CASES']
  if (given !== undefined) return given
  const { stdout } = spawnSync('go', ['env', 'GOMODCACHE'], { encoding: 'utf8' })
  const directory = join(stdout?.trim() ?? '', OPA_PACKAGE, 'v1/test/cases/testdata')
  if (existsSync(directory)) return directory
  throw new Error(
    'no conformance cases: set OPA_TEST_CASES to v1/test/cases/testdata of a checkout of OPA, ' +
      `or \`go mod download ${OPA_PACKAGE}\``,
  )
}
