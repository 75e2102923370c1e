// Mutators: what makes a new input of one that is known. The byte level knows nothing; the others take
// an input apart as its format has it, so that what they make is wrong in one place and right in all
// others (lengths above all), and gets past the first check of a reader.
import { FRAME_HEADER_BYTES, readFrameHeader } from '../../src/http/h2/frames.ts'
import type { Random } from './random.ts'

/** @param other another known input, to take pieces from */
export type Mutator = (input: Buffer, random: Random, other: Buffer) => Buffer

/** Longer inputs are cut: what grows with its input shows it here already. */
export const MOST_BYTES = 16 * 1024

export function bytesMutator(dictionary: readonly string[]): Mutator {
  const words = dictionary.map((word) => Buffer.from(word, 'latin1'))
  return (input, random, other) => {
    const at = random.below(input.length + 1)
    const length = 1 + random.below(random.oneIn(4) ? 64 : 4)
    switch (random.below(words.length === 0 ? 9 : 12)) {
      case 0:
        return replaced(input, at, 1, Buffer.from([(input[at] ?? 0) ^ (1 << random.below(8))]))
      case 1:
        return replaced(input, at, 1, Buffer.from([random.pick(BYTES)]))
      case 2:
        return replaced(input, at, 0, Buffer.from([random.below(256)]))
      case 3:
        return replaced(input, at, length, EMPTY)
      case 4:
        return replaced(input, at, 0, input.subarray(at, at + length))
      case 5: {
        const from = random.below(other.length + 1)
        return replaced(input, at, length, other.subarray(from, from + length))
      }
      case 6:
        return input.subarray(0, at)
      case 7: {
        const number = Buffer.alloc(random.pick([2, 4]))
        number.writeUIntBE(random.pick(NUMBERS) % 2 ** (8 * number.length), 0, number.length)
        return replaced(input, at, number.length, number)
      }
      case 8: {
        const piece = input.subarray(at, at + length)
        return replaced(input, at, 0, Buffer.concat(Array(random.below(200)).fill(piece)))
      }
      default:
        return replaced(input, at, random.oneIn(2) ? 0 : length, random.pick(words))
    }
  }
}

/** Lines, whatever ends them: taken away, doubled, exchanged, brought in from another input. */
export const linesMutator: Mutator = (input, random, other) => {
  const lines = linesOf(input)
  const at = random.below(lines.length)
  switch (random.below(5)) {
    case 0:
      lines.splice(at, 1)
      break
    case 1:
      lines.splice(at, 0, ...Array(random.oneIn(8) ? 200 : 1).fill(lines[at]!))
      break
    case 2:
      lines.splice(at, 0, random.pick(linesOf(other)))
      break
    case 3:
      lines[at] = random.pick(linesOf(other))
      break
    default: {
      const [moved = ''] = lines.splice(at, 1)
      lines.splice(random.below(lines.length + 1), 0, moved)
    }
  }
  return Buffer.from(lines.join(''), 'latin1')
}

const linesOf = (input: Buffer): string[] => input.toString('latin1').split(/(?<=\n)/)

/** Values of a JSON text: exchanged, nested, doubled under another key; another form of number. */
export function jsonMutator(keys: readonly string[], values: readonly unknown[]): Mutator {
  return (input, random, other) => {
    let root: unknown
    let others: unknown[] = []
    try {
      root = JSON.parse(input.toString())
      others = places({ root: JSON.parse(other.toString()) }).map(([holder, key]) => holder[key])
    } catch {
      if (root === undefined) return input
    }
    const whole = { root }
    const [holder, key] = random.pick(places(whole))
    const pool = [...values, ...others, holder[key]]
    switch (random.below(5)) {
      case 0:
        if (Array.isArray(holder)) holder.splice(Number(key), 1)
        else delete holder[key]
        break
      case 1:
        if (Array.isArray(holder)) holder.push(random.pick(pool))
        else if (keys.length > 0) holder[random.pick(keys)] = random.pick(pool)
        break
      case 2:
        holder[key] = random.oneIn(2)
          ? [holder[key]]
          : { [random.pick(['a', ...keys])]: holder[key] }
        break
      default:
        holder[key] = random.pick(pool)
    }
    return Buffer.from(JSON.stringify(whole.root) ?? 'null')
  }
}

type Holder = Record<string, unknown>

function places(holder: Holder): (readonly [Holder, string])[] {
  return Object.entries(holder).flatMap(([key, value]) => [
    [holder, key] as const,
    ...(typeof value === 'object' && value !== null ? places(value as Holder) : []),
  ])
}

