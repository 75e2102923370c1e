// Runs a policy module: one instance at a time, its memory, its builtins, its budget. Promises an
// outcome for every input, never an exception, and that no input harms the evaluations after it.
// ABI 1.x of OPA's wasm modules (openpolicyagent.org/docs/wasm).

import { BoundedCache } from './builtins/bounded-cache.ts'
import type { Builtin, BuiltinContext } from './builtins/builtin.ts'
import { BuiltinError, FuelSpent } from './builtins/builtin.ts'
import type { JwtKeys } from './builtins/jwt-keys.ts'
import type { Regex } from './builtins/regex.ts'
import { BUILTINS } from './builtins/table.ts'
import { type RegoValue, readValue, writeValue } from './builtins/value.ts'
import type { PolicyMaterial } from './material.ts'
import { FUEL_EXPORT, STACK_POINTER_EXPORT, STACK_TOP } from './rewrite.ts'

export type EvaluationOutcome =
  /** The value of the entrypoint as JSON text. */
  | { readonly kind: 'result'; readonly text: string }
  | { readonly kind: 'undefined' }
  | { readonly kind: 'too_large' }
  /** The budget of fuel or memory was used up. */
  | { readonly kind: 'timeout'; readonly what: 'fuel' | 'memory' }
  | { readonly kind: 'error'; readonly reason: string }

/** Bytes that an input document may have: its place in memory is reserved, so nothing grows. */
export const INPUT_BYTES = 256 * 1024

const PAGE = 65_536
/** What `opa build` itself assumes; the rest is grown on demand. */
const INITIAL_PAGES = 32
/** A result is small; a larger one is a mistake that would cost time at every request. */
const MAX_RESULT_BYTES = 256 * 1024
const FORMAT_JSON = 0
const TRUE: EvaluationOutcome = { kind: 'result', text: 'true' }
const FALSE: EvaluationOutcome = { kind: 'result', text: 'false' }
const UNDEFINED: EvaluationOutcome = { kind: 'undefined' }
const OUT_OF_FUEL: EvaluationOutcome = { kind: 'timeout', what: 'fuel' }
const OUT_OF_MEMORY: EvaluationOutcome = { kind: 'timeout', what: 'memory' }
const TOO_LARGE: EvaluationOutcome = { kind: 'too_large' }
const RESULT_START = '[{"result":'
const RESULT_END = '}]'
/**
 * Memory never shrinks, so that one large evaluation would be paid for until the next reload. But V8
 * is slow to give back what is dropped (measured: 1.8 GB after 400 traps in a row at 64 MB each), so
 * that it is replaced seldom, and kept from instance to instance in between.
 */
const SHRINK_INTERVAL_MS = 60_000
/** What the module says when memory may not grow any more. */
const MALLOC_FAILED = 'opa_malloc: failed'

export class PolicyHost {
  readonly #material: PolicyMaterial
  readonly #recycled: () => void
  readonly #caches = {
    regexes: new BoundedCache<Regex>(100),
    jwtKeys: new BoundedCache<JwtKeys>(100),
  }
  /** Memory as it is before the first evaluation: a new instance needs no reading of data. */
  #image: MemoryImage | undefined
  #memory: WebAssembly.Memory | undefined
  #shrunkAtMs = Number.NEGATIVE_INFINITY
  #instance: Instance | undefined

  constructor(material: PolicyMaterial, recycled: () => void = () => {}) {
    this.#material = material
    this.#recycled = recycled
  }

  get memoryBytes(): number {
    return this.#memory?.buffer.byteLength ?? 0
  }

  /** Whether the last evaluation asked what time it is. */
  get hasReadTime(): boolean {
    return this.#instance?.hasReadTime ?? true
  }

  /** Loop iterations and calls that the last evaluation used. */
  get fuelUsed(): number {
    const left = this.#instance?.fuel.value ?? 0
    return this.#material.fuel - Math.max(left, 0)
  }

  /**
   * @param input JSON text of the input document, well-formed and an object.
   * @param nowMs time of the request, which is the time of the whole evaluation.
   * @param entrypoint another one of the module than the one that decides.
   */
  evaluate(
    input: string,
    nowMs: number,
    entrypoint = this.#material.entrypointId,
  ): EvaluationOutcome {
    let instance = this.#instance
    try {
      instance = this.#instance ??= this.#newInstance()
      const outcome = instance.evaluate(input, nowMs, entrypoint)
      if (this.#shouldShrink(nowMs)) this.#recycle(nowMs)
      return outcome
    } catch (error) {
      const outcome = outcomeOf(error, instance)
      this.#recycle(nowMs)
      return outcome
    }
  }

  #recycle(nowMs: number): void {
    this.#instance = undefined
    if (this.#image === undefined) {
      this.#memory = undefined
    } else if (this.#shouldShrink(nowMs)) {
      this.#memory = undefined
      this.#shrunkAtMs = nowMs
    }
    this.#recycled()
  }

  /** True where evaluations took more than half of what they may, and not long after the last time. */
  #shouldShrink(nowMs: number): boolean {
    if (this.#image === undefined || nowMs - this.#shrunkAtMs < SHRINK_INTERVAL_MS) return false
    const atFirst = this.#image.pages * PAGE
    return this.memoryBytes - atFirst > Math.max(this.#maximumPages * PAGE - atFirst, 0) / 2
  }

  #newInstance(): Instance {
    const maximum = this.#maximumPages
    const initial = this.#image?.pages ?? Math.min(INITIAL_PAGES, maximum)
    this.#memory ??= new WebAssembly.Memory({ initial, maximum })
    const instance = new Instance(this.#material, this.#memory, this.#caches, this.#image)
    this.#image ??= instance.image()
    return instance
  }

  get #maximumPages(): number {
    return Math.floor(this.#material.memoryBytes / PAGE)
  }
}

