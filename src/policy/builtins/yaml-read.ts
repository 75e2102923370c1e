// yaml.unmarshal and yaml.is_valid: the first document of a stream, with the scalars of YAML 1.2 as
// go-yaml reads them. Aliases are followed at their full price, so that they cannot explode.
// Stricter than go-yaml in one point: a bracket may not close at the indent of its key, or before.
import {
  type Alias,
  isAlias,
  isMap,
  isNode,
  isPair,
  isScalar,
  isSeq,
  type Node,
  parseAllDocuments,
  type Scalar,
  type YAMLMap,
} from 'yaml'
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { RegoNumber, RegoObject, type RegoValue } from './value.ts'

/** Of one character and one node, in loop iterations of wasm (measured: 1 to 4 us a character). */
const CHARACTER_COST = 400
const NODE_COST = 100
const MAX_DEPTH = 200
const CORE_TAG = 'tag:yaml.org,2002:'

export function unmarshalYaml(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  return readYaml(stringArgument(args[0], 1), context)
}

export function isYaml([text]: readonly RegoValue[], context: BuiltinContext): RegoValue {
  if (typeof text !== 'string') return false
  try {
    readYaml(text, context)
    return true
  } catch (error) {
    if (error instanceof BuiltinError) return false
    throw error
  }
}

function readYaml(text: string, context: BuiltinContext): RegoValue {
  context.spend(CHARACTER_COST * text.length)
  if (nestsTooDeep(text)) throw new BuiltinError('nested too deep')
  const documents = parseAllDocuments(text, {
    version: '1.2',
    schema: 'failsafe',
    uniqueKeys: false,
    logLevel: 'silent',
    prettyErrors: false,
  })
  const [first] = documents
  if (!Array.isArray(documents) || first === undefined) return null
  // Also what follows the first document has to be YAML.
  const error = documents.flatMap(({ errors }) => errors)[0]
  if (error !== undefined) throw new BuiltinError(error.message)
  const { version, explicit } = first.directives?.yaml ?? {}
  if (explicit === true && version !== '1.1') throw new BuiltinError('incompatible YAML document')
  return new Reader(text, context).read(first.contents, 0)
}

/** Each level of nesting costs the parser stack; brackets and indents are all that nests. */
function nestsTooDeep(text: string): boolean {
  let [depth, deepest] = [0, 0]
  for (const character of text) {
    if (character === '[' || character === '{') deepest = Math.max(deepest, ++depth)
    else if (character === ']' || character === '}') depth--
  }
  return deepest > MAX_DEPTH || /(?:[-?:][ \t]){200}/.test(text)
}

class Reader {
  readonly #text: string
  readonly #context: BuiltinContext
  readonly #anchors = new Map<string, Node>()
  /** Above 0, anchors are not new. */
  #aliases = 0

  constructor(text: string, context: BuiltinContext) {
    this.#text = text
    this.#context = context
  }

  read(node: unknown, depth: number): RegoValue {
    this.#context.spend(NODE_COST)
    if (depth > MAX_DEPTH) throw new BuiltinError('nested too deep')
    if (node === null || node === undefined) return null
    if (isAlias(node)) return this.#alias(node, depth)
    if (isNode(node) && node.anchor !== undefined && this.#aliases === 0) {
      this.#anchors.set(node.anchor, node)
    }
    if (isScalar(node)) return this.#scalar(node)
    if (isSeq(node)) return node.items.map((item) => this.read(item, depth + 1))
    if (isMap(node)) return this.#object(node, depth)
    throw new BuiltinError('a node that is not understood')
  }

