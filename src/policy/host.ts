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
import { type Entry, type EntryExports, entryOf } from './entry.ts'
import { INPUT_BYTES, PAGE } from './image.ts'
import type { RequestFacts } from './input.ts'
import type { PolicyMaterial } from './material.ts'
import type { Template } from './projection.ts'
import { FUEL_EXPORT, STACK_POINTER_EXPORT, STACK_TOP } from './rewrite.ts'
import { ValueInput } from './value-input.ts'
import { simpleResult } from './value-layout.ts'

export type EvaluationOutcome =
  /** The value of the entrypoint as JSON text. */
  | { readonly kind: 'result'; readonly text: string }
  | { readonly kind: 'undefined' }
  | { readonly kind: 'too_large' }
  /** The budget of fuel or memory was used up. */
  | { readonly kind: 'timeout'; readonly what: 'fuel' | 'memory' }
  | { readonly kind: 'error'; readonly reason: string }

export { INPUT_BYTES } from './image.ts'

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

/** Data up to this size is copied anew into the memory of an instance that takes the place of one. */
const COPIED_ANEW = 1024 * 1024

export class PolicyHost {
  readonly #material: PolicyMaterial
  readonly #recycled: () => void
  readonly #caches = {
    regexes: new BoundedCache<Regex>(100),
    jwtKeys: new BoundedCache<JwtKeys>(100),
  }
  #memory: WebAssembly.Memory | undefined
  /** How much of the data is in it. */
  #copied = 0
  #shrunkAtMs = Number.NEGATIVE_INFINITY
  readonly #shrinkAboveBytes: number
  #instance: Instance | undefined
  readonly #values: ValueInput | undefined

  constructor(material: PolicyMaterial, recycled: () => void = () => {}) {
    this.#material = material
    this.#recycled = recycled
    this.#values = material.data.values === 0 ? undefined : new ValueInput(material.data)
    const atFirst = material.data.pages * PAGE
    this.#shrinkAboveBytes = this.#isSmall
      ? atFirst + Math.max(this.#maximumPages * PAGE - atFirst, 0) / 2
      : Number.POSITIVE_INFINITY
  }

  get memoryBytes(): number {
    return this.#instance?.memoryBytes ?? this.#memory?.buffer.byteLength ?? 0
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
   * Does a part of what has to be done before the first evaluation, which does all that is left.
   * @param bytes of the data, at most
   * @returns whether all is done
   */
  prepare(bytes: number): boolean {
    if (this.#instance !== undefined) return true
    const { data } = this.#material
    this.#memory ??= memoryOf(Math.min(data.pages, this.#maximumPages), this.#maximumPages)
    const length = Math.min(bytes, data.bytes.byteLength - this.#copied)
    const from = new Uint8Array(data.bytes, this.#copied, length)
    new Uint8Array(this.#memory.buffer).set(from, data.from + this.#copied)
    this.#copied += length
    if (this.#copied < data.bytes.byteLength) return false
    this.#instance = new Instance(this.#material, this.#memory, this.#caches, this.#values)
    return true
  }

  /**
   * Puts the input for `evaluateWritten` into memory, without a text being made of it.
   * @returns false where only `evaluate` can be used
   * @throws InputError
   */
  write(template: Template, request: RequestFacts): boolean {
    if (this.#values === undefined || !this.#isThere()) return false
    return (this.#instance as Instance).write(template, request)
  }

  /** False where there can be no instance, which `evaluate` then says. */
  #isThere(): boolean {
    try {
      return this.prepare(Number.POSITIVE_INFINITY)
    } catch {
      return false
    }
  }

  /** What `write` wrote; like `evaluate`, and once. */
  evaluateWritten(nowMs: number): EvaluationOutcome {
    return this.#evaluate(undefined, nowMs, this.#material.entrypointId)
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
    return this.#evaluate(input, nowMs, entrypoint)
  }

  /** @param input undefined: what has been written */
  #evaluate(input: string | undefined, nowMs: number, entrypoint: number): EvaluationOutcome {
    try {
      if (this.#instance === undefined) this.prepare(Number.POSITIVE_INFINITY)
      const instance = this.#instance as Instance
      const outcome =
        input === undefined
          ? instance.evaluateWritten(nowMs)
          : instance.evaluate(input, nowMs, entrypoint)
      if (this.#shouldShrink(nowMs)) this.#recycle(nowMs)
      return outcome
    } catch (error) {
      const outcome = outcomeOf(error, this.#instance)
      this.#recycle(nowMs)
      return outcome
    }
  }

  /**
   * Memory may be used again: a new instance writes what is its own anew, and no evaluation, whether
   * it ended or not, writes into data. Little of that is copied again all the same; of much it would
   * be a pause that a client can cause.
   */
  #recycle(nowMs: number): void {
    this.#instance = undefined
    if (this.#shouldShrink(nowMs)) {
      this.#memory = undefined
      this.#shrunkAtMs = nowMs
    }
    if (this.#memory === undefined || this.#isSmall) this.#copied = 0
    this.#recycled()
  }

  /** True where evaluations took more than half of what they may, and not long after the last time. */
  #shouldShrink(nowMs: number): boolean {
    if (this.memoryBytes <= this.#shrinkAboveBytes) return false
    return nowMs - this.#shrunkAtMs >= SHRINK_INTERVAL_MS
  }

  get #isSmall(): boolean {
    return this.#material.data.bytes.byteLength <= COPIED_ANEW
  }

  get #maximumPages(): number {
    return Math.floor(this.#material.memoryBytes / PAGE)
  }
}

/** V8 makes a large memory in 5 ms and more, and collects garbage; it grows one in 0.1 ms (Node 26). */
function memoryOf(pages: number, maximum: number): WebAssembly.Memory {
  const memory = new WebAssembly.Memory({ initial: 0, maximum })
  memory.grow(pages)
  return memory
}

interface Exports extends EntryExports {
  readonly opa_json_dump: (address: number) => number
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
  readonly opa_value_parse: (address: number, length: number) => number
  readonly opa_value_dump: (address: number) => number
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
  /** Of values. */
  readonly #enter: Entry | undefined
  readonly #context: BuiltinContext
  readonly #values: ValueInput | undefined
  #nowMs = 0
  #view: Buffer
  #words: Uint32Array

  /** @param memory with the data in it; what else is in it is left from the instance before */
  constructor(
    material: PolicyMaterial,
    memory: WebAssembly.Memory,
    caches: Pick<BuiltinContext, 'regexes' | 'jwtKeys'>,
    values: ValueInput | undefined,
  ) {
    this.#material = material
    this.#values = values
    this.#memory = memory
    this.#view = Buffer.from(memory.buffer)
    this.#words = new Uint32Array(memory.buffer)
    // Stack and static variables begin as in new memory. The start function then reads how much of
    // it there is, so that what has grown before is used again.
    this.#view.fill(0, 0, material.data.start)
    const instance = new WebAssembly.Instance(material.module, { env: this.#imports() })
    this.#exports = instance.exports as unknown as Exports
    this.fuel = this.#exports[FUEL_EXPORT]
    this.#stackPointer = this.#exports[STACK_POINTER_EXPORT]
    this.#enter = values && entryOf(this.#exports, memory)
    const timeNs = () => this.#timeNs()
    this.#context = {
      get timeNs() {
        return timeNs()
      },
      ...caches,
      drawn: new Map(),
      spend: (iterations) => this.#spend(iterations),
    }
    values?.begin(memory.buffer)
  }

  get memoryBytes(): number {
    return this.#bytes().length
  }

  evaluate(input: string, nowMs: number, entrypoint: number): EvaluationOutcome {
    const length = this.#writeInput(input)
    if (length < 0) return TOO_LARGE
    const { data } = this.#material
    this.#start(nowMs)
    const result = this.#exports.opa_eval(
      0,
      entrypoint,
      data.data,
      data.input,
      length,
      data.heap,
      FORMAT_JSON,
    )
    return this.#readResult(result)
  }

  write(template: Template, request: RequestFacts): boolean {
    this.#bytes()
    return this.#values?.write(template, request, this.#material.entrypointId) ?? false
  }

  evaluateWritten(nowMs: number): EvaluationOutcome {
    const { heap } = this.#material.data
    const { context } = this.#values as ValueInput
    this.#forget(nowMs)
    const result = (this.#enter as Entry)(context, heap, this.#material.fuel)
    if (result === 0) return { kind: 'error', reason: 'the module failed' }
    const bytes = this.#bytes()
    switch (simpleResult(bytes, this.#words, result)) {
      case true:
        return TRUE
      case false:
        return FALSE
      case 'none':
        return UNDEFINED
    }
    return this.#readResult(this.#exports.opa_json_dump(result))
  }

  #start(nowMs: number): void {
    this.#stackPointer.value = STACK_TOP
    this.fuel.value = this.#material.fuel
    this.#forget(nowMs)
  }

  #forget(nowMs: number): void {
    this.#nowMs = nowMs
    this.hasReadTime = false
    if (this.#context.drawn.size > 0) this.#context.drawn.clear()
  }

  #timeNs(): bigint {
    this.hasReadTime = true
    return BigInt(Math.floor(this.#nowMs * 1000)) * 1000n
  }

  #writeInput(input: string): number {
    // At most three bytes for each UTF-16 unit; only a text near the limit has to be measured.
    if (input.length * 3 > INPUT_BYTES && Buffer.byteLength(input) > INPUT_BYTES) return -1
    return this.#bytes().write(input, this.#material.data.input, INPUT_BYTES, 'utf8')
  }

  #readResult(address: number): EvaluationOutcome {
    const bytes = this.#bytes()
    // `[{"result":true}]` and `[{"result":false}]` are known by length and two letters.
    if (bytes[address + 1] === 0x7b) {
      const letter = bytes[address + 11]
      if (letter === 0x74 && bytes[address + 17] === 0) return TRUE
      if (letter === 0x66 && bytes[address + 18] === 0) return FALSE
    }
    const end = bytes.indexOf(0, address)
    const length = end - address
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
    return this.#parse(writeValue(result, this.#context.spend))
  }

  #dump(address: number): RegoValue {
    const dumped = this.#exports.opa_value_dump(address)
    const text = this.#text(dumped)
    this.#exports.opa_free(dumped)
    this.#spend(2 * text.length)
    return readValue(text)
  }

  #parse(text: string): number {
    const length = Buffer.byteLength(text)
    const address = this.#exports.opa_malloc(length)
    this.#bytes().write(text, address, length, 'utf8')
    return this.#exports.opa_value_parse(address, length)
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
    if (this.#view.length === 0) {
      this.#view = Buffer.from(this.#memory.buffer)
      this.#words = new Uint32Array(this.#memory.buffer)
      this.#values?.use(this.#memory.buffer)
    }
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
