// Makes a policy module stoppable. Evaluation is synchronous and OPA's modules have no time limit,
// so every loop and every function begins with a counter that traps when it is used up (calls alone
// can multiply without a loop); and a trap leaves the C stack pointer where it was, so that after
// some thousand of them every evaluation fails (measured with OPA 1.10 modules): the pointer is
// exported and the host resets it before each call. And it keeps constants from being freed: OPA's
// `json.is_valid` does so with `true` and `false` (1.22), after which other constants say something else.
import { Bytes, Meter, signedLeb, unsignedLeb } from './metering.ts'
import { SECTION, type Section, sectionsOf, WasmFormatError, WasmReader } from './wasm-module.ts'

export const FUEL_EXPORT = 'postern_fuel'
export const STACK_POINTER_EXPORT = 'postern_stack_pointer'

/** Where `opa build` starts the C stack, which grows down. Asserted of every module. */
export const STACK_TOP = 65_536

/** Enough for the start function, which runs while the module is instantiated. */
const INITIAL_FUEL = 10_000_000

/** Of OPA's own allocator. */
const FREE = 'opa_free'

export type Rewritten =
  | {
      readonly kind: 'rewritten'
      readonly bytes: Uint8Array
      /** Pages that the module wants its memory to have at least. */
      readonly minimumPages: number
    }
  | { readonly kind: 'refused'; readonly reason: string }

export function meterModule(bytes: Uint8Array): Rewritten {
  try {
    return rewrite(bytes)
  } catch (error) {
    if (error instanceof WasmFormatError) return { kind: 'refused', reason: error.message }
    throw error
  }
}

function rewrite(module: Uint8Array): Rewritten {
  // A part of a Buffer is made at several times the cost.
  const bytes = new Uint8Array(module.buffer, module.byteOffset, module.length)
  const sections = sectionsOf(bytes)
  const imports = readImports(bytes, single(sections, SECTION.import))
  const globals = single(sections, SECTION.global)
  const globalCount = checkGlobals(bytes, globals)
  const exported = single(sections, SECTION.export)
  const code = single(sections, SECTION.code)
  const functions = single(sections, SECTION.function)
  const parameters = readParameters(bytes, single(sections, SECTION.type), functions)
  const exports = readExports(bytes, exported)
  const free = (exports.get(FREE) ?? Number.NaN) - imports.functions
  const guard = guardOfConstants(endOfConstants(bytes, sections))

  const parts: Uint8Array[] = [bytes.subarray(0, 8)]
  for (const section of sections) {
    let contents: readonly Uint8Array[] = [bytes.subarray(section.start, section.end)]
    if (section === globals) {
      // Type i32, mutable, `i32.const INITIAL_FUEL`, `end`.
      const fuel = Uint8Array.of(0x7f, 0x01, 0x41, ...signedLeb(INITIAL_FUEL), 0x0b)
      contents = appended(bytes, section, 1, fuel)
    } else if (section === exported) {
      const two = [
        ...exportEntry(STACK_POINTER_EXPORT, 0),
        ...exportEntry(FUEL_EXPORT, globalCount),
      ]
      contents = appended(bytes, section, 2, Uint8Array.from(two))
    } else if (section === code) {
      contents = [metered(bytes, section, globalCount, parameters, free, guard)]
    }
    const size = contents.reduce((sum, part) => sum + part.length, 0)
    parts.push(Uint8Array.of(section.id, ...unsignedLeb(size)), ...contents)
  }
  // What is made of it is not enough: it has a variable, a global and exports that the module could
  // name before they are there.
  if (!WebAssembly.validate(bytes)) throw new WasmFormatError('it is not valid')
  return { kind: 'rewritten', bytes: Buffer.concat(parts), minimumPages: imports.minimumPages }
}

function single(sections: readonly Section[], id: number): Section {
  const [section, ...others] = sections.filter((one) => one.id === id)
  if (section === undefined || others.length > 0) {
    throw new WasmFormatError(`module has not exactly one section ${id}`)
  }
  return section
}

function readImports(
  bytes: Uint8Array,
  section: Section,
): { minimumPages: number; functions: number } {
  const reader = new WasmReader(bytes, section.start, section.end)
  let minimumPages: number | undefined
  let functions = 0
  for (let left = reader.u32(); left > 0; left--) {
    const name = `${reader.name()}.${reader.name()}`
    const kind = reader.byte()
    if (kind === 0x00) {
      reader.u32()
      functions++
    } else if (kind === 0x02 && name === 'env.memory') {
      const flags = reader.byte()
      if (flags > 1) throw new WasmFormatError('memory is shared or of 64 bits')
      minimumPages = reader.u32()
      if (flags === 1) reader.u32()
    } else {
      throw new WasmFormatError(`import ${name} is neither a function nor the memory`)
    }
  }
  if (minimumPages === undefined) throw new WasmFormatError('module does not import env.memory')
  return { minimumPages, functions }
}

