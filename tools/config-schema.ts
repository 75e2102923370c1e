// The JSON Schema of the configuration file, for editors: completion, descriptions, red lines under
// unknown keys. The program's own parser is the judge; this is never used to decide.
import { SHAPE, type Shape } from '../src/config/given.ts'
import { type Key, typeOf } from '../src/config/schema.ts'

type JsonSchema = Readonly<Record<string, unknown>>

export function renderConfigSchema(): string {
  const schema = {
    // Draft 7 is what the YAML language server understands.
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Postern configuration',
    ...schemaOf(SHAPE),
  }
  return `${JSON.stringify(schema, null, 2)}\n`
}

function schemaOf(shape: Shape): JsonSchema {
  if (shape.kind === 'value') return valueSchema(shape.key)
  if (shape.kind === 'list') {
    const items = schemaOf(shape.entry)
    return {
      type: shape.map === undefined ? 'array' : ['array', 'object'],
      items,
      ...(shape.mayBeEmpty ? {} : { minItems: 1 }),
      ...(shape.map === undefined
        ? {}
        : { additionalProperties: { anyOf: [{ type: 'string' }, items] }, minProperties: 1 }),
    }
  }
  return {
    type: ['object', 'null'],
    additionalProperties: false,
    properties: Object.fromEntries([...shape.keys].map(([name, below]) => [name, schemaOf(below)])),
  }
}

/** A value of the environment can stand in for any value: `${NAME}`. */
const VARIABLE = { type: 'string', pattern: '\\$\\{' }

function valueSchema(key: Key): JsonSchema {
  const described = { description: key.sentence, ...defaultOf(key) }
  if (key.type === 'true') return { ...described, const: true }
  if (key.values !== undefined) {
    return { ...described, anyOf: [{ enum: key.values }, VARIABLE] }
  }
  switch (typeOf(key).json) {
    case 'integer':
      return { ...described, anyOf: [{ type: 'integer', ...boundsOf(key) }, VARIABLE] }
    case 'number':
      return { ...described, anyOf: [{ type: 'number', minimum: 0, maximum: 1 }, VARIABLE] }
    case 'boolean':
      return { ...described, anyOf: [{ type: 'boolean' }, VARIABLE] }
    case 'integer or string':
      return { ...described, type: ['integer', 'string'] }
    case 'string':
      // `timeouts: { connectionLifetime: 0 }` is a number to YAML.
      return { ...described, type: key.type === 'duration' ? ['string', 'integer'] : 'string' }
  }
}

const boundsOf = (key: Key): JsonSchema => ({
  minimum: Number(key.min ?? 0),
  ...(key.max === undefined ? {} : { maximum: Number(key.max) }),
})

function defaultOf(key: Key): JsonSchema {
  if (key.default === undefined || key.path.endsWith('[]')) return {}
  const plain = typeOf(key).json !== 'string' && /^(\d+|true|false)$/.test(key.default)
  return { default: plain ? JSON.parse(key.default) : key.default }
}
