// Holds the bytes of a message in protocol buffers against its type before they are read. The library
// reads a field whatever wire type it came with, and a submessage beyond its end; other readers skip
// the one and refuse the other. So policy and workload could see two messages in the same bytes: what
// is not written as its type says is refused.
import { isUtf8 } from 'node:buffer'
import type { DescField, DescMessage } from '@bufbuild/protobuf'
import { InputError } from '../input-error.ts'

/** As many as the library reads. */
const MAX_DEPTH = 100
/** An empty message or text takes two bytes on the wire and a microsecond to make. */
const MAX_VALUES = 10_000
const LONGEST_VARINT = 10
const LONGEST_TAG = 5

/** @throws InputError */
export function checkWire(type: DescMessage, bytes: Uint8Array): void {
  new WireCheck(bytes).message(type, bytes.length, 0)
}

class WireCheck {
  readonly #bytes: Uint8Array
  readonly #byNumber = new Map<DescMessage, ReadonlyMap<number, DescField>>()
  #at = 0
  #values = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  message(type: DescMessage, end: number, depth: number): void {
    if (depth >= MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH}`)
    while (this.#at < end) {
      const tag = this.#tag(end)
      if ((tag & 7) === END_GROUP) fail('an end without a group')
      this.#field(type, tag, end, depth)
    }
  }

  #group(type: DescMessage | undefined, number: number, end: number, depth: number): void {
    if (depth >= MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH}`)
    for (;;) {
      const tag = this.#tag(end)
      if (tag === ((number << 3) | END_GROUP) >>> 0) return
      if ((tag & 7) === END_GROUP) fail('an end of another group')
      this.#field(type, tag, end, depth)
    }
  }

  #field(type: DescMessage | undefined, tag: number, end: number, depth: number): void {
    if (++this.#values > MAX_VALUES) fail(`more than ${MAX_VALUES} values`)
    const [number, wire] = [tag >>> 3, tag & 7]
    const field = type && this.#fieldsOf(type).get(number)
    if (field === undefined) return this.#value(wire, number, end, depth)
    const expected = wireTypeOf(field)
    if (field.fieldKind === 'list' && wire === LENGTH && expected !== LENGTH && isPackable(field)) {
      return this.#packed(expected, end)
    }
    if (wire !== expected) fail(`field ${field.name} in another wire type`)
    if (field.fieldKind === 'map') this.#mapEntry(field, this.#end(end), depth + 1)
    else if (field.message === undefined) this.#scalar(field.scalar, wire, end)
    else if (wire === START_GROUP) this.#group(field.message, number, end, depth + 1)
    else this.message(field.message, this.#end(end), depth + 1)
  }

  #mapEntry(field: DescField & { fieldKind: 'map' }, end: number, depth: number): void {
    while (this.#at < end) {
      const tag = this.#tag(end)
      const [number, wire] = [tag >>> 3, tag & 7]
      const isValue = number === 2
      if (number === 1 || isValue) {
        const expected = isValue ? mapValueWireType(field) : wireTypeOfScalar(field.mapKey)
        if (wire !== expected) fail(`field ${field.name} in another wire type`)
      }
      if (isValue && field.message) this.message(field.message, this.#end(end), depth)
      else if (isValue) this.#scalar(field.scalar, wire, end)
      else if (number === 1) this.#scalar(field.mapKey, wire, end)
      else this.#value(wire, number, end, depth)
    }
  }

  #scalar(scalar: number | undefined, wire: number, end: number): void {
    if (scalar !== STRING) return this.#value(wire, 0, end, 0)
    const stop = this.#end(end)
    // Where the type does not demand UTF-8 the library puts U+FFFD, and Go refuses to make JSON.
    if (stop > this.#at && !isUtf8(this.#bytes.subarray(this.#at, stop))) {
      fail('a text that is not UTF-8')
    }
    this.#at = stop
  }

  #packed(wire: number, within: number): void {
    const end = this.#end(within)
    while (this.#at < end) this.#value(wire, 0, end, 0)
  }

  #value(wire: number, number: number, end: number, depth: number): void {
    switch (wire) {
      case VARINT:
        this.#varint(end, LONGEST_VARINT)
        return
      case FIXED64:
        return this.#skip(8, end)
      case LENGTH:
        this.#at = this.#end(end)
        return
      case START_GROUP:
        return this.#group(undefined, number, end, depth + 1)
      case FIXED32:
        return this.#skip(4, end)
      default:
        return fail('an unknown wire type')
    }
  }

  #tag(end: number): number {
    const tag = this.#varint(end, LONGEST_TAG)
    if (tag > 0xffff_ffff || tag < 8) fail('an illegal tag')
    return tag
  }

  /** Of what comes now, after its length. */
  #end(within: number): number {
    const length = this.#varint(within, LONGEST_TAG)
    if (this.#at + length > within) fail('a length beyond the end')
    return this.#at + length
  }

  #skip(count: number, end: number): void {
    this.#at += count
    if (this.#at > end) fail('an end inside a value')
  }

  /** Exact up to 53 bits; values of more are only counted. */
  #varint(end: number, longest: number): number {
    let value = 0
    let factor = 1
    for (let i = 0; i < longest; i++) {
      if (this.#at >= end) fail('an end inside a number')
      const byte = this.#bytes[this.#at++] as number
      // The tenth byte has room for the 64th bit alone.
      if (i === LONGEST_VARINT - 1 && byte > 1) fail('a number of more than 64 bits')
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
      factor *= 128
    }
    return fail('a number that does not end')
  }

  #fieldsOf(type: DescMessage): ReadonlyMap<number, DescField> {
    const known = this.#byNumber.get(type)
    if (known !== undefined) return known
    const fields = new Map(type.fields.map((field) => [field.number, field]))
    this.#byNumber.set(type, fields)
    return fields
  }
}

function wireTypeOf(field: DescField): number {
  if (field.fieldKind === 'map') return LENGTH
  if (field.message !== undefined) return field.delimitedEncoding ? START_GROUP : LENGTH
  return field.enum === undefined ? wireTypeOfScalar(field.scalar as number) : VARINT
}

function mapValueWireType(field: DescField & { fieldKind: 'map' }): number {
  if (field.message !== undefined) return LENGTH
  return field.enum === undefined ? wireTypeOfScalar(field.scalar as number) : VARINT
}

const isPackable = (field: DescField): boolean => field.message === undefined

/** By the numbers of descriptor.proto's `FieldDescriptorProto.Type`. */
function wireTypeOfScalar(scalar: number): number {
  switch (scalar) {
    case 1: // double
    case 6: // fixed64
    case 16: // sfixed64
      return FIXED64
    case 2: // float
    case 7: // fixed32
    case 15: // sfixed32
      return FIXED32
    case STRING:
    case 12: // bytes
      return LENGTH
    default:
      return VARINT
  }
}

function fail(what: string): never {
  throw new InputError(`a message in protocol buffers with ${what}`)
}

/** `FieldDescriptorProto.Type` */
const STRING = 9

/** Wire types. */
const VARINT = 0
const FIXED64 = 1
const LENGTH = 2
const START_GROUP = 3
const END_GROUP = 4
const FIXED32 = 5
