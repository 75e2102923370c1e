import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type EntryExports, entryOf } from '../../src/policy/entry.ts'
import { FUEL_EXPORT, STACK_POINTER_EXPORT, STACK_TOP } from '../../src/policy/rewrite.ts'
import { loadMaterial, SAMPLE_BUNDLE } from './support.ts'

interface Exports extends EntryExports {
  readonly opa_heap_ptr_get: () => number
}

async function instance(change: Partial<EntryExports> = {}) {
  const { module, data } = await loadMaterial(SAMPLE_BUNDLE)
  const memory = new WebAssembly.Memory({ initial: data.pages })
  new Uint8Array(memory.buffer).set(new Uint8Array(data.bytes), data.from)
  const env: Record<string, unknown> = { memory, opa_abort: () => assert.fail() }
  for (let i = 0; i <= 4; i++) env[`opa_builtin${i}`] = () => 0
  const exports = new WebAssembly.Instance(module, { env }).exports as unknown as Exports
  // An evaluation context without input, as `opa_eval_ctx_new` makes it.
  const context = data.values
  new Uint32Array(memory.buffer, context, 4).set([0, data.data, 0, 0])
  return { exports, memory, context, data, enter: entryOf({ ...exports, ...change }, memory) }
}

test('an evaluation begins with a full stack, all of its fuel and an empty heap', async () => {
  const { exports, context, data, memory, enter } = await instance()
  const evaluation = () => {
    const result = enter(context, data.heap, 10_000)
    return { result, fuel: exports[FUEL_EXPORT].value, heap: exports.opa_heap_ptr_get() }
  }
  const first = evaluation()
  assert.ok(first.fuel > 0 && first.fuel < 10_000)
  assert.ok(first.heap > data.heap)
  assert.equal(first.result, new Uint32Array(memory.buffer, context, 4)[2])
  exports[STACK_POINTER_EXPORT].value = 1_000
  exports[FUEL_EXPORT].value = -1
  assert.deepEqual(evaluation(), first)
  assert.equal(exports[STACK_POINTER_EXPORT].value, STACK_TOP)
})

test('an evaluation traps where its fuel ends', async () => {
  const { exports, context, data, enter } = await instance()
  assert.throws(() => enter(context, data.heap, 5), WebAssembly.RuntimeError)
  assert.equal(exports[FUEL_EXPORT].value, -1)
})

test('a module that fails gives no result', async () => {
  const { context, data, enter } = await instance({ eval: () => 1 })
  assert.equal(enter(context, data.heap, 10_000), 0)
})
