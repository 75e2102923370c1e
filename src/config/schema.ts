// The one table of the configuration: every key with its type, default, limits, flag and sentence.
// Reading the file, flags, unknown-key suggestions, `check --print`, the JSON Schema and the
// reference page are derived from it; a golden test pins it: keys and defaults are API.
//
// Own table instead of zod: importing zod 4 costs 60 ms and 14 MiB (measured on Node 26.10), a fifth
// of the time to start, and its messages know neither the line nor the flag a value came from.
import type { Address } from './config.ts'
import {
  formatAddress,
  formatDuration,
  formatForward,
  formatLabel,
  formatSize,
  formatWorkloadApi,
  type Parsed,
  parseAddress,
  parseBoolean,
  parseBundle,
  parseCommonName,
  parseCount,
  parseDnsPattern,
  parseDuration,
  parseEntrypoint,
  parseForward,
  parseGrpcService,
  parseHeaderName,
  parseKeyId,
  parseLabel,
  parseListener,
  parseLogServer,
  parseNetwork,
  parsePath,
  parseRequestPath,
  parseShare,
  parseSize,
  parseText,
  parseTimestamp,
  parseTrue,
  parseTrustDomain,
  parseUriPattern,
  parseWorkers,
  parseWorkloadApi,
} from './values.ts'

export interface Flag {
  readonly name: `--${string}`
  /** Other names for the same flag, known from ghostunnel. */
  readonly aliases?: readonly `--${string}`[]
}

export interface Key {
  /** Dotted; `[]` stands for each entry of a list. A default of `[]` lets the list be empty. */
  readonly path: string
  readonly type: TypeName
  /** As a user would write it. */
  readonly default?: string
  /** All values that an `enum` takes. */
  readonly values?: readonly string[]
  /** Lowest and highest value, as a user would write them. */
  readonly min?: string
  readonly max?: string
  readonly flag?: Flag
  readonly sentence: string
  /** Setting it to true weakens a guarantee. */
  readonly unsafe?: true
  /** Values that weaken a guarantee. */
  readonly unsafeValues?: readonly string[]
  /** The entries of its list may be written as a map from the one to the other. */
  readonly inMap?: 'name' | 'value'
}

