import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { mergeCrls, parseCrl } from '../../src/identity/crl.ts'
import { writePem } from '../../src/identity/pem.ts'
import { hasSerial } from '../../src/identity/serials.ts'
import { testAuthority } from '../support/pki.ts'
import {
  CA,
  type CrlForgery,
  commonName,
  der,
  extension,
  forge,
  forgeCrl,
  integer,
  octets,
  oid,
  revoked,
  sequence,
  text,
  time,
} from './forge.ts'
import { bundleOf } from './trust-material.ts'

const NOW = Date.now()
const HOUR_MS = 3_600_000
const root = forge({ subject: commonName('root'), extensions: [CA] })
const trust = [bundleOf([root])]

const parse = (bytes: Buffer | string, bundles = trust) =>
  parseCrl(Buffer.from(bytes as string), 'ca.crl', bundles, NOW)
const problemOf = (options: Partial<CrlForgery>): string => {
  const { crls, problems } = parse(forgeCrl({ issuer: root, ...options }))
  assert.deepEqual(crls, [])
  assert.equal(problems.length, 1)
  assert.equal(problems[0]?.severity, 'error')
  return problems[0]?.what ?? ''
}

describe('parseCrl', () => {
  it('reads what an authority publishes', async () => {
    const { root: authority, intermediate } = await testAuthority()
    const pem = authority.certificatePem + intermediate.certificatePem
    const { parseTrustBundle } = await import('../../src/identity/trust.ts')
    const { material } = parseTrustBundle(pem, 'ca.crt', undefined, NOW)
    assert.ok(material !== undefined)
    const thisUpdate = new Date(Date.UTC(2026, 0, 1))
    const nextUpdate = new Date(Date.UTC(2060, 0, 1))
    const crl = await intermediate.crl({
      revoked: [{ serial: '00ab' }, { serial: '7f00' }],
      thisUpdate,
      nextUpdate,
      number: 300,
    })
    const { crls, problems } = parse(crl, [material])
    assert.deepEqual(problems, [])
    assert.equal(crls.length, 1)
    const [read] = crls
    assert.equal(read?.issuer, 'CN=example.org intermediate')
    assert.equal(read?.thisUpdateMs, thisUpdate.getTime())
    assert.equal(read?.nextUpdateMs, nextUpdate.getTime())
    assert.equal(read?.crlNumber, '12c')
    assert.equal(read?.revokedSerials.length, 2 * 20)
    for (const serial of ['ab', '7f00']) {
      assert.ok(hasSerial(read?.revokedSerials ?? new Uint8Array(), serial))
    }
  })

  it('reads DER and PEM, and every block of a file', () => {
    const other = forge({ subject: commonName('other'), extensions: [CA] })
    const both = [bundleOf([root, other])]
    const first = forgeCrl({ issuer: root })
    const second = forgeCrl({ issuer: other })
    assert.equal(parse(first).crls.length, 1)
    const pem = writePem('X509 CRL', first) + writePem('X509 CRL', second)
    const { crls, problems } = parse(pem, both)
    assert.deepEqual(problems, [])
    assert.deepEqual(
      crls.map(({ issuer }) => issuer),
      ['CN=root', 'CN=other'],
    )
    assert.notEqual(crls[0]?.issuerKey, crls[1]?.issuerKey)
  })

  it('reads reason codes and other extensions that change nothing', () => {
    const reason = extension('2.5.29.21', der(0x0a, Buffer.from([6])))
    const since = extension('2.5.29.24', text(0x18, '20260101000000Z'))
    const { crls, problems } = parse(
      forgeCrl({
        issuer: root,
        entries: [revoked('01', reason), revoked('02', reason, since), revoked('03')],
        extensions: [extension('2.5.29.20', integer('05')), extension('1.2.3', octets())],
      }),
    )
    assert.deepEqual(problems, [])
    assert.equal(crls[0]?.revokedSerials.length, 60)
  })

  it('skips serials that no acceptable certificate has', () => {
    const negative = sequence(Buffer.from([0x02, 0x01, 0x80]), time(new Date(0)))
    const long = revoked('7f'.repeat(30))
    const { crls, problems } = parse(
      forgeCrl({ issuer: root, entries: [negative, long, revoked('09')] }),
    )
    assert.deepEqual(problems, [])
    assert.equal(crls[0]?.revokedSerials.length, 20)
  })

  it('reads 100,000 entries', () => {
    const entries = Array.from({ length: 100_000 }, (_, index) => revoked((index + 1).toString(16)))
    const { crls, problems } = parse(writePem('X509 CRL', forgeCrl({ issuer: root, entries })))
    assert.deepEqual(problems, [])
    const serials = crls[0]?.revokedSerials ?? new Uint8Array()
    assert.equal(serials.length, 2_000_000)
    assert.ok(hasSerial(serials, (100_000).toString(16)))
    assert.ok(!hasSerial(serials, (100_001).toString(16)))
  })

  it('believes RSA, RSA-PSS and Ed25519 signatures', () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
    const ed25519 = generateKeyPairSync('ed25519').privateKey
    const hash = sequence(oid('2.16.840.1.101.3.4.2.2'), der(0x05))
    const pss = sequence(
      oid('1.2.840.113549.1.1.10'),
      sequence(
        der(0xa0, hash),
        der(0xa1, sequence(oid('1.2.840.113549.1.1.8'), hash)),
        der(0xa2, integer('30')),
      ),
    )
    for (const [key, algorithm, hashName, padding] of [
      [rsa, sequence(oid('1.2.840.113549.1.1.13'), der(0x05)), 'sha512', {}],
      [rsa, pss, 'sha384', { padding: 6, saltLength: 48 }],
      [ed25519, sequence(oid('1.3.101.112')), undefined, {}],
    ] as const) {
      const signWith = (tbs: Buffer): Buffer => sign(hashName, tbs, { key, ...padding })
      const issuer = forge({ key, algorithm, extensions: [CA], sign: signWith })
      const crl = forgeCrl({ issuer, algorithm, sign: signWith })
      assert.deepEqual(parse(crl, [bundleOf([issuer])]).problems, [])
      const forged = forgeCrl({ issuer, algorithm, sign: (tbs) => signWith(tbs.subarray(1)) })
      assert.match(parse(forged, [bundleOf([issuer])]).problems[0]?.what ?? '', /not signed by/)
    }
  })

  it('does not believe a signature of another kind than it says', () => {
    const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
    const algorithm = sequence(oid('1.2.840.113549.1.1.11'), der(0x05))
    const issuer = forge({ key, algorithm, extensions: [CA] })
    const { problems } = parse(forgeCrl({ issuer }), [bundleOf([issuer])])
    assert.match(problems[0]?.what ?? '', /not signed by/)
  })

  it('does not believe RSA-PSS with parts left out, with two hashes or with SHA-1', () => {
    const [sha256, sha384, sha1] = [
      '2.16.840.1.101.3.4.2.1',
      '2.16.840.1.101.3.4.2.2',
      '1.3.14.3.2.26',
    ].map((one) => sequence(oid(one), der(0x05))) as [Buffer, Buffer, Buffer]
    const mgf1 = (hash: Buffer): Buffer => sequence(oid('1.2.840.113549.1.1.8'), hash)
    const salt = der(0xa2, integer('20'))
    for (const parameters of [
      [],
      [sequence()],
      [sequence(der(0xa0, sha256), der(0xa1, mgf1(sha256)))],
      [sequence(der(0xa0, sha256), der(0xa1, mgf1(sha384)), salt)],
      [sequence(der(0xa0, sha1), der(0xa1, mgf1(sha1)), salt)],
      [sequence(der(0xa0, sha256), der(0xa1, mgf1(sha256)), salt, der(0xa3, integer('02')))],
    ]) {
      const algorithm = sequence(oid('1.2.840.113549.1.1.10'), ...parameters)
      assert.match(problemOf({ algorithm }), /not believed/)
    }
  })

  it('warns of a CRL that is not current, with both times, and keeps it', () => {
    const nextUpdate = new Date(NOW - HOUR_MS)
    const stale = parse(
      forgeCrl({ issuer: root, thisUpdate: new Date(NOW - 2 * HOUR_MS), nextUpdate }),
    )
    assert.equal(stale.crls.length, 1)
    assert.equal(stale.problems[0]?.severity, 'warning')
    assert.match(stale.problems[0]?.what ?? '', /not current: .*now /)
    const early = parse(forgeCrl({ issuer: root, thisUpdate: new Date(NOW + HOUR_MS / 2) }))
    assert.equal(early.problems[0]?.severity, 'warning')
  })

  const partition = extension('2.5.29.28', sequence(der(0x81, Buffer.from([0xff]))), true)
  const refused: readonly (readonly [string, Partial<CrlForgery>, RegExp])[] = [
    ['a delta CRL', { extensions: [extension('2.5.29.27', integer('01'), true)] }, /delta CRL/],
    ['a partitioned CRL', { extensions: [partition] }, /partitioned or indirect/],
    [
      'a partitioned CRL that hides it in a non-critical extension',
      { extensions: [extension('2.5.29.28', sequence())] },
      /partitioned or indirect/,
    ],
    [
      'an unknown critical extension',
      { extensions: [extension('1.2.3.4', octets(), true)] },
      /unknown critical extension 1\.2\.3\.4/,
    ],
    [
      'an entry of another issuer',
      { entries: [revoked('01', extension('2.5.29.29', sequence(), true))] },
      /indirect CRL/,
    ],
    [
      'an unknown critical extension of an entry',
      { entries: [revoked('02'), revoked('01', extension('1.2.3.4', octets(), true))] },
      /unknown critical extension 1\.2\.3\.4/,
    ],
    ['an entry without a date', { entries: [sequence(integer('01'))] }, /no revocation date/],
    ['an unknown version', { version: integer('02') }, /version is unknown/],
    [
      'a signature with SHA-1',
      {
        algorithm: sequence(oid('1.2.840.10045.4.1')),
        sign: (tbs, key) => sign('sha1', tbs, key),
      },
      /not believed/,
    ],
    [
      'a signature of another key',
      { issuer: { key: forge().key, subject: root.subject } },
      /not signed by the authority of that name/,
    ],
  ]
  for (const [what, options, why] of refused) {
    it(`refuses ${what}`, () => {
      assert.match(problemOf(options), why)
    })
  }

  it('leaves out the list of an issuer in no bundle, and tells how to make it known', () => {
    const stranger = forge({ subject: commonName('stranger'), extensions: [CA] })
    const { crls, problems } = parse(forgeCrl({ issuer: stranger }))
    assert.deepEqual(crls, [])
    assert.match(problems[0]?.what ?? '', /CN=stranger has an issuer that is in no trust bundle/)
    assert.match(problems[0]?.remedy ?? '', /Add the certificate of the CA .* to a trust bundle/)
    // A CA may leave the trust bundle before its CRL leaves the volume.
    assert.equal(problems[0]?.severity, 'warning')
  })

  it('refuses an issuer that may not sign CRLs', () => {
    const keyUsage = extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x02, 0x04]), true)
    const issuer = forge({ extensions: [CA, keyUsage] })
    const { problems } = parse(forgeCrl({ issuer }), [bundleOf([issuer])])
    assert.match(problems[0]?.what ?? '', /lacks cRLSign/)
  })

  it('reports what else is in the file, and each broken block, by number', () => {
    const good = writePem('X509 CRL', forgeCrl({ issuer: root }))
    const wrong = writePem('CERTIFICATE', root.der)
    const { crls, problems } = parse(good + wrong + good.replace(/\n.{8}/, '\n????????') + good)
    assert.equal(crls.length, 2)
    assert.deepEqual(problems.map(({ what }) => /block (\d)/.exec(what)?.[1]).sort(), ['2', '3'])
    assert.match(parse('').problems[0]?.what ?? '', /no PEM block/)
    const noSequence = forgeCrl({ issuer: root })
    noSequence[0] = 0xb0
    assert.deepEqual(parse(writePem('X509 CRL', noSequence)).crls, [])
    const otherLabel = parse(writePem('CRL', forgeCrl({ issuer: root })))
    assert.match(otherLabel.problems[0]?.what ?? '', /block 1 is a CRL/)
  })

  it('never throws, whatever happened to the bytes', () => {
    const entries = [revoked('01', extension('2.5.29.21', der(0x0a, Buffer.from([1]))))]
    const good = forgeCrl({
      issuer: root,
      entries,
      extensions: [extension('2.5.29.20', integer('01'))],
    })
    for (let length = 0; length < good.length; length += 1) {
      assert.deepEqual(parse(good.subarray(0, length)).crls, [])
    }
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
        const bad = Buffer.from(good)
        bad[at] = byte
        const { crls } = parse(bad)
        assert.equal(crls.length, bad.equals(good) ? 1 : 0)
      }),
      { numRuns: 800 },
    )
  })
})

