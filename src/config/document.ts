// From the text of a configuration file (YAML, and so JSON) to the values written in it. Promises:
// never throws, descends only where the table has a key, and names line and column of each problem.
import type { Node } from 'yaml'
import type { Problem } from '../errors.ts'
import { type GivenValues, SHAPE, type Shape } from './given.ts'
import { nearest } from './nearest.ts'
import { keys } from './schema.ts'
import { loadYaml } from './yaml.ts'

export interface ConfigFile {
  readonly path: string
  readonly text: string
}

type Environment = Readonly<Record<string, string | undefined>>

export interface DocumentRead {
  /** False where the text is no YAML or empty: then nothing can be said about what is missing. */
  readonly readable: boolean
  readonly given: GivenValues
  readonly problems: readonly Problem[]
}

/** Reads the values of a file; `${NAME}` in a value takes an environment variable. */
export function readDocument(file: ConfigFile, env: Environment): DocumentRead {
  const reading = new Reading(file, env)
  reading.readAll()
  return reading
}

class Reading {
  readable = false
  readonly given: GivenValues = new Map()
  readonly problems: Problem[] = []
  readonly #file: ConfigFile
  readonly #env: Environment
  readonly #yaml = loadYaml()
  readonly #lines = new this.#yaml.LineCounter()

  constructor(file: ConfigFile, env: Environment) {
    this.#file = file
    this.#env = env
  }

