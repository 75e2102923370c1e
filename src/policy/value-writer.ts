// Writes values of OPA into a place of linear memory that is ours, as its own parser would have made
// them of JSON text, but without the text. Promises to write nowhere else, however much it is given,
// and never more than the caller may show: what does not fit makes it `full`, and nothing of what it
// then says is of use.
import { type Constants, NO_CONSTANTS } from './constants.ts'
import { bucketsFor, HASH_START, hashed, NUMBER, SIZE, TYPE } from './value-layout.ts'

/** From here on the engine's own copying is faster than a loop (Node 26). */
const LONG = 24
/** The indexes of arrays are numbers that all arrays share; longer ones are left to the parser. */
const MOST_ELEMENTS = 64
/** More is no accident; finding a place in a chain takes as long as the chain is. */
const LONGEST_CHAIN = 8
/** Of objects and arrays that are open at the same time. */
const MOST_OPEN = 1_024

/** For the indexes, and `null`, `false` and `true`. */
export const SHARED_BYTES = MOST_ELEMENTS * SIZE.number + 3 * SIZE.boolean

/** The key of a member that has been written already. */
export interface Key {
  readonly address: number
  readonly hash: number
}

export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json }

/** Of two keys that are the same. */
export const TWICE = -1

export class ValueWriter {
  /** Something had no place, or could not be written as the parser would have. */
  full = false
  #bytes = Buffer.alloc(0)
  #words = new Int32Array(0)
  #view = new DataView(new ArrayBuffer(0))
  readonly #shared: number
  readonly #constants: ReadonlyMap<string, Key>
  #at = 0
  #end = 0
  /** Keys, their hashes and values, of all objects and arrays that are open. */
  readonly #keys = new Int32Array(MOST_OPEN)
  readonly #hashes = new Int32Array(MOST_OPEN)
  readonly #values = new Int32Array(MOST_OPEN)
  #open = 0

