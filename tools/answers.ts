// Asks opa what the builtins answer, which tests hold ours against (test/policy/builtins/answers):
// node tools/answers.ts FILE..., to write what is stale, or --check, which looks at all of them. A row
// is a name, the arguments in Rego notation, and the answer as JSON; null is an error.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compareValues } from '../src/policy/builtins/compare.ts'
import { readJson } from '../src/policy/builtins/value.ts'
import { findOpa, run } from './opa.ts'

type Row = readonly [name: string, args: readonly string[], answer: string | null]

/** Signatures may be random, so that no answer is the only one. */
const RANDOM = /^io\.jwt\.encode_sign/

const DIRECTORY = fileURLToPath(new URL('../test/policy/builtins/answers/', import.meta.url))

try {
  const opa = findOpa()
  const check = process.argv.includes('--check')
  const files = check
    ? readdirSync(DIRECTORY).map((name) => join(DIRECTORY, name))
    : process.argv.slice(2)
  const stale = files.filter((file) => !refresh(opa, file, check))
  if (stale.length > 0) throw new Error(`opa answers otherwise: ${stale.join(', ')}`)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}

/** False where answers differ and may not be written. */
function refresh(opa: string, file: string, check: boolean): boolean {
  const rows = JSON.parse(readFileSync(file, 'utf8')) as Row[]
  const answers = ask(opa, rows)
  const same = rows.every(
    ([name, , answer], i) => RANDOM.test(name) || isSame(answer, answers[i] as string | null),
  )
  if (same) return true
  if (check) return false
  const lines = rows.map(([name, args], i) => JSON.stringify([name, args, answers[i]]))
  writeFileSync(file, `[\n  ${lines.join(',\n  ')}\n]\n`)
  return true
}

function isSame(a: string | null, b: string | null): boolean {
  if (a === null || b === null) return a === b
  return compareValues(readJson(a), readJson(b)) === 0
}

function ask(opa: string, rows: readonly Row[]): readonly (string | null)[] {
  const directory = mkdtempSync(join(tmpdir(), 'postern-answers-'))
  try {
    const module = join(directory, 'rows.rego')
    writeFileSync(module, `package rows\n\n${rows.map(rule).join('\n')}`)
    // Rego v0, for what v1 does not let policies call any more is supplied too.
    const said = run(opa, [
      'eval',
      '--v0-compatible',
      '-d',
      module,
      '-f',
      'raw',
      'data.rows.answers',
    ])
    const answers = new Map(JSON.parse(said) as [number, string][])
    return rows.map((_, i) => answers.get(i) ?? null)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** object.get hides the types of the arguments from the compiler, which would refuse the wrong. */
function rule([name, args]: Row, index: number): string {
  const passed = args.map((_, i) => `args[${i}]`).join(', ')
  return (
    `answers[[${index}, text]] { args := object.get({}, "", [${args.join(', ')}]); ` +
    `text := json.marshal(${name}(${passed})) }\n`
  )
}
