// Finds out which parts of the input document a policy can read, from the code that will run (`opa
// build` leaves the rules of the entrypoint out of the Rego that it puts into a bundle). Follows the
// input through the functions of the module: where it is only asked for a key that is a constant,
// that key is noted; whatever else happens to a part of it counts as reading all of that part. What
// cannot be followed for certain gives 'all'. So a left-out part is one that no rule can notice.
import { SECTION, type Section, sectionsOf, WasmFormatError, WasmReader } from './wasm-module.ts'

/** 'all' of a value, or of an object these keys only. A value that is no object is read whole. */
export type InputReads = 'all' | ReadonlyMap<string, InputReads>

/** @param bytes the module as `opa build` wrote it. */
export function readsOf(bytes: Uint8Array, entrypointId: number): InputReads {
  return readsByEntrypoint(bytes)(entrypointId)
}

/** The same in two steps, of which the first needs no compiled module to be asked for its entrypoints. */
export function readsByEntrypoint(bytes: Uint8Array): (entrypointId: number) => InputReads {
  const code = provable(() => new PolicyCode(bytes))
  return (entrypointId) => (code && provable(() => new Analysis(code, entrypointId).run())) ?? 'all'
}

function provable<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (error instanceof Unprovable || error instanceof WasmFormatError) return undefined
    throw error
  }
}

class Unprovable extends Error {
  override readonly name = 'Unprovable'
}

/** More would be a policy that reads its input in no ordinary way; the bounds make it end. */
const MOST_PARTS = 2_000
const DEEPEST_PART = 12
const DEEPEST_CALL = 100
const MOST_VISITS = 100_000
const MOST_STEPS = 5_000_000

/** A place in the input document. Stands for one value: that of the document as it came. */
class Part {
  whole = false
  readonly children = new Map<string, Part>()
  readonly depth: number

  constructor(depth: number) {
    this.depth = depth
  }

  reads(): InputReads {
    // Asked for and never looked into: that it is there is read, and so it stays as it is.
    if (this.whole || this.children.size === 0) return 'all'
    return new Map([...this.children].map(([key, child]) => [key, child.reads()]))
  }
}

/** What is known of a word at run time: it is 0, or the address of one of `parts`, or something else. */
interface Value {
  readonly parts: ReadonlySet<Part>
  /** It may be something else. */
  readonly other: boolean
  /** It is exactly this number. */
  readonly constant: number | undefined
  /** It may be the address of the evaluation context. */
  readonly context: boolean
}

const NO_PARTS: ReadonlySet<Part> = new Set()
const UNKNOWN: Value = { parts: NO_PARTS, other: true, constant: undefined, context: false }
const CONTEXT: Value = { ...UNKNOWN, context: true }
const ZERO: Value = { ...UNKNOWN, other: false, constant: 0 }
const constant = (value: number): Value => (value === 0 ? ZERO : { ...UNKNOWN, constant: value })
const partsOnly = (parts: ReadonlySet<Part>): Value => ({ ...ZERO, parts, constant: undefined })

function joined(one: Value, two: Value): Value {
  if (one === two) return one
  let grows = false
  for (const part of two.parts) grows ||= !one.parts.has(part)
  const other = one.other || two.other
  const constant = one.constant === two.constant ? one.constant : undefined
  const context = one.context || two.context
  const isSame =
    !grows && other === one.other && constant === one.constant && context === one.context
  if (isSame) return one
  const parts = grows ? new Set([...one.parts, ...two.parts]) : one.parts
  return { parts, other, constant, context }
}

interface FunctionType {
  readonly parameters: number
  readonly results: number
}

interface NamedFunction {
  /** With the number of its parameters, as in `opa_value_get/2`. */
  readonly signature: string
  /** The policy was compiled to it. */
  readonly isPlanned: boolean
}

/** A function that the policy was compiled to, as far as it is known by now. */
interface Planned {
  /** Where its size stands, with the code behind it. */
  readonly body: number
  readonly parameters: Value[]
  returns: Value
  readonly askedBy: Set<Planned>
}

