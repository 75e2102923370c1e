// json.match_schema and json.verify_schema, with the answers of OPA's validator: which errors there
// are, what they are called and where. The members of an object are looked at in their order.
import { type BuiltinContext, BuiltinError } from './builtin.ts'
import { jsonEntries } from './json-marshal.ts'
import { fitsFormat } from './schema-formats.ts'
import { compileSchema, SchemaError, type SchemaNode, type Size } from './schema-node.ts'
import {
  compareRationals,
  isMultiple,
  isWhole,
  plainJson,
  rationalOf,
  rationalText,
} from './schema-number.ts'
import {
  RegoNumber,
  RegoObject,
  RegoSet,
  type RegoValue,
  readJson,
  ValueSyntaxError,
} from './value.ts'

/** Of one schema applied to one value, in loop iterations of wasm. */
const STEP_COST = 100
const CHARACTER_COST = 5
/** Of compiling the largest pattern that the engine takes. */
const REGEX_COST = 50_000
const MAX_DEPTH = 300
const ROOT = '(Root)'

export function verifySchema(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  try {
    compileSchema(documentOf(args[0] as RegoValue, context), context)
    return [true, null]
  } catch (error) {
    if (error instanceof BuiltinError) return [false, `jsonschema: ${error.message}`]
    throw error
  }
}

export function matchSchema(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const document = documentOf(args[0] as RegoValue, context)
  const schema = compileSchema(documentOf(args[1] as RegoValue, context), context)
  const findings = new Validator(context).validate(schema, document, undefined, 0)
  return [findings.errors.length === 0, findings.errors.map(errorValue)]
}

/** JSON, as text or as the value itself. */
function documentOf(value: RegoValue, context: BuiltinContext): RegoValue {
  if (typeof value === 'string') {
    context.spend(CHARACTER_COST * value.length)
    try {
      return readJson(value)
    } catch (error) {
      if (error instanceof ValueSyntaxError) throw new SchemaError('invalid JSON string')
      throw error
    }
  }
  if (value instanceof RegoObject || Array.isArray(value)) return asJson(value, context)
  throw new SchemaError('wrong type, expected string or object')
}

/** Sets are arrays, and keys are text. */
function asJson(value: RegoValue, context: BuiltinContext): RegoValue {
  const list = value instanceof RegoSet ? value.members : value
  if (Array.isArray(list)) return list.map((one) => asJson(one, context))
  if (!(value instanceof RegoObject)) return value
  const object = new RegoObject()
  for (const [key, one] of jsonEntries(value, context.spend)) object.set(key, asJson(one, context))
  return object
}

interface SchemaFinding {
  readonly type: string
  readonly field: string
  readonly description: string
}

function errorValue({ type, field, description }: SchemaFinding): RegoValue {
  const error = new RegoObject()
  error.set('error', `${field}: ${description}`)
  error.set('type', type)
  error.set('field', field)
  error.set('desc', description)
  return error
}

/** What was found, and how far a schema got: of several that fail, the best one tells why. */
class Findings {
  readonly errors: SchemaFinding[] = []
  score = 0

  get valid(): boolean {
    return this.errors.length === 0
  }

  merge(other: Findings | undefined): void {
    if (other === undefined) return
    this.errors.push(...other.errors)
    this.score += other.score
  }
}

class Validator {
  readonly #context: BuiltinContext

  constructor(context: BuiltinContext) {
    this.#context = context
  }

  validate(
    schema: SchemaNode,
    value: RegoValue,
    path: string | undefined,
    depth: number,
  ): Findings {
    const findings = new Findings()
    this.#check(schema, value, path, depth, findings)
    return findings
  }