interface MemoryImage {
  /** From where the heap begins to where evaluations may write. */
  readonly bytes: Buffer
  readonly start: number
  readonly pages: number
  readonly data: number
  readonly input: number
  readonly heap: number
}

interface Exports {
  readonly opa_eval: (
    reserved: number,
    entrypoint: number,
    data: number,
    input: number,
    inputLength: number,
    heap: number,
    format: number,
  ) => number
  readonly opa_malloc: (size: number) => number
  readonly opa_free: (address: number) => void
  readonly opa_json_parse: (address: number, length: number) => number
  readonly opa_value_parse: (address: number, length: number) => number
  readonly opa_value_dump: (address: number) => number
  readonly opa_heap_ptr_get: () => number
  readonly [FUEL_EXPORT]: WebAssembly.Global
  readonly [STACK_POINTER_EXPORT]: WebAssembly.Global
}

/** `opa_abort`: the module gave up, with a sentence. */
class PolicyAbort extends Error {
  override readonly name = 'PolicyAbort'
}

class Instance {
  readonly fuel: WebAssembly.Global
  hasReadTime = false
  readonly #material: PolicyMaterial
  readonly #memory: WebAssembly.Memory
  readonly #exports: Exports
  readonly #stackPointer: WebAssembly.Global
  readonly #context: BuiltinContext
  #nowMs = 0
  readonly #data: number
  readonly #input: number
  readonly #heap: number
  readonly #start: number
  #view: Buffer

