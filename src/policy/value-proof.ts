// Proves of a module that its values lie in memory as value-layout.ts says, and that it takes them as
// an input: what our writer writes is compared with what the module's own parser makes of the same
// text. A module of which it is not proven is given text.
import { type Constants, NO_CONSTANTS } from './constants.ts'
import { FUEL_EXPORT } from './rewrite.ts'
import { isSameValue, simpleResult } from './value-layout.ts'
import { type Json, SHARED_BYTES, ValueWriter } from './value-writer.ts'

export interface ProofExports {
  readonly opa_json_parse: (address: number, length: number) => number
  readonly opa_value_parse: (address: number, length: number) => number
  readonly opa_json_dump: (address: number) => number
  readonly opa_heap_ptr_set: (address: number) => void
  readonly opa_eval_ctx_new: () => number
  readonly opa_eval_ctx_set_input: (context: number, value: number) => void
  readonly opa_eval_ctx_set_data: (context: number, value: number) => void
  readonly opa_eval_ctx_set_entrypoint: (context: number, entrypoint: number) => void
  readonly opa_eval_ctx_get_result: (context: number) => number
  readonly eval: (context: number) => number
  readonly [FUEL_EXPORT]: WebAssembly.Global
}

/** `opa_eval_ctx_t`: `wasm/src/context.h` of OPA. */
export const CONTEXT = { input: 0, data: 4, result: 8, entrypoint: 12, size: 16 } as const

interface Places {
  readonly input: number
  readonly values: number
  readonly heap: number
}

const FUNCTIONS = [
  'opa_json_parse',
  'opa_value_parse',
  'opa_json_dump',
  'opa_heap_ptr_set',
  'opa_eval_ctx_new',
  'opa_eval_ctx_set_input',
  'opa_eval_ctx_set_data',
  'opa_eval_ctx_set_entrypoint',
  'opa_eval_ctx_get_result',
  'eval',
] as const

/**
 * @param exports of an instance that is of no further use. Whatever it does, this ends and does not throw.
 * @param constants what is shared with the module, which is proven as well
 */
export function provesLayout(
  exports: ProofExports,
  memory: WebAssembly.Memory,
  places: Places,
  constants: Constants,
): boolean {
  if (FUNCTIONS.some((name) => typeof exports[name] !== 'function')) return false
  try {
    exports[FUEL_EXPORT].value = PROOF_FUEL
    return (
      provesValues(exports, memory, places, sampleOfValues(), NO_CONSTANTS) &&
      provesValues(exports, memory, places, sampleOf(constants), constants) &&
      provesContext(exports, memory, places) &&
      provesResults(exports, memory, places)
    )
  } catch {
    // Out of fuel or memory, or wrong in some other way: it may not be relied on.
    return false
  }
}

const PROOF_FUEL = 2_000_000

function provesValues(
  exports: ProofExports,
  memory: WebAssembly.Memory,
  { input, values, heap }: Places,
  sample: Json,
  constants: Constants,
): boolean {
  const text = JSON.stringify(sample)
  exports.opa_heap_ptr_set(heap)
  const length = Buffer.from(memory.buffer).write(text, input, 'utf8')
  const parsed = exports.opa_json_parse(input, length)
  const writer = new ValueWriter(values, constants)
  writer.use(memory.buffer)
  writer.writeShared()
  writer.start(values + SHARED_BYTES, values + SHARED_BYTES + SAMPLE_BYTES)
  const written = writer.json(sample)
  if (writer.full || !isSameValue(new DataView(memory.buffer), written, parsed)) return false
  const [one, two] = [written, parsed].map((value) => {
    const dumped = exports.opa_json_dump(value)
    const bytes = Buffer.from(memory.buffer)
    return bytes.toString('latin1', dumped, bytes.indexOf(0, dumped))
  })
  return one === two
}

function provesContext(
  exports: ProofExports,
  memory: WebAssembly.Memory,
  { heap }: Places,
): boolean {
  exports.opa_heap_ptr_set(heap)
  const context = exports.opa_eval_ctx_new()
  exports.opa_eval_ctx_set_input(context, 0x1111)
  exports.opa_eval_ctx_set_data(context, 0x2222)
  exports.opa_eval_ctx_set_entrypoint(context, 0x3333)
  const view = new DataView(memory.buffer)
  view.setUint32(context + CONTEXT.result, 0x4444, true)
  return (
    view.getUint32(context + CONTEXT.input, true) === 0x1111 &&
    view.getUint32(context + CONTEXT.data, true) === 0x2222 &&
    view.getUint32(context + CONTEXT.entrypoint, true) === 0x3333 &&
    exports.opa_eval_ctx_get_result(context) === 0x4444
  )
}

function provesResults(
  exports: ProofExports,
  memory: WebAssembly.Memory,
  { input, heap }: Places,
): boolean {
  return RESULTS.every(([literal, expected]) => {
    exports.opa_heap_ptr_set(heap)
    const length = Buffer.from(memory.buffer).write(literal, input, 'utf8')
    const set = exports.opa_value_parse(input, length)
    const { buffer } = memory
    return simpleResult(new Uint8Array(buffer), new Uint32Array(buffer), set) === expected
  })
}

const RESULTS = [
  ['set()', 'none'],
  ['{{"result":true}}', true],
  ['{{"result":false}}', false],
  ['{{"result":null}}', undefined],
  ['{{"result":1}}', undefined],
  ['{{"result":"true"}}', undefined],
  ['{{"result":{"allowed":true}}}', undefined],
  ['{{"result":true},{"result":false}}', undefined],
] as const

const numbered = (count: number, name = 'key') =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${name}-${i}`, i]))

/** Every kind of value, every number of buckets that there can be, chains, and what has to be escaped. */
const sampleOfValues = (): Json => ({
  text: ['', 'a', '"\\/\b\f\n\r\t\u0000\u001f\u007f', 'é\u2028\uffff😀', 'x'.repeat(300)],
  numbers: [0, -1, 1.5, 1e21, 65_535, Number.MAX_SAFE_INTEGER],
  literals: [true, false, null, [], {}, [[]], { '': {} }],
  long: Array.from({ length: 64 }, (_, i) => String(i)),
  nested: { a: { b: { c: { d: [{ e: 'f' }] } } } },
  keys: { é: 1, '😀': 2, '"': 3, '\n': 4, a: 5, ab: 6, abc: 7, b: 8 },
  ...Object.fromEntries(
    [5, 6, 11, 12, 22, 23, 44, 45, 89, 90, 179, 180].map((n) => [`of ${n}`, numbered(n)]),
  ),
})
const SAMPLE_BYTES = 60 * 1024

/** As many as there can be have a place, and no object has too long a chain. */
const CONSTANTS_OF_AN_OBJECT = 8

/** Each as a key and as a value. */
function sampleOf(constants: Constants): Json {
  const all = [...constants.keys()]
  return Array.from({ length: Math.ceil(all.length / CONSTANTS_OF_AN_OBJECT) }, (_, i) => {
    const some = all.slice(i * CONSTANTS_OF_AN_OBJECT, (i + 1) * CONSTANTS_OF_AN_OBJECT)
    return Object.fromEntries(some.map((text) => [text, text]))
  })
}
