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

/** Puts them in the place of the keys, in a value of JSON, that say the same. */
export function shareKeys(memory: ArrayBuffer, value: number, constants: Constants): void {
  const words = new DataView(memory)
  const bytes = Buffer.from(memory)
  // Of much data hardly a key has the length of one.
  const lengths = new Set([...constants.keys()].map((text) => Buffer.byteLength(text)))
  const left = [value]
  for (let address = left.pop(); address !== undefined; address = left.pop()) {
    const type = words.getUint8(address)
    const inside = words.getUint32(address + 4, true)
    const count = words.getUint32(address + 8, true)
    if (type === TYPE.array) {
      for (let i = 0; i < count; i++) {
        left.push(words.getUint32(inside + i * SIZE.element + 4, true))
      }
    } else if (type === TYPE.object) {
      for (let i = 0; i < count; i++) shareOfChain(words.getUint32(inside + i * SIZE.bucket, true))
    }
  }

  function shareOfChain(first: number): void {
    for (let member = first; member !== 0; member = words.getUint32(member + 8, true)) {
      const same = constantLike(words.getUint32(member, true))
      if (same !== undefined) words.setUint32(member, same, true)
      left.push(words.getUint32(member + 4, true))
    }
  }

  function constantLike(key: number): number | undefined {
    const length = words.getUint32(key + 4, true)
    if (!lengths.has(length)) return undefined
    const start = words.getUint32(key + 8, true)
    return constants.get(bytes.toString('utf8', start, start + length))
  }
}
