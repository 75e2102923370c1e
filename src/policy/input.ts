// Builds the input document of the OPA-Envoy v3 contract as JSON text, from pieces that are already
// known to be clean: most of it is the same for all requests of a connection. Values of proto3
// defaults are left out.
import { formForInput, MOST_FORM_KEYS, percentDecoded } from './body/form.ts'
import type { GrpcDescriptors } from './body/grpc.ts'
import { type BodyAtHand, type ParsedBody, parseBody } from './body/parsed-body.ts'
import { textIfUtf8 } from './body/text.ts'
import { InputError } from './input-error.ts'
import { type InputSettings, PLAIN_INPUT } from './input-settings.ts'
import { quote } from './json-text.ts'
import type { Template } from './projection.ts'

export { InputError } from './input-error.ts'
export { quote } from './json-text.ts'

/** Facts about the peer; `VerifiedPeer` has them. The principal of a client without a certificate is ''. */
export interface PeerFacts {
  readonly principal: string
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  readonly commonName: string | undefined
}

export interface ConnectionFacts {
  readonly peer: PeerFacts
  readonly remoteAddress: string
  readonly remotePort: number
  readonly localAddress: string
  readonly localPort: number
  /** SNI; undefined or '' when the client sent none. */
  readonly serverName: string | undefined
  /** Our own identity; '' when it has no name. */
  readonly destinationPrincipal: string
  /** The certificate of `peer` as PEM, made when policy is to see it. */
  certificatePem?(peer: PeerFacts): string
}

/** What the input says about a connection, as JSON text: made once a connection. */
export interface ConnectionTexts {
  /** From `{` to the opening of `attributes.request`. */
  readonly beforeRequest: string
  /** From behind `attributes.request` to the end of `attributes`. */
  readonly afterRequest: string
  /** From behind `truncated_body` to the end. */
  readonly ending: string
  /** The headers that are shown of its requests, beside our own; absent: all. */
  readonly headers?: readonly string[]
}

export interface ConnectionInput extends ConnectionTexts {
  readonly peer: PeerFacts
}

/** What the input is made of; plain data, which another thread can be sent. */
export interface RequestFacts {
  readonly requestId: string
  readonly timeMs: number
  readonly method: string
  /** Path and query as forwarded. */
  readonly target: string
  readonly path: string
  readonly query: string | undefined
  readonly host: string
  /** `http`: the client came in plain text. */
  readonly scheme: 'https' | 'http'
  /** `TCP`: a whole connection, of which only the peer and the two ends are known. */
  readonly protocol: 'HTTP/1.1' | 'HTTP/1.0' | 'HTTP/2' | 'TCP'
  /** Flat name, value, name, value...; sanitised, names in lower case. */
  readonly fields: readonly string[]
  /** -1: unknown (chunked). 0: no body. */
  readonly bodySize: number
  /** Absent: nothing of the body was collected. */
  readonly body?: BodyAtHand
  readonly connection: ConnectionTexts
}

export interface PolicyRequest extends RequestFacts {
  readonly connection: ConnectionInput
}

/** OPA's objects are chained hash tables without a seed: their size is bounded, not only the text. */
const MAX_FIELDS = 256
const MAX_PATH_SEGMENTS = 1_024
/** Up to here a loop is faster than two searches (Node 26). */
const SHORT_PATH = 48

/** Ours alone to set: with it a client would switch off rules on the body (Skipper, 2026). */
export const PARTIAL_BODY = 'x-envoy-auth-partial-body'

/** The input of one connection, made when policy is first asked about it: idle ones are many. */
export class ConnectionInputs {
  readonly #facts: ConnectionFacts
  #settings: InputSettings | undefined
  #input: ConnectionInput | undefined

  constructor(facts: ConnectionFacts) {
    this.#facts = facts
  }

  /** The same one as long as the settings are the same. */
  under(settings: InputSettings): ConnectionInput {
    if (this.#input === undefined || this.#settings !== settings) {
      this.#settings = settings
      this.#input = connectionInput(this.#facts, settings)
    }
    return this.#input
  }
}