/** The fields of `opa_eval_ctx_t` (OPA's wasm/src/context.h). */
const CONTEXT_FIELDS = { input: 0, entrypoint: 12 } as const
/** `opa_string_t` of a constant: type, length, address of the bytes (wasm/src/value.h). */
const INTERNED_STRING = 8

/** What has to be known of a module to find its functions, their types, names and constants. */
class PolicyCode {
  readonly bytes: Uint8Array
  readonly types: readonly FunctionType[]
  /** The type of each function by its place in `types`, imported ones first. */
  readonly functions: readonly number[]
  readonly imported: number
  /** Where they stand, with their sizes before them. */
  readonly bodies: readonly number[]
  readonly names: ReadonlyMap<number, number>
  readonly data: readonly { readonly address: number; readonly bytes: Uint8Array }[]
  readonly eval: number

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    const sections = sectionsOf(bytes)
    this.types = readTypes(bytes, sections)
    const imported = readImportedTypes(bytes, sections)
    this.functions = imported.concat(
      readVector(bytes, sections, SECTION.function, (reader) => reader.u32()),
    )
    this.imported = imported.length
    this.bodies = readVector(bytes, sections, SECTION.code, (reader) => {
      const at = reader.at
      reader.skip(reader.u32())
      return at
    })
    this.names = readNames(bytes, sections)
    this.data = readData(bytes, sections)
    this.eval = readExports(bytes, sections).get('eval') ?? unprovable()
  }
}

class Analysis {
  readonly #code: PolicyCode
  readonly #entrypointId: number
  readonly #root = new Part(0)
  #parts = 1
  #visits = 0
  #depth = 0
  readonly #functions = new Map<number, NamedFunction>()
  readonly #planned = new Map<number, Planned>()
  readonly #memo = new Map<number, { value: Value; readonly askedBy: Set<Planned> }>()
  readonly #strings = new Map<number, string | undefined>()
  readonly #queue = new Set<Planned>()

  constructor(code: PolicyCode, entrypointId: number) {
    this.#code = code
    this.#entrypointId = entrypointId
  }

  run(): InputReads {
    const start = this.#plannedAt(this.#code.eval)
    if (start.parameters.length !== 1) unprovable()
    start.parameters[0] = CONTEXT
    this.#queue.add(start)
    for (const planned of this.#queue) this.#visit(planned)
    // A policy that reads nothing is one that reads no key.
    return this.#root.whole || this.#root.children.size > 0 ? this.#root.reads() : new Map()
  }

  #plannedAt(index: number): Planned {
    const known = this.#planned.get(index)
    if (known !== undefined) return known
    const at = this.#code.bodies[index - this.#code.imported] ?? unprovable()
    const type = this.#typeOf(index)
    const planned: Planned = {
      body: at,
      parameters: new Array<Value>(type.parameters).fill(ZERO),
      returns: ZERO,
      askedBy: new Set(),
    }
    this.#planned.set(index, planned)
    this.#queue.add(planned)
    return planned
  }

