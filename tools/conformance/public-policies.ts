// Policies that others have published, compiled as they are and asked for decisions that their
// authors meant: npm run conformance -- --public DIR (or POSTERN_PUBLIC_POLICIES), where DIR has
// checkouts as DIR/owner/repository. Their texts are not part of this repository.
import { createHmac } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { readResult } from '../../src/policy/result.ts'
import { buildWasm } from './compile.ts'
import { evaluateModule } from './evaluate.ts'

interface PublicPolicy {
  readonly repository: string
  readonly path: string
  /** Of a page: the block of Rego, from 0. */
  readonly block?: number
  readonly entrypoint: string
  readonly asked: readonly Question[]
}

type Question = readonly [allowed: boolean, input: object]

/** False when one of them decides otherwise, or is not there. */
export async function runPublicPolicies(opa: string, directory: string): Promise<boolean> {
  let [good, bad] = [0, 0]
  for (const policy of POLICIES) {
    const problems = await problemsOf(opa, directory, policy)
    if (problems.length === 0) good++
    else bad++
    const name = `${policy.repository} ${policy.path}`
    console.log(problems.length === 0 ? `ok   ${name}` : `FAIL ${name}: ${problems.join('; ')}`)
  }
  console.log(`${good} of ${good + bad} published policies decide as expected`)
  return bad === 0
}

async function problemsOf(
  opa: string,
  directory: string,
  policy: PublicPolicy,
): Promise<readonly string[]> {
  const file = join(directory, policy.repository, policy.path)
  if (!existsSync(file)) return [`${file} is not there`]
  const text = regoOf(readFileSync(file, 'utf8'), policy)
  if (text === undefined) return ['no policy in it']
  // Those from before OPA 1.0 do not say which language they are in.
  let wasm = await buildWasm(opa, 'v1', [text], policy.entrypoint)
  if (typeof wasm === 'string') wasm = await buildWasm(opa, 'v0', [text], policy.entrypoint)
  if (typeof wasm === 'string') return [wasm.trim()]
  const problems: string[] = []
  for (const [allowed, input] of policy.asked) {
    const outcome = await evaluateModule(wasm, policy.entrypoint, '{}', JSON.stringify(input))
    const result = outcome.kind === 'result' ? readResult(outcome.text) : outcome
    if (result.kind === (allowed ? 'allow' : 'deny')) continue
    problems.push(`${JSON.stringify(result)}, not ${allowed}, for ${JSON.stringify(input)}`)
  }
  return problems
}

/** A page has blocks between fences, a manifest of Kubernetes has a ConfigMap. */
function regoOf(text: string, { path, block }: PublicPolicy): string | undefined {
  if (path.endsWith('.rego')) return text
  if (path.endsWith('.md')) {
    return Array.from(text.matchAll(/^```rego[^\n]*\n(.*?)^```/gms), ([, body]) => body)[block ?? 0]
  }
  const maps = parseAllDocuments(text).map((one) => one.toJS() as { data?: Record<string, string> })
  return maps.map((one) => one?.data?.['policy.rego']).find((one) => one !== undefined)
}

function http(method: string, path: string, headers: object = {}, more: object = {}): object {
  const [bare = '', query] = path.split('?')
  return {
    attributes: {
      source: { address: { socketAddress: { address: '10.0.0.1', portValue: 4242 } } },
      request: {
        http: { method, path, headers, host: 'svc:8443', scheme: 'https', protocol: 'HTTP/1.1' },
      },
    },
    parsed_path: bare.replace(/^\/+/, '').split('/'),
    parsed_query: query === undefined ? {} : Object.fromEntries([[query, ['']]]),
    version: { ext_authz: 'v3', encoding: 'protojson' },
    ...more,
  }
}

/** The names of ext_authz v2, for a caller from this address. */
function v2(address: string, method: string, path: string, headers: object = {}): object {
  const source = { address: { Address: { SocketAddress: { address } } } }
  return { attributes: { source, request: { http: { method, path, headers } } } }
}

function token(claims: object, secret = 'secret'): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

