// Reads DER (X.690): definite lengths in their shortest form, nothing left over. Enough for
// certificates; what is not DER is an error of the builtin.
import { BuiltinError } from './builtin.ts'

/** Tag numbers as they stand in the first byte. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

export interface DerElement {
  readonly tag: number
  /** With tag and length. */
  readonly raw: Buffer
  readonly content: Buffer
}

/** The element that a buffer is, whole. */
export function derElement(bytes: Buffer, tag?: number): DerElement {
  const reader = new DerReader(bytes)
  const element = reader.next(tag)
  if (!reader.isDone) throw malformed()
  return element
}

/** The elements inside of one. */
export function derChildren(element: DerElement): readonly DerElement[] {
  const reader = new DerReader(element.content)
  const children: DerElement[] = []
  while (!reader.isDone) children.push(reader.next())
  return children
}

export class DerReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get isDone(): boolean {
    return this.#at === this.#bytes.length
  }

  /** @throws BuiltinError where there is none, or one of another tag. */
  next(tag?: number): DerElement {
    const start = this.#at
    const found = this.#byte()
    if ((found & 0x1f) === 0x1f || (tag !== undefined && tag !== found)) throw malformed()
    const length = this.#length()
    const from = this.#at
    if (from + length > this.#bytes.length) throw malformed()
    this.#at = from + length
    return {
      tag: found,
      raw: this.#bytes.subarray(start, this.#at),
      content: this.#bytes.subarray(from, this.#at),
    }
  }

  optional(tag: number): DerElement | undefined {
    return !this.isDone && this.#bytes[this.#at] === tag ? this.next() : undefined
  }

  #length(): number {
    const first = this.#byte()
    if (first < 0x80) return first
    const count = first & 0x7f
    if (count === 0 || count > 3) throw malformed()
    let length = 0
    for (let i = 0; i < count; i++) length = length * 256 + this.#byte()
    if (length < 0x80 || length < 256 ** (count - 1)) throw malformed()
    return length
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw malformed()
    return byte
  }
}

export function derInteger({ content }: DerElement): bigint {
  const [first, second] = content
  if (first === undefined) throw malformed()
  const isPadded =
    second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))
  if (isPadded || content.length > 4_096) throw malformed()
  return BigInt.asIntN(content.length * 8, BigInt(`0x${content.toString('hex')}`))
}

export function derBoolean({ content }: DerElement): boolean {
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) throw malformed()
  return content[0] === 0xff
}

/** Bits from the first on. */
export function derBitString({ content }: DerElement): { bytes: Buffer; bits: number } {
  const unused = content[0]
  if (unused === undefined || unused > 7 || (unused > 0 && content.length === 1)) throw malformed()
  if (((content.at(-1) as number) & ((1 << unused) - 1)) !== 0 && unused > 0) throw malformed()
  return { bytes: content.subarray(1), bits: (content.length - 1) * 8 - unused }
}

export function derOid({ content }: DerElement): readonly number[] {
  const values: number[] = []
  let value = 0
  for (const [i, byte] of content.entries()) {
    if (value === 0 && byte === 0x80) throw malformed()
    value = value * 128 + (byte & 0x7f)
    if (value > 0x7fff_ffff) throw malformed()
    if (byte >= 0x80) {
      if (i === content.length - 1) throw malformed()
      continue
    }
    if (values.length > 0) values.push(value)
    else
      values.push(
        Math.min(Math.floor(value / 40), 2),
        value - 40 * Math.min(Math.floor(value / 40), 2),
      )
    value = 0
  }
  if (values.length === 0) throw malformed()
  return values
}

export function malformed(): BuiltinError {
  return new BuiltinError('malformed DER')
}