/** The stack pointer has no name in the binary: it is known by its place and its first value. */
function checkGlobals(bytes: Uint8Array, section: Section): number {
  const reader = new WasmReader(bytes, section.start, section.end)
  const count = reader.u32()
  const [type, mutable, instruction] = [reader.byte(), reader.byte(), reader.byte()]
  const value = instruction === 0x41 ? reader.s32() : 0
  if (type !== 0x7f || mutable !== 0x01 || value !== STACK_TOP || reader.byte() !== 0x0b) {
    throw new WasmFormatError('global 0 is not the stack pointer of a module made by opa build')
  }
  return count
}

/** The indexes of functions. */
function readExports(bytes: Uint8Array, section: Section): ReadonlyMap<string, number> {
  const exports = new Map<string, number>()
  const names = new Set<string>()
  const reader = new WasmReader(bytes, section.start, section.end)
  for (let left = reader.u32(); left > 0; left--) {
    const name = reader.name()
    if (name === FUEL_EXPORT || name === STACK_POINTER_EXPORT) {
      throw new WasmFormatError(`module already exports ${name}`)
    }
    if (names.has(name)) throw new WasmFormatError(`module exports ${name} twice`)
    names.add(name)
    const kind = reader.byte()
    const index = reader.u32()
    if (kind === 0x00) exports.set(name, index)
  }
  return exports
}

/** The address behind all that the module brings: `opa build` has the heap begin there. */
function endOfConstants(bytes: Uint8Array, sections: readonly Section[]): number {
  const section = sections.find(({ id }) => id === SECTION.data)
  if (section === undefined) return 0
  const reader = new WasmReader(bytes, section.start, section.end)
  let end = 0
  for (let left = reader.u32(); left > 0; left--) {
    if (reader.u32() !== 0 || reader.byte() !== 0x41) {
      throw new WasmFormatError('a data segment has no constant address')
    }
    const start = reader.s32()
    if (reader.byte() !== 0x0b) throw new WasmFormatError('a data segment has no constant address')
    const length = reader.u32()
    reader.skip(length)
    end = Math.max(end, start + length)
  }
  return end
}

const NOTHING = new Uint8Array(0)

/** The first instructions of a function that does nothing where its parameter is below `end`. */
const guardOfConstants = (end: number): Uint8Array =>
  Uint8Array.of(
    ...[0x20, 0x00], // local.get 0
    ...[0x41, ...signedLeb(end)], // i32.const end
    0x49, // i32.lt_u
    ...[0x04, 0x40, 0x0f, 0x0b], // if, return, end
  )

/** The contents of a vector section with `count` more elements. */
function appended(bytes: Uint8Array, section: Section, count: number, more: Uint8Array) {
  const reader = new WasmReader(bytes, section.start, section.end)
  const total = reader.u32() + count
  return [Uint8Array.from(unsignedLeb(total)), bytes.subarray(reader.at, section.end), more]
}

/** @param free which function begins with the guard */
function metered(
  bytes: Uint8Array,
  section: Section,
  fuelGlobal: number,
  parameters: readonly number[],
  free: number,
  guard: Uint8Array,
): Uint8Array {
  const reader = new WasmReader(bytes, section.start, section.end)
  const count = reader.u32()
  if (count !== parameters.length) throw new WasmFormatError('module has other code than functions')
  const meter = new Meter(bytes, fuelGlobal)
  const code = new Bytes(GROWTH * (section.end - section.start))
  code.integer(count)
  for (const [index, own] of parameters.entries()) {
    const size = reader.u32()
    const start = reader.at
    reader.skip(size)
    meter.write(start, reader.at, own, index === free ? guard : NOTHING, code)
  }
  if (reader.at !== section.end) throw new WasmFormatError('code section has trailing bytes')
  return code.written
}

/** How much longer the code of a policy becomes, at most. */
const GROWTH = 1.5

/** How many parameters each function of the code section has. */
function readParameters(bytes: Uint8Array, types: Section, functions: Section): number[] {
  const ofTypes: number[] = []
  const typeReader = new WasmReader(bytes, types.start, types.end)
  for (let left = typeReader.u32(); left > 0; left--) {
    if (typeReader.byte() !== 0x60) throw new WasmFormatError('a type is not that of a function')
    const count = typeReader.u32()
    typeReader.skipTypes(count)
    typeReader.skipTypes(typeReader.u32())
    ofTypes.push(count)
  }
  const parameters: number[] = []
  const reader = new WasmReader(bytes, functions.start, functions.end)
  for (let left = reader.u32(); left > 0; left--) {
    const count = ofTypes[reader.u32()]
    if (count === undefined) throw new WasmFormatError('a function has no type')
    parameters.push(count)
  }
  return parameters
}

function exportEntry(name: string, globalIndex: number): number[] {
  return [name.length, ...Buffer.from(name, 'latin1'), 0x03, ...unsignedLeb(globalIndex)]
}