const now = Math.floor(Date.now() / 1000)
const current = { nbf: now - 60, exp: now + 600, sub: Buffer.from('alice').toString('base64url') }
const bearer = (claims: object, secret?: string) => ({
  authorization: `Bearer ${token(claims, secret)}`,
})
const basic = (name: string) => ({
  authorization: `Basic ${Buffer.from(`${name}:password`).toString('base64')}`,
})
/** Three parts, the last of them the URI: what these policies take the header for. */
const xfcc = (id: string) => ({
  'x-forwarded-client-cert': `By=spiffe://a/b;Hash=c0ffee;URI=${id}`,
})

const FRONTEND = 'spiffe://example.org/ns/default/sa/default/frontend'
const role = (name: string) => bearer({ ...current, role: name })
const body = (firstname: string) => ({ parsed_body: { firstname } })

const PEOPLE: readonly Question[] = [
  [true, http('GET', '/people/1', role('guest'))],
  [true, http('GET', '/people/1', role('admin'))],
  [true, http('POST', '/people', role('admin'), body('Bob'))],
  [false, http('POST', '/people', role('admin'), body('Alice'))],
  [false, http('POST', '/people', role('admin'))],
  [false, http('POST', '/people', role('guest'), body('Bob'))],
  [false, http('GET', '/people/1')],
  [false, http('GET', '/people/1', bearer({ ...current, role: 'guest' }, 'another'))],
  [false, http('GET', '/people/1', bearer({ ...current, role: 'guest', exp: now - 1 }))],
  [false, http('GET', '/people/1', bearer({ ...current, role: 'guest', nbf: now + 60 }))],
]

const ENVOY = 'envoy/authz/allow'
const PLUGIN = 'open-policy-agent/opa-envoy-plugin'
const CONTRIB = 'open-policy-agent/contrib'
const SPIRE_EXT_AUTHZ = 'open-policy-agent/opa-envoy-spire-ext-authz'

const salary = (user: string, of: string, claims: object) => ({
  method: 'GET',
  path: ['finance', 'salary', of],
  user,
  token: token(claims),
})

const certificate = (name: string, uri?: object) => ({
  certificate: { Subject: { CommonName: name }, URIs: uri === undefined ? [] : [uri] },
})

