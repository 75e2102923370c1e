// json.marshal_with_options: JSON as Go writes it, in one line or indented.
import { type BuiltinContext, BuiltinError, objectArgument, stringArgument } from './builtin.ts'
import { compareValues } from './compare.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

const MAX_RESULT_LENGTH = 1024 * 1024
/** Of writing one value, in loop iterations of wasm. */
const VALUE_COST = 20

interface Layout {
  readonly prefix: string
  readonly indent: string
}

export function marshalWithOptions(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const layout = layoutOf(objectArgument(args[1], 2))
  const spend = (iterations: number) => context.spend(iterations)
  const text = new Writer(layout, spend).write(args[0] as RegoValue, 0)
  // Go puts the prefix before each line but the first.
  return (layout?.prefix ?? '') + text
}

/** Undefined: in one line. */
function layoutOf(options: RegoObject): Layout | undefined {
  let pretty: boolean | undefined
  let [prefix, indent] = ['', '\t']
  let asked = false
  for (const [name, value] of options.entries()) {
    if (name === 'pretty' && typeof value === 'boolean') {
      pretty = value
    } else if (name === 'prefix') {
      prefix = stringArgument(value, 2)
      asked = true
    } else if (name === 'indent') {
      indent = stringArgument(value, 2)
      asked = true
    } else {
      throw new BuiltinError('operand 2 has an unknown key, or pretty is not a boolean')
    }
  }
  return (pretty ?? asked) ? { prefix, indent } : undefined
}

class Writer {
  readonly #layout: Layout | undefined
  readonly #spend: BuiltinContext['spend']
  #length = 0

  constructor(layout: Layout | undefined, spend: BuiltinContext['spend']) {
    this.#layout = layout
    this.#spend = spend
  }

  write(value: RegoValue, depth: number): string {
    this.#spend(VALUE_COST)
    if (value instanceof RegoObject) return this.#object(value, depth)
    if (value instanceof RegoSet) return this.#list(value.members.toSorted(compareValues), depth)
    if (Array.isArray(value)) return this.#list(value, depth)
    return scalarJson(value)
  }

  #list(values: readonly RegoValue[], depth: number): string {
    return this.#wrapped(
      '[]',
      values.map((value) => this.write(value, depth + 1)),
      depth,
    )
  }

  #object(object: RegoObject, depth: number): string {
    const members = jsonEntries(object).map(([key, value]) => {
      const space = this.#layout === undefined ? '' : ' '
      return `${scalarJson(key)}:${space}${this.write(value, depth + 1)}`
    })
    return this.#wrapped('{}', members, depth)
  }

  #wrapped(brackets: string, members: readonly string[], depth: number): string {
    if (members.length === 0) return brackets
    const line = this.#line(depth + 1)
    this.#length += members.length * line.length
    if (this.#length > MAX_RESULT_LENGTH) throw new BuiltinError('result is too long')
    const body = members.join(`,${line}`)
    return `${brackets[0]}${line}${body}${this.#line(depth)}${brackets[1]}`
  }

  #line(depth: number): string {
    if (this.#layout === undefined) return ''
    const { prefix, indent } = this.#layout
    if (depth * indent.length > MAX_RESULT_LENGTH) throw new BuiltinError('result is too long')
    return `\n${prefix}${indent.repeat(depth)}`
  }
}

/**
 * Members as JSON has them: keys are text, sorted by their bytes.
 * @param spend is told about the sorting
 */
export function jsonEntries(
  object: RegoObject,
  spend?: BuiltinContext['spend'],
): [string, RegoValue][] {
  return Array.from(object.entries(), ([key, value]): [string, RegoValue] => [
    typeof key === 'string' ? key : jsonText(key),
    value,
  ]).sort(([a], [b]) => compareValues(a, b, spend))
}

/** JSON in one line, as json.Marshal of Go gives it: what HTML could take for its own is escaped. */
export function jsonText(value: RegoValue): string {
  return new Writer(undefined, () => {}).write(value, 0)
}

function scalarJson(value: RegoValue): string {
  if (value instanceof RegoNumber) return value.literal
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
