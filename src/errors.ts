// The one table of everything that can go wrong with a request: whose fault it is, what the
// client is told, whether the connection survives, and the sentence for the operator.
// `docs/reference.md` is generated from it and a golden test pins it: codes are API.

/** Who has to change something for the error to go away. Decides log level and alerting. */
export type Fault = 'client' | 'peer' | 'policy' | 'upstream' | 'operator' | 'postern'

export interface ErrorEntry {
  readonly fault: Fault
  /** HTTP status of the response that Postern makes itself (RFC 9110 section 15). */
  readonly http: number
  /** gRPC status for the same outcome (grpc/doc/statuscodes.md). */
  readonly grpc: number
  /** What happens to the client's connection afterwards. */
  readonly connection: 'keep' | 'close'
  readonly log: 'debug' | 'info' | 'warn' | 'error'
  /** One sentence for the operator; never sent to a client. */
  readonly sentence: string
}

const client = (http: number, grpc: number, sentence: string): ErrorEntry => ({
  fault: 'client',
  http,
  grpc,
  connection: 'close',
  log: 'info',
  sentence,
})

const peer = (sentence: string): ErrorEntry => ({
  fault: 'peer',
  http: 403,
  grpc: 16,
  connection: 'close',
  log: 'warn',
  sentence,
})

const upstream = (
  http: number,
  grpc: number,
  sentence: string,
  connection: 'keep' | 'close' = 'keep',
): ErrorEntry => ({ fault: 'upstream', http, grpc, connection, log: 'warn', sentence })