describe('mergeCrls', () => {
  const crlOf = (thisUpdateMs: number, file: string) => ({
    file,
    issuerKey: 'a',
    issuer: 'CN=a',
    thisUpdateMs,
    revokedSerials: new Uint8Array(),
  })

  it('keeps the newest of each issuer, and the first among equals', () => {
    const older = crlOf(1, 'older')
    const newer = crlOf(2, 'newer')
    const equal = crlOf(2, 'equal')
    const other = { ...crlOf(1, 'other'), issuerKey: 'b' }
    for (const crls of [
      [older, newer, equal, other],
      [newer, other, equal, older],
    ]) {
      assert.deepEqual(
        mergeCrls(crls)
          .map(({ file }) => file)
          .sort(),
        ['newer', 'other'],
      )
    }
  })

  it('goes by the number where both have one, else by the time', () => {
    const numbered = (crlNumber: string, thisUpdateMs: number) => ({
      ...crlOf(thisUpdateMs, crlNumber),
      crlNumber,
    })
    const newestOf = (...crls: readonly ReturnType<typeof crlOf>[]) => mergeCrls(crls)[0]?.file
    assert.equal(newestOf(numbered('ff', 2), numbered('100', 1)), '100')
    assert.equal(newestOf(numbered('9', 1), numbered('a', 1)), 'a')
    assert.equal(newestOf(numbered('9', 1), crlOf(2, 'without')), 'without')
    assert.equal(newestOf(numbered('9', 2), { ...numbered('9', 3), file: 'later' }), 'later')
  })
})