export const KEYS = [
  {
    path: 'inbound.listen',
    type: 'address',
    default: '0.0.0.0:8443',
    flag: { name: '--listen' },
    sentence: 'Where clients connect with mutual TLS.',
  },
  {
    path: 'inbound.forward',
    type: 'forward',
    flag: { name: '--forward', aliases: ['--target'] },
    sentence: 'The workload: loopback or a UNIX socket, unless unsafeForward.',
  },
  {
    path: 'inbound.unsafeForward',
    type: 'boolean',
    default: 'false',
    flag: { name: '--unsafe-forward', aliases: ['--unsafe-target'] },
    sentence: 'Forward to another host, in plain text that the network can read and change.',
    unsafe: true,
  },
  {
    path: 'inbound.proxyProtocol.acceptFrom[]',
    type: 'network',
    default: '[]',
    sentence:
      'Balancers that say in a PROXY header (version 2) who the client is; from these networks it is demanded.',
  },
  {
    path: 'inbound.proxyProtocol.send',
    type: 'boolean',
    default: 'false',
    sentence:
      'Begin each connection to a tcp:// workload with a PROXY header (version 2) that names client, TLS and principal.',
  },
  {
    path: 'inbound.forwardedClientCert',
    type: 'enum',
    values: ['sanitize', 'sanitize_set', 'forward_only', 'append_forward', 'always_forward_only'],
    default: 'sanitize_set',
    sentence:
      "What happens to x-forwarded-client-cert, in Envoy's words; modes that forward let a client claim an identity.",
    unsafeValues: ['forward_only', 'append_forward', 'always_forward_only'],
  },
  {
    path: 'inbound.forwardedClientCertDetails[]',
    type: 'enum',
    values: ['subject', 'dns', 'cert', 'chain'],
    default: '[]',
    sentence:
      'Keys of x-forwarded-client-cert beside By, Hash and URI, which are what published Rego expects.',
  },
  {
    path: 'inbound.clientCert',
    type: 'boolean',
    default: 'false',
    sentence: 'Set client-cert (RFC 9440) too.',
  },
  {
    path: 'inbound.unsafeAmbiguousPaths',
    type: 'boolean',
    default: 'false',
    flag: { name: '--unsafe-ambiguous-paths' },
    sentence:
      'Let through paths that policy and workload may read differently (dot segments, //, %2F, ;).',
    unsafe: true,
  },
  {
    path: 'inbound.unsafeOptionalPeer',
    type: 'boolean',
    default: 'false',
    flag: { name: '--unsafe-optional-peer' },
    sentence:
      'Let clients without a certificate reach the policy, which sees no principal; allow rules never admit them, and a certificate that is not accepted is refused as ever.',
    unsafe: true,
  },
  {
    path: 'inbound.unsafePlaintext',
    type: 'boolean',
    default: 'false',
    flag: { name: '--unsafe-plaintext' },
    sentence:
      'Also take HTTP/1.1 without TLS on the same port, for the time of a migration; the policy sees no principal and the scheme http.',
    unsafe: true,
  },
  {
    path: 'inbound.limits.connections',
    type: 'countOrAuto',
    default: 'auto',
    min: '1',
    max: '1000000',
    sentence:
      'Open client connections, idle ones at most 64 KiB each; auto is 10000, or as many as the memory limit of the container has room for.',
  },
  {
    path: 'inbound.limits.connectionsPerAddress',
    type: 'countOrAuto',
    default: 'auto',
    min: '1',
    max: '1000000',
    sentence:
      'Open client connections of one source address; auto is half of connections, so that one client or NAT cannot take them all.',
  },
  {
    path: 'inbound.limits.connectionsPerPeer',
    type: 'countOrAuto',
    default: 'auto',
    min: '1',
    max: '1000000',
    sentence:
      'Open client connections of one principal, whatever addresses they come from; more are answered 503 and closed. auto is half of connections.',
  },
  {
    path: 'inbound.limits.heldBytes',
    type: 'sizeOrAuto',
    default: 'auto',
    min: '1MiB',
    sentence:
      'What one data thread holds of requests in progress, their heads among it (over HTTP/2 at least 4KiB for each), of bodies and answers that the other side does not take yet, and of more certificates than a client needs. Beyond it, connections of the principal that holds most are closed. auto is 256MiB, or an eighth of the memory limit of the container.',
  },
  {
    path: 'inbound.limits.handshakes',
    type: 'count',
    default: '64',
    min: '1',
    max: '100000',
    sentence: 'TLS handshakes in progress; more would only wait for the same processor.',
  },
  {
    path: 'inbound.limits.handshakesPerAddress',
    type: 'count',
    default: '16',
    min: '1',
    max: '100000',
    sentence: 'TLS handshakes in progress from one source address: a quarter, as others come too.',
  },
  {
    path: 'inbound.limits.handshakeFailuresPerAddress',
    type: 'count',
    default: '10',
    min: '1',
    max: '100000',
    sentence:
      'Failed handshakes that one source address may cause in a burst before it has to wait: a rollout with a wrong certificate stays below, a scan does not.',
  },
  {
    path: 'inbound.limits.headBytes',
    type: 'size',
    default: '32KiB',
    min: '1KiB',
    max: '1MiB',
    sentence:
      'Request line and headers together: room for large tokens and cookies. Answers of the workload are held to it as well (502).',
  },
  {
    path: 'inbound.limits.headerCount',
    type: 'count',
    default: '100',
    min: '1',
    max: '10000',
    sentence:
      'Header lines of a request: as many as most servers take. Answers of the workload are held to it as well (502).',
  },
  {
    path: 'inbound.limits.targetBytes',
    type: 'size',
    default: '8KiB',
    min: '16',
    max: '1MiB',
    sentence: 'The request target; RFC 9112 recommends to support at least 8000.',
  },
  {
    path: 'inbound.limits.bodyBytes',
    type: 'size',
    default: '0',
    sentence: 'A request body; 0 is no limit, because bodies are streamed and never collected.',
  },
  {
    path: 'inbound.limits.requestsPerConnection',
    type: 'count',
    default: '0',
    sentence:
      'Requests before a connection is closed; 0 is no limit, because the peer is checked on each.',
  },
  {
    path: 'inbound.limits.streamsPerConnection',
    type: 'count',
    default: '100',
    min: '1',
    max: '10000',
    sentence: 'Requests that an HTTP/2 client may have open at once on one connection.',
  },
  {
    path: 'inbound.limits.upstreamConnections',
    type: 'count',
    default: '256',
    min: '1',
    max: '100000',
    sentence:
      'Connections of one data thread to the workload, WebSockets among them; the last eighth is for principals that hold few, and a request that finds none gets 503.',
  },
  {
    path: 'inbound.timeouts.handshake',
    type: 'duration',
    default: '10s',
    min: '1ms',
    sentence: 'From accept to the end of the TLS handshake.',
  },
  {
    path: 'inbound.timeouts.requestHead',
    type: 'duration',
    default: '15s',
    min: '1ms',
    sentence: 'From the first byte of a request to the end of its head.',
  },
  {
    path: 'inbound.timeouts.requestBody',
    type: 'duration',
    default: '1m',
    min: '1ms',
    sentence:
      'Longest time without progress of a request body; the whole may take longer. Over HTTP/2 until its answer has begun, and not for gRPC: then idle holds.',
  },
  {
    path: 'inbound.timeouts.upstreamConnect',
    type: 'duration',
    default: '5s',
    min: '1ms',
    sentence: 'For the workload to accept a connection; on loopback more means it hangs.',
  },
  {
    path: 'inbound.timeouts.upstreamResponse',
    type: 'duration',
    default: '1m',
    min: '1ms',
    sentence: 'From the end of a request to the head of the response.',
  },
  {
    path: 'inbound.timeouts.idle',
    type: 'duration',
    default: '5m',
    min: '1ms',
    sentence:
      'A client connection without a request; longer than the pools of usual clients, so that they close first and no request is lost.',
  },
  {
    path: 'inbound.timeouts.tunnelIdle',
    type: 'duration',
    default: '5m',
    min: '1ms',
    sentence:
      'A WebSocket, or a connection to a tcp:// workload, on which no byte moves; a WebSocket is closed with 1001.',
  },
  {
    path: 'inbound.timeouts.connectionLifetime',
    type: 'duration',
    default: '0',
    sentence: 'Age at which a connection is closed after its current request; 0 is no limit.',
  },
  {
    path: 'inbound.overload.eventLoopLag',
    type: 'duration',
    default: '100ms',
    max: '10s',
    sentence:
      'How long requests may wait for a busy data thread: for the turn of its event loop before theirs, in line to be begun, and in line for a connection to an HTTP/1.1 workload. Beyond it for half a second, principals that send most are answered 503 with Retry-After, and handshakes wait. 0: never.',
  },

  {
    path: 'identity.certificate',
    type: 'path',
    flag: { name: '--cert' },
    sentence: 'PEM file: the leaf first, then intermediates.',
  },
  {
    path: 'identity.privateKey',
    type: 'path',
    flag: { name: '--key' },
    sentence: 'PEM file: the private key of the certificate.',
  },
  {
    path: 'identity.credentialBundle',
    type: 'path',
    flag: { name: '--credential-bundle' },
    sentence: 'PEM file with key and chain together, instead of certificate and privateKey.',
  },
  {
    path: 'identity.directory',
    type: 'path',
    flag: { name: '--identity-directory' },
    sentence:
      'Directory with key, chain and trust bundles under the names of SPIFFE filesystem delivery, spiffe-helper or the CSI drivers, instead of the files by name.',
  },
  {
    path: 'identity.passphraseFile',
    type: 'path',
    sentence:
      'File with the passphrase of an encrypted private key; a line break at its end is ignored.',
  },
  {
    path: 'identity.workloadApi',
    type: 'workloadApi',
    flag: { name: '--workload-api', aliases: ['--use-workload-api-addr'] },
    sentence:
      'SPIFFE Workload API that delivers identity, trust bundles and CRLs: unix:///path, or tcp://127.0.0.1:PORT.',
  },
  {
    path: 'identity.hint',
    type: 'text',
    sentence: 'Which identity of several that the Workload API delivers; absent: the first.',
  },

  {
    path: 'trust.bundles[].trustDomain',
    type: 'trustDomain',
    sentence:
      'The SPIFFE trust domain that this bundle alone vouches for, and for no DNS or common name; absent: identities of any kind.',
  },
  {
    path: 'trust.bundles[].file',
    type: 'path',
    flag: { name: '--ca', aliases: ['--cacert'] },
    sentence: 'PEM file with the certificates of the authorities that clients are issued by.',
  },
  {
    path: 'trust.crls[]',
    type: 'path',
    flag: { name: '--crl' },
    sentence:
      'CRL, PEM or DER. As soon as one is given, a client whose issuer has no current one is refused.',
  },
  {
    path: 'trust.revocation.mode',
    type: 'enum',
    values: ['hard-fail', 'soft-fail'],
    default: 'hard-fail',
    sentence:
      'What happens where a CRL is missing or out of date: the client is refused, or let in and counted (revocation_soft_failures_total).',
    unsafeValues: ['soft-fail'],
  },
  {
    path: 'trust.revocation.grace',
    type: 'duration',
    default: '0',
    sentence:
      'How long a CRL still counts as current after its nextUpdate; bridges a late publication without letting go of what it lists.',
  },
  {
    path: 'trust.revocation.scope',
    type: 'enum',
    values: ['leaf', 'chain'],
    default: 'leaf',
    sentence:
      'Whose issuer needs a current CRL: of the client alone, as most roots publish none, or of every certificate below the trust anchor. What any CRL lists is refused in both.',
  },
  {
    path: 'trust.revoked',
    type: 'path',
    flag: { name: '--revoked' },
    sentence:
      'Deny list, YAML or JSON: clients refused by SPIFFE ID pattern, by issuer and serial, or by the SHA-256 of a public key.',
  },
  {
    path: 'trust.clockSkew',
    type: 'duration',
    default: '0',
    max: '1h',
    sentence:
      'By how much clocks may differ where validity is judged; 0 as in OpenSSL and Go, because every second of it lets expired certificates live on.',
  },

  {
    path: 'allow[].uri',
    type: 'uriPattern',
    flag: { name: '--allow-uri' },
    sentence: 'Admits peers with a URI SAN that fits this pattern.',
  },
  {
    path: 'allow[].dns',
    type: 'dnsPattern',
    flag: { name: '--allow-dns' },
    sentence: 'Admits peers with a DNS SAN that fits this pattern.',
  },
  {
    path: 'allow[].cn',
    type: 'commonName',
    flag: { name: '--allow-cn' },
    sentence: 'Admits peers whose subject has a common name that fits this pattern.',
  },
  {
    path: 'allow[].all',
    type: 'true',
    flag: { name: '--allow-all' },
    sentence: 'Admits every peer whose certificate is accepted; stands alone.',
  },

  {
    path: 'policy.bundle',
    type: 'bundle',
    flag: { name: '--policy' },
    sentence:
      'What `opa build -t wasm` made: a bundle.tar.gz, the directory of an unpacked one, or the https:// address of one on a bundle server.',
  },
  {
    path: 'policy.entrypoint',
    type: 'entrypoint',
    flag: { name: '--entrypoint' },
    sentence:
      'The rule that decides; absent: the only entrypoint of the bundle, or envoy/authz/allow.',
  },
  {
    path: 'policy.memoryBytes',
    type: 'size',
    default: '64MiB',
    min: '1MiB',
    max: '4GiB',
    sentence: 'Highest memory of one policy instance; it is replaced when it would need more.',
  },
  {
    path: 'policy.fuel',
    type: 'count',
    min: '1000',
    max: '1000000000',
    sentence:
      'Loop iterations and calls of one evaluation, of which long ones count as several; one that needs more ends as a timeout. Absent: as many as take about 10 ms, measured when the policy is loaded.',
  },
  {
    path: 'policy.data[]',
    type: 'bundle',
    default: '[]',
    sentence:
      'Further bundles that bring data for the policy; the "roots" of their manifests may not overlap.',
  },
  {
    path: 'policy.signing.keys[].id',
    type: 'keyId',
    sentence:
      'Name of a key as signatures give it ("kid"). A bundle must be signed with one of the keys as soon as there is one. Written as a map: `keys: { ID: FILE }`.',
    inMap: 'name',
  },
  {
    path: 'policy.signing.keys[].file',
    type: 'path',
    sentence:
      'PEM file with the public key or a certificate; for HS256, HS384 and HS512 the secret.',
    inMap: 'value',
  },
  {
    path: 'policy.signing.keys[].algorithm',
    type: 'enum',
    values: [
      'RS256',
      'RS384',
      'RS512',
      'PS256',
      'PS384',
      'PS512',
      'ES256',
      'ES384',
      'ES512',
      'HS256',
      'HS384',
      'HS512',
    ],
    sentence:
      'What this key verifies; a signature that says otherwise is refused. Absent: RS256 for RSA, ES256, ES384 or ES512 by the curve.',
  },
  {
    path: 'policy.signing.scope',
    type: 'text',
    sentence: 'The "scope" that signatures must have; absent: none.',
  },
  {
    path: 'policy.signing.minimumIssuedAt',
    type: 'timestamp',
    sentence:
      'Bundles that were signed ("iat") before this time are refused, and those that do not say.',
  },
  {
    path: 'policy.signing.monotonic',
    type: 'boolean',
    default: 'false',
    sentence: 'Refuse a bundle that was signed ("iat") earlier than the one in force.',
  },
  {
    path: 'policy.service.tokenFile',
    type: 'path',
    sentence: 'File with the bearer token for bundle servers; read again for each request.',
  },
  {
    path: 'policy.service.certificate',
    type: 'path',
    sentence: 'PEM file with the client certificate for bundle servers, and its chain.',
  },
  {
    path: 'policy.service.privateKey',
    type: 'path',
    sentence: 'PEM file with the private key of that certificate.',
  },
  {
    path: 'policy.service.ca',
    type: 'path',
    sentence:
      'PEM file with the authorities that bundle servers are trusted by; absent: those of Node.js.',
  },
  {
    path: 'policy.service.pollMin',
    type: 'duration',
    default: '1m',
    min: '100ms',
    sentence: 'Shortest pause between two requests to a bundle server.',
  },
  {
    path: 'policy.service.pollMax',
    type: 'duration',
    default: '2m',
    min: '100ms',
    sentence:
      'Longest such pause; each is chosen between the two, so that sidecars do not ask in step.',
  },
  {
    path: 'policy.service.longPoll',
    type: 'duration',
    default: '0',
    max: '10m',
    sentence:
      'How long a bundle server may hold a request until it has something new; 0 asks in pauses.',
  },
  {
    path: 'policy.service.persist',
    type: 'path',
    sentence:
      'Directory where the last good bundle of each server is kept, for a start while the server is down.',
  },
  {
    path: 'policy.service.unsafePlainText',
    type: 'boolean',
    default: 'false',
    flag: { name: '--unsafe-plain-text-bundles' },
    sentence:
      'Fetch bundles with http:// from other hosts, where the network can read and change them.',
    unsafe: true,
  },
  {
    path: 'policy.candidate.bundle',
    type: 'bundle',
    sentence:
      'A second policy in the place of policy.bundle, which decides nothing: it is asked about a sample of the requests after they were decided, and what it would change is counted and logged. Everything else of policy holds for it, too.',
  },
  {
    path: 'policy.candidate.sample',
    type: 'share',
    default: '1',
    sentence:
      'Share of the decisions that the candidate is asked about, from 0 to 1; how many there is time for is bounded, and the rest is counted.',
  },
  {
    path: 'policy.candidate.promoteAfter',
    type: 'count',
    min: '1',
    max: '1000000000',
    sentence:
      'Promote the candidate after so many decisions in a row that it would have made in the same way; one that differs ends that for this candidate. Absent: only when asked to.',
  },
  {
    path: 'policy.rollback.window',
    type: 'duration',
    default: '5m',
    min: '1s',
    max: '1h',
    sentence:
      'How long a new policy is watched by the next two keys, and what of the time before it is compared with.',
  },
  {
    path: 'policy.rollback.maxDenyIncrease',
    type: 'share',
    sentence:
      'Roll back a new policy when the share of denials exceeds that of before by more than this, from 0 to 1. Whom it denies can cause that. Absent: never.',
  },
  {
    path: 'policy.rollback.maxErrorIncrease',
    type: 'share',
    sentence: 'The same for decisions that end as errors or timeouts.',
  },
  {
    path: 'policy.rollback.minDecisions',
    type: 'count',
    default: '100',
    min: '1',
    max: '1000000000',
    sentence: 'Of the new policy, before its shares count.',
  },
  {
    path: 'policy.input.body.maxBytes',
    type: 'size',
    max: '128KiB',
    sentence:
      'Of a request body, collected before the policy is asked; a longer one is truncated_body. 0: none. Absent: what metadata.postern.input.body of the manifest says, or 64KiB for a policy that is seen to read parsed_body.',
  },
  {
    path: 'policy.input.body.totalBytes',
    type: 'size',
    default: '32MiB',
    min: '128KiB',
    max: '4GiB',
    sentence:
      'All bodies that one data thread collects at a time. Where there is no room, requests of the principal that has most of it get 503, the oldest first.',
  },
  {
    path: 'policy.input.headers[]',
    type: 'headerName',
    sentence:
      'Request headers that the policy is given, and the decision log with it; for a policy all others are never there. Absent: all.',
  },
  {
    path: 'policy.input.protoDescriptor',
    type: 'path',
    sentence:
      'FileDescriptorSet (`protoc --include_imports -o`, `buf build -o`) for parsed_body of gRPC calls.',
  },
  {
    path: 'policy.input.certificate',
    type: 'boolean',
    default: 'false',
    sentence: 'Show attributes.source.certificate, the client certificate as URL-encoded PEM.',
  },
  {
    path: 'policy.input.contextExtensions[].name',
    type: 'text',
    sentence:
      'Key in attributes.contextExtensions, for policies that several workloads share. Written as a map: `contextExtensions: { KEY: VALUE }`.',
    inMap: 'name',
  },
  {
    path: 'policy.input.contextExtensions[].value',
    type: 'text',
    sentence: 'Its value.',
    inMap: 'value',
  },
  {
    path: 'policy.input.v2',
    type: 'boolean',
    default: 'false',
    sentence:
      'Add the names of the older ext_authz v2 input (attributes.source.address.Address.SocketAddress, metadata_context).',
  },

  {
    path: 'admin.listen',
    type: 'listener',
    default: '127.0.0.1:15000',
    flag: { name: '--admin' },
    sentence: 'Configuration, snapshot, decisions, reload, drain; loopback, a UNIX socket, or off.',
  },
  {
    path: 'metrics.listen',
    type: 'listener',
    default: '0.0.0.0:15090',
    flag: { name: '--metrics' },
    sentence: '/metrics, /livez, /readyz and /startupz in plain text, or off.',
  },
  {
    path: 'probes.listen',
    type: 'address',
    sentence: 'Where the kubelet, which has no certificate, probes the workload in plain text.',
  },
  {
    path: 'probes.paths[]',
    type: 'requestPath',
    sentence:
      'The only paths that probes.listen forwards to the workload; each with its query, where the probe has one.',
  },
  {
    path: 'probes.tcpPaths[]',
    type: 'requestPath',
    sentence:
      'Paths of probes.listen that answer 200 while the workload accepts a connection, and 503 otherwise: an httpGet probe in place of a tcpSocket one, which would reach Postern alone.',
  },
  {
    path: 'probes.grpcServices[]',
    type: 'grpcService',
    sentence:
      'Services that grpc probes of probes.listen may ask the health of; "*" is the server as a whole, for probes that name none. For workloads behind h2c:// or tcp://.',
  },
  {
    path: 'log.level',
    type: 'enum',
    values: ['debug', 'info', 'warn', 'error'],
    default: 'info',
    flag: { name: '--log-level' },
    sentence: 'Lowest level that is logged.',
  },
  {
    path: 'log.access',
    type: 'enum',
    values: ['off', 'denied', 'all'],
    default: 'denied',
    sentence:
      "Requests that are logged; `denied`: those that were refused or have gone wrong, other than by the client's leaving.",
  },
  {
    path: 'log.decisions',
    type: 'enum',
    values: ['off', 'denied', 'all'],
    default: 'all',
    sentence: "Policy decisions that are logged, in the shape of OPA's events.",
  },
  {
    path: 'log.decisionFile',
    type: 'path',
    sentence: 'File for the decision log; absent: standard output.',
  },
  {
    path: 'log.redact[]',
    type: 'headerName',
    default: '[]',
    sentence: 'Headers whose values are replaced in logs, beside those that always are.',
  },
  {
    path: 'log.labels[]',
    type: 'label',
    default: '[]',
    sentence: 'NAME=VALUE pairs for the labels of every decision event, beside id and version.',
  },
  {
    path: 'log.upload.url',
    type: 'logServer',
    sentence:
      "Server that takes decisions through OPA's decision-log API, instead of standard output; without a path, /logs is asked.",
  },
  {
    path: 'log.upload.tokenFile',
    type: 'path',
    sentence: 'Bearer token for log.upload.url; read at every upload, as are the next three.',
  },
  {
    path: 'log.upload.certificate',
    type: 'path',
    sentence: 'Client certificate for log.upload.url, with log.upload.privateKey.',
  },
  { path: 'log.upload.privateKey', type: 'path', sentence: 'Its key.' },
  {
    path: 'log.upload.ca',
    type: 'path',
    sentence: 'Authorities that log.upload.url is verified with, instead of the usual ones.',
  },
  {
    path: 'log.upload.minDelay',
    type: 'duration',
    default: '5m',
    min: '100ms',
    sentence:
      'Shortest wait between uploads; a buffer that is half full is uploaded without waiting.',
  },
  {
    path: 'log.upload.maxDelay',
    type: 'duration',
    default: '10m',
    min: '100ms',
    sentence: 'Longest wait between uploads, and between attempts while the server refuses.',
  },
  {
    path: 'log.upload.maxEvents',
    type: 'count',
    default: '10000',
    min: '1',
    max: '1000000',
    sentence: 'Events that wait for upload; more drop the oldest.',
  },
  {
    path: 'log.upload.bufferBytes',
    type: 'size',
    default: '32MiB',
    min: '64KiB',
    max: '1GiB',
    sentence: 'The same in bytes, before compression.',
  },
  {
    path: 'log.upload.chunkBytes',
    type: 'size',
    default: '32KiB',
    min: '1KiB',
    max: '64MiB',
    sentence: 'One request body after compression; an event that is larger alone is dropped.',
  },
  {
    path: 'log.upload.maxPerSecond',
    type: 'count',
    default: '0',
    max: '1000000',
    sentence: 'Decisions uploaded a second; more are dropped. 0 is no limit.',
  },
  {
    path: 'drain.timeout',
    type: 'duration',
    default: '30s',
    sentence:
      'For requests in progress after SIGTERM; keep it below terminationGracePeriodSeconds.',
  },
  {
    path: 'workers',
    type: 'workers',
    default: '1',
    flag: { name: '--workers' },
    sentence: 'Data threads; auto is the CPU limit of the container.',
  },
  {
    path: 'stall',
    type: 'duration',
    default: '5s',
    min: '100ms',
    sentence: 'Longest silence of a data thread before it is replaced.',
  },
] as const satisfies readonly Key[]

