// The counter inside one function of a module: instructions at its beginning and at the beginning of
// each of its loops, which trap when the fuel is used up. A loop that calls nothing counts in a local
// variable, and writes it back wherever it is left: a store and a load of the same address in each
// round would be most of what a tight loop costs.
import type { WasmReader } from './wasm-module.ts'

/**
 * @param body reads it, from behind its size to its end
 * @param parameters how many the function has
 * @returns what to write instead, without the size
 */
export function meteredBody(
  body: WasmReader,
  parameters: number,
  fuelGlobal: number,
): readonly Uint8Array[] {
  const { bytes, at: start } = body
  const groups = body.u32()
  const firstGroup = body.at
  let locals = parameters
  for (let left = groups; left > 0; left--) {
    locals += body.u32()
    body.byte()
  }
  const code = body.at
  const places = placesOf(body, tightLoops(body))
  const instructions = instructionsOf(unsignedLeb(fuelGlobal), unsignedLeb(locals))
  const oneMore = [
    Uint8Array.from(unsignedLeb(groups + 1)),
    bytes.subarray(firstGroup, code),
    ONE_I32,
  ]
  const parts = places.some(({ what }) => what === 'load') ? oneMore : [bytes.subarray(start, code)]
  let from = code
  for (const { at, what } of places) {
    parts.push(bytes.subarray(from, at), instructions[what])
    from = at
  }
  parts.push(bytes.subarray(from, body.end))
  return parts
}

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

/** Where the loops are that call nothing. */
function tightLoops(body: WasmReader): ReadonlySet<number> {
  const reader = body.from(body.at)
  const tight = new Set<number>()
  const open: { at: number | undefined; calls: boolean }[] = []
  while (reader.at < reader.end) {
    const { at } = reader
    const opcode = reader.byte()
    reader.skipImmediates(opcode)
    if (opens(opcode)) open.push({ at: opcode === LOOP ? at : undefined, calls: false })
    if (opcode === CALL || opcode === CALL_INDIRECT) for (const block of open) block.calls = true
    if (opcode !== END) continue
    const block = open.pop()
    if (block?.at !== undefined && !block.calls) tight.add(block.at)
  }
  return tight
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

function instructionsOf(
  global: readonly number[],
  local: readonly number[],
): Readonly<Record<Place['what'], Uint8Array>> {
  const store = [...[0x20, ...local], ...[0x24, ...global]] // local.get, global.set fuel
  const load = [...[0x23, ...global], ...[0x21, ...local]] // global.get fuel, local.set
  const lessOne = [0x41, 0x01, 0x6b] // i32.const 1, i32.sub
  const isSpent = [0x41, 0x00, 0x48] // i32.const 0, i32.lt_s
  return {
    load: Uint8Array.from(load),
    store: Uint8Array.from(store),
    spend: Uint8Array.of(
      ...[0x23, ...global],
      ...lessOne,
      ...[0x24, ...global],
      ...[0x23, ...global],
      ...isSpent,
      ...[0x04, 0x40, 0x00, 0x0b], // if, unreachable, end
    ),
    spendLocal: Uint8Array.of(
      ...[0x20, ...local],
      ...lessOne,
      ...[0x22, ...local], // local.tee
      ...isSpent,
      ...[0x04, 0x40, ...store, 0x00, 0x0b], // if, store, unreachable, end
    ),
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
