// Where a loop counts in a local variable it counts what it would in the global one: of random
// functions the same fuel is left, and the same of them are stopped.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FUEL_EXPORT, meterModule } from '../../src/policy/rewrite.ts'
import { SECTION, sectionsOf } from '../../src/policy/wasm-module.ts'

type Statement =
  | { readonly kind: 'block' | 'loop' | 'if'; readonly inside: readonly Statement[] }
  | { readonly kind: 'br' | 'br_if' | 'br_table'; readonly labels: readonly number[] }
  | { readonly kind: 'count' | 'call' | 'grow' | 'return' | 'unreachable' }
  | { readonly kind: 'code'; readonly bytes: readonly number[] }

const leaf: fc.Arbitrary<Statement> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({ kind: 'count' } as const) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('br_if' as const, 'br_table' as const, 'br' as const),
      labels: fc.array(fc.nat(4), { minLength: 1, maxLength: 3 }),
    }),
  },
  fc.record({
    kind: fc.constantFrom(
      'call' as const,
      'grow' as const,
      'return' as const,
      'unreachable' as const,
    ),
  }),
  // Of nothing, to make what is around it long.
  fc.nat(700).map((length) => ({ kind: 'code', bytes: Array<number>(length).fill(0x01) }) as const),
)
const { statements } = fc.letrec<{ statements: readonly Statement[]; statement: Statement }>(
  (tie) => ({
    statements: fc.array(tie('statement'), { maxLength: 4, depthIdentifier: 'nesting' }),
    statement: fc.oneof(
      { depthIdentifier: 'nesting', maxDepth: 4 },
      leaf,
      fc.record({
        kind: fc.constantFrom('loop' as const, 'loop' as const, 'block' as const, 'if' as const),
        inside: tie('statements'),
      }),
    ),
  }),
)

/** Of the parameter, which counts down: its last bits change all the time. */
const CONDITION = [0x20, 0x00, 0x41, 0x03, 0x71]

type Spend = (bytes: number) => readonly number[]
const NO_SPEND: Spend = () => []
/** Each function and round costs 1 and one more for every 512 bytes. */
const SPEND: Spend = (bytes) => {
  const cost = 1 + Math.floor(bytes / 512)
  const signed = cost < 64 ? [cost] : [(cost & 0x7f) | 0x80, cost >> 7]
  return [
    ...[0x23, 1, 0x41, ...signed, 0x6b, 0x24, 1],
    ...[0x23, 1, 0x41, 0, 0x48, 0x04, 0x40, 0x00, 0x0b],
  ]
}

/** Of what stands in no loop inside. */
const bytesOf = (list: readonly Statement[]): number =>
  codeOf(withoutLoops(list), 9, NO_SPEND).length

function withoutLoops(list: readonly Statement[]): readonly Statement[] {
  return list
    .filter(({ kind }) => kind !== 'loop')
    .map((one) => ('inside' in one ? { ...one, inside: withoutLoops(one.inside) } : one))
}

function codeOf(list: readonly Statement[], depth: number, spend: Spend): number[] {
  return list.flatMap((statement) => {
    switch (statement.kind) {
      case 'block':
        return [0x02, 0x40, ...codeOf(statement.inside, depth + 1, spend), 0x0b]
      case 'loop':
        return [
          ...[0x03, 0x40, ...spend(3 + bytesOf(statement.inside))],
          ...[...codeOf(statement.inside, depth + 1, spend), 0x0b],
        ]
      case 'if':
        return [...CONDITION, 0x04, 0x40, ...codeOf(statement.inside, depth + 1, spend), 0x0b]
      case 'count':
        return [0x20, 0x00, 0x41, 0x01, 0x6b, 0x21, 0x00]
      case 'call':
        return [0x10, 0x01]
      case 'grow':
        return [...spend(15 * 512), 0x41, 0, 0x40, 0, 0x1a]
      case 'return':
        return [0x0f]
      case 'code':
        return [...statement.bytes]
      case 'unreachable':
        return [...CONDITION, 0x45, 0x04, 0x40, 0x00, 0x0b]
      default: {
        const labels = statement.labels.map((label) => label % (depth + 1))
        const [first = 0] = labels
        if (statement.kind === 'br') return [0x0c, first]
        if (statement.kind === 'br_if') return [...CONDITION, 0x0d, first]
        return [...CONDITION, 0x0e, labels.length - 1, ...labels]
      }
    }
  })
}

const leb = (value: number): number[] =>
  value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >> 7)]
const section = (id: number, contents: readonly number[]) => [
  id,
  ...leb(contents.length),
  ...contents,
]
const name = (text: string) => [text.length, ...Buffer.from(text)]

