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
    return new TextDecoder().decode(this.bytes.subarray(start, this.at))
  }

  /** The immediates of the instruction whose opcode has just been read. */
  skipImmediates(opcode: number): void {
    if (opcode >= 0x45 && opcode <= 0xc4) return
    if (opcode >= 0x28 && opcode <= 0x3e) {
      this.skipInteger(32)
      this.skipInteger(32)
      return
    }
    if (opcode >= 0x20 && opcode <= 0x26) {
      this.skipInteger(32)
      return
    }
    switch (opcode) {
      case 0x00: // unreachable
      case 0x01: // nop
      case 0x05: // else
      case 0x0b: // end
      case 0x0f: // return
      case 0x1a: // drop
      case 0x1b: // select
      case 0xd1: // ref.is_null
        return
      case 0x02: // block
      case 0x03: // loop
      case 0x04: // if
        this.skipInteger(33)
        return
      case 0x0c: // br
      case 0x0d: // br_if
      case 0x10: // call
      case 0xd2: // ref.func
        this.skipInteger(32)
        return
      case 0x0e: // br_table
        for (let targets = this.u32() + 1; targets > 0; targets--) this.skipInteger(32)
        return
      case 0x11: // call_indirect
        this.skipInteger(32)
        this.skipInteger(32)
        return
      case 0x1c: // select with types
        for (let types = this.u32(); types > 0; types--) this.skipInteger(33)
        return
      case 0x3f: // memory.size
      case 0x40: // memory.grow
      case 0xd0: // ref.null
        this.skip(1)
        return
      case 0x41: // i32.const
        this.skipInteger(32)
        return
      case 0x42: // i64.const
        this.skipInteger(64)
        return
      case 0x43: // f32.const
        this.skip(4)
        return
      case 0x44: // f64.const
        this.skip(8)
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