  constructor(
    material: PolicyMaterial,
    memory: WebAssembly.Memory,
    caches: Pick<BuiltinContext, 'regexes' | 'jwtKeys'>,
    image: MemoryImage | undefined,
  ) {
    this.#material = material
    this.#memory = memory
    this.#view = Buffer.from(memory.buffer)
    // Memory may be used: stack and static variables begin as in a new one. The start function then
    // reads how much of it there is, so that what has grown before is used again.
    if (image !== undefined) this.#view.fill(0, 0, image.start)
    const instance = new WebAssembly.Instance(material.module, { env: this.#imports() })
    this.#exports = instance.exports as unknown as Exports
    this.fuel = this.#exports[FUEL_EXPORT]
    this.#stackPointer = this.#exports[STACK_POINTER_EXPORT]
    const timeNs = () => this.#timeNs()
    this.#context = {
      get timeNs() {
        return timeNs()
      },
      ...caches,
      spend: (iterations) => this.#spend(iterations),
    }
    this.#start = this.#exports.opa_heap_ptr_get()
    if (image === undefined) {
      // Reading data is not a request: it has a budget of its own size.
      this.fuel.value = 0x7fff_ffff
      this.#input = this.#exports.opa_malloc(INPUT_BYTES)
      this.#data = this.#parse(material.dataJson, this.#exports.opa_json_parse)
      if (this.#data === 0) throw new PolicyAbort('the data document is not JSON')
      this.#heap = (this.#exports.opa_heap_ptr_get() + 15) & ~15
    } else {
      image.bytes.copy(this.#bytes(), image.start)
      this.#input = image.input
      this.#data = image.data
      this.#heap = image.heap
    }
  }

  image(): MemoryImage {
    return {
      bytes: Buffer.from(this.#bytes().subarray(this.#start, this.#heap)),
      start: this.#start,
      pages: this.#memory.buffer.byteLength / PAGE,
      data: this.#data,
      input: this.#input,
      heap: this.#heap,
    }
  }

  evaluate(input: string, nowMs: number, entrypoint: number): EvaluationOutcome {
    const length = this.#writeInput(input)
    if (length < 0) return TOO_LARGE
    this.#stackPointer.value = STACK_TOP
    this.fuel.value = this.#material.fuel
    this.#nowMs = nowMs
    this.hasReadTime = false
    const result = this.#exports.opa_eval(
      0,
      entrypoint,
      this.#data,
      this.#input,
      length,
      this.#heap,
      FORMAT_JSON,
    )
    return this.#readResult(result)
  }

  #timeNs(): bigint {
    this.hasReadTime = true
    return BigInt(Math.floor(this.#nowMs * 1000)) * 1000n
  }

  #writeInput(input: string): number {
    // At most three bytes for each UTF-16 unit; only a text near the limit has to be measured.
    if (input.length * 3 > INPUT_BYTES && Buffer.byteLength(input) > INPUT_BYTES) return -1
    return this.#bytes().write(input, this.#input, INPUT_BYTES, 'utf8')
  }

  #readResult(address: number): EvaluationOutcome {
    const bytes = this.#bytes()
    const end = bytes.indexOf(0, address)
    const length = end - address
    // `[{"result":true}]` and `[{"result":false}]` are known by length and one letter.
    if (length === 17 && bytes[address + 11] === 0x74) return TRUE
    if (length === 18 && bytes[address + 11] === 0x66) return FALSE
    if (length === 2) return UNDEFINED
    if (length > MAX_RESULT_BYTES) return { kind: 'error', reason: 'the result is too large' }
    const text = bytes.toString('utf8', address, end)
    if (!text.startsWith(RESULT_START) || !text.endsWith(RESULT_END)) {
      return { kind: 'error', reason: 'the module gave no result set' }
    }
    return { kind: 'result', text: text.slice(RESULT_START.length, -RESULT_END.length) }
  }

  #imports(): Record<string, unknown> {
    const functions = builtinsById(this.#material)
    const call = (id: number, _context: number, ...addresses: number[]) =>
      this.#callBuiltin(functions[id], addresses)
    return {
      memory: this.#memory,
      opa_abort: (address: number) => {
        throw new PolicyAbort(this.#text(address))
      },
      opa_println: () => {},
      opa_builtin0: call,
      opa_builtin1: call,
      opa_builtin2: call,
      opa_builtin3: call,
      opa_builtin4: call,
    }
  }

  /** An error of the builtin is 0, undefined in Rego; a fault goes through and ends the evaluation. */
  #callBuiltin(builtin: Builtin | undefined, addresses: readonly number[]): number {
    if (builtin === undefined) throw new PolicyAbort('call of an unknown builtin')
    this.#spend(100)
    let result: RegoValue
    try {
      result = builtin(
        addresses.map((address) => this.#dump(address)),
        this.#context,
      )
    } catch (error) {
      if (error instanceof BuiltinError) return 0
      throw error
    }
    const text = writeValue(result)
    this.#spend(text.length)
    return this.#parse(text, this.#exports.opa_value_parse)
  }

  #dump(address: number): RegoValue {
    const dumped = this.#exports.opa_value_dump(address)
    const text = this.#text(dumped)
    this.#exports.opa_free(dumped)
    this.#spend(2 * text.length)
    return readValue(text)
  }

  #parse(text: string, parse: (address: number, length: number) => number): number {
    const length = Buffer.byteLength(text)
    const address = this.#exports.opa_malloc(length)
    this.#bytes().write(text, address, length, 'utf8')
    return parse(address, length)
  }

  #text(address: number): string {
    const bytes = this.#bytes()
    return bytes.toString('utf8', address, bytes.indexOf(0, address))
  }

  /** What is done outside of wasm is paid from the same budget. */
  #spend(iterations: number): void {
    this.fuel.value = Math.max(this.fuel.value - iterations, -1)
    if (this.fuel.value < 0) throw new FuelSpent('the evaluation budget is used up')
  }

  /** Growth detaches the buffer; wasm grows its memory itself. */
  #bytes(): Buffer {
    if (this.#view.length === 0) this.#view = Buffer.from(this.#memory.buffer)
    return this.#view
  }
}

function builtinsById(material: PolicyMaterial): readonly (Builtin | undefined)[] {
  const functions: (Builtin | undefined)[] = []
  for (const [id, name] of Object.entries(material.builtins)) {
    functions[Number(id)] = BUILTINS.get(name)
  }
  return functions
}

function outcomeOf(error: unknown, instance: Instance | undefined): EvaluationOutcome {
  if (error instanceof FuelSpent || (instance !== undefined && instance.fuel.value < 0)) {
    return OUT_OF_FUEL
  }
  if (error instanceof PolicyAbort && error.message === MALLOC_FAILED) return OUT_OF_MEMORY
  const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return { kind: 'error', reason }
}
