// The counter inside one function of a module: instructions at its beginning and at the beginning of
// each of its loops, which trap when the fuel is used up. A loop that calls nothing counts in a local
// variable, and writes it back wherever it is left: a store and a load of the same address in each
// round would be most of what a tight loop costs.
import { behindInstruction, WasmFormatError, WasmReader } from './wasm-module.ts'

/** Writes functions with their counters. A module is read once, by code that is still cold: little of it. */
export class Meter {
  readonly #module: Uint8Array
  readonly #global: readonly number[]
  readonly #spend: Uint8Array
  readonly #byLocal = new Map<number, Instructions>()

  constructor(module: Uint8Array, fuelGlobal: number) {
    this.#module = module
    this.#global = unsignedLeb(fuelGlobal)
    this.#spend = spendOf(this.#global)
  }

  /**
   * @param start of a function, behind its size
   * @param parameters how many the function has
   * @param first instructions that come before its own
   * @param into gets what to have instead, with the size
   */
  write(start: number, end: number, parameters: number, first: Uint8Array, into: Bytes): void {
    const module = this.#module
    const header = new WasmReader(module, start, end)
    const groups = header.u32()
    const firstGroup = header.at
    let locals = parameters
    for (let left = groups; left > 0; left--) {
      locals += header.u32()
      header.skipTypes(1)
    }
    const code = header.at
    const { behindLoops, tight } = loopsOf(module, code, end)
    const places = placesOf(module, code, behindLoops, tight)
    const instructions = this.#instructions(locals)
    const hasLocal = tight.length > 0
    const groupCount = unsignedLeb(hasLocal ? groups + 1 : groups)
    let size = groupCount.length + end - firstGroup + first.length
    if (hasLocal) size += ONE_I32.length
    for (const { what } of places) size += instructions[what].length

    into.integer(size)
    into.all(groupCount)
    into.part(module, firstGroup, code)
    if (hasLocal) into.all(ONE_I32)
    into.all(first)
    let from = code
    for (const { at, what } of places) {
      into.part(module, from, at)
      into.all(instructions[what])
      from = at
    }
    into.part(module, from, end)
  }