/** The table's rows with the widened type (the `as const` table keeps literals). */
export const keys: readonly Key[] = KEYS

interface ValueType<T> {
  readonly parse: (text: string, key: Key) => Parsed<T>
  /** Writes a value as `parse` reads it; where absent, the value is its own text. */
  readonly format?: (value: never) => string
  /** For `--help`; a type without one makes a flag that takes no argument. */
  readonly argument?: string
  /** What the reference calls it. */
  readonly name: string
  readonly json: 'string' | 'integer' | 'number' | 'boolean' | 'integer or string'
}

export const TYPES = {
  address: {
    name: 'address',
    argument: 'ADDRESS',
    json: 'string',
    parse: parseAddress,
    format: formatAddress,
  },
  listener: {
    name: 'address or off',
    argument: 'ADDRESS',
    json: 'string',
    parse: parseListener,
    format: (value: Address | 'off') => (value === 'off' ? value : formatAddress(value)),
  },
  forward: {
    name: 'URL',
    argument: 'URL',
    json: 'string',
    parse: parseForward,
    format: formatForward,
  },
  duration: {
    name: 'duration',
    argument: 'DURATION',
    json: 'string',
    parse: within(parseDuration),
    format: formatDuration,
  },
  size: {
    name: 'size',
    argument: 'SIZE',
    json: 'integer or string',
    parse: within(parseSize),
    format: formatSize,
  },
  sizeOrAuto: {
    name: 'size or auto',
    argument: 'SIZE',
    json: 'integer or string',
    parse: orAuto(within(parseSize)),
    format: (bytes: number | 'auto') => (bytes === 'auto' ? bytes : formatSize(bytes)),
  },
  count: { name: 'number', argument: 'NUMBER', json: 'integer', parse: within(parseCount) },
  countOrAuto: {
    name: 'number or auto',
    argument: 'NUMBER',
    json: 'integer or string',
    parse: orAuto(within(parseCount)),
  },
  share: { name: 'share', argument: 'SHARE', json: 'number', parse: parseShare },
  workers: {
    name: 'number or auto',
    argument: 'NUMBER',
    json: 'integer or string',
    parse: parseWorkers,
  },
  boolean: { name: 'boolean', json: 'boolean', parse: parseBoolean },
  true: { name: 'true', json: 'boolean', parse: parseTrue },
  enum: { name: 'one of', argument: 'WORD', json: 'string', parse: oneOf },
  path: { name: 'path', argument: 'FILE', json: 'string', parse: parsePath },
  bundle: { name: 'path or URL', argument: 'FILE', json: 'string', parse: parseBundle },
  keyId: { name: 'key id', argument: 'ID', json: 'string', parse: parseKeyId },
  timestamp: {
    name: 'RFC 3339 time',
    argument: 'TIME',
    json: 'string',
    parse: parseTimestamp,
    format: (ms: number) => new Date(ms).toISOString(),
  },
  entrypoint: { name: 'entrypoint', argument: 'RULE', json: 'string', parse: parseEntrypoint },
  trustDomain: { name: 'trust domain', argument: 'NAME', json: 'string', parse: parseTrustDomain },
  uriPattern: { name: 'URI pattern', argument: 'PATTERN', json: 'string', parse: parseUriPattern },
  dnsPattern: { name: 'DNS pattern', argument: 'PATTERN', json: 'string', parse: parseDnsPattern },
  commonName: { name: 'name pattern', argument: 'NAME', json: 'string', parse: parseCommonName },
  requestPath: { name: 'URL path', argument: 'PATH', json: 'string', parse: parseRequestPath },
  grpcService: {
    name: 'gRPC service',
    argument: 'SERVICE',
    json: 'string',
    parse: parseGrpcService,
  },
  network: { name: 'network', argument: 'NETWORK', json: 'string', parse: parseNetwork },
  headerName: { name: 'header name', argument: 'NAME', json: 'string', parse: parseHeaderName },
  workloadApi: {
    name: 'address of a Workload API',
    argument: 'ADDRESS',
    json: 'string',
    parse: parseWorkloadApi,
    format: formatWorkloadApi,
  },
  text: { name: 'text', argument: 'TEXT', json: 'string', parse: parseText },
  label: {
    name: 'NAME=VALUE',
    argument: 'LABEL',
    json: 'string',
    parse: parseLabel,
    format: formatLabel,
  },
  logServer: { name: 'https:// URL', argument: 'URL', json: 'string', parse: parseLogServer },
} as const satisfies Record<string, ValueType<unknown>>

