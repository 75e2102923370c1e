// The policies and inputs that `npm run bench:policy` measures, as Rego and data.
import {
  type ConnectionInput,
  connectionInput,
  type PolicyRequest,
} from '../../src/policy/input.ts'

export interface BenchPolicy {
  readonly name: string
  readonly rego: string
  readonly data: unknown
  readonly request: PolicyRequest
}

const HEADER = 'package envoy.authz\n'
const THREE_CONDITIONS = `${HEADER}
default allow := false

allow if {
	input.attributes.request.http.method == "GET"
	startswith(input.attributes.request.http.path, "/api/")
	input.attributes.source.principal == "spiffe://example.org/ns/default/sa/web"
}
`
/** Users have roles, roles have grants: the example of every introduction to Rego. */
const RBAC = `${HEADER}
default allow := false

allow if {
	some role in data.rbac.users[input.attributes.source.principal]
	some grant in data.rbac.grants[role]
	grant.action == input.attributes.request.http.method
	grant.resource == input.parsed_path[1]
}
`
const RBAC_GLOB = `${RBAC.replace('grant.resource == input.parsed_path[1]', 'glob.match(grant.resource, ["/"], input.parsed_path[1])')}`

const OBJECT_AND_GLOB = `${HEADER}
default allow := {"allowed": false, "http_status": 403, "body": "no"}

allow := {"allowed": true, "headers": {"x-user": input.attributes.source.principal}} if {
	glob.match("/api/*", ["/"], input.attributes.request.http.path)
}
`
const TWO_REGEXES = `${HEADER}
default allow := false

allow if {
	regex.match("^/api/[a-z]+$", input.attributes.request.http.path)
	regex.match("^(GET|HEAD)$", input.attributes.request.http.method)
}
`
const rules = (count: number): string =>
  `${HEADER}\ndefault allow := false\n\n${Array.from({ length: count }, (_, i) => {
    const last = i === count - 1
    const path = last ? '/api/orders' : `/service-${i}/orders`
    return `allow if {\n\tinput.attributes.request.http.method == "GET"\n\tinput.attributes.request.http.path == "${path}"\n\tinput.attributes.source.principal == "spiffe://example.org/ns/default/sa/web"\n}\n`
  }).join('\n')}`

function rbacData(users: number) {
  return {
    rbac: {
      users: Object.fromEntries([
        ['spiffe://example.org/ns/default/sa/web', ['reader', 'writer']],
        ...Array.from({ length: users }, (_, i) => [
          `spiffe://example.org/ns/team-${i}/sa/service-${i}`,
          ['reader', `role-${i % 50}`],
        ]),
      ]),
      grants: {
        writer: [{ action: 'PUT', resource: 'orders' }],
        reader: [
          { action: 'HEAD', resource: 'orders' },
          { action: 'GET', resource: 'orders' },
        ],
      },
    },
  }
}

/** Strings as a parser makes them; what is put together is kept in pieces until it is read. */
const flat = (texts: readonly string[]): string[] => JSON.parse(JSON.stringify(texts))

const certificate = (index: number) => `Hash=${String(index).padStart(64, 'a')}`

const principal = 'spiffe://example.org/ns/default/sa/web'

export const CONNECTIONS: readonly ConnectionInput[] = Array.from({ length: 16 }, (_, i) =>
  connectionInput({
    peer: { principal, uris: [principal], dnsNames: [], commonName: undefined },
    remoteAddress: '10.244.1.17',
    remotePort: 49_152 + i,
    localAddress: '10.244.2.9',
    localPort: 8443,
    serverName: 'orders.example.org',
    destinationPrincipal: 'spiffe://example.org/ns/default/sa/orders',
  }),
)

/** A request whose document has about 1.4 KB, or with `headers` as many more of 200 bytes. */
function requestWith(headers: number): PolicyRequest {
  return {
    requestId: '5f0c2a44-7b1e-4f0e-9d53-0d2f0f0a7c11',
    timeMs: Date.UTC(2026, 10, 1),
    method: 'GET',
    target: '/api/orders',
    path: '/api/orders',
    query: undefined,
    host: 'orders.example.org:8443',
    scheme: 'https',
    protocol: 'HTTP/1.1',
    fields: flat([
      ...['user-agent', 'checkout/2.7.1 (linux; x64)', 'accept', 'application/json'],
      ...[
        'accept-encoding',
        'gzip, deflate, br',
        'x-tenant',
        'example',
        'cache-control',
        'no-cache',
      ],
      ...['authorization', `Bearer ${'x'.repeat(180)}`],
      ...['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'],
      ...['x-request-id', '5f0c2a44-7b1e-4f0e-9d53-0d2f0f0a7c11'],
      ...['x-forwarded-client-cert', `By=${principal};${certificate(0)};URI=${principal}`],
      ...Array.from({ length: headers }, (_, i) => [`x-more-${i}`, 'v'.repeat(186)]).flat(),
    ]),
    bodySize: 0,
    connection: CONNECTIONS[0] as ConnectionInput,
  }
}

const REQUEST = requestWith(0)

export const POLICIES: readonly BenchPolicy[] = [
  { name: 'nop', rego: `${HEADER}\ndefault allow := true\n`, data: {}, request: REQUEST },
  { name: '3 conditions', rego: THREE_CONDITIONS, data: {}, request: REQUEST },
  { name: 'RBAC', rego: RBAC, data: rbacData(0), request: REQUEST },
  { name: 'object, glob', rego: OBJECT_AND_GLOB, data: {}, request: REQUEST },
  { name: '2 regexes', rego: TWO_REGEXES, data: {}, request: REQUEST },
  { name: 'RBAC, 700 KB data', rego: RBAC_GLOB, data: rbacData(8_500), request: REQUEST },
  { name: '1,001 rules', rego: rules(1_001), data: {}, request: REQUEST },
  { name: '3 conditions, 17 KB input', rego: THREE_CONDITIONS, data: {}, request: requestWith(76) },
]

export const LARGE_DATA = rbacData(240_000)
export const RBAC_POLICY = RBAC
