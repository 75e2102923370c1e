// An input written as values is to every policy what it is as text: the module's own parser makes the
// same of the text, decisions are the same, and no evaluation changes what is kept for the next.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { readBundle } from '../../src/policy/bundle.ts'
import { PolicyEngine } from '../../src/policy/engine.ts'
import { type EvaluationOutcome, PolicyHost } from '../../src/policy/host.ts'
import { type MemoryImage, VALUE_BYTES } from '../../src/policy/image.ts'
import { buildInput, InputError, type PolicyRequest } from '../../src/policy/input.ts'
import { inspectModule } from '../../src/policy/inspect.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import { projectionOf, wholeDocument } from '../../src/policy/projection.ts'
import { readsOf } from '../../src/policy/reads.ts'
import { ValueInput } from '../../src/policy/value-input.ts'
import { bucketsFor, isSameValue, SIZE } from '../../src/policy/value-layout.ts'
import { type ProofExports, provesLayout } from '../../src/policy/value-proof.ts'
import { anyRequest, COLLIDING } from './hostile-requests.ts'
import {
  bundleUrl,
  connection,
  load,
  loadMaterial,
  NOW_MS,
  peer,
  request,
  SAMPLE_BUNDLE,
  unpackFile,
} from './support.ts'

const whole = wholeDocument()

function orError<T>(make: () => T): T | string {
  try {
    return make()
  } catch (error) {
    if (error instanceof InputError) return `InputError: ${error.message}`
    throw error
  }
}

/** A module by itself, whose memory can be looked into. */
function bare(material: PolicyMaterial) {
  const { data } = material
  const memory = new WebAssembly.Memory({ initial: data.pages, maximum: 1_024 })
  new Uint8Array(memory.buffer).set(new Uint8Array(data.bytes), data.from)
  const env: Record<string, unknown> = {
    memory,
    opa_abort: () => {
      throw new Error('abort')
    },
    opa_println: () => {},
  }
  for (let i = 0; i <= 4; i++) env[`opa_builtin${i}`] = () => 0
  const instance = new WebAssembly.Instance(material.module, { env })
  const exports = instance.exports as unknown as {
    opa_json_parse(address: number, length: number): number
    opa_heap_ptr_set(address: number): void
    eval(context: number): number
    postern_fuel: WebAssembly.Global
    postern_stack_pointer: WebAssembly.Global
  }
  const input = new ValueInput(data)
  input.begin(memory.buffer)
  return {
    input,
    values: () => Buffer.from(memory.buffer, data.values, VALUE_BYTES),
    constants() {
      const all = [...data.constants.values()]
      const first = Math.min(...all)
      return Buffer.from(memory.buffer, first, Math.max(...all) + SIZE.string - first)
    },
    root: () => new DataView(memory.buffer).getUint32(input.context, true),
    /** Of an object: the address of each key, by what it says, and of its value. */
    members(object: number) {
      const words = new DataView(memory.buffer)
      const word = (address: number) => words.getUint32(address, true)
      const members: Record<string, { key: number; value: number }> = {}
      for (let i = 0; i < word(object + 8); i++) {
        for (let at = word(word(object + 4) + 4 * i); at !== 0; at = word(at + 8)) {
          const [key, value] = [word(at), word(at + 4)]
          const text = Buffer.from(memory.buffer, word(key + 8), word(key + 4))
          members[text.toString()] = { key, value }
        }
      }
      return members
    },
    view: () => new DataView(memory.buffer),
    parse(text: string) {
      exports.postern_fuel.value = 0x7fff_ffff
      exports.opa_heap_ptr_set(data.heap)
      const length = Buffer.from(memory.buffer).write(text, data.input, 'utf8')
      const parsed = exports.opa_json_parse(data.input, length)
      input.use(memory.buffer)
      return parsed
    },
    evaluate() {
      exports.postern_fuel.value = 2_000_000
      exports.postern_stack_pointer.value = 65_536
      exports.opa_heap_ptr_set(data.heap)
      try {
        exports.eval(input.context)
      } catch {}
      input.use(memory.buffer)
    },
  }
}