export const ERRORS = {
  bad_request_line: client(
    400,
    13,
    'The request line is not "METHOD SP target SP HTTP/1.x" (RFC 9112 section 3).',
  ),
  bad_target: client(
    400,
    13,
    'The request target has characters or a form that RFC 9112 section 3.2 does not allow here.',
  ),
  ambiguous_path: client(
    400,
    13,
    'The path can be read in two ways (dot segment, empty segment, encoded slash, backslash or NUL, an escaped letter or digit, path parameters), so policy and workload could disagree about it.',
  ),
  bad_header: client(
    400,
    13,
    'A header line is not "name: value" with a token as name and visible characters as value (RFC 9110 section 5).',
  ),
  duplicate_header: client(400, 13, 'A header that must be single was sent more than once.'),
  bad_host: client(
    400,
    13,
    'Host is missing, repeated, malformed or disagrees with the request target (RFC 9112 section 3.2).',
  ),
  bad_framing: client(
    400,
    13,
    'The body length cannot be told without doubt from Content-Length and Transfer-Encoding (RFC 9112 section 6.3).',
  ),
  bad_chunk: client(400, 13, 'The chunked body is malformed (RFC 9112 section 7.1).'),
  bad_trailer: client(
    400,
    13,
    'The trailer section is malformed or carries a field that decides framing or routing.',
  ),
  bad_connection_header: client(
    400,
    13,
    'Connection names a field that an intermediary must not drop, or asks for a switch that is not allowed.',
  ),
  bad_upgrade: client(
    400,
    13,
    'The WebSocket handshake is not one that RFC 6455 section 4.1 allows.',
  ),
  unsupported_expectation: client(
    417,
    13,
    'Expect is something else than 100-continue (RFC 9110 section 10.1.1).',
  ),
  unsupported_method: client(
    501,
    13,
    'The method is one that this proxy does not forward (CONNECT).',
  ),
  unsupported_encoding: client(
    501,
    13,
    'Transfer-Encoding is something else than exactly "chunked".',
  ),
  unsupported_version: client(505, 13, 'The protocol version is not HTTP/1.1 or HTTP/1.0.'),
  target_too_long: client(414, 8, 'The request target is longer than inbound.limits.targetBytes.'),
  head_too_large: client(431, 8, 'The request head is longer than inbound.limits.headBytes.'),
  too_many_headers: client(
    431,
    8,
    'The request has more header lines than inbound.limits.headerCount.',
  ),
  body_too_large: client(413, 8, 'The request body is longer than inbound.limits.bodyBytes.'),
  body_memory_full: {
    fault: 'operator',
    http: 503,
    grpc: 14,
    connection: 'close',
    log: 'warn',
    sentence:
      'The bodies that wait for a decision of the policy take all of policy.input.body.totalBytes.',
  },
  head_timeout: client(
    408,
    4,
    'The request head did not arrive within inbound.timeouts.requestHead.',
  ),
  body_timeout: client(
    408,
    4,
    'The request body made no progress for inbound.timeouts.requestBody.',
  ),
  h2_protocol_error: client(
    400,
    13,
    'The client broke a rule of HTTP/2 that costs it the connection (RFC 9113 section 5.4.1).',
  ),
  h2_flood: client(
    400,
    8,
    'The client sent resets, broken requests or frames that bring nothing in a number that is an attack (RFC 9113 section 10.5); its connection was ended.',
  ),
  tls_flood: client(
    400,
    8,
    'The client changed the keys of its connection or asked for another handshake in a number that is an attack (RFC 8446 section 4.6.3); its connections were ended, and its address is refused for a minute.',
  ),
  held_bytes_full: {
    fault: 'client',
    http: 503,
    grpc: 8,
    connection: 'close',
    log: 'warn',
    sentence:
      'Requests in progress and what waits for both sides took all of inbound.limits.heldBytes, and most of it was of the principal of this connection, which was closed in the middle of the request.',
  },
  client_closed: {
    fault: 'client',
    http: 499,
    grpc: 1,
    connection: 'close',
    log: 'debug',
    sentence: 'The client closed the connection before its answer was complete.',
  },

  peer_no_certificate: peer('The client presented no certificate.'),
  peer_revoked: peer('The certificate of the peer has been revoked.'),
  peer_deny_listed: peer('The deny list (trust.revoked) names the peer or one of its issuers.'),
  peer_expired: peer('The certificate of the peer is outside its validity period.'),
  peer_untrusted: peer('The certificate of the peer no longer leads to a trust bundle.'),
  peer_revocation_unknown: peer(
    'Revocation of the peer cannot be decided: its issuer has no current CRL.',
  ),

  peer_limited: {
    fault: 'peer',
    http: 503,
    grpc: 8,
    connection: 'close',
    log: 'warn',
    sentence: 'The principal has inbound.limits.connectionsPerPeer connections open already.',
  },

  denied: {
    fault: 'policy',
    http: 403,
    grpc: 7,
    connection: 'keep',
    log: 'info',
    sentence: 'Policy or allow rules said no.',
  },
  policy_bad_input: {
    fault: 'client',
    http: 400,
    grpc: 7,
    connection: 'keep',
    log: 'info',
    sentence: 'Path, query, headers or body cannot be turned into a policy input.',
  },
  policy_error: {
    fault: 'policy',
    http: 500,
    grpc: 13,
    connection: 'keep',
    log: 'error',
    sentence:
      'The policy trapped, was undefined, or gave a result that is not an OPA-Envoy decision.',
  },
  policy_not_ready: {
    fault: 'operator',
    http: 503,
    grpc: 14,
    connection: 'keep',
    log: 'error',
    sentence: 'No policy or trust is in force yet.',
  },
  policy_timeout: {
    fault: 'policy',
    http: 504,
    grpc: 4,
    connection: 'keep',
    log: 'error',
    sentence: 'The policy used up its evaluation budget.',
  },
  draining: {
    fault: 'operator',
    http: 503,
    grpc: 14,
    connection: 'close',
    log: 'info',
    sentence:
      'drain.timeout has passed before the workload had answered; Postern is about to exit.',
  },

  overloaded: {
    fault: 'operator',
    http: 503,
    grpc: 14,
    connection: 'keep',
    log: 'warn',
    sentence:
      'The data thread is past its capacity (inbound.overload) and refused the request before policy was asked; the answer says when to try again.',
  },

  upstream_refused: upstream(502, 14, 'The workload refused the connection or cannot be reached.'),
  upstream_reset: upstream(
    502,
    14,
    'The workload closed or reset the connection before its answer was complete.',
    'keep',
  ),
  upstream_bad_response: upstream(
    502,
    14,
    'The workload answered with something that is not one response of the protocol it is spoken to in.',
  ),
  upstream_no_websocket: upstream(
    502,
    14,
    'The workload did not take a WebSocket for one; over h2c:// it has to offer extended CONNECT (RFC 8441).',
  ),
  upstream_connect_timeout: upstream(
    504,
    4,
    'The workload did not accept a connection within inbound.timeouts.upstreamConnect.',
  ),
  upstream_timeout: upstream(
    504,
    4,
    'The workload sent no response head within inbound.timeouts.upstreamResponse.',
  ),
  upstream_busy: upstream(
    503,
    14,
    'All inbound.limits.upstreamConnections connections to the workload are in use.',
  ),
  internal: {
    fault: 'postern',
    http: 500,
    grpc: 13,
    connection: 'close',
    log: 'error',
    sentence: 'A fault in Postern itself; please report it.',
  },
} as const satisfies Record<string, ErrorEntry>

export type ErrorCode = keyof typeof ERRORS

/** The table's row for a code, with the widened type (the `as const` table keeps literals). */
export const errorEntry = (code: ErrorCode): ErrorEntry => ERRORS[code]

/** Whether a request with this code has gone wrong, other than by its client's leaving. */
export const isFailure = (code: ErrorCode | undefined): boolean =>
  code !== undefined && code !== 'client_closed'

/**
 * One thing that is wrong with what an operator gave us: configuration, a file, a bundle.
 * Collected, never thrown one at a time, so that `postern check` can print them all.
 */
export interface Problem {
  /** Configuration key (`identity.certificate`), flag (`--cert`) or file: where to look. */
  readonly where: string
  /** What is wrong. One sentence, no trailing period. */
  readonly what: string
  /** What would be right, or what to do. One sentence, no trailing period. */
  readonly remedy: string
  /** `warning` is printed but stops nothing. Default: `error`. */
  readonly severity?: 'error' | 'warning'
}
