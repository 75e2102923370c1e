import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadPolicy } from '../../src/policy/load.ts'
import { bundleUrl, FUEL, MEMORY_BYTES, SAMPLE_BUNDLE, unpackFile } from './support.ts'

/** What is said about a bundle whose manifest has these tests; '' when it is loaded. */
async function verdict(url: URL, tests: unknown, fuel = FUEL): Promise<string> {
  const entries = new Map(await unpackFile(url))
  const manifest = JSON.parse(entries.get('.manifest')?.toString() ?? '{}') as object
  const metadata = { postern: { tests } }
  entries.set('.manifest', Buffer.from(JSON.stringify({ ...manifest, metadata })))
  const options = { entrypoint: undefined, fuel, memoryBytes: MEMORY_BYTES }
  const loaded = await loadPolicy({ file: 'bundle', entries, digest: 'd' }, options)
  if (loaded.kind === 'policy') return ''
  return loaded.problems.map(({ where, what }) => `${where}: ${what}`).join('\n')
}

const split = bundleUrl('split')
const input = { team: 'web', method: 'get' }

test('a policy that decides its own cases as they say is loaded', async () => {
  assert.equal(await verdict(split, []), '')
  assert.equal(await verdict(split, [{ name: 'nobody has anything', input, expect: false }]), '')
  assert.equal(
    await verdict(bundleUrl('allow-all'), [{ name: 'all', input: {}, expect: true }]),
    '',
  )
})

test('the first that fails is named with what was expected and what came', async () => {
  const said = await verdict(split, [
    { name: 'good', input, expect: false },
    { name: 'web gets', input, expect: true },
    { name: 'a whole result', input, expect: { allowed: false } },
  ])
  assert.equal(
    said,
    [
      'bundle: its own test "web gets" fails: expected allowed, got false',
      'bundle: its own test "a whole result" fails: expected {"allowed":false}, got false',
    ].join('\n'),
  )
})

test('a case may say the whole result, in any order of keys', async () => {
  const url = bundleUrl('result')
  const result = await verdict(url, [{ name: 'x', input: {}, expect: { none: 1 } }])
  const [, got = ''] = /, got (.*)$/s.exec(result) ?? []
  const whole = JSON.parse(got) as Record<string, unknown>
  assert.equal(typeof whole, 'object')
  const reversed = Object.fromEntries(Object.entries(whole).reverse())
  assert.equal(await verdict(url, [{ name: 'x', input: {}, expect: reversed }]), '')
  const more = { ...whole, more: true }
  assert.match(await verdict(url, [{ name: 'x', input: {}, expect: more }]), /test "x" fails/)
})

test('an error, a timeout and undefined are no answer, whatever was expected', async () => {
  for (const expect of [true, false]) {
    const one = [{ name: 'x', input: {}, expect }]
    assert.match(await verdict(bundleUrl('undefined'), one), /got undefined/)
    assert.match(await verdict(bundleUrl('runaway'), one), /got a timeout: it used up its fuel/)
    const large = [{ name: 'x', input: { a: 'x'.repeat(300_000) }, expect }]
    assert.match(await verdict(bundleUrl('allow-all'), large), /the input is too large/)
  }
})

for (const [tests, expected] of [
  [{}, /tests is not a list/],
  [null, /tests is not a list/],
  [['x'], /tests \[0\] is not an object/],
  [[{ input: {}, expect: true }], /\[0\] has no name/],
  [[{ name: '', input: {}, expect: true }], /\[0\] has no name/],
  [[{ name: 'a', expect: true }], /\[0\] has no object as its input/],
  [[{ name: 'a', input: [], expect: true }], /\[0\] has no object as its input/],
  [[{ name: 'a', input: {} }], /\[0\] expects neither a boolean nor a result/],
  [[{ name: 'a', input: {}, expect: 'allow' }], /\[0\] expects neither/],
  [[{ name: 'a', input: {}, expected: true }], /\[0\] has "expected"/],
  [Array.from({ length: 1_001 }, () => ({})), /more than 1000 cases/],
] as const) {
  test(`tests that cannot be run refuse the bundle: ${expected.source}`, async () => {
    assert.match(await verdict(split, tests), expected)
  })
}

test('the sample policy brings tests of its own', async () => {
  const manifest = (await unpackFile(SAMPLE_BUNDLE)).get('.manifest')?.toString() ?? ''
  assert.match(manifest, /"postern":\{"tests":\[\{/)
})
