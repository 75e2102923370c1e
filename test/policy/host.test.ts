import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PolicyHost } from '../../src/policy/host.ts'
import { DataError, memoryImage } from '../../src/policy/image.ts'
import { buildInput } from '../../src/policy/input.ts'
import { bundleUrl, load, loadMaterial, NOW_MS, request, SAMPLE_BUNDLE } from './support.ts'

const MEBIBYTE = 1024 * 1024
const MEMORY_BYTES = 64 * MEBIBYTE

/** The sample policy, whose data has grown by callers that nobody knows. */
async function withMuchData(callers: number) {
  const material = await loadMaterial(SAMPLE_BUNDLE)
  const authz = {
    callers: Object.fromEntries([
      ...Array.from({ length: callers }, (_, i) => [`spiffe://example.org/ns/${i}`, ['nobody']]),
      ['spiffe://example.org/ns/default/sa/web', ['reader']],
    ]),
    roles: { reader: [{ methods: ['GET'], paths: ['/api/**'] }] },
  }
  const data = memoryImage(material.module, JSON.stringify({ authz }), MEMORY_BYTES)
  return { ...material, data, memoryBytes: MEMORY_BYTES }
}

const read = buildInput(request('/api/orders'))
const allowed = (host: PolicyHost) => {
  const outcome = host.evaluate(read, NOW_MS)
  return outcome.kind === 'result' && JSON.parse(outcome.text).allowed
}

test('much data is copied in slices that a caller bounds', async () => {
  const material = await withMuchData(20_000)
  const length = material.data.bytes.byteLength
  assert.ok(length > 4 * MEBIBYTE)
  const host = new PolicyHost(material)
  let slices = 1
  while (!host.prepare(MEBIBYTE)) slices++
  assert.equal(slices, Math.ceil(length / MEBIBYTE))
  assert.equal(allowed(host), true)
})

test('an evaluation does what was not prepared', async () => {
  const material = await withMuchData(20_000)
  const host = new PolicyHost(material)
  assert.equal(host.prepare(1000), false)
  assert.equal(allowed(host), true)
  assert.equal(host.prepare(1), true)
})

test('much data is there after a trap, without being copied again', async () => {
  const material = await withMuchData(20_000)
  let recycled = 0
  const host = new PolicyHost({ ...material, fuel: 100 }, () => recycled++)
  const other = new PolicyHost(material)
  for (let i = 0; i < 20; i++) assert.equal(host.evaluate(read, NOW_MS).kind, 'timeout')
  assert.equal(recycled, 20)
  assert.equal(host.prepare(0), true)
  assert.equal(allowed(other), true)
})

test('the text of the data is no part of what is copied', async () => {
  const { module } = await loadMaterial(SAMPLE_BUNDLE)
  const text = JSON.stringify({ text: 'a'.repeat(MEBIBYTE) })
  const { bytes } = memoryImage(module, text, MEMORY_BYTES)
  assert.ok(bytes.byteLength < 1.1 * text.length)
})

test('data that is too much for its memory, or no JSON, is refused at the activation', async () => {
  const { module } = await loadMaterial(SAMPLE_BUNDLE)
  const much = JSON.stringify({ a: Array.from({ length: 500_000 }, (_, i) => i) })
  assert.throws(() => memoryImage(module, much, 8 * MEBIBYTE), DataError)
  assert.throws(() => memoryImage(module, '{', MEMORY_BYTES), DataError)
  const loaded = await load(bundleUrl('oracle'), { memoryBytes: 65_536 * 3 })
  assert.equal(loaded.kind, 'problems')
  if (loaded.kind !== 'problems') return
  assert.match(loaded.problems[0]?.what ?? '', /cannot be read into policy.memoryBytes/)
})

test('what a policy draws by chance is drawn anew for each evaluation, and once in it', async () => {
  const host = new PolicyHost(await loadMaterial(bundleUrl('random')))
  const [one, two] = [1, 2].map(() => {
    const outcome = host.evaluate(read, NOW_MS)
    assert.ok(outcome.kind === 'result', outcome.kind)
    return JSON.parse(outcome.text)
  })
  assert.deepEqual(
    [one.same, two.same],
    [
      [true, true],
      [true, true],
    ],
  )
  assert.notEqual(one.number, two.number)
  assert.notEqual(one.identifier, two.identifier)
})
