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

/** @throws RegexSyntaxError also where the pattern is too large. */
export function compileRegex(pattern: string): Regex {
  const { root, groupCount, names } = parseRegex(pattern)
  const program: Instruction[] = []
  emit(program, { kind: 'group', index: 0, item: root })
  program.push({ kind: 'match' })
  return new Regex(program, groupCount, names)
}

export class Regex {
  readonly names: ReadonlyMap<string, number>
  readonly #program: readonly Instruction[]
  readonly #slots: number

  /** @internal Made by `compileRegex`. */
  constructor(
    program: readonly Instruction[],
    groupCount: number,
    names: ReadonlyMap<string, number>,
  ) {
    this.names = names
    this.#program = program
    this.#slots = 2 * (groupCount + 1)
  }

  /**
   * All matches that do not overlap; offsets of start and end by group, -1 where a group took no
   * part. `spend` is told about work done and may throw.
   */
  *matches(text: string, spend: (steps: number) => void): Generator<readonly number[]> {
    let position = 0
    let previousEnd = -1
    while (position <= text.length) {
      const match = this.#find(text, position, spend)
      if (match === undefined) return
      const [start, end] = [match[0] as number, match[1] as number]
      // An empty match right behind another match does not count (Go: Regexp.allMatches).
      const counts = end !== position || start !== previousEnd
      position = end === position ? position + widthAt(text, position) : end
      previousEnd = end
      if (counts) yield match
    }
  }

  #find(text: string, from: number, spend: (steps: number) => void): readonly number[] | undefined {
    const program = this.#program
    let current = new ThreadList(program.length)
    let next = new ThreadList(program.length)
    let found: readonly number[] | undefined
    for (let at = from; ; ) {
      if (found === undefined) {
        const start = new Array<number>(this.#slots).fill(-1)
        addThread(program, current, 0, text, at, start)
      }
      spend(1 + current.work)
      if (current.threads.length === 0 && found !== undefined) return found
      const code = text.codePointAt(at)
      const following = at + widthAt(text, at)
      for (const thread of current.threads) {
        const instruction = program[thread.at] as Instruction
        if (instruction.kind === 'match') {
          found = thread.slots
          break // what follows has less priority
        }
        if (instruction.kind === 'set' && code !== undefined && instruction.set.has(code)) {
          addThread(program, next, thread.at + 1, text, following, thread.slots)
        }
      }
      if (code === undefined) return found
      at = following
      ;[current, next] = [next, current]
      next.clear()
    }
  }
}

interface Thread {
  readonly at: number
  readonly slots: readonly number[]
}

class ThreadList {
  threads: Thread[] = []
  /** Instructions visited since the list was cleared. */
  work = 0
  readonly #seen: Uint8Array

  constructor(size: number) {
    this.#seen = new Uint8Array(size)
  }

  clear(): void {
    this.threads = []
    this.work = 0
    this.#seen.fill(0)
  }

  /** False when the instruction is in the list already, with a higher priority. */
  visit(at: number): boolean {
    if (this.#seen[at] === 1) return false
    this.#seen[at] = 1
    this.work++
    return true
  }
}

/** Follows everything that consumes no text; an explicit stack, for programs may be long. */
function addThread(
  program: readonly Instruction[],
  list: ThreadList,
  start: number,
  text: string,
  position: number,
  slotsAtStart: readonly number[],
): void {
  const stack: Thread[] = [{ at: start, slots: slotsAtStart }]
  for (let thread = stack.pop(); thread !== undefined; thread = stack.pop()) {
    const { at, slots } = thread
    if (!list.visit(at)) continue
    const instruction = program[at] as Instruction
    switch (instruction.kind) {
      case 'jump':
        stack.push({ at: instruction.to, slots })
        break
      case 'split':
        stack.push({ at: instruction.second, slots }, { at: instruction.first, slots })
        break
      case 'save':
        stack.push({ at: at + 1, slots: slots.with(instruction.slot, position) })
        break
      case 'assert':
        if (holds(instruction.assertion, text, position)) stack.push({ at: at + 1, slots })
        break
      default:
        list.threads.push(thread)
    }
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
