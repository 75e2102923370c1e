import assert from 'node:assert/strict'
import { it } from 'node:test'
import { HOP_BY_HOP } from '../../src/field-names.ts'
import {
  connectionTokens,
  fieldValue,
  fieldValues,
  removeHopByHop,
  removeUntrustedFields,
} from '../../src/http/fields.ts'

const remove = (fields: string[], forwardedClientCert = false) =>
  removeUntrustedFields(fields, { forwardedClientCert })

it('finds the first value, or all of them, by name and never by value', () => {
  const fields = ['a', 'b', 'b', '1', 'c', 'a', 'b', '2']
  assert.equal(fieldValue(fields, 'b'), '1')
  assert.deepEqual(fieldValues(fields, 'b'), ['1', '2'])
  assert.equal(fieldValue(fields, '1'), undefined)
  assert.deepEqual(fieldValues(fields, '1'), [])
})

it('removes every hop-by-hop field and framing field from a request', () => {
  const names = [...HOP_BY_HOP, 'content-length', 'expect']
  const fields = names.flatMap((name) => [name, 'x'])
  assert.deepEqual(remove(['host', 'a', ...fields, 'accept', 'b']), ['host', 'a', 'accept', 'b'])
})

it('removes what Connection lists, wherever it stands and however it is spelled', () => {
  const fields = [
    'x-a',
    '1',
    'connection',
    'X-A , close',
    'x-b',
    '2',
    'connection',
    'x-b',
    'x-c',
    '',
  ]
  assert.deepEqual(remove(fields), ['x-c', ''])
  assert.deepEqual(removeHopByHop(fields), ['x-c', ''])
  assert.deepEqual(connectionTokens(fields), ['x-a', 'close', 'x-b'])
})

it('does not mistake a value for a name when Connection lists it', () => {
  assert.deepEqual(remove(['a', 'x', 'connection', 'x', 'x', 'a']), ['a', 'x'])
})

it('keeps x-forwarded-client-cert only when told to, and the other identity fields never', () => {
  const fields = ['x-forwarded-client-cert', 'Hash=1', 'client-cert', ':a:', 'x-postern-peer', 'p']
  assert.deepEqual(remove(fields), [])
  assert.deepEqual(remove(fields, true), ['x-forwarded-client-cert', 'Hash=1'])
  assert.deepEqual(remove(['x_forwarded_client_cert', 'Hash=1'], true), [])
})

it('removes x-envoy-auth-partial-body and names that a workload may take for another', () => {
  const fields = ['x_user', '1', 'x-user', '2', 'x-envoy-auth-partial-body', 'true']
  assert.deepEqual(remove(fields), ['x-user', '2'])
  // PHP turns "." into "_", lighttpd everything that is no letter or digit.
  for (const character of "._~!#$%&'*+^`|") {
    const name = ['x', 'forwarded', 'client', 'cert'].join(character)
    assert.deepEqual(remove([name, 'Hash=1', 'x-user', '2'], true), ['x-user', '2'])
  }
})

it('passes ordinary fields on in their order, repeated ones too', () => {
  const fields = [
    'host',
    'a',
    'accept',
    '1',
    'traceparent',
    't',
    'accept',
    '2',
    'x-request-id',
    'r',
  ]
  assert.deepEqual(remove(fields), fields)
})

it('keeps content-length, cookies and underscores of an answer, but not x-postern-*', () => {
  const fields = ['content-length', '5', 'set-cookie', 'a', 'set-cookie', 'b', 'x_y', 'z']
  const received = [...fields, 'keep-alive', 'timeout=5', 'x-postern-decision-id', 'forged']
  assert.deepEqual(removeHopByHop(received), fields)
})
