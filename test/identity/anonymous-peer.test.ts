// A client that nobody vouches for is never taken for one that somebody does.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { AnonymousPeer, admitAnonymous } from '../../src/identity/anonymous-peer.ts'
import { VerifiedPeer } from '../../src/identity/peer.ts'
import { compileAllowRules } from '../../src/policy/allow-rules.ts'

const PEERS = [new AnonymousPeer('certificate'), new AnonymousPeer('tls')] as const

test('it is of another kind than a verified peer, and cannot be changed', () => {
  for (const peer of PEERS) {
    assert.ok(!(peer instanceof VerifiedPeer))
    assert.equal(peer.kind, 'anonymous')
    assert.ok(Object.isFrozen(peer) && Object.isFrozen(peer.uris))
    assert.deepEqual([peer.principal, peer.uris, peer.dnsNames], ['', [], []])
  }
})

test('each option lets in those that it names, and no others', () => {
  const admitted = (unsafeOptionalPeer: boolean, unsafePlaintext: boolean) =>
    PEERS.map((peer) => admitAnonymous(peer, { unsafeOptionalPeer, unsafePlaintext }).kind)
  assert.deepEqual(admitted(false, false), ['rejection', 'rejection'])
  assert.deepEqual(admitted(true, false), ['anonymous', 'rejection'])
  assert.deepEqual(admitted(false, true), ['rejection', 'anonymous'])
  assert.deepEqual(admitted(true, true), ['anonymous', 'anonymous'])
})

test('no allow rule admits it', () => {
  const rules = [{ all: true }, { uri: '**' }, { dns: '**' }, { cn: '**' }] as const
  for (const rule of rules) {
    for (const peer of PEERS) assert.equal(compileAllowRules([rule])(peer), false)
  }
})

test('it is made at the end of a handshake alone', () => {
  const root = fileURLToPath(new URL('../../src', import.meta.url))
  const makers = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) =>
      name.endsWith('.ts') && /new AnonymousPeer\(/.test(readFileSync(join(root, name), 'utf8')),
  )
  assert.deepEqual(makers, [join('proxy', 'handshake.ts')])
})
