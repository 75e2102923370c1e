// A regular-expression engine whose time is linear in the text (a Pike machine): patterns come from
// policies but texts from clients, and one backtracking match could hold up a data thread for ever.
// Matching is leftmost-first, like Go's regexp.
import { type CharacterSet, isWord } from './character-set.ts'
import { type Assertion, parseRegex, type RegexNode, RegexSyntaxError } from './regex-syntax.ts'

export { RegexSyntaxError } from './regex-syntax.ts'

type Instruction =
  | { readonly kind: 'set'; readonly set: CharacterSet }
  | { readonly kind: 'assert'; readonly assertion: Assertion }
  | { readonly kind: 'save'; readonly slot: number }
  /** `first` is preferred. */
  | { readonly kind: 'split'; first: number; second: number }
  | { readonly kind: 'jump'; to: number }
  | { readonly kind: 'match' }

const MAX_INSTRUCTIONS = 10_000
/** Instructions times offsets that each of them may have to remember. */
const MAX_SLOTS = 1_000_000
/** Measured, in steps: of making one instruction. */
const EMIT_COST = 10

/**
 * @param spend is told about instructions that were made, in steps of some 5 ns, and may throw
 * @throws RegexSyntaxError also where the pattern is too large.
 */
export function compileRegex(pattern: string, spend = (_steps: number) => {}): Regex {
  const { root, groupCount, names } = parseRegex(pattern)
  const program: Instruction[] = []
  try {
    emit(program, { kind: 'group', index: 0, item: root })
  } finally {
    spend(program.length * EMIT_COST)
  }
  program.push({ kind: 'match' })
  return new Regex(program, groupCount, names)
}

export class Regex {
  readonly names: ReadonlyMap<string, number>
  readonly #program: readonly Instruction[]
  readonly #slotCount: number

  /** @internal Made by `compileRegex`. */
  constructor(
    program: readonly Instruction[],
    groupCount: number,
    names: ReadonlyMap<string, number>,
  ) {
    this.names = names
    this.#program = program
    this.#slotCount = 2 * (groupCount + 1)
    if (program.length * this.#slotCount > MAX_SLOTS) {
      throw new RegexSyntaxError('expression has too many groups')
    }
  }

