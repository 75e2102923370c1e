import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  HOP_BY_HOP,
  isFieldValue,
  isHopByHop,
  isIdentityField,
  isProtectedRequestField,
  isProtectedResponseField,
  isToken,
} from '../src/field-names.ts'

const every = Array.from({ length: 512 }, (_, code) => String.fromCharCode(code))

test('a token is made of the characters of RFC 9110 section 5.6.2 and never empty', () => {
  const expected = every.filter((c) => /^[!#$%&'*+\-.^_`|~0-9A-Za-z]$/.test(c))
  assert.deepEqual(every.filter(isToken), expected)
  assert.equal(isToken(''), false)
  assert.equal(isToken('a b'), false)
  assert.equal(isToken('ab\u0141'), false)
})

test('a field value has visible ASCII, space and tab, and no obs-text', () => {
  const expected = every.filter((c) => /^[\t\x20-\x7e]$/.test(c))
  assert.deepEqual(every.filter(isFieldValue), expected)
  assert.equal(isFieldValue(''), true)
  assert.equal(isFieldValue('a\r\nb: c'), false)
  assert.equal(isFieldValue('caf\xe9'), false)
})

test('a policy may not touch pseudo, routing, framing, hop-by-hop and identity fields', () => {
  const names = [':path', 'host', 'content-length', 'transfer-encoding', 'expect', ...HOP_BY_HOP]
  names.push('x-forwarded-client-cert', 'client-cert', 'client-cert-chain', 'x-postern-peer')
  for (const name of names) assert.equal(isProtectedRequestField(name), true, name)
  for (const name of ['authorization', 'x-user', 'x_user', 'x-request-id', 'client-certificate']) {
    assert.equal(isProtectedRequestField(name), false, name)
  }
})

test('a policy may not touch a name that a workload folds into a protected one', () => {
  assert.equal(isProtectedRequestField('x_forwarded-client_cert'), true)
  assert.equal(isProtectedRequestField('content_length'), true)
  assert.equal(isProtectedRequestField('x.forwarded~client-cert'), true)
  assert.equal(isProtectedRequestField('x.user'), false)
})

test('a policy may set cookies and content type on a denial but not its framing', () => {
  assert.equal(isProtectedResponseField('content-type'), false)
  assert.equal(isProtectedResponseField('set-cookie'), false)
  assert.equal(isProtectedResponseField('content-length'), true)
  assert.equal(isProtectedResponseField('connection'), true)
  assert.equal(isProtectedResponseField('x-postern-decision-id'), true)
})

test('hop-by-hop and identity are told by the lower-case name', () => {
  assert.equal(isHopByHop('te'), true)
  assert.equal(isHopByHop('__proto__'), false)
  assert.equal(isIdentityField('x-postern-'), true)
  assert.equal(isIdentityField('x-posterns'), false)
})
