// The part of the input document that a policy reads (see reads.ts), made without making the rest.
// It may show more than what is read, never less: to every rule it is the same as the whole document.
import {
  type ConnectionInput,
  checkRequest,
  framing,
  headers,
  PARTIAL_BODY,
  type PolicyRequest,
  type Projection,
  parsedPath,
  parsedQuery,
  quote,
  timeText,
} from './input.ts'
import type { InputReads } from './reads.ts'

/** Undefined where the whole document is made: it is all read, or a part of it that is not known here. */
export function projectionOf(reads: InputReads): Projection | undefined {
  const projected = project(DOCUMENT, reads, [])
  if (projected === undefined) return undefined
  return {
    steady: projected.steady,
    textOf(request) {
      checkRequest(request)
      return projected.text(request)
    },
  }
}

interface Projected {
  /** JSON text; '' where the document has nothing there. */
  readonly text: (request: PolicyRequest) => string
  /** False of what hardly ever is the same twice. */
  readonly steady: boolean
}

/** How the parts of the document are made that may be made alone, of a request without its body. */
type Shape = ((reads: InputReads, path: readonly string[]) => Projected) | Shapes
interface Shapes {
  readonly [key: string]: Shape
}

const always = (text: Projected['text'], steady = true): Shape => {
  return () => ({ text, steady })
}

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
      time: always(({ timeMs }) => timeText(timeMs), false),
      http: {
        id: always(({ requestId }) => quote(requestId), false),
        method: always(({ method }) => quote(method)),
        headers: someHeaders,
        path: always(({ target }) => quote(target)),
        host: always(({ host }) => quote(host)),
        scheme: always(({ scheme }) => quote(scheme)),
        protocol: always(({ protocol }) => quote(protocol)),
        size: always(({ bodySize }) => (bodySize === 0 ? '' : String(bodySize))),
        body: always(() => ''),
        rawBody: always(() => ''),
      },
    },
  },
  parsed_path: always(({ path }) => parsedPath(path)),
  parsed_query: always(({ query }) => parsedQuery(query)),
  parsed_body: always(() => 'null'),
  truncated_body: always(({ bodySize }) => String(bodySize !== 0)),
  source_principal: ofConnection,
  version: ofConnection,
}

function project(shape: Shape, reads: InputReads, path: readonly string[]): Projected | undefined {
  if (typeof shape === 'function') return shape(reads, path)
  if (reads === 'all') return undefined
  const members: (readonly [string, Projected['text']])[] = []
  let steady = true
  for (const [key, part] of reads) {
    const inner = Object.hasOwn(shape, key) ? shape[key] : undefined
    const projected = inner && project(inner, part, [...path, key])
    if (projected === undefined) return undefined
    members.push([`${JSON.stringify(key)}:`, projected.text])
    steady &&= projected.steady
  }
  return { text: (request) => objectText(members, request), steady }
}

function objectText(
  members: readonly (readonly [string, Projected['text']])[],
  request: PolicyRequest,
): string {
  let text = ''
  for (const [key, part] of members) {
    const value = part(request)
    if (value !== '') text += (text === '' ? '{' : ',') + key + value
  }
  return text === '' ? '{}' : `${text}}`
}

/** What is said once a connection, see `connectionInput`. */
function ofConnection(reads: InputReads, path: readonly string[]): Projected {
  const texts = new WeakMap<ConnectionInput, string>()
  const text = ({ connection }: PolicyRequest): string => {
    const known = texts.get(connection)
    if (known !== undefined) return known
    const { beforeRequest, afterRequest, ending } = connection
    const document: unknown = JSON.parse(`${beforeRequest}null${afterRequest}${ending}`)
    const value = path.reduce(valueAt, document)
    const made = value === undefined ? '' : JSON.stringify(pruned(value, reads))
    texts.set(connection, made)
    return made
  }
  return { text, steady: true }
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

/** Headers that hardly ever say the same twice. */
const CHANGING_HEADERS: readonly string[] = ['x-request-id', 'traceparent']

/** Headers that are not among the fields of a request; each as `,"name":"value"`. */
const MADE_HEADERS: ReadonlyMap<string, Projected['text']> = new Map([
  [':authority', ({ host }: PolicyRequest) => `,":authority":${quote(host)}`],
  [':method', ({ method }: PolicyRequest) => `,":method":${quote(method)}`],
  [':path', ({ target }: PolicyRequest) => `,":path":${quote(target)}`],
  ['content-length', (request: PolicyRequest) => (request.bodySize > 0 ? framing(request) : '')],
  ['transfer-encoding', (request: PolicyRequest) => (request.bodySize < 0 ? framing(request) : '')],
  [
    PARTIAL_BODY,
    ({ bodySize }: PolicyRequest) => (bodySize === 0 ? '' : `,"${PARTIAL_BODY}":"true"`),
  ],
])

function someHeaders(reads: InputReads): Projected {
  const wanted = reads === 'all' ? undefined : new Set(reads.keys())
  const made = [...MADE_HEADERS]
    .filter(([name]) => wanted === undefined || wanted.has(name))
    .map(([, text]) => text)
  const text = (request: PolicyRequest): string => {
    let members = headers(request.fields, wanted)
    for (const one of made) members += one(request)
    return members === '' ? '{}' : `{${members.slice(1)}}`
  }
  const steady = wanted !== undefined && !CHANGING_HEADERS.some((name) => wanted.has(name))
  return { text, steady }
}
