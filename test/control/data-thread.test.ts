// What a data thread does before it starts: it tries the identity that it will show, and says what it
// cannot start with.
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { DataThread } from '../../src/control/data-thread.ts'
import { loadIdentity } from '../../src/identity/credentials.ts'
import { parseTrustBundle } from '../../src/identity/trust.ts'
import { moduleFile } from '../../src/package.ts'
import type { HandshakeQuestion } from '../../src/threads.ts'
import { testAuthority } from '../support/pki.ts'

async function question(): Promise<Omit<HandshakeQuestion, 'id'>> {
  const authority = await testAuthority()
  const { privateKeyPem, chainPem } = await authority.svid('orders')
  const now = Date.now()
  const { material: identity } = loadIdentity({ pem: privateKeyPem + chainPem, file: 'c.pem' }, now)
  const { material } = parseTrustBundle(authority.root.certificatePem, 'ca.crt', undefined, now)
  assert.ok(identity && material)
  return { identity, bundles: [material] }
}

function prepared(t: TestContext): DataThread {
  const thread = new DataThread(moduleFile('proxy/data-thread'), 0)
  t.after(() => thread.terminate())
  return thread
}

test('tells a good identity from one that no client can shake hands with', async (t) => {
  const thread = prepared(t)
  const good = await question()
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const [first, second] = await Promise.all([
    thread.shakeHands(good),
    thread.shakeHands({ ...good, identity: { ...good.identity, privateKeyPem } }),
  ])
  assert.equal(first, undefined)
  assert.match(second?.what ?? '', /handshake .* fails: .*key values mismatch/)
})

test('an identity that it ended over is not taken for a good one', async (t) => {
  const thread = prepared(t)
  const asked = thread.shakeHands(await question())
  await thread.terminate()
  assert.match((await asked)?.what ?? '', /ended before it had tried the certificate/)
  const later = await thread.shakeHands(await question())
  assert.match(later?.what ?? '', /ended before/)
})
