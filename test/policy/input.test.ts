import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  buildInput,
  ConnectionInputs,
  connectionInput,
  InputError,
  type PeerFacts,
} from '../../src/policy/input.ts'
import { PLAIN_INPUT } from '../../src/policy/input-settings.ts'
import { connection, peer, request } from './support.ts'

const input = (...args: Parameters<typeof request>) => JSON.parse(buildInput(request(...args)))

test('has the shape of the OPA-Envoy plugin', () => {
  const fields = [
    'host',
    'svc:8443',
    'content-type',
    'application/json',
    'accept',
    'a',
    'accept',
    'b',
  ]
  assert.deepEqual(input('/a?x=1', { method: 'POST', fields, bodySize: 58 }), {
    attributes: {
      source: {
        address: { socketAddress: { address: '10.0.0.1', portValue: 4242 } },
        principal: 'spiffe://example.org/ns/default/sa/web',
      },
      destination: {
        address: { socketAddress: { address: '10.0.0.2', portValue: 8443 } },
        principal: 'spiffe://example.org/ns/default/sa/orders',
      },
      request: {
        time: { seconds: 1_700_000_000, nanos: 123_000_000 },
        http: {
          id: '135',
          method: 'POST',
          headers: {
            ':authority': 'svc:8443',
            ':method': 'POST',
            ':path': '/a?x=1',
            'content-type': 'application/json',
            accept: 'a,b',
            'content-length': '58',
            'x-envoy-auth-partial-body': 'true',
          },
          path: '/a?x=1',
          host: 'svc:8443',
          scheme: 'https',
          protocol: 'HTTP/1.1',
          size: 58,
        },
      },
      metadataContext: {},
      tlsSession: { sni: 'svc.local' },
    },
    parsed_path: ['a'],
    parsed_query: { x: ['1'] },
    parsed_body: null,
    truncated_body: true,
    source_principal: 'spiffe://example.org/ns/default/sa/web',
    version: { ext_authz: 'v3', encoding: 'protojson' },
  })
})

/** Of a connection that has nothing else. */
const BARE = {
  remoteAddress: '10.0.0.1',
  remotePort: 1,
  localAddress: '10.0.0.2',
  localPort: 2,
  serverName: undefined,
  destinationPrincipal: '',
}

test('leaves out what has the default value of proto3', () => {
  const bare = connectionInput({
    peer: { principal: '', uris: [], dnsNames: [], commonName: undefined },
    ...BARE,
  })
  const document = input('/', { connection: bare, timeMs: 1_700_000_000_000 })
  assert.deepEqual(Object.keys(document.attributes.source), ['address'])
  assert.deepEqual(Object.keys(document.attributes.destination), ['address'])
  assert.deepEqual(document.attributes.request.time, { seconds: 1_700_000_000 })
  assert.equal('tlsSession' in document.attributes, false)
  assert.equal('source_principal' in document, false)
  assert.equal('size' in document.attributes.request.http, false)
  assert.equal(document.truncated_body, false)
})

test('splits the decoded path without its leading slashes', () => {
  const parsed = (path: string) => input(path).parsed_path
  assert.deepEqual(parsed('/a%2Fb//c/'), ['a', 'b', '', 'c', ''])
  assert.deepEqual(parsed('/'), [''])
  assert.deepEqual(parsed('/a/../b;v=1/%C3%A9'), ['a', '..', 'b;v=1', 'é'])
  assert.deepEqual(parsed('/a+b'), ['a+b'])
})

test('never takes the first segment after two slashes for a host (OPA-Envoy plugin, 2026)', () => {
  assert.deepEqual(input('//admin/people').parsed_path, ['admin', 'people'])
})

test('parses the query as Go does', () => {
  const parsed = (query: string) => input(`/?${query}`).parsed_query
  assert.deepEqual(parsed('x=1&x=2&y&=z&&a+b=c%20d+e'), {
    x: ['1', '2'],
    y: [''],
    '': ['z'],
    'a b': ['c d e'],
  })
  assert.deepEqual(parsed(''), {})
  assert.deepEqual(parsed('a=b=c&__proto__=1'), JSON.parse('{"a":["b=c"],"__proto__":["1"]}'))
})

test('refuses what cannot be decoded', () => {
  for (const target of ['/%', '/%zz', '/%ff', '/%c3%28', '/?a=%', '/?%f', '/?a=%ff', '/?a;b=1']) {
    assert.throws(() => buildInput(request(target)), InputError, target)
  }
})

