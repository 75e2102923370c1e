// Compiles a JSON schema (drafts 4, 6 and 7, or a mixture when it does not say) into nodes that
// validate. Refuses what OPA's validator refuses, in its words, for policies can read them.
// References stay in the document: nothing is fetched.
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { jsonEntries } from './json-marshal.ts'
import type { Regex } from './regex.ts'
import { cachedRegex } from './regex-builtins.ts'
import { plainJson, type Rational, rationalOf } from './schema-number.ts'
import { RegoNumber, RegoObject, type RegoValue } from './value.ts'

export interface SchemaNode {
  /** A boolean schema. */
  pass?: boolean
  reference?: SchemaNode
  readonly types: string[]
  properties: readonly (readonly [string, SchemaNode])[]
  additionalProperties?: boolean | SchemaNode
  patternProperties: readonly (readonly [Regex, SchemaNode])[]
  propertyNames?: SchemaNode
  readonly dependencies: Map<string, readonly string[] | SchemaNode>
  items?: SchemaNode | readonly SchemaNode[]
  additionalItems?: boolean | SchemaNode
  contains?: SchemaNode
  multipleOf?: Rational
  minimum?: Rational
  exclusiveMinimum?: Rational
  maximum?: Rational
  exclusiveMaximum?: Rational
  readonly sizes: Partial<Record<Size, number>>
  pattern?: Regex
  patternText?: string
  format?: string
  required: readonly string[]
  uniqueItems: boolean
  /** As plain JSON. */
  constant?: string
  values?: readonly string[]
  oneOf: readonly SchemaNode[]
  anyOf: readonly SchemaNode[]
  allOf: readonly SchemaNode[]
  not?: SchemaNode
  if?: SchemaNode
  then?: SchemaNode
  else?: SchemaNode
}

export type Size = (typeof SIZES)[number][number]

const SIZES = [
  ['minLength', 'maxLength'],
  ['minProperties', 'maxProperties'],
  ['minItems', 'maxItems'],
] as const
const TYPES = ['array', 'boolean', 'integer', 'number', 'null', 'object', 'string']
const HYBRID = Number.POSITIVE_INFINITY
const DRAFTS = /^https?:\/\/json-schema\.org\/draft-0([467])\/schema#?$/
/** Of one schema, in loop iterations of wasm. */
const SCHEMA_COST = 200
const MAX_DEPTH = 100

/** The words are part of what `json.verify_schema` answers. */
export class SchemaError extends BuiltinError {}

/** @throws SchemaError */
export function compileSchema(document: RegoValue, context: BuiltinContext): SchemaNode {
  return new Compiler(document, context).compile()
}

class Compiler {
  readonly #document: RegoValue
  readonly #context: BuiltinContext
  readonly #references = new Map<string, SchemaNode>()
  #draft = HYBRID

  constructor(document: RegoValue, context: BuiltinContext) {
    this.#document = document
    this.#context = context
  }

  compile(): SchemaNode {
    const document = this.#document
    if (document instanceof RegoObject) {
      const draft = this.#text(document, '$schema')
      const known = DRAFTS.exec(draft ?? '')?.[1]
      if (draft !== undefined && known === undefined) throw new SchemaError('unknown $schema')
      this.#draft = known === undefined ? HYBRID : Number(known)
    } else if (typeof document !== 'boolean') {
      throw new SchemaError('schema is invalid')
    }
    return this.#node(document, -1)
  }