/** With `spend` it counts itself, without it is to be metered. */
function moduleOf(list: readonly Statement[], spend: Spend): Uint8Array<ArrayBuffer> {
  const isMetered = spend !== NO_SPEND
  const fuel = [0x7f, 1, 0x41, 0, 0x0b]
  const own = [...spend(bytesOf(list) + 1), ...codeOf(list, 0, spend)]
  const bodies = [own, spend(1)].map((code) => [0, ...code, 0x0b])
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [2, 0x60, 1, 0x7f, 0, 0x60, 0, 0]),
    ...section(2, [1, ...name('env'), ...name('memory'), 2, 0, 1]),
    ...section(3, [2, 0, 1]),
    ...section(6, [
      ...[isMetered ? 2 : 1, 0x7f, 1, 0x41, 0x80, 0x80, 0x04, 0x0b],
      ...(isMetered ? fuel : []),
    ]),
    ...section(7, [
      ...[isMetered ? 2 : 1, ...name('run'), 0, 0],
      ...(isMetered ? [...name(FUEL_EXPORT), 3, 1] : []),
    ]),
    ...section(10, [2, ...bodies.flatMap((body) => [...leb(body.length), ...body])]),
  ])
}

function leftOf(bytes: Uint8Array<ArrayBuffer>, argument: number, fuel: number) {
  const env = { memory: new WebAssembly.Memory({ initial: 1 }) }
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env })
  const run = instance.exports['run'] as (argument: number) => void
  const global = instance.exports[FUEL_EXPORT] as WebAssembly.Global
  global.value = fuel
  try {
    run(argument)
    return { left: global.value }
  } catch (error) {
    assert.ok(error instanceof WebAssembly.RuntimeError)
    // What traps by itself may leave what a loop has not written back.
    return global.value < 0 ? { left: global.value } : { trapped: true }
  }
}

test('counts in a local variable what it would in the global one', () => {
  fc.assert(
    fc.property(statements, fc.nat(7), fc.nat(200), (list, argument, fuel) => {
      const metered = meterModule(moduleOf(list, NO_SPEND))
      assert.equal(metered.kind, 'rewritten')
      if (metered.kind !== 'rewritten') return
      const bytes = Uint8Array.from(metered.bytes)
      assert.deepEqual(leftOf(bytes, argument, fuel), leftOf(moduleOf(list, SPEND), argument, fuel))
    }),
    { numRuns: 2_000 },
  )
})

/** Counts the parameter down to zero. */
const COUNTING_DOWN = [0x01, 0x20, 0x00, 0x41, 0x01, 0x6b, 0x22, 0x00, 0x0d, 0x00]

test('counts the rounds of a loop, or refuses the module, whatever stands before it', () => {
  const loop = [0x03, 0x40, ...COUNTING_DOWN, 0x0b]
  const whatPrecedes = {
    nothing: [],
    // The offset 0x41 is not the opcode of i32.const, to which the loop would be an operand.
    'a load with the index of its memory': [0x41, 0, 0x28, 0x42, 0x00, 0x41],
    'a block that leaves a reference': [0x02, 0x63, 0x70, 0xd0, 0x70, 0x0b],
    'a choice between references': [0xd0, 0x70, 0xd0, 0x70, 0x41, 0, 0x1c, 1, 0x63, 0x70],
  }
  for (const [what, bytes] of Object.entries(whatPrecedes)) {
    const drop = bytes.length > 0 ? [0x1a] : []
    const module = moduleOf([{ kind: 'code', bytes: [...bytes, ...loop, ...drop] }], NO_SPEND)
    assert.ok(WebAssembly.validate(module), what)
    const metered = meterModule(module)
    if (metered.kind === 'refused') continue
    assert.deepEqual(leftOf(Uint8Array.from(metered.bytes), 1_000, 100), { left: -1 }, what)
  }
})

test('refuses types that are more than a byte, which could hide instructions', () => {
  const plain = moduleOf([], NO_SPEND)
  // The parameter of `run`: (ref null func).
  const module = Uint8Array.from([
    ...plain.subarray(0, 8),
    ...section(1, [2, 0x60, 1, 0x63, 0x70, 0, 0x60, 0, 0]),
    ...plain.subarray(8 + 2 + (plain[9] as number)),
  ])
  assert.ok(WebAssembly.validate(module))
  assert.deepEqual(meterModule(module), { kind: 'refused', reason: 'type 0x63 is not supported' })
})

