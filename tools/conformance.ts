// Runs OPA's conformance cases on Postern's policy host: npm run conformance
//   --only CATEGORY   cases of this category (may be repeated)
//   --json            everything that is known about each case, for other programs
//   --public DIR      published policies instead, see conformance/public-policies.ts
// Ends with an error when a case fails that exceptions.json does not name, when one passes that it
// names, or when the share that passes is below the gate. Needs opa and its cases; see README.md.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { type Case, findCases, readCases } from './conformance/cases.ts'
import { compileCase } from './conformance/compile.ts'
import { evaluateCase, type Verdict } from './conformance/evaluate.ts'
import { runPublicPolicies } from './conformance/public-policies.ts'
import { findOpa } from './opa.ts'

const EXCEPTIONS = new URL('../test/policy/conformance/exceptions.json', import.meta.url)
/** Out of scope: a decision asks nobody else. The gate does not count them. */
const OUT_OF_SCOPE = /^(?:graphql\.|providers\.aws\.|http\.send$)/
const GATE = 0.99
const CONCURRENCY = 2

interface Judged {
  readonly one: Case
  readonly verdict: Verdict
  /** Why it is expected to fail. */
  readonly exception: string | undefined
}

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    json: { type: 'boolean' },
    public: { type: 'string' },
  },
})

const publicPolicies = options.public ?? process.env['POSTERN_PUBLIC_POLICIES']

try {
  if (publicPolicies !== undefined) {
    process.exitCode = (await runPublicPolicies(findOpa(), publicPolicies)) ? 0 : 1
  } else {
    await runCases()
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}

async function runCases(): Promise<void> {
  const exceptions = JSON.parse(readFileSync(EXCEPTIONS, 'utf8')) as Record<string, string>
  const cases = readCases(findCases()).filter(
    ({ category }) => options.only === undefined || options.only.includes(category),
  )
  if (cases.length === 0) throw new Error('no such category')
  const judged = await judgeAll(cases, new Map(Object.entries(exceptions)))
  if (options.json) printJson(judged)
  else printReport(judged)
}

async function judgeAll(
  cases: readonly Case[],
  exceptions: ReadonlyMap<string, string>,
): Promise<Judged[]> {
  const opa = findOpa()
  const judged: Judged[] = []
  const queue = cases.entries()
  await Promise.all(
    Array.from({ length: CONCURRENCY }, async () => {
      for (const [index, one] of queue) {
        const verdict = await evaluateCase(one, await compileCase(opa, one))
        // A name with the tree is about this tree alone.
        const exception = exceptions.get(`${one.tree}/${one.note}`) ?? exceptions.get(one.note)
        judged[index] = { one, verdict, exception }
      }
    }),
  )
  return judged
}

function printJson(judged: readonly Judged[]): void {
  for (const { one, verdict, exception } of judged) {
    const { tree, category, note } = one
    console.log(JSON.stringify({ tree, category, note, ...verdict, exception }))
  }
}

function printReport(judged: readonly Judged[]): void {
  const categories = Map.groupBy(judged, ({ one }) => one.category)
  console.log('category                                  pass fail refused')
  for (const [category, members] of [...categories].sort()) {
    console.log(`${category.padEnd(40)} ${counts(members)}`)
  }
  console.log(`${'all'.padEnd(40)} ${counts(judged)}`)

  const refused = judged.flatMap(({ verdict }) =>
    verdict.kind === 'refused' ? [verdict.builtin] : [],
  )
  for (const [builtin, members] of Map.groupBy(refused, (name) => name)) {
    console.log(`refused: ${builtin} in ${members.length} cases`)
  }
  const inScope = judged.filter(
    ({ verdict }) => verdict.kind !== 'refused' || !OUT_OF_SCOPE.test(verdict.builtin),
  )
  const passed = inScope.filter(({ verdict }) => verdict.kind === 'pass').length
  const share = passed / inScope.length
  console.log(
    `gate: ${passed} of ${inScope.length} in scope pass, ${(100 * share).toFixed(2)} % ` +
      `(at least ${100 * GATE} %)`,
  )

  const unlisted = judged.filter((j) => j.verdict.kind === 'fail' && j.exception === undefined)
  const outdated = judged.filter((j) => j.verdict.kind === 'pass' && j.exception !== undefined)
  for (const { one, verdict } of unlisted) {
    const reason = verdict.kind === 'fail' ? verdict.reason : ''
    console.log(`FAIL ${one.tree}/${one.note}: ${reason.slice(0, 400)}`)
  }
  for (const { one } of outdated) {
    console.log(`PASSES, but is listed as an exception: ${one.tree}/${one.note}`)
  }
  const named = judged.filter((j) => j.verdict.kind === 'fail').length - unlisted.length
  console.log(
    `${named} failures with a reason in exceptions.json, ${unlisted.length} without, ` +
      `${outdated.length} exceptions that pass`,
  )
  if (share < GATE || unlisted.length > 0 || outdated.length > 0) process.exitCode = 1
}

function counts(judged: readonly Judged[]): string {
  return (['pass', 'fail', 'refused'] as const)
    .map((kind) => String(judged.filter(({ verdict }) => verdict.kind === kind).length).padStart(5))
    .join('')
}
