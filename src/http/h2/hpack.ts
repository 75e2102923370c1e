// HPACK (RFC 7541), as both sides of the data path need it: an encoder without state, and a decoder
// that bounds what a header section may cost. Pure functions over bytes and one dynamic table.
import type { Fields } from '../fields.ts'
import { decodeHuffman } from './huffman.ts'

/** What is wrong with a header block: the connection cannot be used any more (section 2.3.3). */
export interface BadBlock {
  readonly kind: 'bad_block'
  readonly what: string
}

export interface DecodeLimits {
  /** Names and values, plus 32 for each field, as RFC 9113 section 6.5.2 counts. */
  readonly listBytes: number
  readonly count: number
}

export interface HeaderBlock {
  readonly kind: 'block'
  readonly fields: Fields
  /** Of all fields, as `DecodeLimits` counts them. */
  readonly listBytes: number
  /** More than the limits allow; the table was kept right, the fields are cut off. */
  readonly tooLarge: boolean
}

/** The default of SETTINGS_HEADER_TABLE_SIZE, which we leave as it is. */
const TABLE_BYTES = 4096
const ENTRY_OVERHEAD = 32
/** Of one name or value, where the limits of the list are lower. */
const MAX_STRING_BYTES = 64 * 1024

export class HpackDecoder {
  /** Name, value, name, value; the newest entry last. */
  readonly #table: string[] = []
  #tableBytes = 0
  #capacity = TABLE_BYTES
  #at = 0
  #end = 0
  #mostStringBytes = MAX_STRING_BYTES

  decode(
    block: Buffer,
    limits: DecodeLimits,
    start = 0,
    end = block.length,
  ): HeaderBlock | BadBlock {
    const fields: Fields = []
    let listBytes = 0
    let tooLarge = false
    this.#at = start
    this.#end = end
    this.#mostStringBytes = Math.max(MAX_STRING_BYTES, limits.listBytes)
    while (this.#at < end) {
      const first = block[this.#at]!
      let name: string | undefined
      let value: string | undefined
      if ((first & 0x80) !== 0) {
        const index = this.#integer(block, 7)
        name = index === undefined ? undefined : this.#name(index)
        value = index === undefined ? undefined : this.#value(index)
      } else if ((first & 0xe0) === 0x20) {
        // Section 4.2: only before the first field.
        const capacity = this.#integer(block, 5)
        if (capacity === undefined || capacity > TABLE_BYTES || listBytes > 0) {
          return bad('a table size that is out of place')
        }
        this.#capacity = capacity
        this.#evict()
        continue
      } else {
        const indexed = (first & 0x40) !== 0
        const index = this.#integer(block, indexed ? 6 : 4)
        name =
          index === undefined ? undefined : index === 0 ? this.#string(block) : this.#name(index)
        value = name === undefined ? undefined : this.#string(block)
        if (indexed && name !== undefined && value !== undefined) this.#add(name, value)
      }
      if (name === undefined || value === undefined) return bad('an index or a string out of range')
      listBytes += name.length + value.length + ENTRY_OVERHEAD
      if (listBytes > limits.listBytes || fields.length >= 2 * limits.count) tooLarge = true
      else fields.push(name, value)
    }
    return { kind: 'block', fields, listBytes, tooLarge }
  }

  #name(index: number): string | undefined {
    return index <= STATIC_COUNT
      ? STATIC_TABLE[2 * index - 2]
      : this.#table[this.#table.length - 2 * (index - STATIC_COUNT)]
  }

