// Answers of OPA 1.22.2 (`opa eval`, which runs the Go implementation) to calls of builtins: each
// row is the name, the arguments in Rego notation, and the answer as JSON; null is an error.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BoundedCache } from '../../../src/policy/builtins/bounded-cache.ts'
import { type BuiltinContext, BuiltinError } from '../../../src/policy/builtins/builtin.ts'
import { compareValues } from '../../../src/policy/builtins/compare.ts'
import { BUILTINS } from '../../../src/policy/builtins/table.ts'
import {
  RegoObject,
  RegoSet,
  type RegoValue,
  readJson,
  readValue,
  writeValue,
} from '../../../src/policy/builtins/value.ts'

type Answer = readonly [name: string, args: readonly string[], expected: string | null]

const DIRECTORY = new URL('answers/', import.meta.url)
const FUEL = 2_000_000

function call(name: string, args: readonly RegoValue[]): RegoValue {
  let left = FUEL
  const context: BuiltinContext = {
    timeNs: 1_700_000_000_000_000_000n,
    regexes: new BoundedCache(10),
    jwtKeys: new BoundedCache(10),
    drawn: new Map(),
    spend: (iterations) => {
      left -= iterations
      assert.ok(left >= 0, 'more than the budget of an evaluation')
    },
  }
  const builtin = BUILTINS.get(name)
  assert.ok(builtin, name)
  return builtin(args, context)
}

/** Sets are arrays in JSON, in the order of their members. */
function asJson(value: RegoValue): RegoValue {
  if (value instanceof RegoSet) return value.members.toSorted(compareValues).map(asJson)
  if (Array.isArray(value)) return value.map(asJson)
  if (!(value instanceof RegoObject)) return value
  const object = new RegoObject()
  for (const [key, one] of value.entries()) object.set(key, asJson(one))
  return object
}

for (const file of readdirSync(DIRECTORY)) {
  test(`answers as OPA does: ${file.replace('.json', '')}`, () => {
    const answers = JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8')) as Answer[]
    assert.ok(answers.length > 0)
    for (const [name, args, expected] of answers) {
      const what = `${name}(${args.join(', ')})`
      const values = args.map(readValue)
      if (expected === null) {
        assert.throws(() => call(name, values), BuiltinError, what)
        continue
      }
      const actual = asJson(call(name, values))
      const same = compareValues(actual, readJson(expected)) === 0
      assert.ok(same, `${what} = ${writeValue(actual)}, not ${expected}`)
    }
  })
}