  /** @param local where the function counts */
  #instructions(local: number): Instructions {
    const known = this.#byLocal.get(local)
    if (known !== undefined) return known
    const index = unsignedLeb(local)
    const store = [0x20, ...index, 0x24, ...this.#global] // local.get, global.set fuel
    const instructions = {
      load: new Uint8Array([0x23, ...this.#global, 0x21, ...index]), // global.get fuel, local.set
      store: new Uint8Array(store),
      spend: this.#spend,
      spendLocal: new Uint8Array([
        ...[0x20, ...index],
        ...LESS_ONE,
        ...[0x22, ...index], // local.tee
        ...IS_SPENT,
        ...[0x04, 0x40, ...store, 0x00, 0x0b], // if, store, unreachable, end
      ]),
    }
    this.#byLocal.set(local, instructions)
    return instructions
  }
}

type Instructions = Readonly<Record<Place['what'], Uint8Array>>

const LESS_ONE = [0x41, 0x01, 0x6b] // i32.const 1, i32.sub
const IS_SPENT = [0x41, 0x00, 0x48] // i32.const 0, i32.lt_s

const spendOf = (global: readonly number[]): Uint8Array =>
  Uint8Array.of(
    ...[0x23, ...global],
    ...LESS_ONE,
    ...[0x24, ...global],
    ...[0x23, ...global],
    ...IS_SPENT,
    ...[0x04, 0x40, 0x00, 0x0b], // if, unreachable, end
  )

/** A group of local variables. */
const ONE_I32 = Uint8Array.of(0x01, 0x7f)

/** Before the instruction that is at `at`. */
interface Place {
  readonly at: number
  readonly what: 'spend' | 'load' | 'spendLocal' | 'store'
}

const BLOCK = 0x02
const LOOP = 0x03
const IF = 0x04
const END = 0x0b
const BR = 0x0c
const BR_IF = 0x0d
const BR_TABLE = 0x0e
const RETURN = 0x0f
const CALL = 0x10
const CALL_INDIRECT = 0x11

const opens = (opcode: number): boolean => opcode >= BLOCK && opcode <= IF

interface Loops {
  /** Where the first instruction in each is. */
  readonly behindLoops: readonly number[]
  /** Those that call nothing, without those inside of them; in the order of the code. */
  readonly tight: readonly Span[]
}

interface Span {
  readonly start: number
  readonly end: number
}

function loopsOf(module: Uint8Array, start: number, end: number): Loops {
  const behindLoops: number[] = []
  const tight: Span[] = []
  /** Of each open block: where it begins if it is a loop that has called nothing so far, else -1. */
  const open: number[] = []
  let at = start
  while (at < end) {
    const opcode = module[at] as number
    const behind = behindInstruction(module, at)
    switch (opcode) {
      case LOOP:
        behindLoops.push(behind)
        open.push(at)
        break
      case BLOCK:
      case IF:
        open.push(-1)
        break
      case CALL:
      case CALL_INDIRECT:
        open.fill(-1)
        break
      case END: {
        const loop = open.pop() ?? -1
        if (loop < 0) break
        while ((tight.at(-1)?.start ?? -1) > loop) tight.pop()
        tight.push({ start: loop, end: behind })
      }
    }
    at = behind
  }
  if (at !== end) throw new WasmFormatError('a function ends in the middle of an instruction')
  return { behindLoops, tight }
}

/** In the order of the code, which ends behind the last of them. */
function placesOf(
  module: Uint8Array,
  code: number,
  behindLoops: readonly number[],
  tight: readonly Span[],
): readonly Place[] {
  const places: Place[] = [{ at: code, what: 'spend' }]
  let loop = 0
  for (const { start, end } of tight) {
    for (; (behindLoops[loop] as number) <= start; loop++) {
      places.push({ at: behindLoops[loop] as number, what: 'spend' })
    }
    addPlacesWithin(module, start, end, places)
    while ((behindLoops[loop] ?? end) < end) loop++
  }
  for (const at of behindLoops.slice(loop)) places.push({ at, what: 'spend' })
  return places
}

/** Of a loop that calls nothing. */
function addPlacesWithin(module: Uint8Array, start: number, end: number, places: Place[]): void {
  places.push({ at: start, what: 'load' })
  let depth = 0
  for (let at = start; at < end; ) {
    const opcode = module[at] as number
    const behind = behindInstruction(module, at)
    if (leaves(opcode, new WasmReader(module, at + 1, behind), depth)) {
      places.push({ at, what: 'store' })
    }
    if (opens(opcode)) depth++
    else if (opcode === END) depth--
    if (opcode === LOOP) places.push({ at: behind, what: 'spendLocal' })
    at = behind
  }
  places.push({ at: end, what: 'store' })
}

/** Whether a jump may go out of the outermost of `depth` open blocks. */
function leaves(opcode: number, immediates: WasmReader, depth: number): boolean {
  switch (opcode) {
    case RETURN:
      return true
    case BR:
    case BR_IF:
      return immediates.u32() >= depth
    case BR_TABLE: {
      let furthest = 0
      for (let labels = immediates.u32() + 1; labels > 0; labels--) {
        furthest = Math.max(furthest, immediates.u32())
      }
      return furthest >= depth
    }
    default:
      return false
  }
}

export function unsignedLeb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  do {
    const low = rest & 0x7f
    rest >>>= 7
    bytes.push(rest === 0 ? low : low | 0x80)
  } while (rest !== 0)
  return bytes
}

/** Bytes that are written one after the other. */
export class Bytes {
  #bytes: Uint8Array
  #length = 0

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity)
  }

  get written(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  all(bytes: ArrayLike<number>): void {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  part(bytes: Uint8Array, start: number, end: number): void {
    this.all(bytes.subarray(start, end))
  }

  /** Unsigned LEB128. */
  integer(value: number): void {
    this.#reserve(5)
    let rest = value
    for (; rest > 0x7f; rest >>>= 7) this.#bytes[this.#length++] = (rest & 0x7f) | 0x80
    this.#bytes[this.#length++] = rest
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return
    const larger = new Uint8Array(2 * (this.#length + count))
    larger.set(this.#bytes)
    this.#bytes = larger
  }
}
