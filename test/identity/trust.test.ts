import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { describe, it } from 'node:test'
import { writePem } from '../../src/identity/pem.ts'
import { parseTrustBundle } from '../../src/identity/trust.ts'
import { testAuthority } from '../support/pki.ts'
import {
  CA,
  commonName,
  extension,
  type Forgery,
  forge,
  newKey,
  octets,
  time,
  withUnknownKey,
} from './forge.ts'

const NOW = Date.now()
const HOUR_MS = 3_600_000
const authority = (label: string, options: Forgery = {}) =>
  forge({ subject: commonName(label), extensions: [CA], ...options })
const pemOf = ({ der }: { der: Buffer }): string => writePem('CERTIFICATE', der)

const one = authority('one')
const two = authority('two')
const parse = (pem: string, trustDomain?: string) =>
  parseTrustBundle(pem, 'ca.crt', trustDomain, NOW)

describe('parseTrustBundle', () => {
  it('gives every authority once, with its facts', async () => {
    const { root, intermediate } = await testAuthority()
    const pem = `# roots\n${root.certificatePem}\n${intermediate.certificatePem}${root.certificatePem}`
    const { material, problems } = parse(pem)
    assert.deepEqual(problems, [])
    assert.equal(material?.certificates.length, 2)
    assert.equal(material?.file, 'ca.crt')
    assert.ok(material !== undefined && !('trustDomain' in material))
    assert.deepEqual(
      material.facts.map(({ subject, file }) => [subject, file]),
      [
        ['CN=example.org root', 'ca.crt'],
        ['CN=example.org intermediate', 'ca.crt'],
      ],
    )
    assert.match(material.facts[0]?.fingerprint ?? '', /^[0-9a-f]{64}$/)
  })

  it('names the block whose key is of a kind that nobody knows', () => {
    const { material, problems } = parse(pemOf(one) + pemOf({ der: withUnknownKey(two) }))
    assert.equal(material, undefined)
    assert.equal(problems.length, 1)
    assert.match(problems[0]?.what ?? '', /block 2 \(CN=two\) .*public key .*does not know/)
  })

  it('keeps the trust domain', () => {
    assert.equal(parse(pemOf(one), 'partner.example').material?.trustDomain, 'partner.example')
  })

  it('survives the way to a data thread', () => {
    const { material } = parse(pemOf(one))
    const copy = structuredClone(material)
    assert.deepEqual(Buffer.from(copy?.certificates[0] ?? []), one.der)
    assert.equal(copy?.certificates[0]?.buffer.byteLength, one.der.length)
  })

  it('warns of an authority outside its validity, with both times, and keeps it', () => {
    for (const times of [
      { notBefore: time(new Date(NOW - 2 * HOUR_MS)), notAfter: time(new Date(NOW - HOUR_MS)) },
      { notBefore: time(new Date(NOW + HOUR_MS / 2)) },
    ]) {
      const { material, problems } = parse(pemOf(one) + pemOf(authority('late', times)))
      assert.equal(material?.certificates.length, 2)
      assert.equal(problems.length, 1)
      assert.equal(problems[0]?.severity, 'warning')
      assert.match(problems[0]?.what ?? '', /block 2 \(CN=late\) .*valid from .* to .*, now /)
    }
  })

  const leaf = forge({ issuer: one, subject: commonName('leaf') })
  const keyUsage = extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x01, 0x02]), true)
  const rsa1024 = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
  const key = newKey().export({ type: 'pkcs8', format: 'pem' }) as string
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['is broken', pemOf(two).replace(/\n.{8}/, '\n!!!!!!!!'), /block 2 .*base64/],
    ['is cut short', pemOf(two).replace(/\n[^\n]*\n-----END/, '\n-----END'), /block 2 /],
    ['has no END', pemOf(two).replace(/-----END.*\n/, ''), /block 2 .*no END line/],
    ['holds no certificate', writePem('CERTIFICATE', octets()), /block 2 is not a readable/],
    [
      'holds more than a certificate',
      writePem('CERTIFICATE', Buffer.concat([two.der, octets()])),
      /block 2 .*followed by other bytes/,
    ],
    ['is a leaf', pemOf(leaf), /block 2 \(CN=leaf\) is not a CA certificate/],
    [
      'is a CA that may not sign',
      pemOf(authority('no', { extensions: [CA, keyUsage] })),
      /may not sign/,
    ],
    [
      'has a critical extension that is not understood',
      pemOf(authority('odd', { extensions: [CA, extension('1.2.3', octets(), true)] })),
      /cannot be an anchor: .*1\.2\.3/,
    ],
    [
      'has a weak key',
      pemOf(authority('weak', { key: rsa1024, sign: () => Buffer.alloc(128) })),
      /RSA key of 1024/,
    ],
    ['is a private key', key, /block 2 is a private key/],
    ['is a CRL', writePem('X509 CRL', octets()), /block 2 is a X509 CRL/],
    ['is an OpenSSL trusted certificate', writePem('TRUSTED CERTIFICATE', two.der), /TRUSTED/],
  ]
  for (const [what, block, why] of cases) {
    it(`refuses the whole bundle when a block in its middle ${what}`, () => {
      const { material, problems } = parse(pemOf(one) + block + pemOf(two))
      assert.equal(material, undefined)
      assert.match(problems[0]?.what ?? '', why)
      assert.equal(problems[0]?.where, 'ca.crt')
      assert.notEqual(problems[0]?.severity, 'warning')
      assert.ok((problems[0]?.remedy ?? '').length > 10)
    })
  }

  it('refuses an empty file, and one with nothing but comments', () => {
    for (const text of ['', '\n', '# no roots today\n']) {
      const { material, problems } = parse(text)
      assert.equal(material, undefined)
      assert.match(problems[0]?.what ?? '', /no PEM block/)
    }
  })

  it('reports all problems at once', () => {
    const { problems } = parse(pemOf(leaf) + pemOf(one) + key)
    assert.deepEqual(
      problems.map(({ what }) => /block (\d)/.exec(what)?.[1]),
      ['1', '3'],
    )
  })
})