  readAll(): void {
    // `failsafe`: every scalar stays the text that was written, and the table says what it means.
    const document = this.#yaml.parseDocument(this.#file.text, {
      schema: 'failsafe',
      lineCounter: this.#lines,
      prettyErrors: false,
      uniqueKeys: false,
      // Not `silent`: that also silences the error about a second document.
      logLevel: 'error',
    })
    for (const fault of [...document.errors, ...document.warnings].slice(0, 20)) {
      this.#problem(
        '',
        fault.pos[0],
        `is not YAML: ${fault.message.slice(0, 200).replaceAll(/\p{C}/gu, ' ')}`,
        'correct the syntax; indentation and quotes are the usual suspects',
      )
    }
    if (this.problems.length > 0) return
    if (document.contents === null || this.#isBlank(document.contents)) {
      this.#problem('', 0, 'is empty', 'write a configuration, or start without --config')
    } else {
      this.readable = true
      this.#read(SHAPE, document.contents, '')
    }
  }

  #read(shape: Shape, node: Node | null, path: string): void {
    const at = node?.range?.[0] ?? 0
    if (this.#yaml.isAlias(node)) {
      if (shape.kind === 'value') this.given.set(path, { key: shape.key, where: path })
      // A few hundred bytes of nested aliases can stand for billions of values.
      this.#problem(path, at, 'is an alias (*name)', 'write the value out; aliases are not read')
    } else if (shape.kind === 'value') {
      this.#readValue(shape, node, path, at)
    } else if (shape.kind === 'list') {
      this.#readList(shape, node, path, at)
    } else if (MUST_SAY.has(path) && (this.#isBlank(node) || this.#isEmptyMap(node))) {
      this.#problem(path, at, 'has no keys', `set its ${MUST_SAY.get(path)}, or leave it out`)
    } else if (this.#yaml.isMap(node)) {
      this.#readSection(shape, node.items as never, path)
    } else if (!this.#isBlank(node)) {
      this.#problem(
        path,
        at,
        `is ${this.#describe(node)} where a section is expected`,
        `write keys below it: ${[...shape.keys.keys()].join(', ')}`,
      )
    }
  }

  #readSection(
    shape: Shape & { kind: 'section' },
    pairs: readonly { readonly key: Node; readonly value: Node | null }[],
    path: string,
  ): void {
    const seen = new Map<string, number>()
    for (const pair of pairs) {
      const at = pair.key.range?.[0] ?? 0
      const name = this.#yaml.isScalar(pair.key) ? String(pair.key.value) : undefined
      const below = name === undefined ? undefined : shape.keys.get(name)
      if (name === undefined || below === undefined) {
        this.#unknown(shape, name, path, at)
        continue
      }
      const full = path === '' ? name : `${path}.${name}`
      const earlier = seen.get(name)
      if (earlier !== undefined) {
        this.#problem(
          full,
          at,
          `is written twice, first in line ${this.#lines.linePos(earlier).line}`,
          'keep one of them',
        )
        continue
      }
      seen.set(name, at)
      this.#read(below, pair.value, full)
    }
  }

  #readList(shape: Shape & { kind: 'list' }, node: Node | null, path: string, at: number): void {
    if (this.#yaml.isSeq(node) && (node.items.length > 0 || shape.mayBeEmpty)) {
      node.items.forEach((entry, index) => {
        const full = `${path}[${index}]`
        if (this.#isEmptyMap(entry)) {
          this.#problem(full, at, 'has no keys', 'remove the entry, or say what it is for')
        } else {
          this.#read(shape.entry, entry as Node | null, full)
        }
      })
    } else if (shape.map !== undefined && this.#yaml.isMap(node) && node.items.length > 0) {
      this.#readMap(shape.entry, shape.map, node.items as never, path)
    } else if (this.#yaml.isSeq(node) || this.#isBlank(node) || this.#isEmptyMap(node)) {
      // An empty list of rules could be read as "everything" or as "nothing": so it is neither.
      this.#problem(path, at, 'has no entries', 'add an entry, or leave the key out')
    } else {
      this.#problem(
        path,
        at,
        `is ${this.#describe(node)} where a list is expected`,
        'write each entry after "- ", or all of them in [ ]',
      )
    }
  }

  /** Each entry becomes one of the list, under its name. */
  #readMap(
    entry: Shape,
    { name, value }: { readonly name: string; readonly value: string },
    pairs: readonly { readonly key: Node; readonly value: Node | null }[],
    path: string,
  ): void {
    pairs.forEach((pair, index) => {
      const full = `${path}[${index}]`
      const inside = this.#yaml.isMap(pair.value) ? `${full}.${name}` : undefined
      const below = (key: string) => (entry.kind === 'section' ? entry.keys.get(key) : undefined)
      if (inside !== undefined) this.#read(entry, pair.value, full)
      else this.#read(below(value) as Shape, pair.value, `${full}.${value}`)
      if (inside !== undefined && this.given.has(inside)) {
        const at = pair.key.range?.[0] ?? 0
        this.#problem(inside, at, 'is given by the map already', 'leave it out of the entry')
      }
      this.#read(below(name) as Shape, pair.key, `${full}.${name}`)
    })
  }

  #readValue(shape: Shape & { kind: 'value' }, node: Node | null, path: string, at: number): void {
    const where = this.#where(path, at)
    if (this.#yaml.isScalar(node) && !this.#isBlank(node)) {
      const text = this.#substitute(String(node.value), path, at)
      this.given.set(path, { key: shape.key, where, ...(text === undefined ? {} : { text }) })
    } else {
      this.given.set(path, { key: shape.key, where })
      this.#problem(
        path,
        at,
        this.#isBlank(node)
          ? 'has no value'
          : `is ${this.#describe(node)} where one value is expected`,
        this.#isBlank(node)
          ? 'write a value, or leave the key out'
          : 'write the value on the same line',
      )
    }
  }

  /** `${NAME}` becomes the variable's value, which is not looked at again; `$${` stands for `${`. */
  #substitute(text: string, path: string, at: number): string | undefined {
    let missing = false
    const replaced = text.replaceAll(/(\$?)\$\{([^}]*)\}?/g, (written, doubled, name: string) => {
      if (doubled !== '') return written.slice(1)
      const wellFormed = written.endsWith('}') && /^[A-Za-z_][A-Za-z0-9_]*$/.test(name)
      const value = wellFormed && Object.hasOwn(this.#env, name) ? this.#env[name] : undefined
      if (value !== undefined) return value
      missing = true
      const shown = written.slice(0, 80)
      this.#problem(
        path,
        at,
        wellFormed ? `the variable ${shown} is not set` : `${shown} names no variable`,
        wellFormed ? 'set it, or write the value here' : 'write the name of one between { and }',
      )
      return ''
    })
    return missing ? undefined : replaced
  }

  #unknown(
    shape: Shape & { kind: 'section' },
    name: string | undefined,
    path: string,
    at: number,
  ): void {
    const shown = /^[\w$.-]{1,100}$/.test(name ?? '') ? name : JSON.stringify(name?.slice(0, 100))
    const here = nearest(name ?? '', shape.keys.keys())
    const suggestion =
      here === undefined ? elsewhere(name ?? '') : path === '' ? here : `${path}.${here}`
    this.#problem(
      name === undefined ? path : path === '' ? `${shown}` : `${path}.${shown}`,
      at,
      name === undefined ? 'has a key that is not a plain word' : 'is not a key',
      suggestion === undefined
        ? `the keys here are ${[...shape.keys.keys()].join(', ')}`
        : `did you mean ${suggestion}?`,
    )
  }

  #problem(path: string, at: number, what: string, remedy: string): void {
    this.problems.push({ where: this.#where(path, at), what, remedy })
  }

  #where(path: string, at: number): string {
    const { line, col } = this.#lines.linePos(at)
    const place = `${this.#file.path}:${line}:${col}`
    return path === '' ? place : `${path} (${place})`
  }

  /** Nothing written after the colon, or only a comment. */
  #isBlank(node: unknown): boolean {
    return (
      node === null || (this.#yaml.isScalar(node) && node.type === 'PLAIN' && node.value === '')
    )
  }

  #isEmptyMap(node: unknown): boolean {
    return this.#yaml.isMap(node) && node.items.length === 0
  }

  #describe(node: unknown): string {
    if (this.#yaml.isMap(node)) return 'a section'
    return this.#yaml.isSeq(node) ? 'a list' : 'a single value'
  }
}

/** Sections that restrict access: an empty one must not pass for one that was left out. */
const MUST_SAY: ReadonlyMap<string, string> = new Map([
  ['policy', 'bundle'],
  ['policy.signing', 'keys'],
  ['policy.candidate', 'bundle'],
])

/** A key that exists, but in another section. */
function elsewhere(name: string): string | undefined {
  // Where several sections have a word, the first of the table is meant.
  const byLastWord = new Map(
    keys.toReversed().map(({ path }) => [path.split('.').at(-1)?.replace('[]', '') ?? '', path]),
  )
  const found = nearest(name, byLastWord.keys())
  return found === undefined ? undefined : byLastWord.get(found)
}
