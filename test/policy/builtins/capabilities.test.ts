// policies/capabilities.json, for `opa build`, against the table of builtins. That the rest of it is
// native in wasm, only the compiler can say: tools/capabilities.ts asks it.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BUILTINS, REFUSED_BUILTINS } from '../../../src/policy/builtins/table.ts'

const file = new URL('../../../policies/capabilities.json', import.meta.url)
const capabilities = JSON.parse(readFileSync(file, 'utf8')) as {
  readonly builtins: readonly { readonly name: string }[]
  readonly allow_net: readonly string[]
}
const names = new Set(capabilities.builtins.map(({ name }) => name))

test('a policy may call every builtin that is supplied', () => {
  assert.deepEqual(
    [...BUILTINS.keys()].filter((name) => !names.has(name)),
    [],
  )
})

test('a policy that calls what would be refused does not build', () => {
  assert.deepEqual(
    [...REFUSED_BUILTINS.keys()].filter((name) => names.has(name)),
    [],
  )
  assert.deepEqual(capabilities.allow_net, [])
})
