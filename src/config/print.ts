// The configuration in force, written the way an operator would write it, with every default. Read
// again it gives the same configuration. Nothing is redacted because nothing is secret: no key of
// the table holds a secret, only names of files that do, and what `${NAME}` put into an address or a
// path is just what someone who reads this wants to see.
import type { Config } from './config.ts'
import { SHAPE, type Shape } from './given.ts'
import { typeOf } from './schema.ts'
import { loadYaml } from './yaml.ts'

/** As YAML, for `check --print`. */
export const printConfig = (config: Config): string =>
  loadYaml().stringify(effectiveConfig(config), { lineWidth: 0 })

/** As plain data with the keys of the file, for `GET /config`. */
export const effectiveConfig = (config: Config): Readonly<Record<string, unknown>> =>
  written(SHAPE, config) as Record<string, unknown>

/** `undefined` leaves the key out: it is absent and has no default. */
function written(shape: Shape, value: unknown): unknown {
  if (shape.kind === 'value') return writtenValue(shape, value)
  if (shape.kind === 'list') {
    if (value === undefined) return undefined
    const entries = (value as readonly unknown[]).map((one) => written(shape.entry, one))
    return entries.length > 0 || shape.mayBeEmpty ? entries : undefined
  }
  const fields = new Map(Object.entries(value ?? {}))
  const section: Record<string, unknown> = {}
  for (const [name, below] of shape.keys) {
    const one = written(below, fields.get(fieldOf(name, below)))
    if (one !== undefined) section[name] = one
  }
  return Object.keys(section).length > 0 ? section : undefined
}

/** The program carries the unit in the name; in the file it stands beside the number. */
const fieldOf = (name: string, shape: Shape): string =>
  shape.kind === 'value' && TIMES.includes(shape.key.type) ? `${name}Ms` : name

const TIMES: readonly string[] = ['duration', 'timestamp']

function writtenValue({ key }: Shape & { kind: 'value' }, value: unknown): unknown {
  if (value === undefined) return key.type === 'listener' ? 'off' : undefined
  const { format, json } = typeOf(key)
  const text = format === undefined ? String(value) : format(value as never)
  if (json !== 'string' && /^(\d+(\.\d+)?|true|false)$/.test(text)) return JSON.parse(text)
  return text.replaceAll('${', () => '$${')
}