test('refuses more headers, query keys or segments than a hash table should be fed', () => {
  const many = (count: number, one: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => one(i))
  const fields = many(257, (i) => `x-${i}`).flatMap((name) => [name, '1'])
  assert.throws(() => buildInput(request('/', { fields })), InputError)
  assert.throws(() => buildInput(request(`/?${many(257, (i) => `k${i}=`).join('&')}`)), InputError)
  assert.throws(() => buildInput(request(`/?${'k=&'.repeat(1_025)}`)), InputError)
  assert.throws(() => buildInput(request('/a'.repeat(1_100))), InputError)
})

test('a body of unknown or any length is truncated, never empty (Skipper GHSA-659f-rgp5-w4wf, GHSA-8qqm-fp2q-v734)', () => {
  for (const bodySize of [-1, 1, 10_000_000]) {
    const document = input('/', { bodySize })
    assert.equal(document.truncated_body, true)
    assert.equal(document.parsed_body, null)
    assert.equal(document.attributes.request.http.size, bodySize)
  }
})

test('a client cannot say whether its body is at hand', () => {
  const partial = (value: string, bodySize: number) =>
    input('/', { fields: ['x-envoy-auth-partial-body', value], bodySize }).attributes.request.http
      .headers['x-envoy-auth-partial-body']
  assert.equal(partial('true', 0), undefined)
  assert.equal(partial('false', 5), 'true')
})

test('shows how the body is framed, as a policy behind Envoy sees it', () => {
  const headersOf = (bodySize: number) => input('/', { bodySize }).attributes.request.http.headers
  assert.equal(headersOf(58)['content-length'], '58')
  assert.equal(headersOf(-1)['transfer-encoding'], 'chunked')
  assert.deepEqual(Object.keys(headersOf(0)), [':authority', ':method', ':path'])
})

test('makes the input of a connection when it is asked for, and anew under other settings', () => {
  let certificates = 0
  const facts = {
    peer: peer('web'),
    ...BARE,
    certificatePem: (of: PeerFacts) => `${of.principal} ${++certificates}`,
  }
  const inputs = new ConnectionInputs(facts)
  const shown = { ...PLAIN_INPUT, certificate: true }
  assert.equal(certificates, 0)
  const first = inputs.under(shown)
  assert.equal(inputs.under(shown), first)
  assert.equal(certificates, 1)
  assert.match(first.beforeRequest, /"certificate":"spiffe[^"]+web%201"/)
  const hidden = inputs.under(PLAIN_INPUT)
  assert.doesNotMatch(hidden.beforeRequest, /certificate/)
  assert.match(inputs.under(shown).beforeRequest, /web%202"/)
})

test('shows the headers that are to be shown, and its own', () => {
  const shown = connection(undefined, { ...PLAIN_INPUT, headers: ['x-a'] })
  const fields = ['x-a', '1', 'authorization', 'secret', 'x-a', '2']
  const document = input('/', { fields, connection: shown })
  assert.deepEqual(document.attributes.request.http.headers, {
    'x-a': '1,2',
    ':authority': 'svc:8443',
    ':method': 'GET',
    ':path': '/',
  })
})

test('joins cookies as cookies', () => {
  const fields = ['cookie', 'a=1', 'x', '1', 'cookie', 'b=2']
  assert.equal(input('/', { fields }).attributes.request.http.headers['cookie'], 'a=1; b=2')
})

test('is well-formed JSON with each name once, whatever the request says', () => {
  const text = fc.string({ unit: 'binary', maxLength: 20 })
  const name = fc.constantFrom('a', 'b', '__proto__', 'constructor', 'toJSON', '7', 'x"y', 'cookie')
  fc.assert(
    fc.property(fc.array(fc.tuple(name, text), { maxLength: 8 }), text, text, (pairs, host, id) => {
      const fields = pairs.flat()
      const json = buildInput(request('/', { fields, host, requestId: id }))
      assert.ok(json.isWellFormed())
      const { headers } = JSON.parse(json).attributes.request.http
      assert.equal(Object.keys(headers).length, 3 + new Set(pairs.map(([one]) => one)).size)
      // Nothing may occur twice: JSON.stringify of what was parsed is the same text.
      assert.equal(JSON.stringify(JSON.parse(json)), json)
    }),
    { numRuns: 300 },
  )
})

test('one connection serves many requests', () => {
  const shared = connection()
  const [first, second] = ['/a', '/b'].map((target) => input(target, { connection: shared }))
  assert.deepEqual(first.attributes.source, second.attributes.source)
})