/** Elements of DER, also inside strings that hold others; every length around a change is made right. */
export const derMutator: Mutator = (input, random, other) => {
  const tree = elementsOf(input)
  const theirs = flat(elementsOf(other) ?? [])
  if (tree === undefined || tree.length === 0) return input
  const list = random.pick([
    tree,
    ...flat(tree).flatMap(({ inside }) => (inside?.length ? [inside] : [])),
  ])
  const at = random.below(list.length)
  const element = list[at]!
  switch (random.below(7)) {
    case 0:
      list.splice(at, 1)
      break
    case 1:
      list.splice(at, 0, element)
      break
    case 2:
      if (theirs.length > 0) list[at] = random.pick(theirs)
      break
    case 3:
      if (theirs.length > 0) list.splice(at, 0, random.pick(theirs))
      break
    case 4:
      element.tag = random.oneIn(2) ? element.tag ^ (1 << random.below(8)) : random.pick(TAGS)
      break
    case 5:
      list.push(...list.splice(at, 1))
      break
    default:
      element.content = contentMutator(
        element.content,
        random,
        random.pick(theirs)?.content ?? EMPTY,
      )
      delete element.inside
  }
  return Buffer.concat(tree.map(encoded))
}

interface Element {
  tag: number
  content: Buffer
  /** What it consists of, where it does; its bytes before it are kept (unused bits). */
  inside?: Element[]
  prefix?: Buffer
}

/** Undefined where the bytes are no DER. */
function elementsOf(bytes: Buffer): Element[] | undefined {
  const elements: Element[] = []
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at]!
    let length = bytes[at + 1]
    if (length === undefined) return undefined
    at += 2
    if (length > 0x80 && length <= 0x84 && at + (length & 0x7f) <= bytes.length) {
      const size: number = length & 0x7f
      length = bytes.readUIntBE(at, size)
      at += size
    } else if (length >= 0x80) return undefined
    if (at + length > bytes.length) return undefined
    elements.push(elementOf(tag, bytes.subarray(at, at + length)))
    at += length
  }
  return elements
}

function elementOf(tag: number, content: Buffer): Element {
  // OCTET STRING and BIT STRING of extensions and keys hold DER themselves.
  const skipped = tag === 0x03 ? 1 : 0
  const holds = (tag & 0x20) !== 0 || ((tag === 0x03 || tag === 0x04) && content[skipped] === 0x30)
  const inside = holds ? elementsOf(content.subarray(skipped)) : undefined
  return {
    tag,
    content,
    ...(inside === undefined ? {} : { inside, prefix: content.subarray(0, skipped) }),
  }
}

const flat = (elements: readonly Element[]): Element[] =>
  elements.flatMap((element) => [element, ...flat(element.inside ?? [])])

function encoded({ tag, content, inside, prefix = EMPTY }: Element): Buffer {
  const bytes = inside === undefined ? content : Buffer.concat([prefix, ...inside.map(encoded)])
  const size = bytes.length < 0x80 ? 0 : bytes.length < 0x100 ? 1 : bytes.length < 0x10000 ? 2 : 3
  const head = Buffer.alloc(2 + size)
  head[0] = tag
  head[1] = size === 0 ? bytes.length : 0x80 | size
  if (size > 0) head.writeUIntBE(bytes.length, 2, size)
  return Buffer.concat([head, bytes])
}

/** Places behind which a length says how many bytes follow: changed with what it counts. */
export function countedMutator(pieces: (input: Buffer) => Buffer[] | undefined): Mutator {
  return (input, random, other) => {
    const list = pieces(input)
    if (list === undefined || list.length === 0) return input
    const theirs = pieces(other) ?? []
    const at = random.below(list.length)
    switch (random.below(5)) {
      case 0:
        list.splice(at, 1)
        break
      case 1:
        list.splice(at, 0, ...Array(random.oneIn(8) ? 100 : 1).fill(list[at]!))
        break
      case 2:
        if (theirs.length > 0) list.splice(at, 0, random.pick(theirs))
        break
      case 3:
        list.push(...list.splice(at, 1))
        break
      default:
        list[at] = contentMutator(list[at]!, random, EMPTY)
    }
    return Buffer.concat(list)
  }
}

/** Takes frames of HTTP/2 out, puts them elsewhere, doubles them, and changes what is in one. */
export const framesMutator: Mutator = countedMutator((input) => {
  const frames: Buffer[] = []
  for (let at = 0; at + FRAME_HEADER_BYTES <= input.length; ) {
    const end = at + FRAME_HEADER_BYTES + readFrameHeader(input, at).length
    frames.push(input.subarray(at, end))
    at = end
  }
  return frames
})

function replaced(input: Buffer, at: number, length: number, by: Buffer): Buffer {
  return Buffer.concat([input.subarray(0, at), by, input.subarray(at + length)])
}

const EMPTY = Buffer.alloc(0)
const BYTES = [0, 1, 9, 10, 13, 32, 34, 37, 44, 46, 47, 58, 59, 92, 127, 128, 192, 254, 255]
const NUMBERS = [
  0,
  1,
  127,
  128,
  255,
  256,
  32767,
  32768,
  65535,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
]
const TAGS = [
  0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x13, 0x16, 0x17, 0x18, 0x1e, 0x30, 0x31, 0x80, 0x82,
  0x86, 0xa0, 0xa3, 0xa4,
]
const contentMutator = bytesMutator([])
