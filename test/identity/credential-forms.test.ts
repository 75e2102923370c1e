// Every form that a certificate and key come in, each proven by a handshake on loopback.
import assert from 'node:assert/strict'
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, it } from 'node:test'
import { type IdentityInput, loadIdentity } from '../../src/identity/credentials.ts'
import { handshake } from '../support/handshake.ts'
import { type KeyType, ORDERS, testAuthority } from '../support/pki.ts'

const { root, intermediate, svid } = await testAuthority()
const web = await svid('web')
const PASSPHRASE = { text: 'correct horse', file: 'passphrase' }
const SECRET = { cipher: 'aes-256-cbc', passphrase: PASSPHRASE.text } as const

const load = (input: IdentityInput) => loadIdentity(input, Date.now())
const pair = (certificatePem: string, privateKeyPem: string) => ({
  certificatePem,
  privateKeyPem,
  certificateFile: 'tls.crt',
  privateKeyFile: 'tls.key',
})

async function serves(input: IdentityInput): Promise<void> {
  const { material, problems } = load(input)
  assert.deepEqual(problems, [])
  assert.ok(material)
  const { server } = await handshake(
    { cert: material.certificateChainPem, key: material.privateKeyPem, ca: root.certificatePem },
    { cert: web.chainPem, key: web.privateKeyPem, ca: root.certificatePem },
  )
  assert.equal(server, `URI:${ORDERS}`)
}

const FORMS: readonly (readonly [KeyType, readonly ('pkcs8' | 'sec1' | 'pkcs1')[]])[] = [
  ['ec-p256', ['pkcs8', 'sec1']],
  ['ec-p384', ['pkcs8', 'sec1']],
  ['rsa-2048', ['pkcs8', 'pkcs1']],
  ['ed25519', ['pkcs8']],
]
for (const [keyType, types] of FORMS) {
  describe(`a key of ${keyType}`, async () => {
    const { chainPem, privateKeyPem } = await svid('orders', { keyType })
    const key = createPrivateKey(privateKeyPem)
    for (const type of types) {
      const plain = key.export({ type, format: 'pem' } as never) as unknown as string
      const encrypted = key.export({ type, format: 'pem', ...SECRET } as never) as unknown as string
      it(`serves as ${type} beside its chain`, () => serves(pair(chainPem, plain)))
      it(`serves as ${type} in a credential bundle, before or after the chain`, async () => {
        await serves({ pem: plain + chainPem, file: 'credentials.pem' })
        await serves({ pem: chainPem + plain, file: 'credentials.pem' })
      })
      it(`serves as encrypted ${type} with its passphrase`, async () => {
        assert.match(encrypted, type === 'pkcs8' ? /ENCRYPTED PRIVATE KEY/ : /DEK-Info/)
        await serves({ ...pair(chainPem, encrypted), passphrase: PASSPHRASE })
        await serves({ pem: encrypted + chainPem, file: 'c.pem', passphrase: PASSPHRASE })
      })
    }
  })
}

describe('what cannot be used', async () => {
  const { chainPem, privateKeyPem } = await svid('orders')
  const key = createPrivateKey(privateKeyPem)
  const encrypt = (one: KeyObject) => one.export({ type: 'pkcs8', format: 'pem', ...SECRET })

  const refused = (input: IdentityInput, where: string, what: RegExp, remedy: RegExp): void => {
    const { material, problems } = load(input)
    assert.equal(material, undefined)
    assert.equal(problems.length, 1, JSON.stringify(problems))
    assert.equal(problems[0]?.where, where)
    assert.match(problems[0]?.what ?? '', what)
    assert.match(problems[0]?.remedy ?? '', remedy)
    assert.doesNotMatch(JSON.stringify(problems), /correct horse|wrong horse/)
  }

  it('is an encrypted key without a passphrase', () => {
    refused(pair(chainPem, encrypt(key) as string), 'tls.key', /encrypted/, /passphraseFile/)
  })

  it('is an encrypted key with another passphrase, in both forms of encryption', () => {
    const passphrase = { text: 'wrong horse', file: 'passphrase' }
    const old = key.export({ type: 'sec1', format: 'pem', ...SECRET })
    for (const pem of [encrypt(key), old] as string[]) {
      refused({ ...pair(chainPem, pem), passphrase }, 'tls.key', /in passphrase/, /nothing else/)
    }
  })

  it('is an empty passphrase', () => {
    const passphrase = { text: '', file: 'passphrase' }
    const pem = encrypt(key) as string
    refused({ ...pair(chainPem, pem), passphrase }, 'tls.key', /cannot be decrypted/, /passphrase/)
  })

  it('is a key of another kind than TLS takes', () => {
    for (const [type, privateKey] of [
      ['dsa', generateKeyPairSync('dsa', { modulusLength: 1024, divisorLength: 160 }).privateKey],
      ['x25519', generateKeyPairSync('x25519').privateKey],
    ] as const) {
      const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
      const why = new RegExp(`type ${type}`)
      refused(pair(chainPem, pem), 'tls.key', why, /ECDSA, Ed25519 or RSA/)
    }
  })

  it('is a key on a curve that TLS does not take', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
    refused(pair(chainPem, pem), 'tls.key', /does not belong/, /pair/)
  })

  it('is a public key, a certificate request or a file that is no PEM', () => {
    const publicPem = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    }).publicKey
    refused(pair(chainPem, publicPem), 'tls.key', /is a PUBLIC KEY/, /PRIVATE KEY/)
    refused(pair(chainPem, '\x30\x82\x01\x02'), 'tls.key', /no PEM block/, /blocks/)
  })

  it('is two keys in one bundle, also where one is encrypted', () => {
    const pem = privateKeyPem + encrypt(key) + chainPem
    refused({ pem, file: 'c.pem', passphrase: PASSPHRASE }, 'c.pem', /2 private keys/, /one/)
  })
})

it('a passphrase for a key that needs none is told and stops nothing', async () => {
  const { chainPem, privateKeyPem } = await intermediate.issue({ uris: [ORDERS] })
  const { material, problems } = load({ ...pair(chainPem, privateKeyPem), passphrase: PASSPHRASE })
  assert.ok(material)
  assert.deepEqual(
    problems.map(({ where, severity }) => [where, severity]),
    [['passphrase', 'warning']],
  )
})
