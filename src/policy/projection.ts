// The part of the input document that a policy reads (see reads.ts), made without making the rest.
// It may show more than what is read, never less: to every rule it is the same as the whole document.
import { BoundedCache } from './builtins/bounded-cache.ts'
import {
  type ConnectionTexts,
  checkRequest,
  hasManyFields,
  headers,
  isDoubtfulPath,
  isDoubtfulQuery,
  PARTIAL_BODY,
  type Projection,
  parsedPath,
  parsedQuery,
  quote,
  type RequestFacts,
  timeText,
} from './input.ts'
import type { InputReads } from './reads.ts'

/** Undefined where the whole document is made: it is all read, or a part of it that is not known here. */
export function projectionOf(reads: InputReads): Projection | undefined {
  const root = partOf(DOCUMENT, reads, [])
  if (root === undefined) return undefined
  const templates = new Templates(root)
  return {
    textOf(request) {
      checkRequest(request)
      return templates.of(request.connection).textOf(request)
    },
    keyOf: keyOf(root, templates),
  }
}

type OfRequest = (request: RequestFacts) => string

type Part =
  | { readonly kind: 'object'; readonly members: readonly (readonly [string, Part])[] }
  | { readonly kind: 'connection'; readonly path: readonly string[]; readonly reads: InputReads }
  | {
      readonly kind: 'request'
      /** JSON text; '' where the document has nothing there. */
      readonly text: OfRequest
      readonly mayBeEmpty: boolean
      /** What the text is made of, see `Raw`; undefined of what hardly ever is the same twice. */
      readonly raws: readonly OfRequest[] | undefined
    }

/** How the parts of the document are made that may be made alone, of a request without its body. */
type Shape = ((reads: InputReads, path: readonly string[]) => Part) | Shapes
interface Shapes {
  readonly [key: string]: Shape
}

/** No two sequences of them are the same text, whatever a client writes. */
const withLength = (value: string): string => `${value.length}:${value}`

const RAW = {
  method: ({ method }: RequestFacts) => withLength(method),
  target: ({ target }: RequestFacts) => withLength(target),
  path: ({ path }: RequestFacts) => withLength(path),
  query: ({ query }: RequestFacts) => withLength(query ?? ''),
  host: ({ host }: RequestFacts) => withLength(host),
  scheme: ({ scheme }: RequestFacts) => withLength(scheme),
  protocol: ({ protocol }: RequestFacts) => withLength(protocol),
  bodySize: ({ bodySize }: RequestFacts) => `${bodySize};`,
}
/** What is refused is refused for what stands here, where it does not stand in the key already. */
const doubtfulPath: OfRequest = ({ path }) => withLength(isDoubtfulPath(path) ? path : '')
const doubtfulQuery: OfRequest = ({ query }) =>
  withLength(isDoubtfulQuery(query) ? (query ?? '') : '')

const made =
  (text: OfRequest, raws: readonly OfRequest[] | undefined, mayBeEmpty = false): Shape =>
  () => ({ kind: 'request', text, raws, mayBeEmpty })

const DOCUMENT: Shape = {
  attributes: {
    source: ofConnection,
    destination: ofConnection,
    contextExtensions: ofConnection,
    metadataContext: ofConnection,
    tlsSession: ofConnection,
    context_extensions: ofConnection,
    metadata_context: ofConnection,
    request: {
      time: made(({ timeMs }) => timeText(timeMs), undefined),
      http: {
        id: made(({ requestId }) => quote(requestId), undefined),
        method: made(({ method }) => quote(method), [RAW.method]),
        headers: someHeaders,
        path: made(({ target }) => quote(target), [RAW.target]),
        host: made(({ host }) => quote(host), [RAW.host]),
        scheme: made(({ scheme }) => quote(scheme), [RAW.scheme]),
        protocol: made(({ protocol }) => quote(protocol), [RAW.protocol]),
        size: made(
          ({ bodySize }) => (bodySize === 0 ? '' : String(bodySize)),
          [RAW.bodySize],
          true,
        ),
        body: nothing,
        rawBody: nothing,
      },
    },
  },
  parsed_path: made(({ path }) => parsedPath(path), [RAW.path]),
  parsed_query: made(({ query }) => parsedQuery(query), [RAW.query]),
  parsed_body: made(() => 'null', []),
  truncated_body: made(({ bodySize }) => String(bodySize !== 0), [RAW.bodySize]),
  source_principal: ofConnection,
  version: ofConnection,
}

function nothing(): Part {
  return { kind: 'request', text: () => '', raws: [], mayBeEmpty: true }
}

/** What is said once a connection, see `connectionInput`. */
function ofConnection(reads: InputReads, path: readonly string[]): Part {
  return { kind: 'connection', reads, path }
}

