// Reads the parts of a WebAssembly binary that we have to understand: sections, integers
// and the immediates of every instruction. What it does not know it refuses; it never guesses.
// WebAssembly Core Specification 2.0, chapter 5 "Binary Format".

/** The bytes are not a module, or use something that is not understood. */
export class WasmFormatError extends Error {
  override readonly name = 'WasmFormatError'
}

export const SECTION = {
  custom: 0,
  type: 1,
  import: 2,
  function: 3,
  global: 6,
  export: 7,
  code: 10,
  data: 11,
} as const

export interface Section {
  readonly id: number
  /** Offset and end of the contents, without id and size. */
  readonly start: number
  readonly end: number
}

const MAGIC_AND_VERSION = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]

export function sectionsOf(bytes: Uint8Array): Section[] {
  if (MAGIC_AND_VERSION.some((byte, i) => bytes[i] !== byte)) {
    throw new WasmFormatError('not a WebAssembly module of version 1')
  }
  const reader = new WasmReader(bytes, MAGIC_AND_VERSION.length, bytes.length)
  const sections: Section[] = []
  while (reader.at < bytes.length) {
    const id = reader.byte()
    const size = reader.u32()
    const start = reader.at
    reader.skip(size)
    sections.push({ id, start, end: reader.at })
  }
  return sections
}

/** A cursor over bytes; every step is checked against the end. */
export class WasmReader {
  readonly bytes: Uint8Array
  readonly end: number
  at: number

  constructor(bytes: Uint8Array, start: number, end: number) {
    this.bytes = bytes
    this.at = start
    this.end = end
  }

  /** Another one, of the same bytes up to the same end. */
  from(at: number): WasmReader {
    return new WasmReader(this.bytes, at, this.end)
  }

  byte(): number {
    if (this.at >= this.end) throw new WasmFormatError('module ends in the middle of something')
    return this.bytes[this.at++] as number
  }

  skip(count: number): void {
    if (count > this.end - this.at) {
      throw new WasmFormatError('module ends in the middle of something')
    }
    this.at += count
  }

  /** LEB128, unsigned, 32 bits. */
  u32(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte()
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) {
        if (value > 0xffffffff) break
        return value
      }
    }
    throw new WasmFormatError('integer longer than 32 bits')
  }

  /** LEB128, signed, of which only the first 32 bits are of interest. */
  s32(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte()
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return shift < 25 && byte & 0x40 ? value | (-1 << (shift + 7)) : value
    }
    throw new WasmFormatError('integer longer than 32 bits')
  }

  /** Any LEB128 integer of at most `bits` bits, whatever its value. */
  skipInteger(bits: number): void {
    for (let left = bits; left > 0; left -= 7) {
      if (this.byte() < 0x80) return
    }
    throw new WasmFormatError(`integer longer than ${bits} bits`)
  }

  name(): string {
    const length = this.u32()
    const start = this.at
    this.skip(length)
    try {
      return TEXT.decode(this.bytes.subarray(start, this.at))
    } catch {
      throw new WasmFormatError('a name is not UTF-8')
    }
  }

  /** Types of numbers, which are a byte each: the others can be more. */
  skipTypes(count: number): void {
    for (let left = count; left > 0; left--) {
      const type = this.byte()
      if (!isNumber(type)) throw unsupportedType(type)
    }
  }

  /** The immediates of the instruction whose opcode has just been read. */
  skipImmediates(opcode: number): void {
    switch (IMMEDIATES[opcode]) {
      case RARE:
        return this.#skipRareImmediates(opcode)
      default:
        this.skip(behindInstruction(this.bytes, this.at - 1) - this.at)
    }
  }

  #skipRareImmediates(opcode: number): void {
    switch (opcode) {
      case 0x0e: // br_table
        for (let targets = this.u32() + 1; targets > 0; targets--) this.skipInteger(32)
        return
      case 0x1c: // select with types
        this.skipTypes(this.u32())
        return
      case 0xfc:
        this.#skipPrefixedImmediates(this.u32())
        return
      default:
        throw new WasmFormatError(`instruction 0x${opcode.toString(16)} is not supported`)
    }
  }

  #skipPrefixedImmediates(opcode: number): void {
    if (opcode <= 7) return // saturating truncations
    // One memory.copy or memory.fill moves a whole memory, and no counter stops it; modules of OPA
    // have loops instead.
    throw new WasmFormatError(`instruction 0xfc ${opcode} is not supported`)
  }
}

