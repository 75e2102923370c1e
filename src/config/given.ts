// What an operator wrote, before it has a meaning: the text of each value, by key, with the place it
// was written at. The shape of the configuration (sections, lists, keys) comes from the table.
import { type Key, keys } from './schema.ts'

export interface Given {
  readonly key: Key
  /** Absent where something was written that is no single value: already reported. */
  readonly text?: string
  /** `inbound.listen (postern.yaml:3:11)` or `--listen`, for problems. */
  readonly where: string
}

/** By concrete path: `[]` of the table's paths is `[0]`, `[1]`, ... here. */
export type GivenValues = Map<string, Given>

export type Shape =
  | { readonly kind: 'value'; readonly key: Key }
  | {
      readonly kind: 'list'
      readonly entry: Shape
      readonly mayBeEmpty: boolean
      /** May be written as a map: the keys of the entry that its name and a single value stand for. */
      readonly map?: { readonly name: string; readonly value: string }
    }
  | { readonly kind: 'section'; readonly keys: ReadonlyMap<string, Shape> }

export const SHAPE: Shape = shapeOf(keys.map((key) => ({ key, rest: segments(key.path) })))

function segments(path: string): readonly string[] {
  return path.replaceAll('[]', '.[]').split('.')
}

function shapeOf(below: readonly { readonly key: Key; readonly rest: readonly string[] }[]): Shape {
  const [first] = below
  if (first === undefined) throw new Error('the configuration table has a path without a key')
  if (first.rest.length === 0) return { kind: 'value', key: first.key }
  const groups = Map.groupBy(below, ({ rest }) => rest[0] as string)
  const shapes = new Map(
    [...groups].map(([name, group]) => [
      name,
      shapeOf(group.map(({ key, rest }) => ({ key, rest: rest.slice(1) }))),
    ]),
  )
  const entry = shapes.get('[]')
  if (entry === undefined) return { kind: 'section', keys: shapes }
  const [name, value] = (['name', 'value'] as const).map(
    (place) => below.find(({ key, rest }) => key.inMap === place && rest.length === 2)?.rest[1],
  )
  return {
    kind: 'list',
    entry,
    mayBeEmpty: below.some(({ key }) => key.default === '[]'),
    ...(name === undefined || value === undefined ? {} : { map: { name, value } }),
  }
}