export function connectionInput(
  facts: ConnectionFacts,
  settings: InputSettings = PLAIN_INPUT,
): ConnectionInput {
  const { peer } = facts
  const { certificate, v2 } = settings
  const pem = certificate ? facts.certificatePem?.(peer) : undefined
  const source = endpoint(facts.remoteAddress, facts.remotePort, peer.principal, v2, pem)
  const { localAddress, localPort, destinationPrincipal } = facts
  const destination = endpoint(localAddress, localPort, destinationPrincipal, v2)
  const principal = peer.principal === '' ? '' : `,"source_principal":${quote(peer.principal)}`
  return {
    peer,
    beforeRequest: inOnePiece`{"attributes":{"source":${source},"destination":${destination},"request":`,
    afterRequest: afterRequest(facts.serverName, settings),
    ending: inOnePiece`${principal},"version":${v2 ? VERSION_2 : VERSION_3}}`,
    ...(settings.headers && { headers: settings.headers }),
  }
}

const VERSION_2 = '{"ext_authz":"v2","encoding":"encoding/json"}'
const VERSION_3 = '{"ext_authz":"v3","encoding":"protojson"}'

function endpoint(
  host: string,
  port: number,
  principal: string,
  v2: boolean,
  pem: string | undefined = undefined,
): string {
  const address = quote(host)
  const name = principal === '' ? '' : `,"principal":${quote(principal)}`
  const older = v2
    ? `,"Address":{"SocketAddress":{"address":${address},"PortSpecifier":{"PortValue":${port}}}}`
    : ''
  // As Envoy encodes it: white space, `+`, `/` and `=` are all that PEM has to escape.
  const certificate = pem === undefined ? '' : `,"certificate":"${encodeURIComponent(pem)}"`
  return `{"address":{"socketAddress":{"address":${address},"portValue":${port}}${older}}${name}${certificate}}`
}

function afterRequest(
  serverName: string | undefined,
  { contextExtensions, v2 }: InputSettings,
): string {
  const pairs = contextExtensions.map(({ name, value }) => `${quote(name)}:${quote(value)}`)
  const extensions = `{${pairs.join(',')}}`
  const before = pairs.length === 0 ? '' : `,"contextExtensions":${extensions}`
  const session = serverName ? `,"tlsSession":{"sni":${quote(serverName)}}` : ''
  const older = v2
    ? `,"context_extensions":${extensions},"metadata_context":{"filter_metadata":{}}`
    : ''
  return inOnePiece`${before},"metadataContext":{}${session}${older}}`
}

/**
 * What is put together V8 keeps as a tree of its pieces, which is five times the text; these are kept
 * as long as a connection.
 */
function inOnePiece(constants: TemplateStringsArray, ...values: readonly string[]): string {
  return constants.flatMap((constant, i) => [constant, values[i] ?? '']).join('')
}

/** The part of the document that a policy reads, see projection.ts; of a request without its body. */
export interface Projection {
  /** @throws InputError for exactly the requests for which there is no whole document either */
  textOf(request: RequestFacts): string
  /**
   * Requests of one key have the same text, or none for the same reason. Made of what came as it came,
   * which costs less than the text. Absent where hardly two are the same; undefined of some requests.
   */
  readonly keyOf: ((request: RequestFacts) => string | undefined) | undefined
  /** The same as values. Requests have to be checked, see `checkRequest`. */
  templateOf(connection: ConnectionTexts): Template
}

/**
 * The input document for a request, or a projection of it.
 * @throws InputError when path, query, headers or body cannot be turned into one.
 */
export function buildInput(
  request: RequestFacts,
  projection?: Projection,
  descriptors?: GrpcDescriptors,
): string {
  if (request.protocol === 'TCP') return connectionText(request)
  if (projection !== undefined) return projection.textOf(request)
  const { connection, bodySize } = request
  const { parsed, truncated } = bodyOf(request, descriptors)
  return (
    `${connection.beforeRequest}{"time":${timeText(request.timeMs)},` +
    `"http":{"id":${quote(request.requestId)},"method":${quote(request.method)},` +
    `"headers":${headers(request, partialBody(request.body, truncated))},` +
    `"path":${quote(request.target)},"host":${quote(request.host)},` +
    `"scheme":"${request.scheme}","protocol":"${request.protocol}"` +
    `${bodySize === 0 ? '' : `,"size":${sizeOf(request)}`}${bodyText(request.body)}}}` +
    `${connection.afterRequest},"parsed_path":${parsedPath(request.path)},` +
    `"parsed_query":${parsedQuery(request.query)},"parsed_body":${parsed},` +
    `"truncated_body":${truncated}${connection.ending}`
  )
}