const POLICIES: readonly PublicPolicy[] = [
  { repository: PLUGIN, path: 'quick_start.yaml', entrypoint: ENVOY, asked: PEOPLE },
  {
    repository: PLUGIN,
    path: 'examples/istio/quick_start.yaml',
    entrypoint: 'istio/authz/allow',
    asked: [
      [true, http('GET', '/health')],
      [false, http('POST', '/health')],
      [true, http('GET', '/productpage', basic('alice'))],
      [false, http('GET', '/api/v1/products', basic('alice'))],
      [true, http('GET', '/api/v1/products', basic('bob'))],
      [false, http('GET', '/productpage', basic('eve'))],
      [false, http('GET', '/productpage')],
    ],
  },
  {
    repository: PLUGIN,
    path: 'examples/gloo-edge/opa.yaml',
    entrypoint: ENVOY,
    asked: [
      [true, http('GET', '/')],
      [false, http('POST', '/')],
    ],
  },
  {
    repository: PLUGIN,
    path: 'examples/grpc/policy.rego',
    entrypoint: ENVOY,
    asked: [
      [true, http('POST', '/test.KitchenSink/Ping')],
      [false, http('POST', '/test.KitchenSink/Exchange')],
      [false, http('POST', '/test.KitchenSink/Exchange', {}, { parsed_body: { opaqueId: 'x' } })],
    ],
  },
  {
    repository: 'spiffe/spire-tutorials',
    path: 'k8s/envoy-opa/k8s/backend/config/opa-policy.rego',
    entrypoint: ENVOY,
    asked: [
      [true, http('GET', '/balances/1', xfcc(FRONTEND))],
      [true, http('GET', '/profiles/1', xfcc(FRONTEND))],
      [false, http('GET', '/balances/1', xfcc(`${FRONTEND}-2`))],
      [false, http('GET', '/others/1', xfcc(FRONTEND))],
      [false, http('POST', '/balances/1', xfcc(FRONTEND))],
      [false, http('GET', '/balances/1')],
    ],
  },
  {
    repository: 'spiffe/spire-tutorials',
    path: 'k8s/envoy-jwt-opa/k8s/backend/config/opa-policy.rego',
    entrypoint: ENVOY,
    asked: [
      [true, http('GET', '/transactions/1', bearer({ sub: FRONTEND }))],
      [false, http('GET', '/transactions/1', bearer({ sub: 'spiffe://example.org/other' }))],
      [false, http('GET', '/transactions/1', { authorization: 'Bearer nonsense' })],
    ],
  },
  {
    repository: 'envoyproxy/examples',
    path: 'ext_authz/config/opa-service/policy.rego',
    entrypoint: ENVOY,
    asked: [
      [true, http('GET', '/service')],
      [false, http('POST', '/service')],
    ],
  },
  {
    repository: SPIRE_EXT_AUTHZ,
    path: 'docker/web/opa/policies/policy.rego',
    entrypoint: ENVOY,
    asked: [
      [true, v2('172.28.3.4', 'GET', '/hello')],
      [false, v2('172.29.3.4', 'GET', '/hello')],
      [false, v2('172.28.3.4', 'GET', '/good/db')],
      [true, v2('127.0.0.1', 'GET', '/good/db')],
    ],
  },
  {
    repository: 'zalando/skipper',
    path: 'skptesting/simple-opa-bundle/allow.rego',
    entrypoint: ENVOY,
    asked: [
      [true, http('GET', '/allow')],
      [false, http('GET', '/allow/2')],
    ],
  },
  {
    repository: 'zalando/skipper',
    path: 'filters/openpolicyagent/opaauthorizerequest/testResources/split-bundles/policy/example.rego',
    entrypoint: 'policy/allow',
    asked: [
      [true, http('GET', '/authorize')],
      [false, http('GET', '/authorize/2')],
    ],
  },
  {
    repository: 'ghostunnel/ghostunnel',
    path: 'docs/security/access-flags.md',
    entrypoint: 'policy/allow',
    asked: [
      [true, certificate('client1')],
      [false, certificate('client3')],
      [true, certificate('', { Scheme: 'spiffe', Host: 'example.com', Path: '/client2/a' })],
      [false, certificate('', { Scheme: 'https', Host: 'example.com', Path: '/client2/a' })],
      [false, certificate('', { Scheme: 'spiffe', Host: 'example.com', Path: '/client3' })],
    ],
  },
  {
    repository: 'open-policy-agent/opa',
    path: 'docs/docs/envoy/primer.md',
    block: 0,
    entrypoint: ENVOY,
    asked: PEOPLE,
  },
  {
    repository: SPIRE_EXT_AUTHZ,
    path: 'docker/backend/opa/policies/policy.rego',
    entrypoint: ENVOY,
    asked: [
      [true, v2('172.28.0.3', 'GET', '/good/backend', xfcc('spiffe://domain.test/web-server'))],
      [false, v2('172.28.0.3', 'GET', '/good/backend', xfcc('spiffe://domain.test/other'))],
      [false, v2('172.28.0.3', 'GET', '/good/backend')],
      [true, v2('127.0.0.1', 'GET', '/good/db')],
    ],
  },
  {
    repository: CONTRIB,
    path: 'api_authz/docker/policy/example-jwt.rego',
    entrypoint: 'httpapi/authz/jwt/allow',
    asked: [
      [true, salary('bob', 'bob', { user: 'bob', azp: 'bob' })],
      [true, salary('bob', 'eve', { user: 'bob', azp: 'bob', subordinates: ['eve'] })],
      [true, salary('ann', 'eve', { user: 'ann', azp: 'ann', hr: true })],
      [false, salary('bob', 'eve', { user: 'bob', azp: 'bob', subordinates: [] })],
      [false, salary('eve', 'bob', { user: 'bob', azp: 'bob' })],
    ],
  },
  {
    repository: CONTRIB,
    path: 'kong_api_authz/integration/testdata/opa/bundle/httpapi/authz/policy.rego',
    entrypoint: 'httpapi/authz/allow',
    asked: [
      [true, { method: 'GET', path: '/status/200', token: { payload: { role: 'admin' } } }],
      [false, { method: 'GET', path: '/status/200', token: { payload: { role: 'user' } } }],
      [false, { method: 'GET', path: '/other', token: { payload: { role: 'admin' } } }],
    ],
  },
]