const PROJECTION = bundleUrl('projection')

async function entrypointsOf(url: URL): Promise<readonly PolicyMaterial[]> {
  const loaded = await load(url, url === PROJECTION ? { entrypoint: 'projection/nothing' } : {})
  if (loaded.kind === 'problems') return []
  const inspected = inspectModule(loaded.material.module)
  assert.equal(inspected.kind, 'facts')
  if (inspected.kind !== 'facts') return []
  const wasm = (await unpackFile(url)).get('policy.wasm') as Buffer
  return [...inspected.facts.entrypoints].map(([entrypoint, entrypointId]) => ({
    ...loaded.material,
    entrypoint,
    entrypointId,
    reads: readsOf(wasm, entrypointId),
  }))
}

const bundles = [
  SAMPLE_BUNDLE,
  ...readdirSync(new URL('bundles/', import.meta.url)).map((file) =>
    bundleUrl(file.replace('.tar.gz', '')),
  ),
]
const materials = (await Promise.all(bundles.map(entrypointsOf))).flat()
const nameOf = ({ entrypoint }: PolicyMaterial, i: number) => `${i}: ${entrypoint}`

test('of every module it is proven that it takes values', () => {
  assert.ok(materials.length > 25)
  for (const { data } of materials) assert.notEqual(data.values, 0)
})

test('what is written is what the parser makes of the text', async () => {
  const { input, parse, root, view } = bare(await loadMaterial(SAMPLE_BUNDLE))
  let written = 0
  const documents = [
    { templateOf: whole.templateOf, textOf: (asked: PolicyRequest) => buildInput(asked) },
    ...materials.flatMap(({ reads }) => projectionOf(reads) ?? []),
  ]
  fc.assert(
    fc.property(anyRequest, fc.nat(), (asked, which) => {
      const { templateOf, textOf } = documents[which % documents.length] as (typeof documents)[0]
      const text = orError(() => textOf(asked))
      const asValues = orError(() => input.write(templateOf(asked.connection), asked, 0))
      if (typeof asValues === 'string' || text.startsWith('InputError')) {
        return assert.equal(asValues, text)
      }
      if (!asValues) return
      written++
      assert.ok(isSameValue(view(), root(), parse(text)), text)
    }),
    { numRuns: 5_000 },
  )
  assert.ok(written > 2_500, String(written))
})

test('a path with a malformed escape or a line feed is refused whatever its length', async () => {
  const { input } = bare(await loadMaterial(SAMPLE_BUNDLE))
  const none = projectionOf(new Map()) ?? assert.fail()
  for (let length = 0; length < 70; length++) {
    for (const bad of ['%', '\n']) {
      const asked = request(`/${'a'.repeat(length)}${bad}`)
      for (const { templateOf } of [whole, none]) {
        assert.throws(() => input.write(templateOf(asked.connection), asked, 0), InputError)
      }
    }
  }
})

test('a key that the rules ask for is the very value that they ask for', async () => {
  const material = await loadMaterial(SAMPLE_BUNDLE)
  const { constants, data } = material.data
  const { input, root, members } = bare(material)
  const asked = request('/api/orders')
  assert.ok(input.write(whole.templateOf(asked.connection), asked, 0))
  const document = members(root())
  assert.equal(document['attributes']?.key, constants.get('attributes'))
  assert.ok(constants.has('attributes'))
  assert.ok(!constants.has('version'))
  assert.notEqual(document['version']?.key, undefined)
  const { authz } = members(data)
  assert.equal(authz?.key, constants.get('authz'))
  const { roles } = members(authz?.value ?? 0)
  assert.ok(constants.has('roles'))
  assert.equal(roles?.key, constants.get('roles'))
})

/** What may be different each time. */
const RANDOM = /rand|uuid/
const isSteady = ({ builtins }: PolicyMaterial) =>
  !Object.values(builtins).some((one) => RANDOM.test(one))