/** The whole document as it is logged: there always is one. */
export function documentOf(request: RequestFacts, descriptors?: GrpcDescriptors): string {
  try {
    return buildInput(request, undefined, descriptors)
  } catch (error) {
    if (error instanceof InputError) return NO_DOCUMENT
    throw error
  }
}

/** What is logged where there cannot be one. */
export const NO_DOCUMENT = '{}'

/** As Envoy's network filter asks: `request` has a time and no `http`. */
function connectionText({ connection, timeMs }: RequestFacts): string {
  return (
    `${connection.beforeRequest}{"time":${timeText(timeMs)}}${connection.afterRequest},` +
    `"parsed_path":[""],"parsed_query":{},"parsed_body":null,"truncated_body":false` +
    connection.ending
  )
}

/** A body that is not at hand must not be taken for an empty one by a rule that needs it. */
function bodyOf(request: RequestFacts, descriptors: GrpcDescriptors | undefined): ParsedBody {
  const { body, bodySize } = request
  if (body === undefined) return { parsed: 'null', truncated: bodySize !== 0 }
  const type = fieldOf(request.fields, 'content-type')
  const codings = linesOf(request.fields, 'content-encoding')
  return parseBody(body, type, pathSegments(request.path), descriptors, codings)
}

/** Envoy says so where it was told to collect bodies. */
function partialBody(body: BodyAtHand | undefined, truncated: boolean): string | undefined {
  return body === undefined && !truncated ? undefined : String(truncated)
}

/** Chunked bodies have a size when they are complete. */
function sizeOf({ bodySize, body }: RequestFacts): number {
  return bodySize < 0 && body?.complete ? body.bytes.length : bodySize
}

/** Envoy has either one or the other for all; here a body that is text is `body`. */
function bodyText(body: BodyAtHand | undefined): string {
  if (body === undefined || !body.complete || body.bytes.length === 0) return ''
  const text = textIfUtf8(body.bytes)
  return text === undefined
    ? `,"rawBody":"${body.bytes.toString('base64')}"`
    : `,"body":${quote(text)}`
}

export function fieldOf(fields: readonly string[], name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if (fields[i] === name) return fields[i + 1]
  return undefined
}

function linesOf(fields: readonly string[], name: string): readonly string[] {
  return fields.filter((_value, i) => i % 2 === 1 && fields[i - 1] === name)
}

export function timeText(timeMs: number): string {
  const seconds = Math.floor(timeMs / 1000)
  const nanos = Math.floor((timeMs - seconds * 1000) * 1e6)
  return `{"seconds":${seconds}${nanos === 0 ? '' : `,"nanos":${nanos}`}}`
}

/** What is among the headers and no field of a request: those carry no framing, which is written anew. */
const MADE_HEADERS: readonly (readonly [string, (request: RequestFacts) => string | undefined])[] =
  [
    [':authority', ({ host }) => host],
    [':method', ({ method }) => method],
    [':path', ({ target }) => target],
    ['content-length', ({ bodySize }) => (bodySize > 0 ? String(bodySize) : undefined)],
    [
      'transfer-encoding',
      ({ bodySize, protocol }) => (bodySize < 0 && protocol !== 'HTTP/2' ? 'chunked' : undefined),
    ],
  ]

/** Such as are always shown, whichever are to be. */
export const isMadeHeader = (name: string): boolean =>
  name === PARTIAL_BODY || MADE_HEADERS.some(([made]) => made === name)

/**
 * An object in which no name means anything: it inherits nothing. One of `Object.create(null)` is a hash
 * table, of which JSON.stringify of V8 takes twice as long (measured, Node 26).
 */
const Members = function Members() {} as unknown as new () => Record<string, string>
Members.prototype = Object.create(null)

export function headers(
  request: RequestFacts,
  partialBody: string | undefined,
  wanted?: WantedHeaders,
): string {
  return JSON.stringify(headerValues(request, partialBody, wanted))
}

/** By their names. */
export interface WantedHeaders {
  has(name: string): boolean
}