  #alias(alias: Alias, depth: number): RegoValue {
    const target = this.#anchors.get(alias.source)
    if (target === undefined) throw new BuiltinError(`unknown anchor ${alias.source}`)
    this.#aliases++
    const value = this.read(target, depth + 1)
    this.#aliases--
    return value
  }

  #scalar(scalar: Scalar): RegoValue {
    const value = scalarValue(scalar)
    // A block that ends with the text, not with a line, has no line break there.
    const atEnd = scalar.range?.[1] === this.#text.length && !this.#text.endsWith('\n')
    const block = scalar.type === 'BLOCK_LITERAL' || scalar.type === 'BLOCK_FOLDED'
    return atEnd && block && typeof value === 'string' ? value.replace(/\n$/, '') : value
  }

  #object(map: YAMLMap, depth: number): RegoObject {
    const own = new RegoObject()
    const merged: RegoObject[] = []
    for (const pair of map.items) {
      if (!isPair(pair)) throw new BuiltinError('a node that is not understood')
      const { key, value } = pair
      if (isScalar(key) && key.type === 'PLAIN' && key.value === '<<' && key.tag === undefined) {
        merged.push(...this.#merged(value, depth))
      } else {
        own.set(keyText(this.read(key, depth + 1)), this.read(value, depth + 1))
      }
    }
    if (merged.length === 0) return own
    const result = new RegoObject()
    // What comes first wins, and the own members before all.
    for (const one of [...merged.reverse(), own]) {
      for (const [key, value] of one.entries()) result.set(key, value)
    }
    return result
  }

  #merged(value: unknown, depth: number): RegoObject[] {
    const read = this.read(value, depth + 1)
    const list = Array.isArray(read) ? read : [read]
    return list.map((one) => {
      if (one instanceof RegoObject) return one
      throw new BuiltinError('map merge requires map or sequence of maps as the value')
    })
  }
}

function scalarValue(scalar: Scalar): RegoValue {
  const text = String(scalar.source ?? scalar.value ?? '')
  const tag = scalar.tag?.startsWith(CORE_TAG) ? scalar.tag.slice(CORE_TAG.length) : scalar.tag
  switch (tag) {
    case undefined:
      return scalar.type === 'PLAIN' ? plainValue(text) : String(scalar.value)
    case 'null':
    case 'bool':
    case 'int':
    case 'float': {
      const value = plainValue(text)
      if (typeOf(value) === tag || (tag === 'float' && typeOf(value) === 'int')) return value
      throw new BuiltinError(`cannot decode as ${tag}`)
    }
    case 'binary':
      return Buffer.from(text.replace(/\s/g, ''), 'base64').toString('utf8')
    default:
      return String(scalar.value)
  }
}

function typeOf(value: RegoValue): string {
  if (value === null) return 'null'
  if (typeof value === 'boolean') return 'bool'
  if (!(value instanceof RegoNumber)) return 'str'
  return /^-?[0-9]+$/.test(value.literal) ? 'int' : 'float'
}

/** What a scalar without quotes means; go-yaml also knows the octal numbers of YAML 1.1. */
export function plainValue(text: string): RegoValue {
  if (/^(?:~|null|Null|NULL|)$/.test(text)) return null
  if (/^(?:true|True|TRUE)$/.test(text)) return true
  if (/^(?:false|False|FALSE)$/.test(text)) return false
  if (/^(?:[+-]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/.test(text)) {
    throw new BuiltinError('JSON has no such number')
  }
  if (!/^[0-9.+-]/.test(text)) return text
  const plain = text.startsWith('.') ? text : text.replaceAll('_', '')
  const integer = integerOf(plain)
  if (integer !== undefined) return new RegoNumber(String(integer))
  if (!/^[+-]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?$/.test(plain)) return text
  const float = Number(plain)
  return Number.isFinite(float) ? new RegoNumber(String(float)) : text
}

/** Of 64 bits; a larger one is a float. */
function integerOf(text: string): bigint | undefined {
  const [, sign, digits] = /^([+-]?)(.+)$/.exec(text) ?? []
  if (digits === undefined || digits.length > 70) return undefined
  let size: bigint
  if (/^(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0|[1-9][0-9]*)$/.test(digits)) {
    size = BigInt(digits.toLowerCase())
  } else if (/^0[0-7]+$/.test(digits)) {
    size = BigInt(`0o${digits}`)
  } else {
    return undefined
  }
  const value = sign === '-' ? -size : size
  return value >= -(1n << 63n) && value < 1n << 64n ? value : undefined
}

function keyText(key: RegoValue): string {
  if (typeof key === 'string') return key
  if (typeof key === 'boolean') return String(key)
  if (key instanceof RegoNumber) return key.literal
  throw new BuiltinError('unsupported map key')
}
