// The counter inside one function of a module: instructions at its beginning and at the beginning of
// each of its loops, which trap when the fuel is used up. A loop that calls nothing counts in a local
// variable, and writes it back wherever it is left: a store and a load of the same address in each
// round would be most of what a tight loop costs. What is long costs more than 1: jumps go forward
// between two counters, so that no more is done than stands there.
import { behindInstruction, WasmFormatError, WasmReader } from './wasm-module.ts'

/**
 * Bytes that cost as much as another call or round. Nineteen in twenty of OPA's functions and loops are
 * shorter, so that an evaluation costs little more than how many there are of them (a tenth to a quarter).
 */
const BYTES_PER_FUEL = 512

/** Instructions that take much longer than their length says, in bytes more that they count as. */
const SLOW = new Uint16Array(256)
  .fill(32, 0x6d, 0x71) // i32.div_s, i32.div_u, i32.rem_s, i32.rem_u
  .fill(32, 0x7f, 0x83) // those of i64
  .fill(1, 0x40, 0x41) // memory.grow, see below

/** What memory.grow counts as, also by nothing; it is paid where it stands, as hardly a call comes to it. */
const GROW_BYTES = 15 * BYTES_PER_FUEL

/** Writes functions with their counters. A module is read once, by code that is still cold: little of it. */
export class Meter {
  readonly #module: Uint8Array
  readonly #global: readonly number[]
  readonly #spend = new Map<number, Uint8Array>()
  readonly #byLocal = new Map<number, Instructions>()