  #check(
    schema: SchemaNode,
    value: RegoValue,
    path: string | undefined,
    depth: number,
    into: Findings,
  ): void {
    this.#context.spend(STEP_COST)
    if (depth > MAX_DEPTH) throw new BuiltinError('nested too deep')
    if (schema.reference !== undefined) {
      this.#check(schema.reference, value, path, depth + 1, into)
      return
    }
    const report = (type: string, description: string) => {
      this.#context.spend(CHARACTER_COST * description.length)
      into.errors.push({ type, field: path ?? ROOT, description })
      into.score -= 2
    }
    if (schema.pass !== undefined) {
      if (!schema.pass) report('false', 'False always fails validation')
      return
    }
    const given = this.#typeOf(value)
    const fits =
      schema.types.includes(given) || (given === 'integer' && schema.types.includes('number'))
    if (schema.types.length > 0 && !fits) {
      const [only] = schema.types
      const expected = schema.types.length > 1 ? `[${schema.types.join(',')}]` : only
      report('invalid_type', `Invalid type. Expected: ${expected}, given: ${given}`)
      return
    }
    const one: Step = { schema, path, depth, into, report }
    this.#combinations(one, value)
    if (Array.isArray(value)) this.#array(one, value)
    if (value instanceof RegoObject) this.#object(one, value)
    if (value instanceof RegoNumber) this.#number(one, value)
    this.#common(one, value)
    if (typeof value === 'string') this.#string(one, value)
    if (value instanceof RegoObject) {
      for (const [name, property] of schema.properties) {
        const member = value.get(name)
        if (member === undefined) continue
        this.#check(property, member, within(path, name), depth + 1, into)
      }
    }
    into.score++
  }

  #typeOf(value: RegoValue): string {
    if (value === null) return 'null'
    if (value instanceof RegoNumber) {
      return isWhole(rationalOf(value, this.#context)) ? 'integer' : 'number'
    }
    if (value instanceof RegoObject) return 'object'
    return Array.isArray(value) ? 'array' : typeof value
  }

  #combinations({ schema, path, depth, into, report }: Step, value: RegoValue): void {
    const tried = (one: SchemaNode) => this.validate(one, value, path, depth + 1)
    if (schema.anyOf.length > 0) {
      const { passed, best } = this.#several(schema.anyOf, tried, 1)
      if (passed === 0) {
        report('number_any_of', 'Must validate at least one schema (anyOf)')
        into.merge(best)
      }
    }
    if (schema.oneOf.length > 0) {
      const { passed, best } = this.#several(schema.oneOf, tried, schema.oneOf.length)
      if (passed !== 1) report('number_one_of', 'Must validate one and only one schema (oneOf)')
      if (passed === 0) into.merge(best)
    }
    if (schema.allOf.length > 0) {
      const results = schema.allOf.map(tried)
      for (const one of results) into.merge(one)
      if (results.some((one) => !one.valid)) {
        report('number_all_of', 'Must validate all the schemas (allOf)')
      }
    }
    if (schema.not !== undefined && tried(schema.not).valid) {
      report('number_not', 'Must not validate the schema (not)')
    }
    if (value instanceof RegoObject)
      this.#dependencies({ schema, path, depth, into, report }, value)
    if (schema.if !== undefined) {
      const holds = tried(schema.if).valid
      const next = holds ? schema.then : schema.else
      const result = next === undefined ? undefined : tried(next)
      if (result?.valid === false) {
        if (holds) report('condition_then', 'Must validate "then" as "if" was valid')
        else report('condition_else', 'Must validate "else" as "if" was not valid')
        into.merge(result)
      }
    }
    into.score++
  }

  /** How many pass, no more than are asked for, and the one that got farthest when none does. */
  #several(
    schemas: readonly SchemaNode[],
    tried: (one: SchemaNode) => Findings,
    enough: number,
  ): { passed: number; best: Findings | undefined } {
    let passed = 0
    let best: Findings | undefined
    for (const one of schemas) {
      const result = tried(one)
      if (result.valid) passed++
      else if (passed === 0 && (best === undefined || result.score > best.score)) best = result
      if (passed === enough) break
    }
    return { passed, best }
  }

  #dependencies({ schema, path, depth, into, report }: Step, value: RegoObject): void {
    for (const [name, dependency] of schema.dependencies) {
      if (value.get(name) === undefined) continue
      if (!isNames(dependency)) {
        this.#check(dependency, value, path, depth + 1, into)
        continue
      }
      for (const other of dependency) {
        if (value.get(other) !== undefined) continue
        report('missing_dependency', `Has a dependency on ${other}`)
      }
    }
  }

  #array({ schema, path, depth, into, report }: Step, value: readonly RegoValue[]): void {
    const { items, additionalItems } = schema
    for (const [i, one] of value.entries()) {
      const beyond =
        isList(items) && items.length > 0 && i >= items.length ? additionalItems : undefined
      const node = isList(items) ? (items[i] ?? beyond) : items
      if (typeof node !== 'object') continue
      into.merge(this.validate(node, one, within(path, String(i)), depth + 1))
    }
    if (
      isList(items) &&
      items.length > 0 &&
      value.length > items.length &&
      additionalItems === false
    ) {
      report('array_no_additional_items', 'No additional items allowed on array')
    }
    this.#size(schema, ['minItems', 'maxItems'], value.length, (least, size) =>
      report(
        least ? 'array_min_items' : 'array_max_items',
        `Array must have at ${least ? 'least' : 'most'} ${size} items`,
      ),
    )
    if (schema.uniqueItems) this.#unique(value, report)
    if (schema.contains !== undefined) {
      const node = schema.contains
      let best: Findings | undefined
      const found = value.some((one, i) => {
        const result = this.validate(node, one, within(path, String(i)), depth + 1)
        if (best === undefined || result.score > best.score) best = result
        return result.valid
      })
      if (!found) {
        report('contains', 'At least one of the items must match')
        into.merge(best)
      }
    }
    into.score++
  }

  #unique(value: readonly RegoValue[], report: Report): void {
    const seen = new Map<string, number>()
    for (const [j, one] of value.entries()) {
      const text = plainJson(one)
      this.#context.spend(CHARACTER_COST * text.length)
      const i = seen.get(text)
      if (i !== undefined) report('unique', `array items[${i},${j}] must be unique`)
      seen.set(text, j)
    }
  }

  #object({ schema, path, depth, into, report }: Step, value: RegoObject): void {
    this.#size(schema, ['minProperties', 'maxProperties'], value.size, (least, size) =>
      report(
        least ? 'array_min_properties' : 'array_max_properties',
        `Must have at ${least ? 'least' : 'most'} ${size} properties`,
      ),
    )
    for (const name of schema.required) {
      if (value.get(name) !== undefined) into.score++
      else report('required', `${name} is required`)
    }
    const known = new Set(schema.properties.map(([name]) => name))
    const members = jsonEntries(value, this.#context.spend)
    for (const [name, member] of members) {
      const matched = this.#patterns({ schema, path, depth, into, report }, name, member)
      if (known.has(name) || matched || schema.additionalProperties === undefined) continue
      if (typeof schema.additionalProperties === 'object') {
        const inside = within(path, name)
        into.merge(this.validate(schema.additionalProperties, member, inside, depth + 1))
      } else if (!schema.additionalProperties) {
        report('additional_property_not_allowed', `Additional property ${name} is not allowed`)
      }
    }
    if (schema.propertyNames !== undefined) {
      for (const [name] of members) {
        const result = this.validate(schema.propertyNames, name, path, depth + 1)
        if (result.valid) continue
        report('invalid_property_name', `Property name of "${name}" does not match`)
        into.merge(result)
      }
    }
    into.score++
  }

  #patterns({ schema, path, depth, into }: Step, name: string, member: RegoValue): boolean {
    let matched = false
    for (const [regex, node] of schema.patternProperties) {
      if (!this.#matches(regex, name)) continue
      matched = true
      into.merge(this.validate(node, member, within(path, name), depth + 1))
    }
    if (matched) into.score++
    return matched
  }

  #matches(regex: NonNullable<SchemaNode['pattern']>, text: string): boolean {
    for (const _ of regex.matches(text, (steps) => this.#context.spend(steps))) return true
    return false
  }

  #common({ schema, path, into, report }: Step, value: RegoValue): void {
    if (schema.constant !== undefined || schema.values !== undefined) {
      const text = plainJson(value)
      this.#context.spend(CHARACTER_COST * text.length)
      const field = path ?? ROOT
      if (schema.constant !== undefined && text !== schema.constant) {
        report('const', `${field} does not match: ${schema.constant}`)
      }
      if (schema.values !== undefined && !schema.values.includes(text)) {
        report('enum', `${field} must be one of the following: ${schema.values.join(', ')}`)
      }
    }
    if (schema.format !== undefined && typeof value === 'string') {
      // A short pattern may stand for a large program.
      const compiling = schema.format === 'regex' ? REGEX_COST : 0
      this.#context.spend(CHARACTER_COST * value.length + compiling)
      if (!fitsFormat(schema.format, value)) {
        report('format', `Does not match format '${schema.format}'`)
      }
    }
    into.score++
  }

  #string({ schema, into, report }: Step, value: string): void {
    const length = schema.sizes.minLength ?? schema.sizes.maxLength
    const characters = length === undefined ? 0 : Array.from(value).length
    this.#context.spend(characters)
    this.#size(schema, ['minLength', 'maxLength'], characters, (least, size) =>
      report(
        least ? 'string_gte' : 'string_lte',
        `String length must be ${least ? 'greater' : 'less'} than or equal to ${size}`,
      ),
    )
    if (schema.pattern !== undefined && !this.#matches(schema.pattern, value)) {
      report('pattern', `Does not match pattern '${schema.patternText}'`)
    }
    into.score++
  }

  #number({ schema, into, report }: Step, value: RegoNumber): void {
    const number = rationalOf(value, this.#context)
    const { multipleOf, maximum, exclusiveMaximum, minimum, exclusiveMinimum } = schema
    if (multipleOf !== undefined && !isMultiple(number, multipleOf)) {
      report('multiple_of', `Must be a multiple of ${rationalText(multipleOf)}`)
    }
    if (maximum !== undefined && compareRationals(number, maximum) > 0) {
      report('number_lte', `Must be less than or equal to ${rationalText(maximum)}`)
    }
    if (exclusiveMaximum !== undefined && compareRationals(number, exclusiveMaximum) >= 0) {
      report('number_lt', `Must be less than ${rationalText(exclusiveMaximum)}`)
    }
    if (minimum !== undefined && compareRationals(number, minimum) < 0) {
      report('number_gte', `Must be greater than or equal to ${rationalText(minimum)}`)
    }
    if (exclusiveMinimum !== undefined && compareRationals(number, exclusiveMinimum) <= 0) {
      report('number_gt', `Must be greater than ${rationalText(exclusiveMinimum)}`)
    }
    into.score++
  }

  #size(
    { sizes }: SchemaNode,
    [low, high]: readonly [Size, Size],
    size: number,
    report: (least: boolean, limit: number) => void,
  ): void {
    const [min, max] = [sizes[low], sizes[high]]
    if (min !== undefined && size < min) report(true, min)
    if (max !== undefined && size > max) report(false, max)
  }
}

type Report = (type: string, description: string) => void

interface Step {
  readonly schema: SchemaNode
  readonly path: string | undefined
  readonly depth: number
  readonly into: Findings
  readonly report: Report
}

function within(path: string | undefined, name: string): string {
  return path === undefined ? name : `${path}.${name}`
}

function isList(items: SchemaNode['items']): items is readonly SchemaNode[] {
  return Array.isArray(items)
}

function isNames(dependency: readonly string[] | SchemaNode): dependency is readonly string[] {
  return Array.isArray(dependency)
}
