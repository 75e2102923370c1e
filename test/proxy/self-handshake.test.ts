// The proof that an identity serves, before it does.
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { loadIdentity } from '../../src/identity/credentials.ts'
import { parseTrustBundle } from '../../src/identity/trust.ts'
import { selfHandshakeProblem } from '../../src/proxy/self-handshake.ts'
import { contextProblem } from '../../src/proxy/tls-options.ts'
import { forge } from '../identity/forge.ts'
import { type KeyType, testAuthority } from '../support/pki.ts'

const authority = await testAuthority()
const trust = parseTrustBundle(authority.root.certificatePem, 'ca.crt', undefined, Date.now())
const bundles = trust.material === undefined ? [] : [trust.material]

async function identityOf(keyType: KeyType) {
  const { privateKeyPem, chainPem } = await authority.svid('orders', { keyType })
  const { material } = loadIdentity({ pem: privateKeyPem + chainPem, file: 'c.pem' }, Date.now())
  assert.ok(material)
  return material
}

for (const keyType of ['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048', 'ed25519'] as const) {
  test(`a key of ${keyType} serves`, async () => {
    assert.equal(await selfHandshakeProblem(await identityOf(keyType), bundles), undefined)
  })
}

test('a key of another certificate does not', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const identity = {
    ...(await identityOf('ec-p256')),
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  }
  const problem = await selfHandshakeProblem(identity, bundles)
  assert.match(problem?.what ?? '', /handshake .* fails: .*key values mismatch/)
  assert.equal(problem?.where, 'c.pem')
})

test('a certificate that OpenSSL takes into a context, and no handshake can use, does not', async () => {
  // Such a curve is fit for certificates, and for no signature algorithm of TLS 1.3 or of ours.
  const key = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey
  const { certificate } = forge({ key })
  const identity = {
    ...(await identityOf('ec-p256')),
    certificateChainPem: certificate.toString(),
    privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }) as string,
  }
  assert.equal(contextProblem(identity, bundles), undefined)
  const problem = await selfHandshakeProblem(identity, bundles)
  assert.match(problem?.what ?? '', /a TLS handshake with this certificate and key fails/)
})

test('serving without anybody to believe is refused', async () => {
  const problem = await selfHandshakeProblem(await identityOf('ec-p256'), [])
  assert.match(problem?.what ?? '', /without a trust bundle/)
})