  #value(index: number): string | undefined {
    return index <= STATIC_COUNT
      ? STATIC_TABLE[2 * index - 1]
      : this.#table[this.#table.length - 2 * (index - STATIC_COUNT) + 1]
  }

  #add(name: string, value: string): void {
    this.#table.push(name, value)
    this.#tableBytes += name.length + value.length + ENTRY_OVERHEAD
    this.#evict()
  }

  #evict(): void {
    let gone = 0
    while (this.#tableBytes > this.#capacity) {
      const name = this.#table[gone]!
      const value = this.#table[gone + 1]!
      this.#tableBytes -= name.length + value.length + ENTRY_OVERHEAD
      gone += 2
    }
    if (gone > 0) this.#table.splice(0, gone)
  }

  /** Section 5.1; undefined when it is cut off or larger than anything that makes sense. */
  #integer(block: Buffer, prefixBits: number): number | undefined {
    const mask = 2 ** prefixBits - 1
    let value = block[this.#at++]! & mask
    if (value < mask) return value
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.#at >= this.#end) return undefined
      const byte = block[this.#at++]!
      value += (byte & 0x7f) << shift
      if ((byte & 0x80) === 0) return value
    }
    return undefined
  }

  /** Section 5.2. As latin1: one character for each octet. */
  #string(block: Buffer): string | undefined {
    if (this.#at >= this.#end) return undefined
    const first = block[this.#at]!
    const length = this.#integer(block, 7)
    if (length === undefined || length > this.#mostStringBytes) return undefined
    const start = this.#at
    this.#at += length
    if (this.#at > this.#end) return undefined
    return (first & 0x80) === 0
      ? block.toString('latin1', start, this.#at)
      : decodeHuffman(block, start, this.#at)
  }
}

function bad(what: string): BadBlock {
  return { kind: 'bad_block', what }
}

/**
 * A header block that needs no table of the reader: indexed where the static table has the whole
 * field, literal without indexing otherwise (section 6.2.2). On loopback, bytes cost less than the
 * search for ways to save them.
 * @param fields names in lower case, pseudo-header fields first; values as latin1
 */
export function encodeHeaderBlock(fields: readonly string[]): Buffer {
  const out = Buffer.allocUnsafe(mostBlockBytes(fields))
  return out.subarray(0, writeHeaderBlock(out, 0, fields))
}

/** What `writeHeaderBlock` may need. */
export function mostBlockBytes(fields: readonly string[]): number {
  let size = 0
  for (let i = 0; i < fields.length; i++) size += fields[i]!.length + 6
  return size
}

/** As `encodeHeaderBlock`. @returns where the block ends */
export function writeHeaderBlock(out: Buffer, from: number, fields: readonly string[]): number {
  let at = from
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    const value = fields[i + 1]!
    const known = STATIC_INDEX.get(name)
    const whole = known?.values.get(value)
    if (whole !== undefined) {
      out[at++] = 0x80 | whole
      continue
    }
    if (known === undefined) {
      out[at++] = 0
      at = writeString(out, at, name)
    } else at = writeInteger(out, at, 0, 4, known.index)
    at = writeString(out, at, value)
  }
  return at
}

/** Section 6.3: what a block begins with after the reader has changed the size of its table. */
export const EMPTY_TABLE: Buffer = Buffer.from([0x20])

function writeString(out: Buffer, at: number, text: string): number {
  const from = writeInteger(out, at, 0, 7, text.length)
  if (text.length > SHORT) return from + out.write(text, from, 'latin1')
  // Cheaper than to cross into C++.
  for (let i = 0; i < text.length; i++) out[from + i] = text.charCodeAt(i)
  return from + text.length
}

const SHORT = 24

function writeInteger(out: Buffer, at: number, flags: number, bits: number, value: number): number {
  const mask = 2 ** bits - 1
  if (value < mask) {
    out[at] = flags | value
    return at + 1
  }
  let rest = value - mask
  let next = at + 1
  out[at] = flags | mask
  while (rest >= 0x80) {
    out[next++] = 0x80 | (rest & 0x7f)
    rest >>>= 7
  }
  out[next] = rest
  return next + 1
}

/** RFC 7541 appendix A: name, value, name, value. */
// biome-ignore format: a table
const STATIC_TABLE: readonly string[] = [
  ':authority', '', ':method', 'GET', ':method', 'POST', ':path', '/', ':path', '/index.html',
  ':scheme', 'http', ':scheme', 'https', ':status', '200', ':status', '204', ':status', '206',
  ':status', '304', ':status', '400', ':status', '404', ':status', '500', 'accept-charset', '',
  'accept-encoding', 'gzip, deflate', 'accept-language', '', 'accept-ranges', '', 'accept', '',
  'access-control-allow-origin', '', 'age', '', 'allow', '', 'authorization', '',
  'cache-control', '', 'content-disposition', '', 'content-encoding', '', 'content-language', '',
  'content-length', '', 'content-location', '', 'content-range', '', 'content-type', '',
  'cookie', '', 'date', '', 'etag', '', 'expect', '', 'expires', '', 'from', '', 'host', '',
  'if-match', '', 'if-modified-since', '', 'if-none-match', '', 'if-range', '',
  'if-unmodified-since', '', 'last-modified', '', 'link', '', 'location', '', 'max-forwards', '',
  'proxy-authenticate', '', 'proxy-authorization', '', 'range', '', 'referer', '', 'refresh', '',
  'retry-after', '', 'server', '', 'set-cookie', '', 'strict-transport-security', '',
  'transfer-encoding', '', 'user-agent', '', 'vary', '', 'via', '', 'www-authenticate', '',
]
const STATIC_COUNT = STATIC_TABLE.length / 2

interface StaticName {
  /** Of the first entry with this name. */
  readonly index: number
  readonly values: Map<string, number>
}

const STATIC_INDEX: ReadonlyMap<string, StaticName> = staticIndex()

function staticIndex(): Map<string, StaticName> {
  const names = new Map<string, StaticName>()
  for (let index = 1; index <= STATIC_COUNT; index++) {
    const name = STATIC_TABLE[2 * index - 2]!
    const value = STATIC_TABLE[2 * index - 1]!
    const known = names.get(name) ?? { index, values: new Map<string, number>() }
    names.set(name, known)
    if (value !== '') known.values.set(value, index)
  }
  return names
}
