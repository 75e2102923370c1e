// The counter inside one function of a module: instructions at its beginning and at the beginning of
// each of its loops, which trap when the fuel is used up. A loop that calls nothing counts in a local
// variable, and writes it back wherever it is left: a store and a load of the same address in each
// round would be most of what a tight loop costs.
import type { WasmReader } from './wasm-module.ts'

/** Writes the counters of one module. A module is read once, by code that is still cold: little of it. */
export class Meter {
  readonly #global: readonly number[]
  readonly #spend: Uint8Array

  constructor(fuelGlobal: number) {
    this.#global = unsignedLeb(fuelGlobal)
    this.#spend = spendOf(this.#global)
  }

  /**
   * @param body reads it, from behind its size to its end
   * @param parameters how many the function has
   * @param first instructions that come before its own
   * @returns what to write instead, without the size
   */
  body(body: WasmReader, parameters: number, first: Uint8Array): readonly Uint8Array[] {
    const { bytes, at: start } = body
    const groups = body.u32()
    const firstGroup = body.at
    let locals = parameters
    for (let left = groups; left > 0; left--) {
      locals += body.u32()
      body.byte()
    }
    const code = body.at
    const { behindLoops, tight } = loopsOf(body)
    const parts: Uint8Array[] = []
    let from = code
    if (tight.size === 0) {
      parts.push(bytes.subarray(start, code), first, this.#spend)
      for (const at of behindLoops) {
        parts.push(bytes.subarray(from, at), this.#spend)
        from = at
      }
    } else {
      const instructions = this.#instructions(unsignedLeb(locals))
      parts.push(
        Uint8Array.from(unsignedLeb(groups + 1)),
        bytes.subarray(firstGroup, code),
        ONE_I32,
        first,
      )
      for (const { at, what } of placesOf(body, tight)) {
        parts.push(bytes.subarray(from, at), instructions[what])
        from = at
      }
    }
    parts.push(bytes.subarray(from, body.end))
    return parts
  }

  #instructions(local: readonly number[]): Readonly<Record<Place['what'], Uint8Array>> {
    const store = [...[0x20, ...local], ...[0x24, ...this.#global]] // local.get, global.set fuel
    const load = [...[0x23, ...this.#global], ...[0x21, ...local]] // global.get fuel, local.set
    return {
      load: Uint8Array.from(load),
      store: Uint8Array.from(store),
      spend: this.#spend,
      spendLocal: Uint8Array.of(
        ...[0x20, ...local],
        ...LESS_ONE,
        ...[0x22, ...local], // local.tee
        ...IS_SPENT,
        ...[0x04, 0x40, ...store, 0x00, 0x0b], // if, store, unreachable, end
      ),
    }
  }
}

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
  /** Where those begin that call nothing. */
  readonly tight: ReadonlySet<number>
}

function loopsOf(body: WasmReader): Loops {
  const reader = body.from(body.at)
  const behindLoops: number[] = []
  const tight = new Set<number>()
  /** Of each open block: where it begins if it is a loop that has called nothing so far, else -1. */
  const open: number[] = []
  while (reader.at < reader.end) {
    const { at } = reader
    const opcode = reader.byte()
    reader.skipImmediates(opcode)
    switch (opcode) {
      case LOOP:
        behindLoops.push(reader.at)
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
        if (loop >= 0) tight.add(loop)
      }
    }
  }
  return { behindLoops, tight }
}

/** In the order of the code, which ends behind the last of them. */
function placesOf(body: WasmReader, tight: ReadonlySet<number>): readonly Place[] {
  const places: Place[] = [{ at: body.at, what: 'spend' }]
  /** Open blocks from the outermost tight loop on; 0 outside of such a loop. */
  let depth = 0
  while (body.at < body.end) {
    const { at } = body
    const opcode = body.byte()
    if (depth > 0 && leaves(opcode, body.from(body.at), depth)) places.push({ at, what: 'store' })
    body.skipImmediates(opcode)
    if (opcode === LOOP && depth === 0 && tight.has(at)) {
      places.push({ at, what: 'load' })
      depth = 1
    } else if (depth > 0 && opens(opcode)) {
      depth++
    } else if (depth > 0 && opcode === END) {
      depth--
      if (depth === 0) places.push({ at: body.at, what: 'store' })
    }
    if (opcode === LOOP) places.push({ at: body.at, what: depth > 0 ? 'spendLocal' : 'spend' })
  }
  return places
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