/**
 * As Envoy shows them: repeated lines are joined, and Host is there as `:authority` alone.
 * @param partialBody for the field of this name
 * @param wanted these names only
 * @throws InputError
 */
export function headerValues(
  request: RequestFacts,
  partialBody: string | undefined,
  wanted?: WantedHeaders,
): Record<string, string> {
  const values = new Members()
  forEachHeader(request, partialBody, wanted, (name, value, isMade) => {
    const before = isMade ? undefined : values[name]
    values[name] = before === undefined ? value : before + separator(name) + value
  })
  return values
}

/**
 * Each line by itself; what is made comes behind the lines of the client and stands for them.
 * @throws InputError
 */
export function forEachHeader(
  request: RequestFacts,
  partialBody: string | undefined,
  wanted: WantedHeaders | undefined,
  take: (name: string, value: string, isMade: boolean) => void,
): void {
  const { fields, connection } = request
  const shown = connection.headers
  if (hasManyFields(fields)) throw new InputError(`more than ${MAX_FIELDS} header lines`)
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    if (name === PARTIAL_BODY || name === 'host' || (wanted && !wanted.has(name))) continue
    if (shown !== undefined && !shown.includes(name)) continue
    take(name, fields[i + 1] as string, false)
  }
  for (const [name, make] of MADE_HEADERS) {
    const value = wanted && !wanted.has(name) ? undefined : make(request)
    if (value !== undefined) take(name, value, true)
  }
  const showsPartial = partialBody !== undefined && (wanted?.has(PARTIAL_BODY) ?? true)
  if (showsPartial) take(PARTIAL_BODY, partialBody, true)
}

/** Cookie is the one field whose lines are not a comma list (RFC 9113 section 8.2.3). */
function separator(name: string): string {
  return name === 'cookie' ? '; ' : ','
}

/** Decoded first, then split, without any leading slash: what the OPA-Envoy plugin does since 2026. */
export function parsedPath(path: string): string {
  const decoded = decodedPath(path)
  let text = '['
  let start = 0
  for (let end = decoded.indexOf('/'); end >= 0; end = decoded.indexOf('/', start)) {
    text += `${quote(decoded.slice(start, end))},`
    start = end + 1
  }
  return `${text}${quote(decoded.slice(start))}]`
}

export function pathSegments(path: string): readonly string[] {
  return decodedPath(path).split('/')
}

/** What `parsed_path` is split from. @throws InputError */
export function decodedPath(path: string): string {
  const decoded = percentDecoded(path, 'path')
  // OPA compiled to wasm lets no `*` of glob.match stand for it, OPA itself does (measured, 1.22):
  // a rule that denies by such a pattern would let it pass.
  if (decoded.includes('\n')) throw new InputError('a line feed in the path')
  let start = 0
  while (decoded.charCodeAt(start) === 0x2f) start++
  const rest = decoded.slice(start)
  if (rest.length >= MAX_PATH_SEGMENTS && rest.split('/').length > MAX_PATH_SEGMENTS) {
    throw new InputError(`more than ${MAX_PATH_SEGMENTS} path segments`)
  }
  return rest
}

/** Refuses the requests that have no whole document, where only a part of it is made. */
export function checkRequest(request: RequestFacts): void {
  const { fields, path, query } = request
  if (hasManyFields(fields)) headers(request, undefined)
  if (isDoubtfulPath(path)) pathSegments(path)
  if (isDoubtfulQuery(query)) parsedQuery(query)
}

/** Of the three, all that can be refused is true; of the first only that. */
export const hasManyFields = (fields: readonly string[]): boolean => fields.length > 2 * MAX_FIELDS
export function isDoubtfulPath(path: string): boolean {
  if (path.length > MAX_PATH_SEGMENTS) return true
  if (path.length > SHORT_PATH) return path.includes('%') || path.includes('\n')
  for (let i = 0; i < path.length; i++) {
    const code = path.charCodeAt(i)
    if (code === 0x25 || code === 0x0a) return true
  }
  return false
}
export const isDoubtfulQuery = (query: string | undefined): boolean =>
  query !== undefined && query !== '' && (query.length > MOST_FORM_KEYS || /[%;]/.test(query))

/** As `url.ParseQuery` of Go. */
export function parsedQuery(query: string | undefined): string {
  return query === undefined || query === '' ? '{}' : formForInput(query, 'query')
}