  constructor(module: Uint8Array, fuelGlobal: number) {
    this.#module = module
    this.#global = unsignedLeb(fuelGlobal)
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
    const { own, loops, tight } = loopsOf(module, code, end)
    const places = placesOf(module, code, own, loops, tight)
    const instructions = this.#instructions(locals)
    const hasLocal = tight.length > 0
    const groupCount = unsignedLeb(hasLocal ? groups + 1 : groups)
    let size = groupCount.length + end - firstGroup + first.length
    if (hasLocal) size += ONE_I32.length
    const counters = places.map((place) => this.#bytesOf(place, instructions))
    for (const counter of counters) size += counter.length

    into.integer(size)
    into.all(groupCount)
    into.part(module, firstGroup, code)
    if (hasLocal) into.all(ONE_I32)
    into.all(first)
    let from = code
    for (const [i, { at }] of places.entries()) {
      into.part(module, from, at)
      into.all(counters[i] as Uint8Array)
      from = at
    }
    into.part(module, from, end)
  }

  #bytesOf({ what, cost }: Place, instructions: Instructions): Uint8Array {
    switch (what) {
      case 'spend':
        return known(this.#spend, cost, () => spendOf(this.#global, cost))
      case 'spendLocal':
        return known(instructions.spend, cost, () => spendLocalOf(instructions, cost))
      default:
        return instructions[what]
    }
  }

  /** @param local where the function counts */
  #instructions(local: number): Instructions {
    return known(this.#byLocal, local, () => {
      const index = unsignedLeb(local)
      return {
        index,
        load: new Uint8Array([0x23, ...this.#global, 0x21, ...index]), // global.get fuel, local.set
        store: new Uint8Array([0x20, ...index, 0x24, ...this.#global]), // local.get, global.set fuel
        spend: new Map(),
      }
    })
  }
}

/** With one local variable. */
interface Instructions {
  readonly index: readonly number[]
  readonly load: Uint8Array
  readonly store: Uint8Array
  /** By cost. */
  readonly spend: Map<number, Uint8Array>
}

function known<T>(values: Map<number, T>, key: number, make: () => T): T {
  const value = values.get(key) ?? make()
  values.set(key, value)
  return value
}

/** i32.const, i32.sub */
const less = (cost: number): number[] => [0x41, ...signedLeb(cost), 0x6b]
const IS_SPENT = [0x41, 0x00, 0x48] // i32.const 0, i32.lt_s

const spendOf = (global: readonly number[], cost: number): Uint8Array =>
  Uint8Array.of(
    ...[0x23, ...global],
    ...less(cost),
    ...[0x24, ...global],
    ...[0x23, ...global],
    ...IS_SPENT,
    ...[0x04, 0x40, 0x00, 0x0b], // if, unreachable, end
  )

const spendLocalOf = ({ index, store }: Instructions, cost: number): Uint8Array =>
  Uint8Array.of(
    ...[0x20, ...index],
    ...less(cost),
    ...[0x22, ...index], // local.tee
    ...IS_SPENT,
    ...[0x04, 0x40, ...store, 0x00, 0x0b], // if, store, unreachable, end
  )

/** A group of local variables. */
const ONE_I32 = Uint8Array.of(0x01, 0x7f)

/** Before the instruction that is at `at`. */
interface Place {
  readonly at: number
  readonly what: 'spend' | 'load' | 'spendLocal' | 'store'
  readonly cost: number
}

const costOf = (bytes: number): number => 1 + Math.floor(bytes / BYTES_PER_FUEL)

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
const MEMORY_GROW = 0x40

const opens = (opcode: number): boolean => opcode >= BLOCK && opcode <= IF

interface Loops {
  /** Bytes that stand in no loop, and what slow instructions count as. */
  readonly own: number
  /** In the order of the code; and each memory.grow, which costs as much as a long one. */
  readonly loops: readonly Loop[]
  /** Those that call nothing, without those inside of them; in the order of the code. */
  readonly tight: readonly Loop[]
}

interface Loop {
  readonly start: number
  /** Where the first instruction in it is, before which it counts. */
  readonly behind: number
  end: number
  /** Bytes that stand in no loop inside of it, and what slow instructions count as. */
  own: number
}

function loopsOf(module: Uint8Array, start: number, end: number): Loops {
  const loops: Loop[] = []
  const tight: Loop[] = []
  const open: (Loop | undefined)[] = []
  /** All of the function, and the loops that are open. */
  const around: Loop[] = [{ start, behind: start, end, own: 0 }]
  let lastCall = -1
  let at = start
  while (at < end) {
    const opcode = module[at] as number
    const behind = behindInstruction(module, at)
    switch (opcode) {
      case LOOP: {
        const loop = { start: at, behind, end, own: 0 }
        loops.push(loop)
        open.push(loop)
        around.push(loop)
        break
      }
      case BLOCK:
      case IF:
        open.push(undefined)
        break
      case CALL:
      case CALL_INDIRECT:
        lastCall = at
        break
      case END: {
        const loop = open.pop()
        if (loop === undefined) break
        around.pop()
        loop.end = behind
        loop.own += behind - loop.start
        const outer = around.at(-1) as Loop
        outer.own -= behind - loop.start
        if (lastCall > loop.start) break
        while ((tight.at(-1)?.start ?? -1) > loop.start) tight.pop()
        tight.push(loop)
        break
      }
      default: {
        // No case of its own: an engine jumps by a table where the cases are near each other.
        const slow = SLOW[opcode] as number
        if (slow === 0) break
        if (opcode === MEMORY_GROW) {
          loops.push({ start: at, behind: at, end: behind, own: GROW_BYTES })
          lastCall = at
        } else (around.at(-1) as Loop).own += slow
      }
    }
    at = behind
  }
  if (at !== end) throw new WasmFormatError('a function ends in the middle of an instruction')
  return { own: (around[0] as Loop).own + end - start, loops, tight }
}

/** In the order of the code, which ends behind the last of them. */
function placesOf(
  module: Uint8Array,
  code: number,
  own: number,
  loops: readonly Loop[],
  tight: readonly Loop[],
): readonly Place[] {
  const places: Place[] = [{ at: code, what: 'spend', cost: costOf(own) }]
  let next = 0
  for (const outermost of tight) {
    for (; loops[next] !== outermost; next++) places.push(spendIn(loops[next] as Loop, 'spend'))
    const first = next
    while (next < loops.length && (loops[next] as Loop).start < outermost.end) next++
    addPlacesWithin(module, outermost, loops.slice(first, next), places)
  }
  for (const loop of loops.slice(next)) places.push(spendIn(loop, 'spend'))
  return places
}

const spendIn = ({ behind, own }: Loop, what: 'spend' | 'spendLocal'): Place => ({
  at: behind,
  what,
  cost: costOf(own),
})

/**
 * Of a loop that calls nothing.
 * @param loops it and those inside of it
 */
function addPlacesWithin(
  module: Uint8Array,
  { start, end }: Loop,
  loops: readonly Loop[],
  places: Place[],
): void {
  places.push({ at: start, what: 'load', cost: 0 })
  let depth = 0
  let loop = 0
  for (let at = start; at < end; ) {
    const opcode = module[at] as number
    const behind = behindInstruction(module, at)
    if (leaves(opcode, new WasmReader(module, at + 1, behind), depth)) {
      places.push({ at, what: 'store', cost: 0 })
    }
    if (opens(opcode)) depth++
    else if (opcode === END) depth--
    if (opcode === LOOP) places.push(spendIn(loops[loop++] as Loop, 'spendLocal'))
    at = behind
  }
  places.push({ at: end, what: 'store', cost: 0 })
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

export function signedLeb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (;;) {
    const low = rest & 0x7f
    rest >>= 7
    if ((rest === 0 && !(low & 0x40)) || (rest === -1 && low & 0x40)) return [...bytes, low]
    bytes.push(low | 0x80)
  }
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
