// Builds the input document of the OPA-Envoy v3 contract as JSON text, from pieces that are already
// known to be clean. Text instead of an object: nine tenths of a decision is reading the input, and
// a template costs half of JSON.stringify (measured). Values of proto3 defaults are left out.

/** Facts about the verified peer; `VerifiedPeer` has them. */
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
}

/** What the input says about a connection, as JSON text: made once a connection. */
export interface ConnectionInput {
  readonly peer: PeerFacts
  /** From `{` to the opening of `attributes.request`. */
  readonly beforeRequest: string
  /** From behind `attributes.request` to the end of `attributes`. */
  readonly afterRequest: string
  /** From behind `truncated_body` to the end. */
  readonly ending: string
}

export interface PolicyRequest {
  readonly requestId: string
  readonly timeMs: number
  readonly method: string
  /** Path and query as forwarded. */
  readonly target: string
  readonly path: string
  readonly query: string | undefined
  readonly host: string
  readonly scheme: 'https'
  readonly protocol: 'HTTP/1.1' | 'HTTP/1.0' | 'HTTP/2'
  /** Flat name, value, name, value...; sanitised, names in lower case. */
  readonly fields: readonly string[]
  /** -1: unknown (chunked). 0: no body. */
  readonly bodySize: number
  readonly connection: ConnectionInput
}

/** Why there is no input document. For the operator. */
export class InputError extends Error {
  override readonly name = 'InputError'
}

/** OPA's objects are chained hash tables without a seed: their size is bounded, not only the text. */
const MAX_FIELDS = 256
const MAX_QUERY_KEYS = 256
const MAX_QUERY_VALUES = 1_024
const MAX_PATH_SEGMENTS = 1_024

/** Ours alone to set: with it a client would switch off rules on the body (Skipper, 2026). */
const PARTIAL_BODY = 'x-envoy-auth-partial-body'

export function connectionInput(facts: ConnectionFacts): ConnectionInput {
  const { peer, serverName } = facts
  const source = endpoint(facts.remoteAddress, facts.remotePort, peer.principal)
  const destination = endpoint(facts.localAddress, facts.localPort, facts.destinationPrincipal)
  const session = serverName ? `,"tlsSession":{"sni":${quote(serverName)}}` : ''
  const principal = peer.principal === '' ? '' : `,"source_principal":${quote(peer.principal)}`
  return {
    peer,
    beforeRequest: `{"attributes":{"source":${source},"destination":${destination},"request":`,
    afterRequest: `,"metadataContext":{}${session}}`,
    ending: `${principal},"version":{"ext_authz":"v3","encoding":"protojson"}}`,
  }
}

function endpoint(address: string, port: number, principal: string): string {
  const name = principal === '' ? '' : `,"principal":${quote(principal)}`
  return `{"address":{"socketAddress":{"address":${quote(address)},"portValue":${port}}}${name}}`
}

/**
 * The input document for a request.
 * @throws InputError when path, query or headers cannot be turned into one.
 */
export function buildInput(request: PolicyRequest): string {
  const { connection, bodySize } = request
  // The body is not at hand when policy is asked: a rule that needs it must not take it for empty.
  const truncated = bodySize !== 0
  const seconds = Math.floor(request.timeMs / 1000)
  const nanos = Math.floor((request.timeMs - seconds * 1000) * 1e6)
  const method = quote(request.method)
  const target = quote(request.target)
  const host = quote(request.host)
  return (
    `${connection.beforeRequest}{"time":{"seconds":${seconds}${nanos === 0 ? '' : `,"nanos":${nanos}`}},` +
    `"http":{"id":${quote(request.requestId)},"method":${method},` +
    `"headers":{":authority":${host},":method":${method},":path":${target}${headers(request.fields)}${framing(bodySize)}${
      truncated ? `,"${PARTIAL_BODY}":"true"` : ''
    }},"path":${target},"host":${host},"scheme":"${request.scheme}",` +
    `"protocol":"${request.protocol}"${truncated ? `,"size":${bodySize}` : ''}}}` +
    `${connection.afterRequest},"parsed_path":${parsedPath(request.path)},` +
    `"parsed_query":${parsedQuery(request.query)},"parsed_body":null,` +
    `"truncated_body":${truncated}${connection.ending}`
  )
}

