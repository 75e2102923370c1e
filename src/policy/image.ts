// The data document as the memory of a policy module has it once it is read. It is read once, at the
// activation; what evaluates only copies the bytes, which is twenty times as fast and can be done a
// piece at a time. Layout is the same in every instance: all of it follows from the module.
import { type Constants, constantsIn, NO_CONSTANTS, shareKeys } from './constants.ts'
import { FUEL_EXPORT } from './rewrite.ts'
import { type ProofExports, provesLayout } from './value-proof.ts'

export interface MemoryImage {
  /** What the values of the document are made of; they begin at `from`. */
  readonly bytes: SharedArrayBuffer
  readonly from: number
  /** Where what the module itself brings ends: below, a new instance writes everything anew. */
  readonly start: number
  /** Of 64 KiB, that memory has to have at least. */
  readonly pages: number
  /** Address of the document. */
  readonly data: number
  /** Address of the place for the text of an input, `INPUT_BYTES` long. */
  readonly input: number
  /** Address of the place for an input of values, `VALUE_BYTES` long; 0: there cannot be one. */
  readonly values: number
  /** Keys that an input of values may share with the rules. */
  readonly constants: Constants
  /** From where an evaluation may write. */
  readonly heap: number
}

/** Bytes that an input document may have: its place in memory is reserved, so nothing grows. */
export const INPUT_BYTES = 256 * 1024

/**
 * Bytes that an input may have as values, with what does not change. Six to one byte of these are at
 * most what a text has, so that none fits here whose text would be too large.
 */
export const VALUE_BYTES = 64 * 1024

export const PAGE = 65_536
/** What `opa build` itself assumes; the rest is grown on demand. */
const INITIAL_PAGES = 32

/** The writer of values counts in integers of 32 bits with a sign. */
const MOST_ADDRESS = 0x7fff_ffff

/** The data document cannot be read into the memory of the module. */
export class DataError extends Error {
  override readonly name = 'DataError'
}

interface Exports extends ProofExports {
  readonly opa_malloc: (size: number) => number
  readonly opa_json_parse: (address: number, length: number) => number
  readonly opa_heap_ptr_get: () => number
  readonly [FUEL_EXPORT]: WebAssembly.Global
}

/**
 * @param module metered
 * @param memoryBytes what it may have
 * @throws DataError
 */
export function memoryImage(
  module: WebAssembly.Module,
  dataJson: string,
  memoryBytes: number,
): MemoryImage {
  const maximum = Math.floor(memoryBytes / PAGE)
  const memory = new WebAssembly.Memory({ initial: Math.min(INITIAL_PAGES, maximum), maximum })
  const refuse = () => {
    throw new DataError('the module calls its host while data is read')
  }
  const env: Record<string, unknown> = {
    memory,
    opa_abort: (address: number) => {
      const bytes = Buffer.from(memory.buffer)
      throw new DataError(bytes.toString('utf8', address, bytes.indexOf(0, address)))
    },
    opa_println: () => {},
  }
  for (let i = 0; i <= 4; i++) env[`opa_builtin${i}`] = refuse
  const exports = new WebAssembly.Instance(module, { env }).exports as unknown as Exports
  // Reading data is not a request: it has a budget of its own size.
  exports[FUEL_EXPORT].value = 0x7fff_ffff
  const start = exports.opa_heap_ptr_get() >>> 0
  const length = Buffer.byteLength(dataJson)
  // The text lies where the input will be, so that it is no part of what is copied.
  const input = exports.opa_malloc(Math.max(INPUT_BYTES, length)) >>> 0
  const values = aligned(exports.opa_malloc(VALUE_BYTES + 8), 8)
  const from = exports.opa_heap_ptr_get() >>> 0
  if (input + Math.max(INPUT_BYTES, length) > memory.buffer.byteLength) {
    throw new DataError('the module gives an input no place')
  }
  Buffer.from(memory.buffer).write(dataJson, input, length, 'utf8')
  const data = exports.opa_json_parse(input, length)
  if (data === 0) throw new DataError('the data document is not JSON')
  const heap = aligned(exports.opa_heap_ptr_get(), 16)
  if (heap < from || heap > memory.buffer.byteLength) {
    throw new DataError('the heap of the module is not where its data is')
  }
  const pages = memory.buffer.byteLength / PAGE
  const constants = constantsIn(memory.buffer, start)
  const isProven =
    values + VALUE_BYTES <= MOST_ADDRESS &&
    provesLayout(exports, memory, { input, values, heap }, constants) &&
    shareKeys(memory.buffer, data, heap - from, constants)
  const bytes = new SharedArrayBuffer(heap - from)
  new Uint8Array(bytes).set(new Uint8Array(memory.buffer, from, heap - from))
  return {
    ...{ bytes, from, start, pages, data, input, heap },
    ...(isProven ? { values, constants } : { values: 0, constants: NO_CONSTANTS }),
  }
}

/** The next multiple, of an address that wasm gives as an integer with a sign. */
const aligned = (address: number, to: number): number => Math.ceil((address >>> 0) / to) * to
