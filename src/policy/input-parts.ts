// The input document as the parts it is made of: which of them are the same for all requests of a
// connection, how the others are made of a request, and what of it has to be made for what a policy
// reads (see reads.ts). A part can be had as JSON text and as a value in the memory of a module.
import {
  type ConnectionTexts,
  headers,
  isDoubtfulPath,
  isDoubtfulQuery,
  PARTIAL_BODY,
  parsedPath,
  parsedQuery,
  quote,
  type RequestFacts,
  timeText,
} from './input.ts'
import { writeHeaders, writePath, writeQuery, writeTime } from './input-values.ts'
import type { InputReads } from './reads.ts'
import type { ValueWriter } from './value-writer.ts'

export type OfRequest = (request: RequestFacts) => string
/** The address; 0 where the document has nothing there. */
export type WriteOfRequest = (writer: ValueWriter, request: RequestFacts) => number

export interface ConnectionPart {
  readonly kind: 'connection'
  readonly path: readonly string[]
  readonly reads: InputReads
}

export type Part =
  | { readonly kind: 'object'; readonly members: readonly (readonly [string, Part])[] }
  | ConnectionPart
  | {
      readonly kind: 'request'
      /** JSON text; '' where the document has nothing there. */
      readonly text: OfRequest
      readonly write: WriteOfRequest
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

export const RAW = {
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
export const doubtfulPath: OfRequest = ({ path }) => withLength(isDoubtfulPath(path) ? path : '')
export const doubtfulQuery: OfRequest = ({ query }) =>
  withLength(isDoubtfulQuery(query) ? (query ?? '') : '')

const made =
  (
    text: OfRequest,
    write: WriteOfRequest,
    raws: readonly OfRequest[] | undefined,
    mayBeEmpty = false,
  ): Shape =>
  () => ({ kind: 'request', text, write, raws, mayBeEmpty })

const string = (value: OfRequest, raws?: readonly OfRequest[]): Shape =>
  made(
    (request) => quote(value(request)),
    (writer, request) => writer.string(value(request)),
    raws,
  )

const DOCUMENT: Shapes = {
  attributes: {
    source: ofConnection,
    destination: ofConnection,
    contextExtensions: ofConnection,
    metadataContext: ofConnection,
    tlsSession: ofConnection,
    context_extensions: ofConnection,
    metadata_context: ofConnection,
    request: {
      time: made(({ timeMs }) => timeText(timeMs), writeTime, undefined),
      http: {
        id: string(({ requestId }) => requestId),
        method: string(({ method }) => method, [RAW.method]),
        headers: someHeaders,
        path: string(({ target }) => target, [RAW.target]),
        host: string(({ host }) => host, [RAW.host]),
        scheme: string(({ scheme }) => scheme, [RAW.scheme]),
        protocol: string(({ protocol }) => protocol, [RAW.protocol]),
        size: made(
          ({ bodySize }) => (bodySize === 0 ? '' : String(bodySize)),
          (writer, { bodySize }) => (bodySize === 0 ? 0 : writer.number(String(bodySize))),
          [RAW.bodySize],
          true,
        ),
        body: nothing,
        rawBody: nothing,
      },
    },
  },
  parsed_path: made(({ path }) => parsedPath(path), writePath, [RAW.path]),
  parsed_query: made(({ query }) => parsedQuery(query), writeQuery, [RAW.query]),
  parsed_body: made(
    () => 'null',
    (writer) => writer.null,
    [],
  ),
  truncated_body: made(
    ({ bodySize }) => String(bodySize !== 0),
    (writer, { bodySize }) => writer.boolean(bodySize !== 0),
    [RAW.bodySize],
  ),
  source_principal: ofConnection,
  version: ofConnection,
}

function nothing(): Part {
  return { kind: 'request', text: () => '', write: () => 0, raws: [], mayBeEmpty: true }
}

/** What is said once a connection, see `connectionInput`. */
function ofConnection(reads: InputReads, path: readonly string[]): Part {
  return { kind: 'connection', reads, path }
}

/** Undefined where the whole document is made: it is all read, or a part of it that is not known here. */
export function partsRead(reads: InputReads): Part | undefined {
  return partOf(DOCUMENT, reads, [])
}

function partOf(shape: Shape, reads: InputReads, path: readonly string[]): Part | undefined {
  if (typeof shape === 'function') return shape(reads, path)
  if (reads === 'all') return undefined
  const members: (readonly [string, Part])[] = []
  for (const [key, inner] of reads) {
    const part = Object.hasOwn(shape, key) && partOf(shape[key] as Shape, inner, [...path, key])
    if (!part) return undefined
    members.push([key, part])
  }
  return { kind: 'object', members }
}

/** The whole document, of a request whose body is not at hand. */
export const WHOLE: Part = wholeOf(DOCUMENT, [])

function wholeOf(shape: Shape, path: readonly string[]): Part {
  if (typeof shape === 'function') return shape('all', path)
  const members = Object.entries(shape).map(
    ([key, inner]) => [key, wholeOf(inner, [...path, key])] as const,
  )
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
  const part = {
    kind: 'request',
    text: (request) => headers(request, partialBody(request), wanted),
    write: (writer, request) => writeHeaders(writer, request, partialBody(request), wanted),
    mayBeEmpty: false,
  } satisfies Partial<Part>
  if (wanted === undefined || CHANGING_HEADERS.some((name) => wanted.has(name))) {
    return { ...part, raws: undefined }
  }
  const raws = RAW_HEADERS.filter(([name]) => wanted.has(name)).flatMap(([, raws]) => raws)
  return { ...part, raws: [rawHeaders(wanted), ...raws] }
}

const partialBody = ({ bodySize }: RequestFacts) => (bodySize === 0 ? undefined : 'true')

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

/** What the document says about a connection. */
export class ConnectionDocument {
  readonly #document: unknown

  constructor({ beforeRequest, afterRequest, ending }: ConnectionTexts) {
    this.#document = JSON.parse(`${beforeRequest}null${afterRequest}${ending}`)
  }

  /** Undefined where there is nothing. */
  valueOf({ path, reads }: ConnectionPart): unknown {
    const value = path.reduce(valueAt, this.#document)
    return value === undefined ? undefined : pruned(value, reads)
  }
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