/** As Envoy shows it; the fields themselves carry no framing, which Postern writes anew. */
function framing(bodySize: number): string {
  if (bodySize === 0) return ''
  return bodySize > 0 ? `,"content-length":"${bodySize}"` : ',"transfer-encoding":"chunked"'
}

/**
 * `,"name":"value"` for each name; repeated lines are joined as Envoy joins them, and Host is there
 * as `:authority` alone.
 */
function headers(fields: readonly string[]): string {
  const count = fields.length
  if (count > 2 * MAX_FIELDS) throw new InputError(`more than ${MAX_FIELDS} header lines`)
  let text = ''
  for (let i = 0; i < count; i += 2) {
    const name = fields[i] as string
    if (name === PARTIAL_BODY || name === 'host' || occursBefore(fields, name, i)) continue
    text += `,${quote(name)}:${quote(joined(fields, name, i))}`
  }
  return text
}

function occursBefore(fields: readonly string[], name: string, end: number): boolean {
  for (let i = 0; i < end; i += 2) if (fields[i] === name) return true
  return false
}

function joined(fields: readonly string[], name: string, first: number): string {
  let value = fields[first + 1] as string
  for (let i = first + 2; i < fields.length; i += 2) {
    // Cookie is the one field whose lines are not a comma list (RFC 9113 section 8.2.3).
    if (fields[i] === name) value += (name === 'cookie' ? '; ' : ',') + fields[i + 1]
  }
  return value
}

/** Decoded first, then split, without any leading slash: what the OPA-Envoy plugin does since 2026. */
function parsedPath(path: string): string {
  const decoded = decode(path, 'path')
  // OPA compiled to wasm lets no `*` of glob.match stand for it, OPA itself does (measured, 1.22):
  // a rule that denies by such a pattern would let it pass.
  if (decoded.includes('\n')) throw new InputError('a line feed in the path')
  let start = 0
  while (decoded.charCodeAt(start) === 0x2f) start++
  const segments = decoded.slice(start).split('/', MAX_PATH_SEGMENTS + 1)
  if (segments.length > MAX_PATH_SEGMENTS) {
    throw new InputError(`more than ${MAX_PATH_SEGMENTS} path segments`)
  }
  let text = `[${quote(segments[0] as string)}`
  for (let i = 1; i < segments.length; i++) text += `,${quote(segments[i] as string)}`
  return `${text}]`
}

/** As `url.ParseQuery` of Go, for which a raw semicolon is an error. */
function parsedQuery(query: string | undefined): string {
  if (query === undefined || query === '') return '{}'
  if (query.includes(';')) throw new InputError('a raw semicolon in the query')
  const parts = query.split('&', MAX_QUERY_VALUES + 1)
  if (parts.length > MAX_QUERY_VALUES) {
    throw new InputError(`more than ${MAX_QUERY_VALUES} query parameters`)
  }
  const values = new Map<string, string>()
  for (const part of parts) {
    if (part === '') continue
    const equals = part.indexOf('=')
    const key = unescapeQuery(equals < 0 ? part : part.slice(0, equals))
    const value = quote(equals < 0 ? '' : unescapeQuery(part.slice(equals + 1)))
    const known = values.get(key)
    values.set(key, known === undefined ? value : `${known},${value}`)
  }
  if (values.size > MAX_QUERY_KEYS) throw new InputError(`more than ${MAX_QUERY_KEYS} query keys`)
  let text = ''
  for (const [key, list] of values) text += `${text === '' ? '' : ','}${quote(key)}:[${list}]`
  return `{${text}}`
}

function unescapeQuery(text: string): string {
  return decode(text.includes('+') ? text.replaceAll('+', ' ') : text, 'query')
}

/** Percent-decoding; refuses bad escapes as Go does, and besides what is not UTF-8. */
function decode(text: string, where: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    throw new InputError(`a percent escape in the ${where} that is malformed or not UTF-8`)
  }
}

/** Anything but the printable ASCII that JSON writes as it is. */
const SPECIAL = /[^\x20\x21\x23-\x5b\x5d-\x7e]/

function quote(text: string): string {
  return SPECIAL.test(text) ? JSON.stringify(text) : `"${text}"`
}
