import assert from 'node:assert/strict'
import { it } from 'node:test'
import { acceptKeyFor, hasHandshakeFields, isHandshakeAnswer } from '../../src/http/websocket.ts'

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

it('computes the accept key of the example in RFC 6455 section 1.3', () => {
  assert.equal(acceptKeyFor(KEY), ACCEPT)
})

it('wants one key of 16 bytes and version 13', () => {
  const has = (key: string) =>
    hasHandshakeFields(['sec-websocket-key', key, 'sec-websocket-version', '13'])
  assert.equal(has(KEY), true)
  for (const key of ['', 'dGhl', KEY.slice(0, -2), `${KEY}a`, KEY.replace('Q==', 'R==')]) {
    assert.equal(has(key), false, key)
  }
})

it('opens a tunnel only for an answer with the right accept key', () => {
  const answer = (upgrade: string, connection: string, ...accepts: string[]) => {
    const fields = ['upgrade', upgrade, 'connection', connection]
    for (const accept of accepts) fields.push('sec-websocket-accept', accept)
    return isHandshakeAnswer(fields, KEY)
  }
  assert.equal(answer('WebSocket', 'Upgrade', ACCEPT), true)
  assert.equal(answer('websocket', 'keep-alive, upgrade', ACCEPT), true)
  assert.equal(answer('h2c', 'upgrade', ACCEPT), false)
  assert.equal(answer('websocket', 'close', ACCEPT), false)
  assert.equal(answer('websocket', 'upgrade', ACCEPT.toLowerCase()), false)
  assert.equal(answer('websocket', 'upgrade', ACCEPT, ACCEPT), false)
  assert.equal(answer('websocket', 'upgrade'), false)
})
