// The part of the input document that a policy reads (see reads.ts), made without making the rest.
// It may show more than what is read, never less: to every rule it is the same as the whole document.
import { BoundedCache } from './builtins/bounded-cache.ts'
import {
  type ConnectionTexts,
  checkRequest,
  hasManyFields,
  type Projection,
  type RequestFacts,
} from './input.ts'
import {
  ConnectionDocument,
  type ConnectionPart,
  doubtfulPath,
  doubtfulQuery,
  type OfRequest,
  type Part,
  partsRead,
  RAW,
  WHOLE,
} from './input-parts.ts'
import type { InputReads } from './reads.ts'
import { type ValueTemplate, valueTemplate } from './value-template.ts'
import type { ValueWriter } from './value-writer.ts'

/** Undefined where the whole document is made: it is all read, or a part of it that is not known here. */
export function projectionOf(reads: InputReads): Projection | undefined {
  const root = partsRead(reads)
  if (root === undefined) return undefined
  const templates = new Templates(root)
  return {
    textOf(request) {
      checkRequest(request)
      return templates.of(request.connection).textOf(request)
    },
    keyOf: keyOf(root, templates),
    templateOf: (connection) => templates.of(connection),
  }
}

/** The whole document, which is as text what `buildInput` makes. */
export function wholeDocument(): Pick<Projection, 'templateOf'> {
  const templates = new Templates(WHOLE)
  return { templateOf: (connection) => templates.of(connection) }
}

/** What the text is made of, without what is the same for all; and what may be refused. */
function keyOf(root: Part, templates: Templates): Projection['keyOf'] {
  const raws = new Set<OfRequest>()
  if (!collectRaws(root, raws)) return undefined
  if (!raws.has(RAW.path)) raws.add(doubtfulPath)
  if (!raws.has(RAW.query)) raws.add(doubtfulQuery)
  const parts = [...raws]
  return (request) => {
    if (hasManyFields(request.fields)) return undefined
    let key = templates.of(request.connection).number
    for (const part of parts) key += part(request)
    return key
  }
}

/** @returns false where there is something that hardly ever is the same twice. */
function collectRaws(part: Part, raws: Set<OfRequest>): boolean {
  switch (part.kind) {
    case 'object':
      return part.members.every(([, member]) => collectRaws(member, raws))
    case 'connection':
      return true
    case 'request':
      for (const raw of part.raws ?? []) raws.add(raw)
      return part.raws !== undefined
  }
}

/** Connections that say the same of what is read share one. */
const MOST_TEMPLATES = 1_024

class Templates {
  readonly #root: Part
  readonly #ofConnection = new WeakMap<ConnectionTexts, Template>()
  readonly #known = new BoundedCache<Template>(MOST_TEMPLATES)
  #made = 0

  constructor(root: Part) {
    this.#root = root
  }

  of(connection: ConnectionTexts): Template {
    const known = this.#ofConnection.get(connection)
    if (known !== undefined) return known
    const pieces = new Pieces(connection)
    pieces.add(this.#root)
    // JSON text has no line feed of its own.
    const what = [String(connection.headers), ...pieces.constants].join('\n')
    const template = this.#known.get(what, () => {
      return new Template(this.#root, connection, pieces, `${++this.#made};`)
    })
    this.#ofConnection.set(connection, template)
    return template
  }
}

/** The document for the requests of a connection: what is the same for all, and between what is not. */
export class Template {
  /** No other template of the projection has it, forgotten ones neither. */
  readonly number: string
  readonly #first: string
  readonly #then: readonly { readonly text: OfRequest; readonly constant: string }[]

  readonly #root: Part
  readonly #connection: ConnectionTexts

  constructor(
    root: Part,
    connection: ConnectionTexts,
    { constants, texts }: Pieces,
    number: string,
  ) {
    this.#root = root
    this.#connection = connection
    this.number = number
    this.#first = constants[0] as string
    this.#then = texts.map((text, i) => ({ text, constant: constants[i + 1] as string }))
  }

  textOf(request: RequestFacts): string {
    let all = this.#first
    for (const { text, constant } of this.#then) all += text(request) + constant
    return all
  }

  /** The same as values, see value-template.ts. */
  layOut(writer: ValueWriter): ValueTemplate {
    return valueTemplate(this.#root, new ConnectionDocument(this.#connection), writer)
  }
}

class Pieces {
  readonly constants: string[] = ['']
  readonly texts: OfRequest[] = []
  readonly #connection: ConnectionDocument

  constructor(connection: ConnectionTexts) {
    this.#connection = new ConnectionDocument(connection)
  }

  add(part: Part): void {
    if (part.kind === 'object') return this.#addObject(part.members)
    if (part.kind === 'connection') return this.#addConstant(this.#textOf(part) ?? '')
    this.texts.push(part.text)
    this.constants.push('')
  }

  #addConstant(text: string): void {
    this.constants[this.constants.length - 1] += text
  }

  #addObject(members: readonly (readonly [string, Part])[]): void {
    const uncertain: (readonly [string, OfRequest])[] = []
    let comma = ''
    this.#addConstant('{')
    for (const [key, part] of members) {
      if (part.kind === 'request' && part.mayBeEmpty) {
        uncertain.push([`${JSON.stringify(key)}:`, part.text])
        continue
      }
      if (part.kind === 'connection' && this.#textOf(part) === undefined) continue
      this.#addConstant(`${comma}${JSON.stringify(key)}:`)
      this.add(part)
      comma = ','
    }
    if (uncertain.length > 0) {
      this.texts.push((request) => uncertainMembers(uncertain, comma, request))
      this.constants.push('')
    }
    this.#addConstant('}')
  }

  #textOf(part: ConnectionPart): string | undefined {
    const value = this.#connection.valueOf(part)
    return value === undefined ? undefined : JSON.stringify(value)
  }
}

function uncertainMembers(
  members: readonly (readonly [string, OfRequest])[],
  comma: string,
  request: RequestFacts,
): string {
  let all = ''
  for (const [key, text] of members) {
    const value = text(request)
    if (value !== '') all += (all === '' ? comma : ',') + key + value
  }
  return all
}