describe('an entrypoint says the same of values as of text', () => {
  for (const [i, material] of materials.entries()) {
    if (!isSteady(material)) continue
    test(nameOf(material, i), () => {
      const [one, other] = [new PolicyHost(material), new PolicyHost(material)]
      const said = (outcome: EvaluationOutcome) => JSON.stringify(outcome)
      fc.assert(
        fc.property(anyRequest, (asked) => {
          const text = orError(() => buildInput(asked))
          const isWritten = orError(() => one.write(whole.templateOf(asked.connection), asked))
          if (typeof isWritten === 'string') return assert.equal(isWritten, text)
          if (!isWritten) return
          const asText = other.evaluate(text, NOW_MS)
          const asValues = one.evaluateWritten(NOW_MS)
          // What reading the text would have cost is left for the rules.
          if (asText.kind !== 'timeout') assert.equal(said(asValues), said(asText))
        }),
        { numRuns: 40 },
      )
    })
  }
})

test('the engine says of a request what the oracle says of its document', async () => {
  const { loadPolicySync } = createRequire(import.meta.url)('@open-policy-agent/opa-wasm') as {
    loadPolicySync(wasm: Buffer): {
      setData(data: unknown): void
      evaluate(input: unknown, entrypoint: number): { result: unknown }[]
    }
  }
  for (const url of [SAMPLE_BUNDLE, bundleUrl('oracle'), bundleUrl('result')]) {
    const entries = await unpackFile(url)
    const read = readBundle(entries, 'bundle')
    assert.ok(read.kind === 'bundle')
    const oracle = loadPolicySync(entries.get('policy.wasm') as Buffer)
    oracle.setData(JSON.parse(read.bundle.dataJson))
    const policy = { ...(await loadMaterial(url)), reads: 'all' as const }
    const engine = new PolicyEngine({ allow: [], policy, clock: { nowMs: () => NOW_MS } })
    fc.assert(
      fc.property(anyRequest, (asked) => {
        const text = orError(() => buildInput(asked))
        const { evaluation } = engine.decide(asked)
        if (text.startsWith('InputError'))
          return assert.equal(`InputError: ${evaluation.error}`, text)
        // Half a surrogate pair is the end of the oracle.
        if (/\\ud[89a-f]/.test(text)) return assert.equal(evaluation.outcome, 'error')
        const [expected] = oracle.evaluate(JSON.parse(text), policy.entrypointId)
        assert.deepEqual(evaluation.result && JSON.parse(evaluation.result), expected?.result)
      }),
      { numRuns: 150 },
    )
  }
})

describe('an evaluation changes nothing of what it is given', () => {
  for (const [i, material] of materials.entries()) {
    test(nameOf(material, i), () => {
      const { input, values, constants, evaluate } = bare(material)
      const atFirst = Buffer.from(constants())
      fc.assert(
        fc.property(anyRequest, (asked) => {
          const isWritten = orError(() =>
            input.write(whole.templateOf(asked.connection), asked, material.entrypointId),
          )
          if (isWritten !== true) return
          const before = Buffer.from(values())
          evaluate()
          const after = Buffer.from(values())
          // The result has its place in the context.
          const result = input.context - material.data.values + 8
          before.fill(0, result, result + 4)
          after.fill(0, result, result + 4)
          assert.ok(before.equals(after))
          assert.ok(constants().equals(atFirst))
        }),
        { numRuns: 10 },
      )
    })
  }
})

test('what has no place, or would take long to put in its place, goes as text', async () => {
  const host = new PolicyHost(await loadMaterial(SAMPLE_BUNDLE))
  const isWritten = (more: Partial<PolicyRequest>, target = '/api/orders') => {
    const asked = request(target, more)
    return host.write(whole.templateOf(asked.connection), asked)
  }
  assert.equal(isWritten({}), true)
  assert.equal(isWritten({ fields: ['x', 'a'.repeat(8 * 1024)] }), true)
  assert.equal(isWritten({ fields: ['x', 'a'.repeat(64 * 1024)] }), false)
  assert.equal(isWritten({ fields: COLLIDING.flatMap((one) => [one, '']) }), false)
  assert.equal(isWritten({ fields: ['x', '\ud800'] }), false)
  assert.equal(isWritten({}, '/a'.repeat(64)), true)
  assert.equal(isWritten({}, '/a'.repeat(65)), false)
  assert.equal(
    isWritten({ connection: connection({ ...peer('web'), principal: 'x'.repeat(40_000) }) }),
    false,
  )
})