  #visit(planned: Planned): void {
    if (++this.#visits > MOST_VISITS) unprovable()
    this.#queue.delete(planned)
    new Walk(this.#code.bytes, planned, {
      call: (index, stack) => this.#call(planned, index, stack),
      load: (address, offset) => this.#load(address, offset),
      consume: (value) => this.#consume(value),
      returned: (value) => {
        const returns = joined(planned.returns, value)
        if (returns === planned.returns) return
        planned.returns = returns
        for (const caller of planned.askedBy) this.#queue.add(caller)
      },
    }).run()
  }

  #load(address: Value, offset: number): Value {
    if (!address.context || address.parts.size > 0) unprovable()
    if (offset === CONTEXT_FIELDS.input) return partsOnly(new Set([this.#root]))
    return offset === CONTEXT_FIELDS.entrypoint ? constant(this.#entrypointId) : UNKNOWN
  }

  #consume(value: Value): void {
    if (value.context) unprovable()
    for (const part of value.parts) part.whole = true
  }

  #call(caller: Planned, index: number, stack: Stack): void {
    const type = this.#typeOf(index)
    const given = Array.from({ length: type.parameters }, () => stack.pop()).reverse()
    const result = this.#resultOf(caller, index, given)
    if (type.results > 0) stack.push(result)
  }

  #resultOf(caller: Planned, index: number, given: readonly Value[]): Value {
    const { signature, isPlanned } = this.#named(index)
    const [one = ZERO, two = ZERO, three = ZERO] = given
    switch (signature) {
      case 'opa_value_get/2':
        return this.#member(one, two)
      case 'builtin_object_get/3':
        this.#consume(three)
        return joined(this.#member(one, two), UNKNOWN)
      case 'opa_value_compare/2':
        // A part is equal to itself, whatever is in it.
        if (!one.other && !two.other && new Set([...one.parts, ...two.parts]).size < 2) {
          return UNKNOWN
        }
        break
      case 'opa_memoize_get/1': {
        const memo = this.#memoAt(one)
        memo.askedBy.add(caller)
        return memo.value
      }
      case 'opa_memoize_insert/2': {
        const memo = this.#memoAt(one)
        const value = joined(memo.value, two)
        if (value === memo.value) return UNKNOWN
        memo.value = value
        for (const reader of memo.askedBy) this.#queue.add(reader)
        return UNKNOWN
      }
    }
    if (isPlanned) return this.#ask(caller, index, given)
    for (const value of given) this.#consume(value)
    return UNKNOWN
  }

  #member(value: Value, key: Value): Value {
    this.#consume(key)
    const name = key.constant === undefined ? undefined : this.#string(key.constant)
    if (name === undefined) {
      this.#consume(value)
      return UNKNOWN
    }
    if (value.context) unprovable()
    let { other } = value
    const parts = new Set<Part>()
    for (const part of value.parts) {
      const child = this.#child(part, name)
      if (child === undefined) other = true
      else parts.add(child)
    }
    return { ...UNKNOWN, parts, other }
  }

  #child(part: Part, name: string): Part | undefined {
    const known = part.children.get(name)
    if (known !== undefined) return known
    if (part.depth === DEEPEST_PART) {
      part.whole = true
      return undefined
    }
    if (++this.#parts > MOST_PARTS) unprovable()
    const child = new Part(part.depth + 1)
    part.children.set(name, child)
    return child
  }

  #ask(caller: Planned, index: number, given: readonly Value[]): Value {
    const planned = this.#plannedAt(index)
    planned.askedBy.add(caller)
    given.forEach((value, i) => {
      if (value.context) unprovable()
      const before = planned.parameters[i] as Value
      const after = joined(before, value)
      if (after === before) return
      planned.parameters[i] = after
      this.#queue.add(planned)
    })
    // What it returns is best known before the caller is followed further.
    if (this.#queue.has(planned) && this.#depth < DEEPEST_CALL) {
      this.#depth++
      this.#visit(planned)
      this.#depth--
    }
    return planned.returns
  }

  #typeOf(index: number): FunctionType {
    return this.#code.types[this.#code.functions[index] ?? -1] ?? unprovable()
  }

  #named(index: number): NamedFunction {
    const known = this.#functions.get(index)
    if (known !== undefined) return known
    const name = this.#name(index)
    const signature = `${name}/${this.#typeOf(index).parameters}`
    const named = { signature, isPlanned: PLANNED_NAME.test(name) }
    this.#functions.set(index, named)
    return named
  }

  #name(index: number): string {
    const { names, bytes, imported } = this.#code
    const at = names.get(index)
    if (at !== undefined) return new WasmReader(bytes, at, bytes.length).name()
    // It could be one that gets at parts of the input where others have left them.
    return index < imported ? '' : unprovable()
  }

  #memoAt({ constant }: Value) {
    if (constant === undefined) return unprovable()
    const memo = this.#memo.get(constant) ?? { value: ZERO, askedBy: new Set<Planned>() }
    this.#memo.set(constant, memo)
    return memo
  }

  #string(address: number): string | undefined {
    if (!this.#strings.has(address)) this.#strings.set(address, this.#readString(address))
    return this.#strings.get(address)
  }

  #readString(address: number): string | undefined {
    const head = this.#memory(address, 12)
    if (head === undefined || head.readUInt16LE(0) !== INTERNED_STRING) return undefined
    const bytes = this.#memory(head.readUInt32LE(8), head.readUInt32LE(4))
    return bytes?.toString('utf8')
  }

  /** Later segments overwrite earlier ones. */
  #memory(address: number, length: number): Buffer | undefined {
    const segment = this.#code.data.findLast(
      (one) => address >= one.address && address < one.address + one.bytes.length,
    )
    const from = address - (segment?.address ?? 0)
    if (segment === undefined || from + length > segment.bytes.length) return undefined
    return Buffer.from(segment.bytes.subarray(from, from + length))
  }
}

