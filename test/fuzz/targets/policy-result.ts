// What a policy may have answered. Nothing but `allowed: true` allows; what it wants changed leaves the
// request one request, with the fields that say who the peer is untouched.
import assert from 'node:assert/strict'
import { isFieldValue, isProtectedRequestField, isToken } from '../../../src/field-names.ts'
import { parseRequestHead } from '../../../src/http/head.ts'
import { parseTarget } from '../../../src/http/path.ts'
import { requestHeadText } from '../../../src/http/serialise.ts'
import { harmlessJson } from '../../../src/observe/harmless.ts'
import { readResult } from '../../../src/policy/result.ts'
import { mutateFields, mutateTarget } from '../../../src/proxy/mutations.ts'
import { LIMITS } from '../../http/support.ts'
import { jsonMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const KEYS = [
  ...[
    'allowed',
    'headers',
    'request_headers_to_remove',
    'response_headers_to_add',
    'body',
    'http_status',
  ],
  ...[
    'query_parameters_to_set',
    'query_parameters_to_remove',
    'dynamic_metadata',
    '__proto__',
    'host',
  ],
  ...[
    'X-A',
    'x-postern-id',
    'x_postern_id',
    'content-length',
    'X-Forwarded-Client-Cert',
    ':path',
    'a b',
  ],
]
const VALUES = [
  true,
  false,
  null,
  0,
  403,
  200,
  999,
  1.5,
  '',
  'a',
  '\r\nx: y',
  ' a ',
  '\u00ff',
  '\ud800',
  [],
  {},
  ['a'],
  { a: 'b' },
]
const FIELDS = ['host', 'a', 'x-a', 'b', 'x-forwarded-client-cert', 'URI=spiffe://a/b']

export const target: Target = {
  name: 'policy-result',
  runs: 6_000,
  seeds: () => [
    'true',
    'false',
    '{"allowed":true,"headers":{"x-a":"b","x-c":["d","e"]},"request_headers_to_remove":["x-f"],"response_headers_to_add":{"x-g":"h"}}',
    '{"allowed":true,"query_parameters_to_set":{"q":"r s","t":["u"]},"query_parameters_to_remove":["c"]}',
    '{"allowed":false,"http_status":401,"headers":{"www-authenticate":"Basic"},"body":"no"}',
    '{"allowed":true,"headers":[{"a":"b"},{"a":"c"}]}',
  ],
  dictionary: [
    '"allowed":true',
    '1e999',
    '4.03e2',
    '\\u0000',
    '\\ud800',
    '}',
    ']',
    'null',
    '"__proto__":{}',
    '[[',
  ],
  mutators: [jsonMutator(KEYS, VALUES)],
  check: (input) => {
    const text = input.toString()
    const result = readResult(text)
    if (result.kind === 'invalid') {
      assert.ok(result.reason.length < 400)
      return assert.doesNotMatch(harmlessJson(result.reason), /\p{Cc}/u)
    }
    const plain: unknown = JSON.parse(text)
    const allowed = typeof plain === 'object' ? (plain as { allowed: unknown }).allowed : plain
    assert.equal(result.kind === 'allow', allowed === true)
    const headers = result.kind === 'allow' ? result.mutations.responseHeaders : result.headers
    for (const [name, value] of headers) assert.ok(isToken(name) && isFieldValue(value))
    if (result.kind === 'deny') return assert.ok(result.status >= 200 && result.status <= 599)
    for (const [name] of result.mutations.setRequestHeaders)
      assert.ok(!isProtectedRequestField(name))
    const fields = mutateFields([...FIELDS], result.mutations)
    const target = mutateTarget('/a/b?c=d&%ff', result.mutations)
    assert.equal(parseTarget('GET', target, { allowAmbiguous: false }).kind, 'target')
    const head = Buffer.from(requestHeadText('GET', target, fields, { kind: 'none' }), 'latin1')
    const limits = { ...LIMITS, headBytes: 1 << 20, headerCount: 1_000, targetBytes: 1 << 20 }
    const sent = parseRequestHead(head, 0, head.length, limits)
    // Which fields may come twice is for the policy to know; that is all that can be wrong.
    if (sent?.kind !== 'request') return assert.equal(sent?.code, 'duplicate_header')
    assert.equal(sent.headBytes, head.length)
    assert.equal(sent.path, '/a/b')
    assert.equal(sent.fields[sent.fields.indexOf('x-forwarded-client-cert') + 1], FIELDS[5])
  },
}