  #node(document: RegoValue, depth: number): SchemaNode {
    const node = emptyNode()
    this.#fill(node, document, depth + 1)
    return node
  }

  #fill(node: SchemaNode, document: RegoValue, depth: number): void {
    this.#context.spend(SCHEMA_COST)
    if (depth > MAX_DEPTH) throw new SchemaError('nested too deep')
    if (this.#draft >= 6 && typeof document === 'boolean') {
      node.pass = document
      return
    }
    if (!(document instanceof RegoObject)) {
      throw new SchemaError('Expected: Valid Schema, given: Invalid JSON')
    }
    for (const name of ['title', 'description', 'id', '$id']) this.#text(document, name)
    this.#definitions(document, depth)
    const reference = this.#text(document, '$ref')
    if (reference !== undefined) {
      const known = this.#references.get(reference)
      node.reference = known ?? this.#referenced(reference, depth)
      // As OPA: what stands beside a reference counts for nothing, but is looked at the second time.
      if (known === undefined) return
    }
    this.#types(node, document.get('type'))
    this.#objectKeywords(node, document, depth)
    this.#arrayKeywords(node, document, depth)
    this.#numberKeywords(node, document)
    this.#otherKeywords(node, document)
    this.#combinations(node, document, depth)
  }

  /** Definitions are compiled to find what is wrong with them, also where nobody refers to them. */
  #definitions(document: RegoObject, depth: number): void {
    const definitions = document.get('definitions')
    if (definitions === undefined) return
    if (!(definitions instanceof RegoObject)) {
      throw invalidType('Array Of Schemas', 'definitions')
    }
    for (const [, one] of jsonEntries(definitions)) {
      if (!isSchema(one)) throw invalidType('Array Of Schemas', 'definitions')
      this.#node(one, depth)
    }
  }

  #referenced(reference: string, depth: number): SchemaNode {
    const target = this.#target(reference)
    if (!isSchema(target)) throw new SchemaError('Valid Schema must be of type object')
    const node = emptyNode()
    this.#references.set(reference, node)
    this.#fill(node, target, depth + 1)
    return node
  }

  #target(reference: string): RegoValue {
    if (!/^#(?:\/|$)/.test(reference)) throw new SchemaError(`cannot refer to ${reference}`)
    let value: RegoValue | undefined = this.#document
    for (const part of pointerParts(reference)) {
      this.#context.spend(1)
      if (value instanceof RegoObject) value = value.get(part)
      else if (Array.isArray(value)) value = value[/^[0-9]{1,9}$/.test(part) ? Number(part) : -1]
      else value = undefined
    }
    if (value === undefined) throw new SchemaError(`nothing at ${reference}`)
    return value
  }

  #types(node: SchemaNode, type: RegoValue | undefined): void {
    if (type === undefined) return
    for (const one of Array.isArray(type) ? type : [type]) {
      if (typeof one !== 'string') throw invalidType('type', 'string/Array Of Strings')
      if (!TYPES.includes(one)) {
        throw new SchemaError(
          `has a primitive type that is NOT VALID -- given: /${one}/ Expected valid values are:[${JSON_TYPES}]`,
        )
      }
      if (node.types.includes(one)) throw new SchemaError(`${one} type is duplicated`)
      node.types.push(one)
    }
  }

  #objectKeywords(node: SchemaNode, document: RegoObject, depth: number): void {
    const properties = document.get('properties')
    if (properties !== undefined) {
      if (!(properties instanceof RegoObject)) throw wrongKind('Properties', 'object')
      node.properties = this.#members(properties, depth)
    }
    const additional = this.#booleanOrSchema(document, 'additionalProperties', depth)
    if (additional !== undefined) node.additionalProperties = additional
    const patterns = document.get('patternProperties')
    if (patterns !== undefined) {
      if (!(patterns instanceof RegoObject)) throw invalidType('Valid Schema', 'patternProperties')
      node.patternProperties = this.#members(patterns, depth).map(([pattern, one]) => [
        this.#regex(pattern, `Invalid regex pattern '${pattern}'`),
        one,
      ])
    }
    const names = document.get('propertyNames')
    if (names !== undefined && this.#draft >= 6) {
      if (!isSchema(names)) throw invalidType('Valid Schema', 'patternProperties')
      node.propertyNames = this.#node(names, depth)
    }
    this.#dependencies(node, document.get('dependencies'), depth)
  }

  #members(object: RegoObject, depth: number): (readonly [string, SchemaNode])[] {
    return jsonEntries(object).map(([name, one]) => [name, this.#node(one, depth)])
  }

  #dependencies(node: SchemaNode, given: RegoValue | undefined, depth: number): void {
    if (given === undefined) return
    if (!(given instanceof RegoObject)) throw wrongKind('dependencies', 'object')
    for (const [name, one] of jsonEntries(given)) {
      if (isSchema(one)) node.dependencies.set(name, this.#node(one, depth))
      else if (isTexts(one)) node.dependencies.set(name, one)
      else throw wrongKind('Dependency', 'Schema Or Array Of Strings')
    }
  }

  #booleanOrSchema(
    document: RegoObject,
    name: string,
    depth: number,
  ): boolean | SchemaNode | undefined {
    const given = document.get(name)
    if (given === undefined || typeof given === 'boolean') return given
    if (given instanceof RegoObject) return this.#node(given, depth)
    throw invalidType('boolean/Valid Schema', name)
  }

  #arrayKeywords(node: SchemaNode, document: RegoObject, depth: number): void {
    const items = document.get('items')
    if (items !== undefined) {
      const wrong = invalidType('Valid Schema/Array Of Schemas', 'items')
      const list = Array.isArray(items) ? (items as readonly RegoValue[]) : undefined
      if (!(list ?? [items]).every(isSchema)) throw wrong
      node.items = list?.map((one) => this.#node(one, depth)) ?? this.#node(items, depth)
    }
    const additional = this.#booleanOrSchema(document, 'additionalItems', depth)
    if (additional !== undefined) node.additionalItems = additional
    const contains = document.get('contains')
    if (contains !== undefined && this.#draft >= 6) node.contains = this.#node(contains, depth)
    const unique = document.get('uniqueItems')
    if (unique === undefined) return
    if (typeof unique !== 'boolean') throw mustBe('uniqueItems', 'a boolean')
    node.uniqueItems = unique
  }

  #numberKeywords(node: SchemaNode, document: RegoObject): void {
    const multipleOf = document.get('multipleOf')
    if (multipleOf !== undefined) {
      if (!(multipleOf instanceof RegoNumber)) throw invalidType('Number', 'multipleOf')
      node.multipleOf = rationalOf(multipleOf, this.#context)
      if (node.multipleOf.top <= 0n) {
        throw new SchemaError('multipleOf must be strictly greater than 0')
      }
    }
    this.#limits(node, document, 'minimum', 'exclusiveMinimum')
    this.#limits(node, document, 'maximum', 'exclusiveMaximum')
    for (const [low, high] of SIZES) {
      const [min, max] = [this.#size(document, low), this.#size(document, high)]
      if (min !== undefined) node.sizes[low] = min
      if (max !== undefined) node.sizes[high] = max
      if (low !== 'minItems' && min !== undefined && max !== undefined && min > max) {
        throw new SchemaError(`${low} cannot be greater than ${high}`)
      }
    }
  }

  /** In draft 4 the exclusive limit is a boolean, later it is a limit of its own. */
  #limits(
    node: SchemaNode,
    document: RegoObject,
    name: 'minimum' | 'maximum',
    exclusive: 'exclusiveMinimum' | 'exclusiveMaximum',
  ): void {
    const limit = document.get(name)
    if (limit !== undefined) {
      if (!(limit instanceof RegoNumber)) throw mustBe(name, 'a Number')
      node[name] = rationalOf(limit, this.#context)
    }
    const strict = document.get(exclusive)
    if (strict === undefined) return
    if (strict instanceof RegoNumber && this.#draft > 4) {
      node[exclusive] = rationalOf(strict, this.#context)
    } else if (typeof strict === 'boolean' && (this.#draft === 4 || this.#draft === HYBRID)) {
      const given = node[name]
      if (given === undefined) throw new SchemaError(`${exclusive} cannot be used without ${name}`)
      if (!strict) return
      node[exclusive] = given
      delete node[name]
    } else {
      const expected = this.#draft === HYBRID ? 'boolean/number' : undefined
      throw invalidType(expected ?? (this.#draft === 4 ? 'boolean' : 'number'), exclusive)
    }
  }

  #size(document: RegoObject, name: Size): number | undefined {
    const given = document.get(name)
    if (given === undefined) return undefined
    if (!(given instanceof RegoNumber) || !/^-?[0-9]{1,15}$/.test(given.literal)) {
      throw mustBe(name, 'an integer')
    }
    const size = Number(given.literal)
    if (size < 0) throw new SchemaError(`${name} must be greater than or equal to 0`)
    return size
  }

  #otherKeywords(node: SchemaNode, document: RegoObject): void {
    const pattern = this.#text(document, 'pattern')
    if (pattern !== undefined) {
      node.pattern = this.#regex(pattern, 'pattern must be a valid regex')
      node.patternText = pattern
    }
    const format = this.#text(document, 'format')
    if (format !== undefined) node.format = format
    const required = this.#list(document, 'required') ?? []
    if (!isTexts(required)) throw invalidType('string', 'required')
    if (new Set(required).size < required.length) throw notUnique('required')
    node.required = required
    const constant = document.get('const')
    if (constant !== undefined && this.#draft >= 6) node.constant = plainJson(constant)
    const values = this.#list(document, 'enum')?.map(plainJson)
    if (values === undefined) return
    if (new Set(values).size < values.length) throw notUnique('enum')
    node.values = values
  }

  #combinations(node: SchemaNode, document: RegoObject, depth: number): void {
    for (const name of ['oneOf', 'anyOf', 'allOf'] as const) {
      node[name] = (this.#list(document, name) ?? []).map((one) => this.#node(one, depth))
    }
    for (const name of ['not', 'if', 'then', 'else'] as const) {
      const given = document.get(name)
      if (given === undefined || (name !== 'not' && this.#draft < 7)) continue
      if (!isSchema(given)) throw mustBe(name, 'an object')
      node[name] = this.#node(given, depth)
    }
  }

  #regex(pattern: string, complaint: string): Regex {
    try {
      return cachedRegex(pattern, this.#context)
    } catch (error) {
      if (error instanceof BuiltinError) throw new SchemaError(complaint)
      throw error
    }
  }

  #text(document: RegoObject, name: string): string | undefined {
    const given = document.get(name)
    if (given === undefined || typeof given === 'string') return given
    throw invalidType('string', name)
  }

  #list(document: RegoObject, name: string): readonly RegoValue[] | undefined {
    const given = document.get(name)
    if (given === undefined || Array.isArray(given)) return given
    throw mustBe(name, 'an array')
  }
}

const JSON_TYPES = 'array boolean integer number null object string'

function emptyNode(): SchemaNode {
  return {
    types: [],
    properties: [],
    patternProperties: [],
    dependencies: new Map(),
    sizes: {},
    required: [],
    uniqueItems: false,
    oneOf: [],
    anyOf: [],
    allOf: [],
  }
}

function pointerParts(reference: string): readonly string[] {
  let pointer: string
  try {
    pointer = decodeURIComponent(reference.slice(1))
  } catch {
    throw new SchemaError(`cannot refer to ${reference}`)
  }
  const parts = pointer.split('/').slice(1)
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function isSchema(value: RegoValue): value is boolean | RegoObject {
  return typeof value === 'boolean' || value instanceof RegoObject
}

function isTexts(value: RegoValue): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}

function invalidType(expected: string, given: string): SchemaError {
  return new SchemaError(`Invalid type. Expected: ${expected}, given: ${given}`)
}

function wrongKind(key: string, type: string): SchemaError {
  return new SchemaError(`${key} must be of type ${type}`)
}

function mustBe(key: string, what: string): SchemaError {
  return new SchemaError(`${key} must be of ${what}`)
}

function notUnique(key: string): SchemaError {
  return new SchemaError(`${key} items must be unique`)
}