/** What the planner of OPA calls its functions; those of the runtime it is linked with never. */
const PLANNED_NAME = /^g\d+\.data\./

function unprovable(): never {
  throw new Unprovable()
}

interface Effects {
  call(index: number, stack: Stack): void
  load(address: Value, offset: number): Value
  consume(value: Value): void
  returned(value: Value): void
}

interface Stack {
  push(value: Value): void
  pop(): Value
}

/** A block that the walk is inside of. */
interface Block {
  /** Where a loop begins; undefined of other blocks, which a branch leaves. */
  readonly loopAt: number | undefined
  readonly height: number
  /** What the locals assigned to since were at its beginning. */
  readonly before: Map<number, Value>
  /** What those are at the place that branches go to, where they are not as `before`. */
  readonly target: Map<number, Value>
  targeted: boolean
  /** A loop of which more became known after its beginning. */
  again: boolean
}

/** Runs through a function for all inputs at once: each branch is taken and not taken. */
class Walk implements Stack {
  readonly #bytes: Uint8Array
  readonly #body: number
  readonly #effects: Effects
  readonly #locals: Value[]
  readonly #values: Value[] = []
  readonly #blocks: Block[] = []
  /** False behind a jump, up to the end of its block. */
  #reached = true

  constructor(bytes: Uint8Array, { body, parameters }: Planned, effects: Effects) {
    this.#bytes = bytes
    this.#body = body
    this.#effects = effects
    this.#locals = [...parameters]
  }