  /**
   * @param shared where `SHARED_BYTES` are for what all values share; a multiple of 8
   * @param constants what stands for a string that says the same
   */
  constructor(shared: number, constants: Constants = NO_CONSTANTS) {
    this.#shared = shared
    this.#constants = new Map(
      Array.from(constants, ([text, address]) => [
        text,
        { address, hash: Buffer.from(text).reduce(hashed, HASH_START) },
      ]),
    )
  }

  /** What the memory of the module is at present; it is another one after it grew. */
  use(memory: ArrayBuffer): void {
    this.#bytes = Buffer.from(memory)
    this.#words = new Int32Array(memory)
    this.#view = new DataView(memory)
  }

  /** Once for each memory. */
  writeShared(): void {
    const words = this.#words
    let at = this.#shared >> 2
    for (let i = 0; i < MOST_ELEMENTS; i++, at += SIZE.number >> 2) {
      words.fill(0, at, at + (SIZE.number >> 2))
      words[at] = TYPE.number | (NUMBER.integer << 8)
      words[at + 2] = i
    }
    words[at] = TYPE.null
    words[at + 1] = TYPE.boolean
    words[at + 2] = TYPE.boolean | (1 << 8)
  }

  /** From here on to `end` is where it writes. @param start a multiple of 4 */
  start(start: number, end: number): void {
    this.#at = start
    this.#end = end
    this.#open = 0
    this.full = false
  }

  /** Where the next value begins. */
  get at(): number {
    return this.#at
  }

  /** Goes back to where it was: what has been written since is forgotten. */
  goBack(at: number, opened: number): void {
    this.#at = at
    this.#open = opened
  }

  string(text: string): number {
    return this.part(text, 0, text.length)
  }

  /** A string of a part of a text. */
  part(text: string, from: number, to: number): number {
    const address = this.#at
    const start = address + SIZE.string
    const length = to - from
    if (start + 3 * length + 3 > this.#end) return this.#fail()
    const written =
      length < LONG
        ? this.#writeShort(text, from, to, start)
        : this.#write(text.slice(from, to), start)
    return this.#finish(address, start, written)
  }

  /** @param literal a JSON number, which is kept as it is written */
  number(literal: string): number {
    const address = this.#take(SIZE.number + literal.length)
    if (address === 0) return 0
    const at = address >> 2
    const words = this.#words
    words[at] = TYPE.number | (NUMBER.literal << 8)
    words[at + 2] = address + SIZE.number
    words[at + 3] = this.#writeShort(literal, 0, literal.length, address + SIZE.number)
    words[at + 4] = 0
    return address
  }

  get null(): number {
    return this.#shared + MOST_ELEMENTS * SIZE.number
  }

  boolean(value: boolean): number {
    return this.null + (value ? 2 : 1) * SIZE.boolean
  }

  key(text: string): Key {
    const known = this.#constants.get(text)
    if (known !== undefined) return known
    const address = this.string(text)
    return { address, hash: this.#hashOf(address) }
  }

  /** @returns for `array` or `object`, which ends what is begun here */
  begin(): number {
    return this.#open
  }

  element(value: number): void {
    if (this.#open === MOST_OPEN) this.#fail()
    else this.#values[this.#open++] = value
  }

  array(begun: number): number {
    const count = this.#open - begun
    this.#open = begun
    if (count > MOST_ELEMENTS) return this.#fail()
    const address = this.#take(SIZE.array + count * SIZE.element)
    if (address === 0) return 0
    const words = this.#words
    const elements = address + SIZE.array
    const head = address >> 2
    words[head] = TYPE.array
    words[head + 1] = count === 0 ? 0 : elements
    words[head + 2] = count
    words[head + 3] = count
    for (let i = 0, at = elements >> 2; i < count; i++, at += 2) {
      words[at] = this.#shared + i * SIZE.number
      words[at + 1] = this.#values[begun + i] as number
    }
    return address
  }

  /** Of a name that rules may ask for. Looking it up takes longer than writing a short one. */
  askedMember(name: string, value: number): void {
    const known = this.#constants.get(name)
    if (known === undefined) this.member(name, value)
    else this.knownMember(known, value)
  }

  member(name: string, value: number): void {
    const address = this.string(name)
    if (address !== 0) this.#add(address, this.#hashOf(address), value)
  }

  knownMember({ address, hash }: Key, value: number): void {
    this.#add(address, hash, value)
  }

  /** @returns its address, or `TWICE` */
  object(begun: number): number {
    const count = this.#open - begun
    this.#open = begun
    const buckets = bucketsFor(count)
    const address = this.#take(SIZE.object + buckets * SIZE.bucket + count * SIZE.member)
    if (address === 0) return 0
    const words = this.#words
    const table = address + SIZE.object
    const head = address >> 2
    words[head] = TYPE.object
    words[head + 1] = table
    words[head + 2] = buckets
    words[head + 3] = count
    words.fill(0, table >> 2, (table >> 2) + buckets)
    let member = table + buckets * SIZE.bucket
    for (let i = begun; i < begun + count; i++, member += SIZE.member) {
      const key = this.#keys[i] as number
      const bucket = (table >> 2) + ((this.#hashes[i] as number) & (buckets - 1))
      const place = this.#placeOf(key, bucket)
      if (place <= 0) return place
      words[member >> 2] = key
      words[(member >> 2) + 1] = this.#values[i] as number
      words[(member >> 2) + 2] = words[place] as number
      words[place] = member
    }
    return address
  }

  /** Where the value of its member `index` stands, in the order in which they were given. */
  placeOfMember(object: number, index: number): number {
    const buckets = this.#words[(object >> 2) + 2] as number
    return object + SIZE.object + buckets * SIZE.bucket + index * SIZE.member + 4
  }

  /** Puts the address of a value where `placeOfMember` said. */
  put(place: number, value: number): void {
    this.#words[place >> 2] = value
  }

  /** Of a number, its usual literal. */
  json(value: Json): number {
    if (value === null) return this.null
    switch (typeof value) {
      case 'string':
        return this.#constants.get(value)?.address ?? this.string(value)
      case 'boolean':
        return this.boolean(value)
      case 'number':
        return this.number(String(value))
    }
    const begun = this.begin()
    if (Array.isArray(value)) {
      for (const one of value) this.element(this.json(one))
      return this.array(begun)
    }
    for (const [key, one] of Object.entries(value)) this.askedMember(key, this.json(one))
    return this.object(begun)
  }

  /** The word that points at the first member of a chain that comes behind `key`; 0: it is too long. */
  #placeOf(key: number, bucket: number): number {
    const words = this.#words
    let place = bucket
    for (let length = 0; length < LONGEST_CHAIN; length++) {
      const member = words[place] as number
      if (member === 0) return place
      const order = this.#compare(key, words[member >> 2] as number)
      if (order === 0) return TWICE
      if (order < 0) return place
      place = (member >> 2) + 2
    }
    return this.#fail()
  }

  #add(key: number, hash: number, value: number): void {
    const at = this.#open
    if (at === MOST_OPEN) {
      this.#fail()
      return
    }
    this.#keys[at] = key
    this.#hashes[at] = hash
    this.#values[at] = value
    this.#open = at + 1
  }

  /** By bytes, then by length. Constants stand at any address. */
  #compare(one: number, two: number): number {
    const view = this.#view
    const bytes = this.#bytes
    const lengthOne = view.getInt32(one + 4, true)
    const lengthTwo = view.getInt32(two + 4, true)
    const atOne = view.getInt32(one + 8, true)
    const atTwo = view.getInt32(two + 8, true)
    const shorter = Math.min(lengthOne, lengthTwo)
    for (let i = 0; i < shorter; i++) {
      const order = (bytes[atOne + i] as number) - (bytes[atTwo + i] as number)
      if (order !== 0) return order
    }
    return lengthOne - lengthTwo
  }

  #hashOf(string: number): number {
    const length = this.#words[(string >> 2) + 1] as number
    const start = this.#words[(string >> 2) + 2] as number
    const bytes = this.#bytes
    let hash = HASH_START
    for (let i = start; i < start + length; i++) hash = hashed(hash, bytes[i] as number)
    return hash
  }

  #writeShort(text: string, from: number, to: number, start: number): number {
    const bytes = this.#bytes
    for (let i = from; i < to; i++) {
      const code = text.charCodeAt(i)
      if (code > 0x7f) return this.#write(text.slice(from, to), start)
      bytes[start + i - from] = code
    }
    return to - from
  }

  /** There is a place for it. */
  #write(text: string, start: number): number {
    const written = this.#bytes.write(text, start, 3 * text.length, 'utf8')
    // The parser does not take half a surrogate pair for anything.
    if (written !== text.length && !text.isWellFormed()) this.full = true
    return written
  }

  #finish(address: number, start: number, length: number): number {
    const at = address >> 2
    const words = this.#words
    words[at] = TYPE.string
    words[at + 1] = length
    words[at + 2] = start
    this.#at = (start + length + 3) & ~3
    return address
  }

  #take(bytes: number): number {
    const address = this.#at
    const next = (address + bytes + 3) & ~3
    if (next > this.#end) return this.#fail()
    this.#at = next
    return address
  }

  #fail(): 0 {
    this.full = true
    return 0
  }
}