test('the writer writes nowhere but in its place', async () => {
  const material = await loadMaterial(SAMPLE_BUNDLE)
  const { values: from } = material.data
  const memory = new ArrayBuffer(from + 2 * VALUE_BYTES)
  const input = new ValueInput(material.data)
  new Uint8Array(memory).fill(0xa5)
  input.begin(memory)
  fc.assert(
    fc.property(anyRequest, fc.nat({ max: 60_000 }), (asked, size) => {
      const fields = [...asked.fields, 'x-size', 'é'.repeat(size / 2), 'x-other', 'a'.repeat(size)]
      orError(() => input.write(whole.templateOf(asked.connection), { ...asked, fields }, 0))
    }),
    { numRuns: 2_000 },
  )
  const bytes = Buffer.from(memory)
  const isUntouched = (part: Buffer) => part.every((byte) => byte === 0xa5)
  assert.ok(isUntouched(bytes.subarray(0, from)))
  assert.ok(isUntouched(bytes.subarray(from + VALUE_BYTES)))
})

test('a table has as many buckets as one has that grew', () => {
  let buckets = 8
  for (let keys = 1; keys <= 5_000; keys++) {
    if (keys > buckets * 0.7) buckets *= 2
    assert.equal(bucketsFor(keys), buckets)
  }
})

describe('a module of which anything is other than it should be is given text', () => {
  const proves = async (
    change: (exports: Record<string, unknown>) => object,
    constantsOf = ({ constants }: MemoryImage) => constants,
  ) => {
    const { module, data } = await loadMaterial(SAMPLE_BUNDLE)
    const memory = new WebAssembly.Memory({ initial: data.pages, maximum: 1_024 })
    const env: Record<string, unknown> = { memory, opa_abort: () => assert.fail() }
    for (let i = 0; i <= 4; i++) env[`opa_builtin${i}`] = () => 0
    const { exports } = new WebAssembly.Instance(module, { env })
    const changed = { ...exports, ...change({ ...exports }) } as unknown as ProofExports
    return provesLayout(changed, memory, data, constantsOf(data))
  }
  test('as it should be', async () => {
    assert.equal(await proves(() => ({})), true)
  })
  for (const [what, change] of [
    ['no eval', () => ({ eval: undefined })],
    ['no dump', () => ({ opa_json_dump: undefined })],
    [
      'fields of the context',
      (exports) => ({ opa_eval_ctx_set_input: exports['opa_eval_ctx_set_data'] }),
    ],
    ['a parser that reads less', (exports) => ({ opa_json_parse: shorter(exports) })],
    ['a parser that gives no value', () => ({ opa_json_parse: () => 0xffff_fff0 })],
    ['results of another kind', (exports) => ({ opa_value_parse: exports['opa_json_parse'] })],
    ['no end', () => ({ opa_json_dump: spin })],
  ] as const satisfies readonly (readonly [string, Parameters<typeof proves>[0]])[]) {
    test(what, async () => {
      assert.equal(await proves(change), false)
    })
  }
  for (const [what, wrong] of [
    ['a constant that says something else', (address: number) => address + SIZE.string],
    ['a constant that is no string', (address: number) => address - 1],
  ] as const) {
    test(what, async () => {
      const constantsOf = ({ constants }: MemoryImage) => {
        const [text, address] = [...constants].at(3) as [string, number]
        return new Map([...constants, [text, wrong(address)]])
      }
      assert.equal(await proves(() => ({}), constantsOf), false)
    })
  }
  const shorter = (exports: Record<string, unknown>) => (address: number, length: number) =>
    (exports['opa_json_parse'] as (address: number, length: number) => number)(address + 9, length)
  function spin(): never {
    throw new WebAssembly.RuntimeError('unreachable')
  }
})