  run(): void {
    const outer = new WasmReader(this.#bytes, this.#body, this.#bytes.length)
    const size = outer.u32()
    const end = outer.at + size
    const reader = new WasmReader(this.#bytes, outer.at, end)
    for (let groups = reader.u32(); groups > 0; groups--) {
      reader.u32()
      reader.byte()
    }
    let steps = 0
    while (reader.at < end) {
      if (++steps > MOST_STEPS) unprovable()
      const opcode = reader.byte()
      if (opcode === END && this.#blocks.length === 0) break
      this.#step(opcode, reader)
    }
    if (reader.at !== end) unprovable()
    if (this.#reached) this.#effects.returned(this.pop())
  }

  push(value: Value): void {
    this.#values.push(value)
  }

  pop(): Value {
    if (this.#values.length <= (this.#blocks.at(-1)?.height ?? 0)) unprovable()
    return this.#values.pop() as Value
  }

  #step(opcode: number, reader: WasmReader): void {
    if (opcode >= 0x02 && opcode <= 0x04) {
      if (opcode === IF && this.#reached) this.pop()
      if (reader.byte() !== NO_RESULT) unprovable()
      return this.#enter(opcode, reader.at)
    }
    if (opcode === END) return this.#leave(reader)
    // Compilers of OPA write none, and behind a jump it would be where code is reached again.
    if (opcode === ELSE) unprovable()
    if (!this.#reached) return reader.skipImmediates(opcode)
    switch (opcode) {
      case 0x00: // unreachable
        this.#reached = false
        return
      case 0x01: // nop
        return
      case 0x0c: // br
        this.#branch(reader.u32())
        this.#reached = false
        return
      case 0x0d: {
        // br_if
        const { constant } = this.pop()
        const label = reader.u32()
        if (constant !== 0) this.#branch(label)
        if (constant !== undefined && constant !== 0) this.#reached = false
        return
      }
      case 0x0f: // return
        this.#effects.returned(this.pop())
        this.#reached = false
        return
      case 0x10: // call
        return this.#effects.call(reader.u32(), this)
      case 0x1a: // drop
        this.pop()
        return
      case 0x20: // local.get
        return this.push(this.#locals[reader.u32()] ?? ZERO)
      case 0x21: // local.set
        return this.#assign(reader.u32(), this.pop())
      case 0x22: {
        // local.tee
        const value = this.pop()
        this.#assign(reader.u32(), value)
        return this.push(value)
      }
      case 0x28: // i32.load
        reader.u32()
        return this.push(this.#effects.load(this.pop(), reader.u32()))
      case 0x36: // i32.store
        reader.u32()
        reader.u32()
        this.#effects.consume(this.pop())
        if (!this.pop().context) unprovable()
        return
      case 0x41: // i32.const
        return this.push(constant(reader.s32()))
      case 0x42: // i64.const
        reader.skipInteger(64)
        return this.push(UNKNOWN)
      case 0x45: // i32.eqz
        return this.push(this.#equal(this.pop(), ZERO, 1))
      case 0x47: // i32.ne
        return this.push(this.#equal(this.pop(), this.pop(), 0))
      default:
        unprovable()
    }
  }

  #equal(one: Value, two: Value, yes: 0 | 1): Value {
    if (one.constant !== undefined && two.constant !== undefined) {
      return constant(one.constant === two.constant ? yes : 1 - yes)
    }
    // Compared with 0: whether it is there, which is not changed. Otherwise by address.
    if (one.constant !== 0 && two.constant !== 0) {
      this.#effects.consume(one)
      this.#effects.consume(two)
    }
    return UNKNOWN
  }

  #assign(local: number, value: Value): void {
    const now = this.#locals[local] ?? ZERO
    for (let i = this.#blocks.length - 1; i >= 0; i--) {
      const { before } = this.#blocks[i] as Block
      if (before.has(local)) break
      before.set(local, now)
    }
    this.#locals[local] = value
  }

  #enter(opcode: number, at: number): void {
    this.#blocks.push({
      loopAt: opcode === LOOP ? at : undefined,
      height: this.#values.length,
      before: new Map(),
      target: new Map(),
      // A loop is come to from above as well, and what is behind an `if` from before it.
      targeted: opcode !== BLOCK && this.#reached,
      again: false,
    })
  }

  /** Joins what the locals are here into what they are where a branch goes to. */
  #branch(label: number): void {
    const block = this.#blocks.at(-1 - label)
    if (block === undefined) return this.#branchOut(label)
    const { before, target, targeted } = block
    for (const [local, value] of before) {
      const here = this.#locals[local] ?? ZERO
      const there = targeted ? (target.get(local) ?? value) : here
      const both = joined(there, here)
      if (both === there && (targeted || target.has(local))) continue
      target.set(local, both)
      block.again = true
    }
    block.targeted = true
  }

  /** The function itself is the outermost block, and its result is on the stack. */
  #branchOut(label: number): void {
    if (label !== this.#blocks.length) unprovable()
    this.#effects.returned(this.#values.at(-1) ?? unprovable())
  }

  #leave(reader: WasmReader): void {
    const block = this.#blocks.at(-1) ?? unprovable()
    const { loopAt, before, target } = block
    if (loopAt !== undefined) {
      if (block.again) return this.#repeat(block, loopAt, reader)
    } else {
      if (this.#reached) this.#branch(0)
      this.#reached = block.targeted
      for (const [local, value] of before) this.#locals[local] = target.get(local) ?? value
    }
    this.#values.length = block.height
    this.#blocks.pop()
  }

  #repeat(block: Block, loopAt: number, reader: WasmReader): void {
    for (const [local, value] of block.before) {
      this.#locals[local] = block.target.get(local) ?? value
    }
    block.again = false
    this.#reached = true
    this.#values.length = block.height
    reader.at = loopAt
  }
}

const BLOCK = 0x02
const LOOP = 0x03
const IF = 0x04
const ELSE = 0x05
const END = 0x0b
/** The type of a block that leaves nothing on the stack. */
const NO_RESULT = 0x40

function readVector<T>(
  bytes: Uint8Array,
  sections: readonly Section[],
  id: number,
  read: (reader: WasmReader) => T,
): T[] {
  return sections
    .filter((section) => section.id === id)
    .flatMap(({ start, end }) => {
      const reader = new WasmReader(bytes, start, end)
      const items: T[] = []
      for (let left = reader.u32(); left > 0; left--) items.push(read(reader))
      return items
    })
}

function readTypes(bytes: Uint8Array, sections: readonly Section[]): FunctionType[] {
  return readVector(bytes, sections, SECTION.type, (reader) => {
    if (reader.byte() !== 0x60) unprovable()
    const parameters = reader.u32()
    reader.skip(parameters)
    const results = reader.u32()
    reader.skip(results)
    if (results > 1) unprovable()
    return { parameters, results }
  })
}

/** Of the imported functions; the one other import is the memory (see rewrite.ts). */
function readImportedTypes(bytes: Uint8Array, sections: readonly Section[]): number[] {
  return readVector(bytes, sections, SECTION.import, (reader) => {
    reader.name()
    reader.name()
    const kind = reader.byte()
    if (kind === 0x00) return reader.u32()
    if (kind !== 0x02) unprovable()
    if (reader.byte() === 1) reader.u32()
    reader.u32()
    return -1
  }).filter((type) => type >= 0)
}

function readExports(bytes: Uint8Array, sections: readonly Section[]): Map<string, number> {
  const functions = new Map<string, number>()
  readVector(bytes, sections, SECTION.export, (reader) => {
    const name = reader.name()
    const kind = reader.byte()
    const index = reader.u32()
    if (kind === 0x00) functions.set(name, index)
  })
  return functions
}

function readData(bytes: Uint8Array, sections: readonly Section[]) {
  return readVector(bytes, sections, SECTION.data, (reader) => {
    if (reader.byte() !== 0x00 || reader.byte() !== 0x41) unprovable()
    const address = reader.s32()
    if (reader.byte() !== 0x0b) unprovable()
    const length = reader.u32()
    const start = reader.at
    reader.skip(length)
    return { address, bytes: bytes.subarray(start, reader.at) }
  })
}

const FUNCTION_NAMES = 1

/**
 * From the custom section `name`, which `opa build` always writes. Where the name of each function
 * stands: most are of functions that no policy calls.
 */
function readNames(bytes: Uint8Array, sections: readonly Section[]): Map<number, number> {
  const names = new Map<number, number>()
  for (const section of sections) {
    if (section.id !== SECTION.custom) continue
    const reader = new WasmReader(bytes, section.start, section.end)
    if (reader.name() !== 'name') continue
    while (reader.at < section.end) {
      const kind = reader.byte()
      const size = reader.u32()
      const end = reader.at + size
      if (kind === FUNCTION_NAMES) {
        for (let left = reader.u32(); left > 0; left--) {
          const index = reader.u32()
          names.set(index, reader.at)
          reader.skip(reader.u32())
        }
      }
      reader.skip(end - reader.at)
    }
  }
  return names
}