/**
 * Where the instruction at `at` ends, by its own bytes: perhaps behind the end of what it is a part of.
 * A module has tens of thousands of them, which are read by code that is still cold.
 */
export function behindInstruction(bytes: Uint8Array, at: number): number {
  switch (IMMEDIATES[bytes[at] as number]) {
    case NONE:
      return at + 1
    case INTEGER:
      return behindInteger(bytes, at + 1, 33)
    case TWO_INTEGERS:
      return behindInteger(bytes, behindInteger(bytes, at + 1, 32), 32)
    case BLOCK_TYPE:
      return behindBlockType(bytes, at + 1)
    case MEMORY:
      // From 0x40 on the index of a memory follows.
      if ((bytes[at + 1] as number) < 0x40) return behindInteger(bytes, at + 2, 32)
      throw new WasmFormatError('more than one memory is not supported')
    case LONG_INTEGER:
      return behindInteger(bytes, at + 1, 64)
    case FOUR_BYTES:
      return at + 5
    case EIGHT_BYTES:
      return at + 9
    default: {
      const reader = new WasmReader(bytes, at, bytes.length)
      reader.skipImmediates(reader.byte())
      return reader.at
    }
  }
}

/** None, that of a number, or the index of a type, which is a positive integer. */
function behindBlockType(bytes: Uint8Array, at: number): number {
  const first = bytes[at] as number
  if (first === 0x40 || isNumber(first)) return at + 1
  const end = behindInteger(bytes, at, 33)
  if (((bytes[end - 1] as number) & 0x40) !== 0) throw unsupportedType(first)
  return end
}

/** i32, i64, f32, f64. */
const isNumber = (type: number): boolean => type >= 0x7c && type <= 0x7f

const unsupportedType = (type: number): WasmFormatError =>
  new WasmFormatError(`type 0x${type.toString(16)} is not supported`)

function behindInteger(bytes: Uint8Array, at: number, bits: number): number {
  for (let end = at, left = bits; left > 0; left -= 7) {
    if ((bytes[end++] as number) < 0x80) return end
    if (end > bytes.length) break
  }
  throw new WasmFormatError(`integer longer than ${bits} bits`)
}

/** What follows an opcode. */
const RARE = 0
const NONE = 1
const INTEGER = 2
const TWO_INTEGERS = 3
const LONG_INTEGER = 4
const FOUR_BYTES = 5
const EIGHT_BYTES = 6
const BLOCK_TYPE = 7
const MEMORY = 8

const IMMEDIATES = new Uint8Array(256)
  .fill(NONE, 0x45, 0xc5) // numeric
  .fill(MEMORY, 0x28, 0x3f) // loads and stores
  .fill(INTEGER, 0x20, 0x27) // variables and tables
for (const [opcode, immediates] of [
  [0x00, NONE], // unreachable
  [0x01, NONE], // nop
  [0x02, BLOCK_TYPE], // block
  [0x03, BLOCK_TYPE], // loop
  [0x04, BLOCK_TYPE], // if
  [0x05, NONE], // else
  [0x0b, NONE], // end
  [0x0c, INTEGER], // br
  [0x0d, INTEGER], // br_if
  [0x0f, NONE], // return
  [0x10, INTEGER], // call
  [0x11, TWO_INTEGERS], // call_indirect
  [0x1a, NONE], // drop
  [0x1b, NONE], // select
  [0x3f, INTEGER], // memory.size
  [0x40, INTEGER], // memory.grow
  [0x41, INTEGER], // i32.const
  [0x42, LONG_INTEGER], // i64.const
  [0x43, FOUR_BYTES], // f32.const
  [0x44, EIGHT_BYTES], // f64.const
  [0xd0, INTEGER], // ref.null
  [0xd1, NONE], // ref.is_null
  [0xd2, INTEGER], // ref.func
] as const) {
  IMMEDIATES[opcode] = immediates
}

/** A name that begins with a byte order mark is another one than without. */
const TEXT = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
