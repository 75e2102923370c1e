// A protocol buffer message as Go's protojson writes it: JSON names, 64-bit integers as strings,
// defaults left out, the well-known types in their own forms. Written as text, because a float of 32
// bits has its own shortest digits and -0 a sign, which JavaScript's numbers do not show.
import type { DescEnum, DescField, DescMessage, Message, Registry } from '@bufbuild/protobuf'
import type { ReflectList, ReflectMap, ReflectMessage } from '@bufbuild/protobuf/reflect'
import { InputError } from '../input-error.ts'
import { quote } from '../json-text.ts'
import type { Protobuf } from './protobuf.ts'
import { checkWire } from './wire.ts'

type Singular = Pick<DescField, 'fieldKind'> & {
  readonly scalar?: number | undefined
  readonly enum?: DescEnum | undefined
}

/** `google.protobuf.Any` may hold itself. */
const MAX_DEPTH = 100

export class ProtoJson {
  readonly #protobuf: Protobuf
  readonly #registry: Registry

  /** @param registry of the types that `google.protobuf.Any` may hold */
  constructor(protobuf: Protobuf, registry: Registry) {
    this.#protobuf = protobuf
    this.#registry = registry
  }

  /** @throws InputError for what is no such message or has no JSON, such as a time out of range */
  write(type: DescMessage, bytes: Uint8Array): string {
    return this.#message(this.#protobuf.reflect(type, this.#decode(type, bytes)), 0)
  }

  #message(message: ReflectMessage, depth: number, typeUrl?: string): string {
    if (depth > MAX_DEPTH) throw new InputError(`a message nested deeper than ${MAX_DEPTH}`)
    const own = this.#wellKnown(message, depth)
    if (own !== undefined) return typeUrl === undefined ? own : any(typeUrl, `"value":${own}`)
    let text = ''
    for (const field of message.fields) {
      if (!message.isSet(field)) {
        if (field.presence === LEGACY_REQUIRED) {
          throw new InputError(`a message without its required field ${field.name}`)
        }
        continue
      }
      const value = this.#field(message, field, depth)
      text += `${text === '' ? '' : ','}${quote(this.#nameOf(field))}:${value}`
    }
    return typeUrl === undefined ? `{${text}}` : any(typeUrl, text)
  }

  #field(message: ReflectMessage, field: DescField, depth: number): string {
    if (field.fieldKind === 'list') {
      const list = message.get(field) as ReflectList
      const kind = { fieldKind: field.listKind, scalar: field.scalar, enum: field.enum }
      return `[${[...list].map((item) => this.#singular(kind, item, depth)).join(',')}]`
    }
    if (field.fieldKind === 'map') {
      const map = message.get(field) as ReflectMap
      const kind = { fieldKind: field.mapKind, scalar: field.scalar, enum: field.enum }
      const entries = [...map].map(
        ([key, value]) => `${quote(String(key))}:${this.#singular(kind, value, depth)}`,
      )
      return `{${entries.join(',')}}`
    }
    return this.#singular(field, message.get(field), depth)
  }

  #singular(kind: Singular, value: unknown, depth: number): string {
    if (kind.fieldKind === 'message') return this.#message(value as ReflectMessage, depth + 1)
    if (kind.enum !== undefined) return enumText(kind.enum, value as number)
    switch (kind.scalar) {
      case FLOAT:
        return floatText(value as number, shortestFloat32)
      case DOUBLE:
        return floatText(value as number, (one) => one)
      case STRING:
        return quote(value as string)
      case BYTES:
        return `"${Buffer.from(value as Uint8Array).toString('base64')}"`
      default:
        return typeof value === 'bigint' ? `"${value}"` : String(value)
    }
  }

  /** Compilers write the JSON name, other makers of descriptors may not. */
  #nameOf(field: DescField): string {
    return field.jsonName || this.#protobuf.protoCamelCase(field.name)
  }

  /** The JSON of a well-known type that is not written field by field. */
  #wellKnown(message: ReflectMessage, depth: number): string | undefined {
    const { typeName } = message.desc
    if (!typeName.startsWith('google.protobuf.')) return undefined
    switch (typeName.slice('google.protobuf.'.length)) {
      case 'Any':
        return this.#any(message, depth)
      case 'Timestamp':
      case 'Duration':
      case 'FieldMask':
        return this.#asLibrary(message)
      case 'Struct':
      case 'ListValue':
        return this.#field(message, message.fields[0] as DescField, depth)
      case 'Value':
        return this.#value(message, depth)
      case 'BoolValue':
      case 'StringValue':
      case 'BytesValue':
      case 'Int32Value':
      case 'Int64Value':
      case 'UInt32Value':
      case 'UInt64Value':
      case 'FloatValue':
      case 'DoubleValue':
        return this.#field(message, message.fields[0] as DescField, depth)
      default:
        return undefined
    }
  }

  #value(message: ReflectMessage, depth: number): string {
    const field = message.fields.find((one) => message.isSet(one))
    if (field === undefined) throw new InputError('a google.protobuf.Value of no kind')
    const value = message.get(field)
    if (typeof value === 'number' && !Number.isFinite(value)) {
      throw new InputError('a google.protobuf.Value that is not a finite number')
    }
    return this.#field(message, field, depth)
  }

  #any(message: ReflectMessage, depth: number): string {
    const [url, bytes] = message.fields.map((field) => message.get(field)) as [string, Uint8Array]
    if (url === '') {
      if (bytes.length === 0) return '{}'
      throw new InputError('a google.protobuf.Any without a type')
    }
    const type = this.#registry.getMessage(url.slice(url.lastIndexOf('/') + 1))
    if (type === undefined) {
      throw new InputError('a google.protobuf.Any of a type that is not in the descriptor')
    }
    return this.#message(this.#protobuf.reflect(type, this.#decode(type, bytes)), depth + 1, url)
  }

  /** @throws InputError when the bytes are not such a message */
  #decode(type: DescMessage, bytes: Uint8Array): Message {
    checkWire(type, bytes)
    try {
      return this.#protobuf.fromBinary(type, bytes)
    } catch (error) {
      throw new InputError(`not a ${type.typeName}: ${(error as Error).message}`)
    }
  }

  #asLibrary(message: ReflectMessage): string {
    try {
      return JSON.stringify(this.#protobuf.toJson(message.desc, message.message))
    } catch (error) {
      throw new InputError(`a message without a JSON form: ${(error as Error).message}`)
    }
  }
}

function any(typeUrl: string, fields: string): string {
  return `{"@type":${quote(typeUrl)}${fields === '' ? '' : `,${fields}`}}`
}

function enumText(type: DescEnum, number: number): string {
  if (type.typeName === 'google.protobuf.NullValue') return 'null'
  const name = type.values.find((one) => one.number === number)?.name
  return name === undefined ? String(number) : quote(name)
}

function floatText(value: number, shortest: (value: number) => number): string {
  if (Number.isNaN(value)) return '"NaN"'
  if (!Number.isFinite(value)) return value > 0 ? '"Infinity"' : '"-Infinity"'
  return Object.is(value, -0) ? '-0' : String(shortest(value))
}

/** The number with the fewest digits that is the same float of 32 bits. */
function shortestFloat32(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const candidate = Number(value.toPrecision(digits))
    if (Math.fround(candidate) === value) return candidate
  }
  return Number(value.toPrecision(9))
}

/** `ScalarType` and `FeatureSet.FieldPresence` of descriptor.proto: not importable without the code. */
const DOUBLE = 1
const FLOAT = 2
const STRING = 9
const BYTES = 12
const LEGACY_REQUIRED = 3
