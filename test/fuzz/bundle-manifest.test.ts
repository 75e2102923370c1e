// Whatever manifest and data say: the bundle is refused with reasons, or says nothing outside its
// roots.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type BundlePart, combineBundles, readBundlePart } from '../../src/policy/bundle.ts'
import { fuzz } from './campaign.ts'

const word = fc.constantFrom('a', 'b', 'c', 'a/b', 'a/b/c', '/a/', '__proto__', 'constructor', 'é')
const anything = fc.oneof(fc.jsonValue(), word, fc.constantFrom({}, [], '', '/', '\ud800'))
/** Mostly what it should be: a bundle that is refused for its first field says nothing about others. */
const mostly = <T>(usual: fc.Arbitrary<T>): fc.Arbitrary<T | unknown> =>
  fc.oneof({ weight: 100, arbitrary: usual }, { weight: 1, arbitrary: anything })

const selfTest = fc.record({
  name: mostly(fc.string({ minLength: 1 })),
  input: mostly(fc.dictionary(word, anything, { maxKeys: 2 })),
  expect: mostly(fc.oneof(fc.boolean(), fc.dictionary(word, anything, { maxKeys: 2 }))),
})
/** Mostly below its own roots. */
const resolver = (roots: readonly string[]) =>
  fc.record({
    entrypoint: mostly(fc.constantFrom(...roots).map((root) => (root === '' ? 'x' : `${root}/x`))),
    module: mostly(fc.constant('/policy.wasm')),
  })
const manifest = (roots: readonly string[]) =>
  fc.record(
    {
      revision: mostly(fc.string()),
      roots: mostly(fc.constant(roots)),
      wasm: mostly(fc.array(mostly(resolver(roots)), { maxLength: 2 })),
      metadata: mostly(
        fc.record({
          postern: mostly(
            fc.record({ tests: mostly(fc.array(mostly(selfTest), { maxLength: 2 })) }),
          ),
        }),
      ),
      rego_version: anything,
    },
    { requiredKeys: ['roots'] },
  )
const data = (roots: readonly string[]) =>
  mostly(
    fc
      .tuple(fc.constantFrom(...roots), fc.dictionary(word, anything, { maxKeys: 2 }))
      .map(([root, inner]) =>
        root
          .split('/')
          .filter((step) => step !== '')
          .reduceRight<object>((value, step) => ({ [step]: value }), inner),
      ),
  )
const json = (value: fc.Arbitrary<unknown>) => value.map((one) => JSON.stringify(one) ?? 'null')
const damaged = (text: fc.Arbitrary<string>) =>
  fc.tuple(text, fc.nat(), fc.string({ maxLength: 2 })).map(([whole, at, put]) => {
    const place = at % (whole.length + 1)
    return whole.slice(0, place) + put + whole.slice(place + put.length)
  })
const file = (value: fc.Arbitrary<unknown>) =>
  fc.oneof({ weight: 20, arbitrary: json(value) }, { weight: 1, arbitrary: damaged(json(value)) })

const FORBIDDEN = ['data.yaml', 'a/data.yml', 'patch.json', '.signatures.json'] as const
const bundle = (roots: readonly string[]) =>
  fc
    .tuple(
      fc.record(
        {
          '.manifest': file(manifest(roots)),
          'data.json': file(data(roots)),
          'policy.wasm': fc.constant('wasm'),
        },
        { requiredKeys: ['.manifest'] },
      ),
      fc.option(fc.constantFrom(...FORBIDDEN, 'x.wasm', 'b/data.json'), { freq: 10 }),
    )
    .map(([files, more]): Readonly<Record<string, string>> => {
      return { ...files, ...(more === null ? {} : { [more]: '{"d":1}' }) }
    })

const anyRoots = fc.constantFrom([''], ['a'], ['b'], ['b/c'], ['a', 'b/c'], ['c', 'é', '__proto__'])
const anyBundle = anyRoots.chain(bundle)
const withoutModule = ({ 'policy.wasm': _, ...files }: Readonly<Record<string, string>>) => files
const several = fc.oneof(
  { weight: 1, arbitrary: fc.array(anyBundle, { minLength: 2, maxLength: 3 }) },
  {
    weight: 5,
    arbitrary: fc.tuple(bundle(['a', 'b/c']), bundle(['b/d', 'c']).map(withoutModule)),
  },
)

function read(files: Readonly<Record<string, string>>): BundlePart | undefined {
  const entries = new Map(Object.entries(files).map(([name, text]) => [name, Buffer.from(text)]))
  const outcome = readBundlePart(entries, 'bundle')
  if (outcome.kind === 'problems') {
    assert.ok(outcome.problems.length > 0)
    for (const { what, remedy } of outcome.problems) assert.ok(what !== '' && remedy !== '')
    return undefined
  }
  return outcome.part
}

const under = (path: string, root: string) =>
  root === '' || path === root || path.startsWith(`${root}/`)

/** Every place of a document that holds something. */
function leaves(value: unknown, path: string): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [path]
  return Object.entries(value).flatMap(([key, one]) =>
    leaves(one, path === '' ? key : `${path}/${key}`),
  )
}

const accepted = { read: 0, combined: 0 }

fuzz(
  'a bundle is refused, or says nothing outside its roots',
  { runs: 3_000 },
  fc.property(anyBundle, (files) => {
    const part = read(files)
    if (part === undefined) return
    accepted.read++
    for (const forbidden of FORBIDDEN) assert.equal(forbidden in files, false)
    for (const path of leaves(JSON.parse(part.dataJson), '')) {
      if (path !== '')
        assert.ok(
          part.roots.some((root) => under(path, root)),
          path,
        )
    }
    for (const entrypoint of part.entrypoints) {
      assert.ok(
        part.roots.some((root) => under(entrypoint, root)),
        entrypoint,
      )
    }
    for (const { name, input, expect } of part.tests) {
      assert.ok(name !== '' && typeof JSON.parse(input) === 'object')
      assert.ok(typeof expect === 'boolean' || typeof JSON.parse(expect) === 'object')
    }
  }),
)

fuzz(
  'bundles that are put together share no root, and keep what each says',
  { runs: 4_000 },
  fc.property(several, (all) => {
    const parts = all.flatMap((files) => read(files) ?? [])
    if (parts.length < 2) return
    const combined = combineBundles(parts)
    if (combined.kind === 'problems') {
      assert.ok(combined.problems.length > 0)
      return
    }
    accepted.combined++
    const roots = parts.flatMap((part) => part.roots)
    for (const [at, root] of roots.entries()) {
      for (const other of roots.slice(at + 1)) assert.ok(!under(root, other) && !under(other, root))
    }
    const whole = new Set(leaves(JSON.parse(combined.bundle.dataJson), ''))
    for (const { dataJson } of parts) {
      for (const path of leaves(JSON.parse(dataJson), '')) {
        if (path !== '') assert.ok(whole.has(path), path)
      }
    }
  }),
)

const once = process.env['FUZZ_PATH'] === undefined ? false : 'a single case is repeated'

test('some of these were good, so that the above was about something', { skip: once }, () => {
  assert.ok(accepted.read > 100 && accepted.combined > 3, JSON.stringify(accepted))
})
