import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NO_MUTATIONS } from '../../src/policy/permit.ts'
import { readResult } from '../../src/policy/result.ts'

const read = (value: unknown) => readResult(JSON.stringify(value))
const reason = (value: unknown) => {
  const result = read(value)
  assert.equal(result.kind, 'invalid', JSON.stringify(value))
  return result.kind === 'invalid' ? result.reason : ''
}

test('a boolean allows or denies and changes nothing', () => {
  assert.deepEqual(read(true), { kind: 'allow', mutations: NO_MUTATIONS })
  assert.deepEqual(read(false), { kind: 'deny', status: 403, headers: [], body: undefined })
})

test('an allowing object may change request, response and query', () => {
  const result = read({
    allowed: true,
    headers: { 'X-Role': 'reader', 'x-many': ['a', ' b '] },
    request_headers_to_remove: ['Authorization'],
    response_headers_to_add: [{ 'X-A': '1' }, { 'set-cookie': ['a=1', 'b=2'] }],
    query_parameters_to_remove: ['token'],
    query_parameters_to_set: { tenant: 'one', tag: ['x', 'y'] },
    dynamic_metadata: { any: ['thing'] },
    body: 7,
    http_status: 'ignored',
    unknown: null,
  })
  assert.deepEqual(result, {
    kind: 'allow',
    mutations: {
      setRequestHeaders: [
        ['x-role', 'reader'],
        ['x-many', 'a'],
        ['x-many', 'b'],
      ],
      removeRequestHeaders: ['authorization'],
      responseHeaders: [
        ['x-a', '1'],
        ['set-cookie', 'a=1'],
        ['set-cookie', 'b=2'],
      ],
      removeQueryParameters: ['token'],
      setQueryParameters: [
        ['tenant', 'one'],
        ['tag', 'x'],
        ['tag', 'y'],
      ],
    },
  })
})

test('a denying object may choose status, headers and body', () => {
  const result = read({
    allowed: false,
    http_status: 401,
    headers: [{ 'WWW-Authenticate': 'Bearer' }],
    body: 'not you',
    request_headers_to_remove: 7,
  })
  assert.deepEqual(result, {
    kind: 'deny',
    status: 401,
    headers: [['www-authenticate', 'Bearer']],
    body: 'not you',
  })
})

test('anything else than a boolean "allowed" is an error, not a deny', () => {
  for (const value of [
    null,
    0,
    1,
    'true',
    [],
    [true],
    {},
    { allowed: 'true' },
    { allowed: 1 },
    { allowed: null },
  ]) {
    assert.match(reason(value), /result/, JSON.stringify(value))
  }
})

test('two results are an error', () => {
  assert.equal(readResult('true},{"result":true').kind, 'invalid')
})

test('a wrong type anywhere in the branch that counts is an error', () => {
  const wrong = {
    headers: ['x', 7, null, 'x: y', { a: 1 }, { a: [1] }, { a: null }, [{ a: 1 }], [['a', 'b']]],
    request_headers_to_remove: ['x', 7, {}, null, [1], [null]],
    response_headers_to_add: ['x', { a: {} }, [[]]],
    query_parameters_to_remove: ['x', {}, [1]],
    query_parameters_to_set: [[], 'x', { a: 1 }, { a: [null] }, [{ a: 'b' }]],
    dynamic_metadata: [[], 'x', null],
  }
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      // An array of objects is a shape of headers; a bare one is not.
      assert.match(reason({ allowed: true, [field]: value }), new RegExp(field))
    }
  }
  for (const body of [7, null, {}, []]) assert.match(reason({ allowed: false, body }), /body/)
  for (const status of ['403', 403.5, 99, 100, 101, 299, 600, 0, -1, null, true]) {
    assert.match(reason({ allowed: false, http_status: status }), /http_status/)
  }
})

test('may not touch what decides framing, routing or identity', () => {
  for (const name of [
    ':path',
    'host',
    'Host',
    'content-length',
    'transfer-encoding',
    'connection',
    'upgrade',
    'te',
    'x-forwarded-client-cert',
    'X_Forwarded_Client_Cert',
    'client-cert',
    'x-postern-id',
    'keep-alive',
  ]) {
    assert.match(reason({ allowed: true, headers: { [name]: 'x' } }), /may not touch/, name)
    assert.match(
      reason({ allowed: true, request_headers_to_remove: [name] }),
      /may not touch/,
      name,
    )
  }
  for (const name of [
    'content-length',
    'transfer-encoding',
    'connection',
    'x-postern-decision-id',
    ':status',
  ]) {
    assert.match(
      reason({ allowed: true, response_headers_to_add: { [name]: 'x' } }),
      /may not touch/,
      name,
    )
    assert.match(reason({ allowed: false, headers: { [name]: 'x' } }), /may not touch/, name)
  }
})

test('names and values have to be field syntax: policies repeat what clients say', () => {
  for (const name of ['', 'a b', 'a:b', 'a\r\nb', 'é', 'a\0']) {
    assert.match(reason({ allowed: true, headers: { [name]: 'x' } }), /not a field name/)
  }
  for (const value of ['a\r\nb: c', 'a\nb', '\0', 'é', '\x7f', 'a\u2028']) {
    assert.match(reason({ allowed: true, headers: { a: value } }), /not a field value/)
    assert.match(reason({ allowed: false, headers: { a: value } }), /not a field value/)
  }
})

test('a result that changes too much is an error', () => {
  const headers = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`x-${i}`, '1']))
  assert.match(reason({ allowed: true, headers }), /more than/)
})

test('the prototype of objects is not a result', () => {
  assert.equal(readResult('{"__proto__":{"allowed":true}}').kind, 'invalid')
})

test('a result nested beyond what can be read is an error like any other', () => {
  const deep = 100_000
  const text = `{"allowed":true,"dynamic_metadata":{"a":${'['.repeat(deep)}${']'.repeat(deep)}}}`
  assert.deepEqual(readResult(text), { kind: 'invalid', reason: 'result is nested too deeply' })
})
