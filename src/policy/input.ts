// Builds the input document of the OPA-Envoy v3 contract as JSON text.

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
  /** SNI; absent or '' when the client sent none. */
  readonly serverName: string | undefined
  /** Our own identity; '' when unknown. */
  readonly destinationPrincipal: string
}

/** What the input says about a connection, as JSON text: made once a connection. */
export interface ConnectionInput {
  readonly peer: PeerFacts
  readonly head: string
  readonly tail: string
}

export function connectionInput(facts: ConnectionFacts): ConnectionInput {
  return { peer: facts.peer, head: '', tail: '' }
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

export type InputText =
  | { readonly kind: 'input'; readonly text: string }
  | { readonly kind: 'bad_input'; readonly reason: string }

/** The input document for a request, or why there is none. */
export function inputText(_request: PolicyRequest): InputText {
  throw new Error('not built yet')
}