  /**
   * All matches that do not overlap; offsets of start and end by group, -1 where a group took no
   * part. `spend` is told about work done, in steps of some 5 ns, and may throw.
   */
  *matches(text: string, spend: (steps: number) => void): Generator<readonly number[]> {
    const size = this.#program.length
    spend(MACHINE_COST + size + ((size * this.#slotCount) >> 2))
    const machine = new Machine(this.#program, this.#slotCount, text, spend)
    let position = 0
    let previousEnd = -1
    while (position <= text.length) {
      const match = machine.find(position)
      if (match === undefined) return
      const [start, end] = [match[0] as number, match[1] as number]
      // An empty match right behind another match does not count (Go: Regexp.allMatches).
      const counts = end !== position || start !== previousEnd
      position = end === position ? position + widthAt(text, position) : end
      previousEnd = end
      if (counts) yield Array.from(match)
    }
  }
}

/** Fuel is taken in portions: asking for each character costs more than matching it. */
const PORTION = 1_000
/** Measured, in steps: of one instruction, of one character besides, of one search. */
const INSTRUCTION_COST = 4
const CHARACTER_COST = 8
const FIND_COST = 20
/** Of a machine, whose lists have to be collected again, however small they are. */
const MACHINE_COST = 300

class Machine {
  readonly #program: readonly Instruction[]
  readonly #text: string
  readonly #spend: (steps: number) => void
  readonly #lists: readonly [ThreadList, ThreadList]
  /** Slots of the thread that is being followed. */
  readonly #slots: Int32Array
  readonly #found: Int32Array
  readonly #stack: Int32Array
  #owed = 0

  constructor(
    program: readonly Instruction[],
    slotCount: number,
    text: string,
    spend: (steps: number) => void,
  ) {
    this.#program = program
    this.#text = text
    this.#spend = spend
    this.#lists = [
      new ThreadList(program.length, slotCount),
      new ThreadList(program.length, slotCount),
    ]
    this.#slots = new Int32Array(slotCount)
    this.#found = new Int32Array(slotCount)
    // Each instruction is followed once for each character and leaves three numbers at most.
    this.#stack = new Int32Array(3 * program.length + 1)
  }

  /** The offsets are overwritten by the next call. */
  find(from: number): Int32Array | undefined {
    const program = this.#program
    const text = this.#text
    const slots = this.#slots
    let [current, next] = this.#lists
    let found: Int32Array | undefined
    current.clear()
    next.clear()
    this.#charge(FIND_COST)
    for (let at = from; ; ) {
      if (found === undefined) {
        slots.fill(-1)
        this.#add(current, 0, at)
      }
      this.#charge(current.work * INSTRUCTION_COST + CHARACTER_COST)
      if (current.count === 0 && found !== undefined) return found
      const code = text.codePointAt(at)
      const following = code !== undefined && code > 0xffff ? at + 2 : at + 1
      for (let i = 0; i < current.count; i++) {
        const instructionAt = current.instructions[i] as number
        const instruction = program[instructionAt] as Instruction
        if (instruction.kind === 'match') {
          found = this.#found
          current.load(i, found)
          break // what follows has less priority
        }
        if (instruction.kind !== 'set' || code === undefined) continue
        if (code > 0x7f) this.#charge(instruction.set.cost)
        if (instruction.set.has(code)) {
          current.load(i, slots)
          this.#add(next, instructionAt + 1, following)
        }
      }
      if (code === undefined) return found
      at = following
      ;[current, next] = [next, current]
      next.clear()
    }
  }

  #charge(steps: number): void {
    this.#owed += steps
    if (this.#owed < PORTION) return
    this.#spend(this.#owed)
    this.#owed = 0
  }

  /**
   * Follows everything that consumes no text; an explicit stack, for programs may be long. On it are
   * instructions, and below the complement of a slot the value that the slot gets back.
   */
  #add(list: ThreadList, start: number, position: number): void {
    const stack = this.#stack
    const slots = this.#slots
    let height = 0
    stack[height++] = start
    while (height > 0) {
      const at = stack[--height] as number
      if (at < 0) {
        slots[~at] = stack[--height] as number
        continue
      }
      if (!list.visit(at)) continue
      const instruction = this.#program[at] as Instruction
      switch (instruction.kind) {
        case 'jump':
          stack[height++] = instruction.to
          break
        case 'split':
          stack[height++] = instruction.second
          stack[height++] = instruction.first
          break
        case 'save':
          stack[height++] = slots[instruction.slot] as number
          stack[height++] = ~instruction.slot
          stack[height++] = at + 1
          slots[instruction.slot] = position
          break
        case 'assert':
          if (holds(instruction.assertion, this.#text, position)) stack[height++] = at + 1
          break
        default:
          list.push(at, slots)
      }
    }
  }
}

/** The instructions where the machine stands in the text, the preferred one first. */
class ThreadList {
  readonly instructions: Int32Array
  count = 0
  /** Instructions visited since the list was cleared. */
  work = 0
  readonly #slots: Int32Array
  readonly #slotCount: number
  /** Visited instructions have the number of the present round. */
  readonly #seen: Uint32Array
  #round = 1

  constructor(size: number, slotCount: number) {
    this.instructions = new Int32Array(size)
    this.#slots = new Int32Array(size * slotCount)
    this.#slotCount = slotCount
    this.#seen = new Uint32Array(size)
  }

  clear(): void {
    this.count = 0
    this.work = 0
    this.#round++
  }

  /** False when the instruction is in the list already, with a higher priority. */
  visit(at: number): boolean {
    if (this.#seen[at] === this.#round) return false
    this.#seen[at] = this.#round
    this.work++
    return true
  }

  push(at: number, slots: Int32Array): void {
    this.instructions[this.count] = at
    const start = this.count * this.#slotCount
    for (let i = 0; i < this.#slotCount; i++) this.#slots[start + i] = slots[i] as number
    this.count++
    this.work += this.#slotCount >> 3
  }

  load(index: number, slots: Int32Array): void {
    const start = index * this.#slotCount
    for (let i = 0; i < this.#slotCount; i++) slots[i] = this.#slots[start + i] as number
  }
}

function holds(assertion: Assertion, text: string, at: number): boolean {
  switch (assertion) {
    case 'text_start':
      return at === 0
    case 'text_end':
      return at === text.length
    case 'line_start':
      return at === 0 || text[at - 1] === '\n'
    case 'line_end':
      return at === text.length || text[at] === '\n'
    default: {
      const before = at > 0 && isWord(text.charCodeAt(at - 1))
      const after = at < text.length && isWord(text.charCodeAt(at))
      return (before !== after) === (assertion === 'boundary')
    }
  }
}

function widthAt(text: string, at: number): number {
  return (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1
}

function emit(program: Instruction[], node: RegexNode): void {
  if (program.length > MAX_INSTRUCTIONS) throw new RegexSyntaxError('expression is too large')
  switch (node.kind) {
    case 'set':
    case 'assert':
      program.push(node)
      return
    case 'sequence':
      for (const item of node.items) emit(program, item)
      return
    case 'group':
      program.push({ kind: 'save', slot: 2 * node.index })
      emit(program, node.item)
      program.push({ kind: 'save', slot: 2 * node.index + 1 })
      return
    case 'choice':
      emitChoice(program, node.items)
      return
    case 'repeat':
      emitRepeat(program, node)
      return
  }
}

function emitChoice(program: Instruction[], items: readonly RegexNode[]): void {
  const jumps: { kind: 'jump'; to: number }[] = []
  for (const [i, item] of items.entries()) {
    if (i === items.length - 1) {
      emit(program, item)
      break
    }
    const split = pushSplit(program)
    emit(program, item)
    const jump = { kind: 'jump' as const, to: 0 }
    program.push(jump)
    jumps.push(jump)
    split.second = program.length
  }
  for (const jump of jumps) jump.to = program.length
}

function emitRepeat(program: Instruction[], node: RegexNode & { kind: 'repeat' }): void {
  const { item, min, max, greedy } = node
  for (let i = 0; i < min - 1; i++) emit(program, item)
  if (max === Number.POSITIVE_INFINITY) {
    // Also `x*` is `(x+)?`: a plain loop would give an x that can be empty another priority (Go).
    const skip = min === 0 ? pushSplit(program) : undefined
    const start = program.length
    emit(program, item)
    const end = program.length + 1
    program.push({
      kind: 'split',
      first: greedy ? start : end,
      second: greedy ? end : start,
    })
    if (skip !== undefined) leadPast(skip, program.length, greedy)
    return
  }
  if (min > 0) emit(program, item)
  const skips: Split[] = []
  for (let i = min; i < max; i++) {
    skips.push(pushSplit(program))
    emit(program, item)
  }
  for (const skip of skips) leadPast(skip, program.length, greedy)
}

type Split = Instruction & { kind: 'split' }

function pushSplit(program: Instruction[]): Split {
  const split: Split = { kind: 'split', first: program.length + 1, second: 0 }
  program.push(split)
  return split
}

/** The way around something optional: second choice when greedy, else the first. */
function leadPast(split: Split, end: number, greedy: boolean): void {
  split.second = end
  if (!greedy) [split.first, split.second] = [split.second, split.first]
}
