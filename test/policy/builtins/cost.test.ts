// Work that is larger than its arguments is paid for while it is done: each of these calls would keep
// a data thread for seconds or minutes, and ends at the budget of an evaluation instead.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BoundedCache } from '../../../src/policy/builtins/bounded-cache.ts'
import { BuiltinError, FuelSpent } from '../../../src/policy/builtins/builtin.ts'
import { BUILTINS } from '../../../src/policy/builtins/table.ts'
import { readJson, writeValue } from '../../../src/policy/builtins/value.ts'
import { FUEL } from '../support.ts'

/** @returns what it spent */
function call(name: string, args: readonly unknown[]): number {
  let left = FUEL
  const spend = (iterations: number) => {
    left -= iterations
    if (left < 0) throw new FuelSpent('spent')
  }
  const result = BUILTINS.get(name)?.(
    args.map((one) => readJson(JSON.stringify(one))),
    {
      timeNs: 0n,
      regexes: new BoundedCache(100),
      jwtKeys: new BoundedCache(100),
      drawn: new Map(),
      spend,
    },
  )
  if (result !== undefined) writeValue(result, spend)
  return FUEL - left
}

const times = <T>(count: number, value: T): T[] => Array<T>(count).fill(value)
const row = times(150, 1)
const manyNames = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`k${i}`, 1]))
const text = 'x'.repeat(50_000)
const deep = (depth: number): unknown => (depth === 0 ? 1 : { a: deep(depth - 1) })
const items = times(5_000, 1)

const chain = (length: number) =>
  Object.fromEntries(Array.from({ length }, (_, i) => [String(i), [String(i + 1)]]))

const CALLS: Readonly<Record<string, readonly [name: string, ...args: unknown[]]>> = {
  'a long replacement that is empty': ['regex.replace', 'a'.repeat(9_000), 'a', '$$'.repeat(999)],
  'rows that are nearly the same': ['object.subset', times(300, row), [...times(150, row), 0]],
  'a long path into what is deep': [
    'json.patch',
    deep(400),
    [{ op: 'remove', path: [...times(399, 'a'), ...times(210_000, 'b')] }],
  ],
  'copies of what has been copied into itself': [
    'json.patch',
    { a: 1 },
    Array.from({ length: 60 }, (_, i) => ({ op: 'copy', from: '', path: `/a${i}` })),
  ],
  'many patterns for many names': [
    'json.match_schema',
    manyNames,
    { patternProperties: { '^x': true, '^y': true } },
  ],
  'names that each schema puts in order': [
    'json.match_schema',
    manyNames,
    { allOf: times(100, { minProperties: 1 }) },
  ],
  'keys that are put in order': ['yaml.marshal', manyNames],
  'long ways through a graph': ['graph.reachable_paths', chain(300), ['0']],
  'a name that is missing in each round': [
    'strings.render_template',
    '{{range .items}}{{$.missing}}{{end}}',
    { items, ...manyNames },
  ],
  'long texts that are compared in each round': [
    'strings.render_template',
    '{{range .items}}{{if eq $.a $.b}}{{end}}{{end}}',
    { items, a: text, b: text },
  ],
  'a large value that is printed in each round': [
    'strings.render_template',
    '{{range .items}}{{with $x := $.many}}{{if not (print $x)}}{{end}}{{end}}{{end}}',
    { items, many: manyNames },
  ],
}

for (const [what, [name, ...args]] of Object.entries(CALLS)) {
  test(`${name}: ${what}`, () => {
    assert.throws(() => call(name, args), FuelSpent)
  })
}

test('a part that a match makes costs more than finding it', () => {
  const subject = 'a'.repeat(1_000)
  const costs = (argsOf: (pattern: string) => readonly [string, ...unknown[]]) => {
    const [none, each] = ['^$', 'a'].map((pattern) => {
      const [name, ...args] = argsOf(pattern)
      return call(name, args)
    })
    return ((each as number) - (none as number)) / subject.length
  }
  assert.ok(costs((pattern) => ['regex.split', pattern, subject]) > 80)
  assert.ok(costs((pattern) => ['regex.find_n', pattern, subject, -1]) > 80)
  assert.ok(costs((pattern) => ['regex.replace', subject, pattern, 'x']) > 80)
})

test('an expression costs what it grows to', () => {
  const [short, long] = ['a{100}', 'a{900}'].map((one) => call('regex.find_n', [one, 'b', -1]))
  assert.ok((long as number) - (short as number) > 8_000)
})

test('text outside of ASCII costs what it takes to look it up', () => {
  const [ascii, other] = ['e', 'é'].map((one) =>
    call('regex.find_n', ['(?i)x', one.repeat(1_000), -1]),
  )
  assert.ok((other as number) - (ascii as number) > 50_000)
})

test('what is no amount is known as such in one pass', () => {
  // A second pass for each digit would take a quarter of an hour.
  const digits = '1'.repeat(1_000_000)
  for (const amount of [`${digits}.1.`, `${digits}e1234567`]) {
    for (const name of ['units.parse', 'units.parse_bytes']) {
      assert.throws(() => call(name, [amount]), BuiltinError)
    }
  }
})