export type TypeName = keyof typeof TYPES
type ValueOfType<T extends TypeName> =
  ReturnType<(typeof TYPES)[T]['parse']> extends Parsed<infer V> ? V : never

export const typeOf = (key: Key): ValueType<unknown> => TYPES[key.type]

type Row = (typeof KEYS)[number]
type RowAt<P extends Row['path']> = Extract<Row, { path: P }>

/** Every key of the table that holds a value. */
export type KeyPath = Row['path']

/** What parsing the value of a key gives; this is how the compiler holds `Config` against the table. */
export type ValueAt<P extends KeyPath> =
  RowAt<P> extends { values: readonly (infer V)[] } ? V : ValueOfType<RowAt<P>['type']>

/** The same, with `undefined` for a key that may be absent. */
export type OptionalValueAt<P extends KeyPath> =
  RowAt<P> extends { default: string } ? ValueAt<P> : ValueAt<P> | undefined

function oneOf(text: string, key: Key): Parsed<string> {
  const values = key.values ?? []
  return values.includes(text)
    ? { kind: 'value', value: text }
    : {
        kind: 'wrong',
        what: `${JSON.stringify(text.slice(0, 80))} is not one of its values`,
        remedy: `write ${values.join(', ').replace(/, ([^,]*)$/, ' or $1')}`,
      }
}

function within(parse: (text: string) => Parsed<number>) {
  return (text: string, key: Key): Parsed<number> => {
    const parsed = parse(text)
    if (parsed.kind === 'wrong') return parsed
    const [low, high] = [bound(parse, key.min, 0), bound(parse, key.max, Number.MAX_SAFE_INTEGER)]
    if (parsed.value >= low && parsed.value <= high) return parsed
    const [side, limit] = parsed.value < low ? ['below', key.min] : ['above', key.max]
    return {
      kind: 'wrong',
      what: `${JSON.stringify(text)} is ${side} what makes sense`,
      remedy: `write ${limit} or ${side === 'below' ? 'more' : 'less'}`,
    }
  }
}

/** `auto`: what it comes to is told when the configuration is put together. */
function orAuto(parse: (text: string, key: Key) => Parsed<number>) {
  return (text: string, key: Key): Parsed<number | 'auto'> =>
    text === 'auto' ? { kind: 'value', value: text } : parse(text, key)
}

function bound(parse: (text: string) => Parsed<number>, text: string | undefined, none: number) {
  const parsed = text === undefined ? undefined : parse(text)
  return parsed?.kind === 'value' ? parsed.value : none
}
