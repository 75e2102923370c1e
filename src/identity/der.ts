// A small strict reader for DER (X.690 section 10): definite and minimal lengths, one-byte tags, bounds
// and depth checked, nothing left over. Bytes of a peer can make it refuse, never throw or stall.

/** What `decodeDer` returns for bytes that are not what they should be. */
export interface Malformed {
  readonly kind: 'malformed'
  readonly what: string
}

/**
 * Hands the one element that `bytes` consist of to `decode` and returns its result. Inside `decode`
 * every violation, also one told by `malformed()`, ends the decoding; it comes out as a value.
 */
export const decodeDer = <T>(
  bytes: Uint8Array,
  decode: (element: DerElement) => T,
): T | Malformed => {
  const source = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  try {
    const items = new DerItems(source, 0, source.length, 0)
    const element = items.any('the outermost element')
    items.end('the outermost element')
    return decode(element)
  } catch (error) {
    if (error instanceof DerViolation) return { kind: 'malformed', what: error.message }
    throw error
  }
}

/** Ends the running `decodeDer` with this as its reason. */
export const malformed = (what: string): never => {
  throw new DerViolation(what)
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

/** Tag of a context-specific element; `constructed` for EXPLICIT ones and those that hold others. */
export const contextTag = (number: number, form: 'primitive' | 'constructed'): number =>
  (form === 'primitive' ? 0x80 : 0xa0) | number

/** The elements inside a constructed one, read in order. */
export class DerItems {
  readonly #source: Buffer
  readonly #end: number
  readonly #depth: number
  #offset: number

  constructor(source: Buffer, start: number, end: number, depth: number) {
    this.#source = source
    this.#offset = start
    this.#end = end
    this.#depth = depth
  }

  get more(): boolean {
    return this.#offset < this.#end
  }

  /** Tag of the element that comes next; undefined at the end. */
  get tag(): number | undefined {
    return this.more ? this.#source[this.#offset] : undefined
  }

  next(tag: number, what: string): DerElement {
    if (this.tag !== tag) malformed(`${what} is missing or has another type`)
    return this.any(what)
  }

  optional(tag: number, what: string): DerElement | undefined {
    return this.tag === tag ? this.any(what) : undefined
  }

  any(what: string): DerElement {
    const start = this.#offset
    if (this.#end - start < 2) malformed(`${what} is cut short`)
    const tag = this.#source[start]!
    if ((tag & 0x1f) === 0x1f) malformed(`${what} has a tag of several bytes`)
    let length = this.#source[start + 1]!
    let content = start + 2
    if (length >= 0x80) {
      const size = length & 0x7f
      if (size === 0 || size > 4) malformed(`${what} has a length that is indefinite or too long`)
      if (this.#end - content < size) malformed(`${what} is cut short`)
      length = this.#source.readUIntBE(content, size)
      if (length < 0x80 || this.#source[content] === 0) {
        malformed(`${what} has a length that is not minimal`)
      }
      content += size
    }
    if (length > this.#end - content) malformed(`${what} is longer than what holds it`)
    this.#offset = content + length
    return new DerElement(this.#source, start, content, this.#offset, this.#depth)
  }

  end(what: string): void {
    if (this.more) malformed(`${what} is followed by unexpected bytes`)
  }
}

export class DerElement {
  readonly tag: number
  readonly #source: Buffer
  readonly #start: number
  readonly #content: number
  readonly #end: number
  readonly #depth: number

  constructor(source: Buffer, start: number, content: number, end: number, depth: number) {
    this.tag = source[start]!
    this.#source = source
    this.#start = start
    this.#content = content
    this.#end = end
    this.#depth = depth
  }

  /** Tag, length and content; shares memory with the source. */
  get raw(): Buffer {
    return this.#source.subarray(this.#start, this.#end)
  }

  get content(): Buffer {
    return this.#source.subarray(this.#content, this.#end)
  }

  items(what: string): DerItems {
    if ((this.tag & 0x20) === 0) malformed(`${what} is not constructed`)
    return this.#inside(this.#content, what)
  }

  /** The DER element that fills an OCTET STRING or BIT STRING (extension values, RSA keys). */
  wrapped(what: string): DerElement {
    const bitString = this.tag === TAG.bitString
    if (!bitString && this.tag !== TAG.octetString) malformed(`${what} has another type`)
    if (bitString && this.#source[this.#content] !== 0) malformed(`${what} has unused bits`)
    const items = this.#inside(this.#content + (bitString ? 1 : 0), what)
    const element = items.any(what)
    items.end(what)
    return element
  }

  /** The element itself, where it has this type. */
  as(tag: number, what: string): DerElement {
    return this.tag === tag ? this : malformed(`${what} has another type`)
  }

  get isNegative(): boolean {
    return this.#end > this.#content && this.#source[this.#content]! >= 0x80
  }

  /** A non-negative INTEGER as lower-case hex without leading zeros ("0" for zero). */
  unsignedHex(what: string): string {
    const first = this.#source[this.#content]
    const length = this.#end - this.#content
    if (length === 0) malformed(`${what} is an empty integer`)
    if (this.isNegative) malformed(`${what} is negative`)
    if (first === 0 && length > 1 && this.#source[this.#content + 1]! < 0x80) {
      malformed(`${what} is not minimal`)
    }
    const hex = this.#source.toString('hex', this.#content, this.#end)
    if (hex.charCodeAt(0) !== 0x30) return hex
    // 0a, 00ff, 00: at most three zeros lead a minimal integer.
    let zeros = 1
    while (zeros < hex.length - 1 && hex.charCodeAt(zeros) === 0x30) zeros += 1
    return hex.slice(zeros)
  }

  /** A small non-negative INTEGER: versions, path lengths, salt lengths. */
  small(what: string): number {
    const hex = this.unsignedHex(what)
    return hex.length <= 6 ? Number.parseInt(hex, 16) : malformed(`${what} is too large`)
  }

  boolean(what: string): boolean {
    const value = this.#source[this.#content]
    if (this.#end - this.#content !== 1 || (value !== 0x00 && value !== 0xff)) {
      malformed(`${what} is not a DER boolean`)
    }
    return value === 0xff
  }

  /** Dotted form of an OBJECT IDENTIFIER. */
  oid(what: string): string {
    const content = this.content
    if (content.length === 0 || content.length > 64) malformed(`${what} has a bad length`)
    const arcs: number[] = []
    let arc = 0
    let started = false
    for (const byte of content) {
      if (!started && byte === 0x80) malformed(`${what} is not minimal`)
      started = true
      arc = arc * 128 + (byte & 0x7f)
      if (arc > Number.MAX_SAFE_INTEGER) malformed(`${what} has an arc that is too large`)
      if (byte >= 0x80) continue
      arcs.push(arc)
      arc = 0
      started = false
    }
    if (started) malformed(`${what} is cut short`)
    const first = arcs[0]!
    const root = first < 80 ? Math.floor(first / 40) : 2
    return [root, first - root * 40, ...arcs.slice(1)].join('.')
  }

  /** Named bits of a BIT STRING: bit n of the result is the n-th one of the definition. */
  namedBits(what: string): number {
    const content = this.content
    const unused = content[0]
    if (unused === undefined || unused > 7 || content.length > 4) malformed(`${what} is malformed`)
    if (content.length === 1 && unused !== 0) malformed(`${what} is malformed`)
    let bits = 0
    for (let index = 0; index < (content.length - 1) * 8 - unused!; index += 1) {
      if ((content[1 + (index >> 3)]! & (0x80 >> (index & 7))) !== 0) bits |= 1 << index
    }
    return bits
  }

  /** UTCTime or GeneralizedTime in the one form that RFC 5280 section 4.1.2.5 allows. */
  timeMs(what: string): number {
    const text = this.content.toString('latin1')
    const short = this.tag === TAG.utcTime && /^\d{12}Z$/.test(text)
    const long = this.tag === TAG.generalizedTime && /^\d{14}Z$/.test(text)
    if (!short && !long) malformed(`${what} is not a time in UTC with seconds`)
    const full = short ? `${Number(text.slice(0, 2)) >= 50 ? '19' : '20'}${text}` : text
    const [year, month, day, hour, minute, second] = [0, 4, 6, 8, 10, 12].map((at, index) =>
      Number(full.slice(at, index === 0 ? 4 : at + 2)),
    ) as [number, number, number, number, number, number]
    const date = new Date(0)
    date.setUTCFullYear(year, month - 1, day)
    date.setUTCHours(hour, minute, second)
    // Compared with what was written: Date silently turns 31 February into March.
    const written = date.toISOString().replace(/[-:T]|\.\d+/g, '')
    return written === full ? date.getTime() : malformed(`${what} is not a date`)
  }

  #inside(start: number, what: string): DerItems {
    if (this.#depth >= MAX_DEPTH) malformed(`${what} is nested too deeply`)
    return new DerItems(this.#source, start, this.#end, this.#depth + 1)
  }
}

class DerViolation extends Error {}

const MAX_DEPTH = 24
