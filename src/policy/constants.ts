// The strings of a policy that its module brings as values: `opa build` writes them one behind the
// other. OPA compares addresses before bytes, so that a key which is such a string itself is found by
// the rules without its bytes being compared.
import { STACK_TOP } from './rewrite.ts'
import { SIZE, TYPE } from './value-layout.ts'

/** Addresses by what they say. */
export type Constants = ReadonlyMap<string, number>

export const NO_CONSTANTS: Constants = new Map()

/** The keys that the rules ask for are among the first, and are short. */
const MOST_CONSTANTS = 256
const LONGEST_CONSTANT = 64
/** What stands before the strings: `true` and `false`. */
const BEFORE = Buffer.of(TYPE.internedBoolean, 1, TYPE.internedBoolean, 0)

/**
 * That they are what they seem to be has to be proven, see value-proof.ts.
 * @param end of what the module brings
 */
export function constantsIn(memory: ArrayBuffer, end: number): Constants {
  const bytes = Buffer.from(memory, 0, Math.min(end, memory.byteLength))
  const constants = new Map<string, number>()
  const before = bytes.lastIndexOf(BEFORE)
  if (before < STACK_TOP) return NO_CONSTANTS
  const last = Math.min(before + MOST_CONSTANTS * SIZE.string, bytes.length - SIZE.string)
  for (let at = before + BEFORE.length; at <= last; at += SIZE.string) {
    const [length, start] = [bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 8)]
    const isString = bytes.readUInt32LE(at) === TYPE.internedString
    if (!isString || start < STACK_TOP || bytes[start + length] !== 0) break
    if (length <= LONGEST_CONSTANT) constants.set(bytes.toString('utf8', start, start + length), at)
  }
  return constants
}

/**
 * Puts them in the place of the keys, in a value of JSON, that say the same.
 * @param size bytes that the value has at most; what seems to have more goes round in a circle
 * @returns false where it is no value of JSON; some keys may be replaced already
 */
export function shareKeys(
  memory: ArrayBuffer,
  value: number,
  size: number,
  constants: Constants,
): boolean {
  try {
    return new Sharing(memory, size, constants).share(value)
  } catch (error) {
    // An address that is none.
    if (error instanceof RangeError) return false
    throw error
  }
}

/** What each element, bucket and member has at least. */
const LEAST_SIZE = SIZE.bucket

class Sharing {
  readonly #words: DataView
  readonly #bytes: Uint8Array
  /** By length and first byte: of much data hardly a key has those of one. */
  readonly #constants = new Map<
    number,
    { readonly bytes: Uint8Array; readonly address: number }[]
  >()
  readonly #left: number[] = []
  #visits: number

  constructor(memory: ArrayBuffer, size: number, constants: Constants) {
    this.#words = new DataView(memory)
    this.#bytes = new Uint8Array(memory)
    this.#visits = size / LEAST_SIZE
    for (const [text, address] of constants) {
      const bytes = Buffer.from(text)
      const head = headOf(bytes.length, bytes[0])
      this.#constants.set(head, [...(this.#constants.get(head) ?? []), { bytes, address }])
    }
  }

  share(value: number): boolean {
    const left = this.#left
    left.push(value)
    for (let address = left.pop(); address !== undefined; address = left.pop()) {
      const type = this.#words.getUint8(address)
      const inside = this.#word(address + 4)
      const count = this.#word(address + 8)
      if (type !== TYPE.array && type !== TYPE.object) continue
      if (!this.#mayVisit(count)) return false
      for (let i = 0; i < count; i++) {
        if (type === TYPE.array) left.push(this.#word(inside + i * SIZE.element + 4))
        else if (!this.#shareOfChain(this.#word(inside + i * SIZE.bucket))) return false
      }
    }
    return true
  }

  #shareOfChain(first: number): boolean {
    for (let member = first; member !== 0; member = this.#word(member + 8)) {
      if (!this.#mayVisit(1)) return false
      const same = this.#constantLike(this.#word(member))
      if (same !== undefined) this.#words.setUint32(member, same, true)
      this.#left.push(this.#word(member + 4))
    }
    return true
  }

  #mayVisit(count: number): boolean {
    this.#visits -= count
    return this.#visits >= 0
  }

  #constantLike(key: number): number | undefined {
    const length = this.#word(key + 4)
    const start = this.#word(key + 8)
    const like = this.#constants.get(headOf(length, this.#bytes[start]))
    return like?.find(({ bytes }) => this.#says(start, bytes))?.address
  }

  #says(start: number, text: Uint8Array): boolean {
    for (let i = 0; i < text.length; i++) {
      if (this.#bytes[start + i] !== text[i]) return false
    }
    return true
  }

  #word(address: number): number {
    return this.#words.getUint32(address, true)
  }
}

const headOf = (length: number, first = 0): number => length * 256 + (length === 0 ? 0 : first)
