// The flags of `run` and `check`, derived from the table, and what they say as values of keys.
import type { Given, GivenValues } from './given.ts'
import { type Key, keys, typeOf } from './schema.ts'

export interface FlagDefinition {
  /** `--allow-uri` */
  readonly flag: string
  /** Other names that mean the same: `--cacert` for `--ca`. */
  readonly aliases: readonly string[]
  /** `PATTERN`; absent: the flag takes no argument. */
  readonly argument?: string
  readonly sentence: string
  readonly repeatable: boolean
  /** `allow[].uri` */
  readonly key: string
}

export const FLAGS: readonly FlagDefinition[] = keys.flatMap((key) =>
  key.flag === undefined ? [] : [definition(key, key.flag)],
)

function definition(key: Key, flag: NonNullable<Key['flag']>): FlagDefinition {
  const { argument } = typeOf(key)
  return {
    flag: flag.name,
    aliases: flag.aliases ?? [],
    ...(argument === undefined ? {} : { argument }),
    sentence: key.sentence,
    repeatable: key.path.includes('[]') && argument !== undefined,
    key: key.path,
  }
}

/**
 * What the command line gave, by the name of the flag in camel case and without dashes, which is how
 * commander hands options over: `{ allowUri: ['spiffe://a/b'], allowAll: true, listen: ':8443' }`.
 */
export type Flags = Readonly<Record<string, string | boolean | readonly string[] | undefined>>

export const flagAttribute = (flag: string): string =>
  flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())

/** The values that flags give to keys. A flag for a list adds one entry for each of its values. */
export function flagsToConfig(flags: Flags): GivenValues {
  const given = new Map<string, Given>()
  const lengths = new Map<string, number>()
  for (const key of keys) {
    for (const name of key.flag === undefined ? [] : [key.flag.name, ...(key.flag.aliases ?? [])]) {
      const value = flags[flagAttribute(name)]
      if (value === undefined || value === false) continue
      for (const one of Array.isArray(value) ? value : [value]) {
        const list = listOf(key.path)
        const index = lengths.get(list ?? '') ?? 0
        if (list !== undefined) lengths.set(list, index + 1)
        given.set(key.path.replace('[]', `[${index}]`), { key, text: String(one), where: name })
      }
    }
  }
  return given
}

/** The list that a path of the table is in: `allow` for `allow[].uri`. */
export const listOf = (path: string): string | undefined =>
  path.includes('[') ? path.slice(0, path.indexOf('[')) : undefined
