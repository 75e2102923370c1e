// Our host against @open-policy-agent/opa-wasm: the same module, plain there and metered here, must
// give the same result for the same input.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import fc from 'fast-check'
import { type BundleEntries, readBundle } from '../../src/policy/bundle.ts'
import { PolicyHost } from '../../src/policy/host.ts'
import { memoryImage } from '../../src/policy/image.ts'
import { buildInput } from '../../src/policy/input.ts'
import { PLAIN_INPUT } from '../../src/policy/input-settings.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import { meterModule } from '../../src/policy/rewrite.ts'
import {
  bundleUrl,
  connection,
  FUEL,
  loadMaterial,
  MEMORY_BYTES,
  NOW_MS,
  peer,
  request,
  SAMPLE_BUNDLE,
  unpackFile,
} from './support.ts'

interface Oracle {
  setData(data: unknown): void
  evaluate(input: unknown, entrypoint: number): { result: unknown }[]
}
const { loadPolicySync } = createRequire(import.meta.url)('@open-policy-agent/opa-wasm') as {
  loadPolicySync(wasm: Buffer): Oracle
}

function dataJsonOf(entries: BundleEntries): string {
  const read = readBundle(entries, 'bundle')
  assert.equal(read.kind, 'bundle')
  return read.kind === 'bundle' ? read.bundle.dataJson : ''
}

async function both(url: URL, material?: PolicyMaterial) {
  const entries = await unpackFile(url)
  const wasm = entries.get('policy.wasm')
  assert.ok(wasm)
  const own = material ?? (await loadMaterial(url))
  const oracle = loadPolicySync(wasm)
  oracle.setData(JSON.parse(dataJsonOf(entries)))
  const host = new PolicyHost(own)
  return (input: string) => {
    const [expected] = oracle.evaluate(JSON.parse(input), own.entrypointId)
    const actual = host.evaluate(input, NOW_MS)
    if (expected === undefined) assert.equal(actual.kind, 'undefined')
    else {
      assert.equal(actual.kind, 'result', JSON.stringify(actual))
      assert.deepEqual(actual.kind === 'result' && JSON.parse(actual.text), expected.result)
    }
  }
}

const segment = fc.oneof(
  fc.constantFrom('api', 'orders', '7', 'healthz', 'admin', '', '..', 'defined', '%C3%A9', 'a%20b'),
  fc.stringMatching(/^[a-z0-9._-]{1,8}$/),
)
const anyRequest = fc
  .record({
    path: fc.array(segment, { maxLength: 6 }).map((segments) => `/${segments.join('/')}`),
    query: fc.constantFrom('', 'a=1', '_x=1&y=%22', 'k=v&k=w'),
    method: fc.constantFrom('GET', 'POST', 'HEAD', 'DELETE', 'PUT'),
    who: fc.constantFrom('web', 'admin', 'checkout', 'batch', 'other'),
    agent: fc.string({ unit: 'binary', maxLength: 30 }),
    bodySize: fc.constantFrom(0, -1, 58),
  })
  .map(({ path, query, method, who, agent, bodySize }) =>
    buildInput(
      request(query === '' ? path : `${path}?${query}`, {
        method,
        bodySize,
        fields: ['user-agent', agent, 'authorization', 'Bearer abc', 'x-version', '1.2.3'],
        connection: connection(peer(who)),
      }),
    ),
  )

for (const [name, url] of [
  ['the sample policy', SAMPLE_BUNDLE],
  ...['oracle', 'result', 'undefined', 'allow-all', 'deny-all', 'memory'].map(
    (one) => [one, bundleUrl(one)] as const,
  ),
] as const) {
  test(`gives what the oracle gives for ${name}`, async () => {
    const compare = await both(url)
    fc.assert(fc.property(anyRequest, compare), { numRuns: 300 })
  })
}

test('every committed module can be metered, is valid and little larger', async () => {
  const names = readdirSync(new URL('bundles/', import.meta.url)).map((name) =>
    name.replace('.tar.gz', ''),
  )
  assert.ok(names.length > 10)
  for (const url of [SAMPLE_BUNDLE, ...names.map(bundleUrl)]) {
    const wasm = (await unpackFile(url)).get('policy.wasm')
    assert.ok(wasm)
    const metered = meterModule(wasm)
    assert.equal(metered.kind, 'rewritten', url.pathname)
    if (metered.kind !== 'rewritten') continue
    assert.ok(WebAssembly.validate(metered.bytes), url.pathname)
    assert.ok(metered.bytes.length < wasm.length * 1.2)
  }
})

test('sets, large numbers and odd keys reach a builtin as they are', async () => {
  const entries = await unpackFile(bundleUrl('echo'))
  const metered = meterModule(entries.get('policy.wasm') as Buffer)
  assert.equal(metered.kind, 'rewritten')
  if (metered.kind !== 'rewritten') return
  const module = new WebAssembly.Module(metered.bytes)
  const host = new PolicyHost({
    module,
    entrypoint: 'builtin/answer',
    entrypointId: 0,
    builtins: { 0: 'sprintf' },
    reads: 'all',
    input: PLAIN_INPUT,
    data: memoryImage(module, '{}', MEMORY_BYTES),
    revision: '',
    digest: '',
    file: '',
    fuel: FUEL,
    memoryBytes: MEMORY_BYTES,
  })
  const outcome = host.evaluate('{"é":"😀"}', NOW_MS)
  assert.equal(outcome.kind, 'result')
  const answer = JSON.parse(outcome.kind === 'result' ? outcome.text : '')
  assert.deepEqual(answer.input, { é: '😀' })
  // The text is what `opa eval` prints for the same rule.
  assert.equal(
    answer.text,
    '{"empty": set(), "float": 1.5, "nested": {{1, 2}, {[1, {"a": null}]}}, ' +
      '"number": 12345678901234567890123, "object": {1: "one", "two": 2, [3]: {true}}, ' +
      '"set": {1, 2, 3, "a", "b"}, ' +
      '"text": "quote \\" backslash \\\\ newline \\n unicode é 😀"}',
  )
})