function partOf(shape: Shape, reads: InputReads, path: readonly string[]): Part | undefined {
  if (typeof shape === 'function') return shape(reads, path)
  if (reads === 'all') return undefined
  const members: (readonly [string, Part])[] = []
  for (const [key, inner] of reads) {
    const part = Object.hasOwn(shape, key) && partOf(shape[key] as Shape, inner, [...path, key])
    if (!part) return undefined
    members.push([`${JSON.stringify(key)}:`, part])
  }
  return { kind: 'object', members }
}

/** Headers that hardly ever say the same twice. */
const CHANGING_HEADERS: readonly string[] = ['x-request-id', 'traceparent']

/** What those are made of that are no fields of a request. */
const RAW_HEADERS: readonly (readonly [string, readonly OfRequest[]])[] = [
  [':authority', [RAW.host]],
  [':method', [RAW.method]],
  [':path', [RAW.target]],
  ['content-length', [RAW.bodySize]],
  ['transfer-encoding', [RAW.bodySize, RAW.protocol]],
  [PARTIAL_BODY, [RAW.bodySize]],
]

function someHeaders(reads: InputReads): Part {
  const wanted = reads === 'all' ? undefined : new Map([...reads.keys()].map(numbered))
  const text: OfRequest = (request) =>
    headers(request, request.bodySize === 0 ? undefined : 'true', wanted)
  const part = { kind: 'request', text, mayBeEmpty: false } as const
  if (wanted === undefined || CHANGING_HEADERS.some((name) => wanted.has(name))) {
    return { ...part, raws: undefined }
  }
  const made = RAW_HEADERS.filter(([name]) => wanted.has(name)).flatMap(([, raws]) => raws)
  return { ...part, raws: [rawHeaders(wanted), ...made] }
}

const numbered = (name: string, index: number) => [name, `${index},`] as const

/** Which of the wanted lines there are, and what each says. */
function rawHeaders(wanted: ReadonlyMap<string, string>): OfRequest {
  return ({ fields }) => {
    let raw = ''
    for (let i = 0; i < fields.length; i += 2) {
      const number = wanted.get(fields[i] as string)
      if (number !== undefined) raw += number + withLength(fields[i + 1] as string)
    }
    return `${raw};`
  }
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
      return new Template(pieces, `${++this.#made};`)
    })
    this.#ofConnection.set(connection, template)
    return template
  }
}

/** The text for the requests of a connection: what is the same for all, and between what is not. */
class Template {
  /** No other template of the projection has it, forgotten ones neither. */
  readonly number: string
  readonly #first: string
  readonly #then: readonly { readonly text: OfRequest; readonly constant: string }[]

  constructor({ constants, texts }: Pieces, number: string) {
    this.number = number
    this.#first = constants[0] as string
    this.#then = texts.map((text, i) => ({ text, constant: constants[i + 1] as string }))
  }

  textOf(request: RequestFacts): string {
    let all = this.#first
    for (const { text, constant } of this.#then) all += text(request) + constant
    return all
  }
}

class Pieces {
  readonly constants: string[] = ['']
  readonly texts: OfRequest[] = []
  readonly #connection: ConnectionTexts
  #document: unknown

  constructor(connection: ConnectionTexts) {
    this.#connection = connection
  }

  add(part: Part): void {
    if (part.kind === 'object') return this.#addObject(part.members)
    if (part.kind === 'connection') return this.#addConstant(this.#ofConnection(part))
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
        uncertain.push([key, part.text])
        continue
      }
      if (part.kind === 'connection' && this.#ofConnection(part) === '') continue
      this.#addConstant(comma + key)
      this.add(part)
      comma = ','
    }
    if (uncertain.length > 0) {
      this.texts.push((request) => uncertainMembers(uncertain, comma, request))
      this.constants.push('')
    }
    this.#addConstant('}')
  }

  /** '' where the document has nothing there. */
  #ofConnection({ path, reads }: Part & { kind: 'connection' }): string {
    const { beforeRequest, afterRequest, ending } = this.#connection
    this.#document ??= JSON.parse(`${beforeRequest}null${afterRequest}${ending}`)
    const value = path.reduce(valueAt, this.#document)
    return value === undefined ? '' : JSON.stringify(pruned(value, reads))
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

/** A value that is no object is read whole, whichever keys it was asked for. */
function pruned(value: unknown, reads: InputReads): unknown {
  if (reads === 'all' || !isObject(value)) return value
  const kept = Object.create(null) as Record<string, unknown>
  for (const [key, part] of reads) {
    if (Object.hasOwn(value, key)) kept[key] = pruned(value[key], part)
  }
  return kept
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const valueAt = (value: unknown, key: string): unknown =>
  isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined
