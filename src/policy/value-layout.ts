// How OPA's modules have their values in linear memory: `wasm/src/value.h` of OPA, wasm32, the same
// from OPA 0.40 to 1.22. It is internal to OPA: so it is proven of each module before anything is
// written by it, see value-proof.ts.

export const TYPE = {
  null: 1,
  boolean: 2,
  number: 3,
  string: 4,
  array: 5,
  object: 6,
  set: 7,
  internedString: 8,
  internedBoolean: 9,
} as const

/** The second byte of a number: an integer of 64 bits, or a reference to its literal. */
export const NUMBER = { integer: 1, literal: 2 } as const

/** Bytes of each structure. */
export const SIZE = {
  boolean: 4,
  number: 24,
  string: 12,
  array: 16,
  element: 8,
  object: 16,
  bucket: 4,
  member: 12,
} as const

/** How many buckets the hash table of an object has that was made by inserting so many keys. */
export function bucketsFor(keys: number): number {
  let buckets = 8
  while (keys > buckets * 0.7) buckets *= 2
  return buckets
}

export const HASH_START = 0x811c9dc5 | 0

/** One more byte of a string: FNV-1, 32 bits. */
export const hashed = (hash: number, byte: number): number => Math.imul(hash, 0x01000193) ^ byte

/**
 * What a set of results says; undefined: something else, or at an address that is no multiple of 4.
 * @param bytes and words of the same memory
 */
export function simpleResult(
  bytes: Uint8Array,
  words: Uint32Array,
  set: number,
): 'none' | boolean | undefined {
  if (bytes[set] !== TYPE.set || set % 4 !== 0) return undefined
  const results = words[(set >>> 2) + 3]
  if (results === 0) return 'none'
  const result = results === 1 ? firstIn(words, set) : undefined
  if (result === undefined) return undefined
  const object = words[result] as number
  if (bytes[object] !== TYPE.object || object % 4 !== 0) return undefined
  // Its only member has the key `result`.
  const member = firstIn(words, object)
  if (member === undefined) return undefined
  const value = words[member + 1] as number
  const type = bytes[value]
  if (type !== TYPE.boolean && type !== TYPE.internedBoolean) return undefined
  return bytes[value + 1] === 1
}

/** Of the table of a set or object that has one member; what has more is not made by OPA. */
const MOST_BUCKETS = 16

/** The word where the first link begins of the first chain of a hash table that is not empty. */
function firstIn(words: Uint32Array, table: number): number | undefined {
  const head = table >>> 2
  const buckets = words[head + 2] as number
  if (buckets > MOST_BUCKETS) return undefined
  const start = (words[head + 1] as number) >>> 2
  for (let at = start; at < start + buckets; at++) {
    const first = words[at]
    if (first !== 0) return first === undefined ? undefined : first >>> 2
  }
  return undefined
}

/**
 * Whether two values are the same to OPA in every way that a policy can notice: what they are, and in
 * which order the members of objects are come to. `memory` is read within its bounds, whatever is in it.
 * @param depth of nesting that is followed; deeper is not the same
 */
export function isSameValue(memory: DataView, one: number, two: number, depth = 100): boolean {
  try {
    return new Comparison(memory).same(one, two, depth)
  } catch (error) {
    // An address that is none.
    if (error instanceof RangeError) return false
    throw error
  }
}

class Comparison {
  readonly #memory: DataView
  readonly #bytes: Buffer

  constructor(memory: DataView) {
    this.#memory = memory
    this.#bytes = Buffer.from(memory.buffer as ArrayBuffer)
  }

  same(one: number, two: number, depth: number): boolean {
    const type = this.#type(one)
    if (type !== this.#type(two) || depth === 0) return false
    switch (type) {
      case TYPE.null:
        return true
      case TYPE.boolean:
        return this.#byte(one + 1) === this.#byte(two + 1)
      case TYPE.string:
        return this.#sameText(one + 4, one + 8, two + 4, two + 8)
      case TYPE.number:
        return this.#sameNumber(one, two)
      case TYPE.array:
        return this.#sameArray(one, two, depth)
      case TYPE.object:
        return this.#sameObject(one, two, depth)
      default:
        return false
    }
  }

  #type(address: number): number {
    const type = this.#byte(address)
    if (type === TYPE.internedString) return TYPE.string
    return type === TYPE.internedBoolean ? TYPE.boolean : type
  }

  #sameNumber(one: number, two: number): boolean {
    const kind = this.#byte(one + 1)
    if (kind !== this.#byte(two + 1)) return false
    if (kind === NUMBER.literal) return this.#sameText(one + 12, one + 8, two + 12, two + 8)
    return (
      this.#word(one + 8) === this.#word(two + 8) && this.#word(one + 12) === this.#word(two + 12)
    )
  }

  #sameArray(one: number, two: number, depth: number): boolean {
    const length = this.#word(one + 8)
    if (length !== this.#word(two + 8)) return false
    for (let i = 0; i < length; i++) {
      const [left, right] = [one, two].map((array) => this.#word(array + 4) + i * SIZE.element)
      if (!this.#sameWords(left as number, right as number, 2, depth)) return false
    }
    return true
  }

  #sameObject(one: number, two: number, depth: number): boolean {
    const buckets = this.#word(one + 8)
    if (buckets !== this.#word(two + 8) || this.#word(one + 12) !== this.#word(two + 12))
      return false
    for (let i = 0; i < buckets; i++) {
      let left = this.#word(this.#word(one + 4) + i * SIZE.bucket)
      let right = this.#word(this.#word(two + 4) + i * SIZE.bucket)
      for (
        ;
        left !== 0 && right !== 0;
        left = this.#word(left + 8), right = this.#word(right + 8)
      ) {
        if (!this.#sameWords(left, right, 2, depth)) return false
      }
      if (left !== right) return false
    }
    return true
  }

  /** Addresses of values that are the same. */
  #sameWords(one: number, two: number, count: number, depth: number): boolean {
    for (let at = 0; at < count * 4; at += 4) {
      if (!this.same(this.#word(one + at), this.#word(two + at), depth - 1)) return false
    }
    return true
  }

  #sameText(lengthOne: number, atOne: number, lengthTwo: number, atTwo: number): boolean {
    const length = this.#word(lengthOne)
    if (length !== this.#word(lengthTwo)) return false
    const [one, two] = [this.#word(atOne), this.#word(atTwo)]
    return this.#bytes.compare(this.#bytes, two, two + length, one, one + length) === 0
  }

  #byte(address: number): number {
    return this.#memory.getUint8(address)
  }

  #word(address: number): number {
    return this.#memory.getUint32(address, true)
  }
}
