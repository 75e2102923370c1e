import assert from 'node:assert/strict'
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import type { Authority, IssueOptions } from '../../src/cli/pki/authority.ts'
import { loadIdentity } from '../../src/identity/credentials.ts'
import { writePem } from '../../src/identity/pem.ts'
import { ORDERS, testAuthority } from '../support/pki.ts'
import { altNames, forge, uriName, withUnknownKey } from './forge.ts'

const NOW = Date.now()
const HOUR_MS = 3_600_000
const { root, intermediate } = await testAuthority()
const issued = await intermediate.issue({ commonName: 'orders', uris: [ORDERS] })
const { chainPem, certificatePem, privateKeyPem } = issued

const load = (certificate: string, key: string) =>
  loadIdentity(
    {
      certificatePem: certificate,
      privateKeyPem: key,
      certificateFile: 'tls.crt',
      privateKeyFile: 'tls.key',
    },
    NOW,
  )
const loadIssued = async (options: IssueOptions, from: Authority = intermediate) => {
  const other = await from.issue({ commonName: 'orders', uris: [ORDERS], ...options })
  return load(other.chainPem, other.privateKeyPem)
}

describe('loadIdentity', () => {
  it('gives chain, key, facts and URIs of a good pair', () => {
    const { material, problems } = load(chainPem, privateKeyPem)
    assert.deepEqual(problems, [])
    assert.deepEqual(material?.uris, [ORDERS])
    assert.equal(material?.facts.spiffeId, ORDERS)
    assert.equal(material?.facts.file, 'tls.crt')
    assert.equal(material?.facts.subject, 'CN=orders')
    assert.equal(new X509Certificate(material?.certificateChainPem ?? '').subject, 'CN=orders')
    assert.ok(
      new X509Certificate(certificatePem).checkPrivateKey(
        createPrivateKey(material?.privateKeyPem ?? ''),
      ),
    )
  })

  it('says so where OpenSSL does not know the kind of the public key', () => {
    const leaf = forge({ extensions: [altNames(uriName(ORDERS))] })
    const { material, problems } = load(
      writePem('CERTIFICATE', withUnknownKey(leaf)),
      leaf.key.export({ type: 'pkcs8', format: 'pem' }) as string,
    )
    assert.equal(material, undefined)
    assert.match(problems[0]?.what ?? '', /public key is of a kind that OpenSSL does not know/)
  })

  it('passes on nothing from the files but certificates and key', () => {
    const noisy = `# password: hunter2\n${chainPem.replaceAll('\n', '\r\n')}\nBag Attributes\n`
    const { material, problems } = load(noisy, `comment\n${privateKeyPem}`)
    assert.deepEqual(problems, [])
    assert.equal(material?.certificateChainPem, chainPem)
    assert.equal(material?.privateKeyPem, privateKeyPem)
  })

  it('reads PKCS#8, PKCS#1 and SEC 1 keys, and gives PKCS#8', async () => {
    const sec1 = createPrivateKey(privateKeyPem).export({ type: 'sec1', format: 'pem' }) as string
    const parameters =
      '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n'
    for (const key of [sec1, parameters + sec1]) {
      const { material, problems } = load(chainPem, key)
      assert.deepEqual(problems, [])
      assert.equal(material?.privateKeyPem, privateKeyPem)
    }
    const rsa = await intermediate.issue({ uris: [ORDERS], keyType: 'rsa-2048' })
    const pkcs1 = createPrivateKey(rsa.privateKeyPem).export({ type: 'pkcs1', format: 'pem' })
    assert.deepEqual(load(rsa.chainPem, pkcs1 as string).problems, [])
    const ed25519 = await intermediate.issue({ uris: [ORDERS], keyType: 'ed25519' })
    assert.deepEqual(load(ed25519.chainPem, ed25519.privateKeyPem).problems, [])
  })

  it('reads a credential bundle, key first', () => {
    const { material, problems } = loadIdentity(
      { pem: privateKeyPem + chainPem, file: 'credentials.pem' },
      NOW,
    )
    assert.deepEqual(problems, [])
    assert.equal(material?.certificateChainPem, chainPem)
    assert.equal(material?.facts.file, 'credentials.pem')
  })

  const refusals: readonly (readonly [string, string, string, RegExp, RegExp])[] = [
    ['swapped files', privateKeyPem, chainPem, /holds the private key, and tls\.key/, /Swap/],
    [
      'a certificate in place of the key',
      chainPem,
      certificatePem,
      /no private key/,
      /PRIVATE KEY/,
    ],
    [
      'a key that came with its certificate',
      chainPem,
      privateKeyPem + certificatePem,
      /a certificate too/,
      /credentialBundle/,
    ],
    [
      'a certificate that came with its key',
      chainPem + privateKeyPem,
      privateKeyPem,
      /a private key too/,
      /credentialBundle/,
    ],
    ['an empty certificate file', '', privateKeyPem, /no PEM block/, /PEM|blocks/],
    ['an empty key file', chainPem, '', /no PEM block/, /PEM|blocks/],
    ['two keys', chainPem, privateKeyPem + privateKeyPem, /2 private keys/, /exactly one/],
    [
      'a broken key',
      chainPem,
      privateKeyPem.replace(/\n.{8}/, '\n????????'),
      /not base64/,
      /Replace/,
    ],
    [
      'a key that is none',
      chainPem,
      privateKeyPem.replace(/\n.{8}/, '\nAAAAAAAA'),
      /not a private key that OpenSSL/,
      /PKCS#8/,
    ],
    [
      'a certificate that is none',
      certificatePem.replace(/\n.{8}/, '\nAAAAAAAA'),
      privateKeyPem,
      /not a readable certificate/,
      /Replace/,
    ],
    [
      'a block of another kind',
      chainPem.replaceAll('CERTIFICATE', 'CERTIFICATE REQUEST'),
      privateKeyPem,
      /is a CERTIFICATE REQUEST/,
      /leaf first/,
    ],
    [
      'a chain that starts with the intermediate',
      intermediate.certificatePem + certificatePem,
      privateKeyPem,
      /belongs to certificate 2/,
      /leaf first/,
    ],
  ]
  for (const [what, certificate, key, why, remedy] of refusals) {
    it(`refuses ${what}`, () => {
      const { material, problems } = load(certificate, key)
      assert.equal(material, undefined)
      const found = problems.find((problem) => why.test(problem.what))
      assert.ok(found !== undefined, JSON.stringify(problems))
      assert.match(found.remedy, remedy)
      assert.doesNotMatch(
        JSON.stringify(problems),
        new RegExp(privateKeyPem.split('\n')[1]!.slice(8, 24)),
      )
    })
  }

  it('refuses the key of another certificate, and says that a rotation may be under way', async () => {
    const other = await intermediate.issue({ uris: [ORDERS] })
    const { material, problems } = load(chainPem, other.privateKeyPem)
    assert.equal(material, undefined)
    assert.equal(problems[0]?.where, 'tls.key')
    assert.match(problems[0]?.what ?? '', /does not belong to the certificate in tls\.crt/)
    assert.match(problems[0]?.remedy ?? '', /rotation/)
  })

  it('refuses encrypted keys of both forms', () => {
    const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
    const secret = { cipher: 'aes-256-cbc', passphrase: 'x' }
    for (const type of ['pkcs8', 'pkcs1'] as const) {
      const pem = key.export({ type, format: 'pem', ...secret }) as string
      const { material, problems } = load(chainPem, pem)
      assert.equal(material, undefined)
      assert.match(problems[0]?.what ?? '', /encrypted/)
      assert.equal(problems.length, 1)
    }
  })

  it('refuses a leaf that is for clients only, and takes one without the extension', async () => {
    const { material, problems } = await loadIssued({ usages: ['clientAuth'] })
    assert.equal(material, undefined)
    assert.match(problems[0]?.what ?? '', /lacks serverAuth/)
    assert.deepEqual((await loadIssued({ usages: 'none' })).problems, [])
  })

  it('refuses a leaf with a weak key', async () => {
    const { material, problems } = await loadIssued({ keyType: 'rsa-1024' })
    assert.equal(material, undefined)
    assert.match(problems[0]?.what ?? '', /RSA key of 1024 bits/)
  })

  it('warns of a leaf outside its validity, with both times, and serves it', async () => {
    for (const times of [
      { notBefore: new Date(NOW - 2 * HOUR_MS), notAfter: new Date(NOW - HOUR_MS) },
      { notBefore: new Date(NOW + HOUR_MS), notAfter: new Date(NOW + 2 * HOUR_MS) },
    ]) {
      const { material, problems } = await loadIssued(times)
      assert.ok(material !== undefined)
      assert.equal(problems[0]?.severity, 'warning')
      assert.match(problems[0]?.what ?? '', /valid from .* to .*, now /)
    }
  })

  it('warns of a chain that does not hang together, and of what is too much in it', () => {
    for (const [chain, why] of [
      [certificatePem + root.certificatePem, /Certificate 1 .* not issued by the next/],
      [chainPem + certificatePem, /Certificate 2 .* not issued by the next/],
    ] as const) {
      const { material, problems } = load(chain, privateKeyPem)
      assert.ok(material !== undefined)
      assert.equal(problems.length, 1)
      assert.equal(problems[0]?.severity, 'warning')
      assert.match(problems[0]?.what ?? '', why)
    }
    assert.deepEqual(load(chainPem + root.certificatePem, privateKeyPem).problems, [])
  })

  it('warns of a SPIFFE ID that SPIFFE clients will refuse', async () => {
    for (const uris of [
      [ORDERS, 'urn:x'],
      ['spiffe://example.org'],
      ['spiffe://example.org/a/../b'],
    ]) {
      const { material, problems } = await loadIssued({ uris })
      assert.ok(material !== undefined)
      assert.equal(problems[0]?.severity, 'warning')
      assert.match(problems[0]?.what ?? '', /no X509-SVID/)
    }
    assert.deepEqual((await loadIssued({ uris: [], dns: ['orders'] })).problems, [])
  })
})
