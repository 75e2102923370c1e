// Builtins as a policy calls them: out of a compiled module, metered, and back into it. What opa
// answers to the same policy is in module-answers.json (opa eval data.builtin.answers.answers).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { PolicyHost } from '../../../src/policy/host.ts'
import { bundleUrl, loadMaterial, NOW_MS } from '../support.ts'

const file = new URL('module-answers.json', import.meta.url)
const expected = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>

test('a policy gets from each builtin what opa gives', async () => {
  const host = new PolicyHost(await loadMaterial(bundleUrl('builtins')))
  const outcome = host.evaluate('{}', NOW_MS)
  assert.equal(outcome.kind, 'result', JSON.stringify(outcome))
  const text = outcome.kind === 'result' ? outcome.text : ''
  const { answers } = JSON.parse(text) as { readonly answers: Record<string, unknown> }
  for (const [name, answer] of Object.entries(expected)) {
    assert.deepEqual(sorted(answers[name]), sorted(answer), name)
  }
  assert.deepEqual(Object.keys(answers).sort(), Object.keys(expected).sort())
})

/** JSON has sets as arrays, in any order. */
function sorted(value: unknown): unknown {
  if (!Array.isArray(value)) {
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, sorted(one)]))
  }
  return value.map(sorted).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
}