test('refuses what names the counter or the fuel before they are there', () => {
  const loop = [0x03, 0x40, ...COUNTING_DOWN, 0x0b]
  const refilled = (name: readonly number[]) => [
    ...[0x03, 0x40, 0x41, 0xff, 0xff, 0x03, ...name], // loop, i32.const 65535
    ...[...COUNTING_DOWN, 0x0b],
  ]
  const allowed = meterModule(moduleOf([{ kind: 'code', bytes: loop }], NO_SPEND))
  assert.equal(allowed.kind, 'rewritten')
  for (const name of [
    [0x21, 1], // local.set: `run` has one parameter
    [0x22, 1, 0x1a], // local.tee, drop
    [0x24, 1], // global.set: the stack pointer is the only one
  ]) {
    const module = moduleOf([{ kind: 'code', bytes: refilled(name) }], NO_SPEND)
    assert.deepEqual(meterModule(module), { kind: 'refused', reason: 'it is not valid' })
  }
})

/** Of two functions. */
function exporting(exports: readonly number[][]): Uint8Array<ArrayBuffer> {
  const plain = moduleOf([], NO_SPEND)
  const own = section(7, [1, ...name('run'), 0, 0])
  const at = Buffer.from(plain).indexOf(Buffer.from(own))
  return Uint8Array.from([
    ...plain.subarray(0, at),
    ...section(7, [exports.length, ...exports.flat()]),
    ...plain.subarray(at + own.length),
  ])
}

test('refuses a module that exports the fuel before it is there', () => {
  const module = exporting([[...name('opa_wasm_abi_version'), 3, 1]])
  assert.deepEqual(meterModule(module), { kind: 'refused', reason: 'it is not valid' })
})

test('guards the function of the very name that OPA gives it', () => {
  const free = [...name('opa_free'), 0, 0]
  const alone = meterModule(exporting([free]))
  const marked = [11, 0xef, 0xbb, 0xbf, ...Buffer.from('opa_free'), 0, 1]
  const both = meterModule(exporting([free, marked]))
  assert.ok(alone.kind === 'rewritten' && both.kind === 'rewritten')
  const codeOfModule = (bytes: Uint8Array) => {
    const code = sectionsOf(bytes).find(({ id }) => id === SECTION.code)
    return Buffer.from(bytes.subarray(code?.start, code?.end))
  }
  assert.deepEqual(codeOfModule(both.bytes), codeOfModule(alone.bytes))
})

test('refuses names that are no UTF-8, and those of two exports', () => {
  const reason = (exports: readonly number[][]) => {
    const metered = meterModule(exporting(exports))
    return metered.kind === 'refused' && metered.reason
  }
  assert.equal(reason([[2, 0xc3, 0x28, 0, 0]]), 'a name is not UTF-8')
  const free = [...name('opa_free'), 0, 0]
  assert.equal(reason([free, free]), 'module exports opa_free twice')
})

test('a round of a long loop and a call of a long function cost what is in them', () => {
  const long = { kind: 'code', bytes: Array<number>(512_000).fill(0x01) } as const
  const loop = { kind: 'code', bytes: COUNTING_DOWN } as const
  const left = (list: readonly Statement[], argument: number) => {
    const metered = meterModule(moduleOf(list, NO_SPEND))
    assert.equal(metered.kind, 'rewritten')
    return metered.kind === 'rewritten' && leftOf(Uint8Array.from(metered.bytes), argument, 100_000)
  }
  const round: Statement = { kind: 'loop', inside: [long, loop] }
  assert.deepEqual(left([round], 10), { left: 100_000 - 1 - 10 * 1_001 })
  assert.deepEqual(left([long], 10), { left: 100_000 - 1_001 })
})

test('what takes longer than its length says costs more', () => {
  const left = (bytes: readonly number[]) => {
    const metered = meterModule(moduleOf([{ kind: 'code', bytes }], NO_SPEND))
    assert.equal(metered.kind, 'rewritten')
    return metered.kind === 'rewritten' && leftOf(Uint8Array.from(metered.bytes), 1, 1_000)
  }
  const repeated = (bytes: readonly number[], count: number) => Array(count).fill(bytes).flat()
  const grow = [0x41, 0, 0x40, 0, 0x1a] // i32.const 0, memory.grow, drop
  const divide = (opcode: number) => [0x41, 7, 0x41, 3, opcode, 0x1a]
  assert.deepEqual(left(repeated(grow, 10)), { left: 1_000 - 1 - 10 * 16 })
  for (const opcode of [0x6d, 0x6e, 0x6f, 0x70]) {
    const bytes = repeated(divide(opcode), 100)
    assert.deepEqual(left(bytes), { left: 1_000 - 1 - Math.floor((100 * (32 + 6) + 1) / 512) })
  }
})
