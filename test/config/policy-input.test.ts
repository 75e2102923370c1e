import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keys } from '../../src/config/schema.ts'
import { parseSize } from '../../src/config/values.ts'
import { INPUT_BYTES } from '../../src/policy/host.ts'
import { assertOneProblem, COMPLETE_FILE, configOf, load } from './loading.ts'

const withInput = (input: string) =>
  load(COMPLETE_FILE.replace('policy:', `policy:\n  input: ${input}`))

test('what a policy is given can be chosen', () => {
  const config = configOf(
    withInput(
      '{ body: { maxBytes: 8KiB, totalBytes: 1MiB }, headers: [X-Tenant, accept], protoDescriptor: api.binpb, certificate: true, contextExtensions: { tier: gold, Zone: eu }, v2: true }',
    ),
  )
  assert.deepEqual(config.policy?.input, {
    body: { maxBytes: 8192, totalBytes: 1 << 20 },
    headers: ['x-tenant', 'accept'],
    protoDescriptor: 'api.binpb',
    certificate: true,
    contextExtensions: [
      { name: 'tier', value: 'gold' },
      { name: 'Zone', value: 'eu' },
    ],
    v2: true,
  })
})

test('a header is named as a field is', () => {
  assertOneProblem(withInput('{ headers: [":path"] }'), /headers\[0\]/, /./, /./)
})

test('a body that the input document has no room for cannot be asked for', () => {
  const max = keys.find(({ path }) => path === 'policy.input.body.maxBytes')?.max ?? ''
  assert.deepEqual(parseSize(max), { kind: 'value', value: INPUT_BYTES / 2 })
  assertOneProblem(withInput('{ body: { maxBytes: 1MiB } }'), /maxBytes/, /above/, /128KiB/)
})

test('context extensions need a name and a value each, and every name once', () => {
  const list = (entries: string) => withInput(`{ contextExtensions: ${entries} }`)
  assertOneProblem(list('[{ name: a }]'), /contextExtensions\[0\]/, /no value/, /KEY/)
  assertOneProblem(list('[{ value: a }]'), /contextExtensions\[0\]/, /no name/, /KEY/)
  const twice = '[{ name: a, value: b }, { name: a, value: c }]'
  assertOneProblem(list(twice), /contextExtensions\[1\].name/, /twice/, /one/)
})
