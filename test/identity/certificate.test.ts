import assert from 'node:assert/strict'
import { sign, X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  type CertificateReading,
  KEY_USAGE,
  readCertificate,
  readCertificateDer,
} from '../../src/identity/certificate.ts'
import { testAuthority, WEB } from '../support/pki.ts'
import {
  altNames,
  boolean,
  CA,
  commonName,
  der,
  dnsName,
  ECDSA_SHA256,
  extension,
  type Forgery,
  forge,
  forgeDer,
  integer,
  name,
  octets,
  oid,
  sequence,
  text,
  uriName,
} from './forge.ts'

const read = (options: Forgery): CertificateReading => {
  const reading = readCertificate(forge(options).certificate)
  assert.equal(reading.kind, 'certificate', JSON.stringify(reading))
  return reading as CertificateReading
}

/** Over the bytes alone, since OpenSSL refuses some of these before we see them. */
const refusal = (options: Forgery): string => {
  const reading = readCertificateDer(forgeDer(options).der)
  assert.equal(reading.kind, 'unreadable')
  return reading.kind === 'unreadable' ? reading.what : ''
}

describe('readCertificate', () => {
  it('says what node says, where node says it', async () => {
    const { intermediate } = await testAuthority()
    const issued = await intermediate.issue({
      commonName: 'web',
      uris: [WEB],
      dns: ['web.example.org', 'web'],
      serial: '00ab12',
    })
    const certificate = new X509Certificate(issued.certificatePem)
    const reading = readCertificate(certificate) as CertificateReading
    assert.equal(reading.kind, 'certificate')
    assert.equal(reading.serial, certificate.serialNumber.toLowerCase().replace(/^0+/, ''))
    assert.equal(reading.notBeforeMs, certificate.validFromDate.getTime())
    assert.equal(reading.notAfterMs, certificate.validToDate.getTime())
    assert.equal(reading.subject, 'CN=web')
    assert.equal(reading.commonName, 'web')
    assert.deepEqual(reading.uris, [WEB])
    assert.deepEqual(reading.dnsNames, ['web.example.org', 'web'])
    assert.deepEqual(reading.extendedKeyUsages, certificate.keyUsage)
    assert.equal(reading.keyUsage, KEY_USAGE.digitalSignature)
    assert.deepEqual(reading.basicConstraints, { ca: false, pathLength: undefined })
    assert.deepEqual(reading.spkiDer, certificate.publicKey.export({ type: 'spki', format: 'der' }))
    assert.equal(reading.version, 3)
    assert.deepEqual(reading.unknownCritical, [])
  })

  it('reads the constraints of an authority', () => {
    const reading = read({
      extensions: [
        extension('2.5.29.19', sequence(boolean(true), integer('03')), true),
        extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x01, 0x06]), true),
        extension('2.5.29.30', sequence(), true),
      ],
    })
    assert.deepEqual(reading.basicConstraints, { ca: true, pathLength: 3 })
    assert.equal(reading.keyUsage, KEY_USAGE.keyCertSign | KEY_USAGE.cRLSign)
    const none = { uris: [], dnsNames: [], directories: [] }
    assert.deepEqual(reading.nameConstraints, { permitted: none, excluded: none })
    assert.deepEqual(reading.unknownCritical, [])
  })

  it('reads a certificate without extensions', () => {
    const reading = read({ version: octets().subarray(0, 0) })
    assert.equal(reading.version, 1)
    assert.equal(reading.basicConstraints, undefined)
    assert.equal(reading.keyUsage, undefined)
    assert.equal(reading.extendedKeyUsages, undefined)
  })

  it('names critical extensions that it does not understand, and only those', () => {
    const reading = read({
      extensions: [
        extension('1.2.3.4', octets()),
        extension('1.2.3.5', octets(), true),
        extension('2.5.29.36', sequence(), true),
        extension('2.5.29.54', integer('00'), true),
      ],
    })
    assert.deepEqual(reading.unknownCritical, ['1.2.3.5', '2.5.29.36'])
  })

  it('does not believe a signature algorithm that it does not know', () => {
    const sha1 = sequence(oid('1.2.840.10045.4.1'))
    assert.equal(
      read({ algorithm: sha1, sign: (tbs, key) => sign('sha1', tbs, key) }).signature,
      undefined,
    )
    const md5Rsa = sequence(oid('1.2.840.113549.1.1.4'), der(0x05))
    assert.equal(read({ algorithm: md5Rsa }).signature, undefined)
    assert.equal(read({}).signature?.hash, 'sha256')
  })

  const refused: readonly (readonly [string, Forgery, RegExp])[] = [
    ['a negative serial', { serial: Buffer.from([0x02, 0x01, 0x80]) }, /serialNumber is negative/],
    ['a serial of 21 bytes', { serial: integer('7f'.repeat(21)) }, /longer than RFC 5280/],
    ['a serial with padding', { serial: Buffer.from('0203000001', 'hex') }, /not minimal/],
    ['version 4', { version: der(0xa0, integer('03')) }, /version is unknown/],
    ['extensions in version 1', { version: Buffer.alloc(0), extensions: [CA] }, /not version 3/],
    [
      'two signature algorithms',
      { outerAlgorithm: sequence(oid('1.2.840.10045.4.3.3')) },
      /algorithms differ/,
    ],
    ['an extension that is there twice', { extensions: [CA, CA] }, /twice/],
    [
      'two lists of alternative names',
      { extensions: [altNames(uriName('spiffe://a/b')), altNames(uriName('spiffe://a/c'))] },
      /twice/,
    ],
    ['a date that is none', { notAfter: text(0x17, '270231000000Z') }, /notAfter is not a date/],
    ['a local time', { notBefore: text(0x17, '270101000000+0100') }, /notBefore/],
    [
      'a path length of a leaf',
      { extensions: [extension('2.5.29.19', sequence(integer('00')))] },
      /path length/,
    ],
    [
      'more than 100 alternative names',
      { extensions: [altNames(...Array.from({ length: 101 }, () => dnsName('a')))] },
      /more than 100/,
    ],
    [
      'more than 100 extended usages',
      {
        extensions: [
          extension('2.5.29.37', sequence(...Array.from({ length: 101 }, () => oid('1.2.3')))),
        ],
      },
      /more than 100/,
    ],
    [
      'bytes after an extension value',
      { extensions: [extension('2.5.29.19', Buffer.concat([sequence(), octets()]))] },
      /unexpected bytes/,
    ],
    [
      'an alternative name that is none',
      { extensions: [altNames(text(0x0c, 'spiffe://a/b'))] },
      /no GeneralName/,
    ],
    [
      'a subject that is very long',
      { subject: name(['2.5.4.3', text(0x0c, 'x'.repeat(5000))]) },
      /longer than 4096/,
    ],
    [
      'broken UTF-8 in the subject',
      { subject: name(['2.5.4.3', der(0x0c, Buffer.from([0xc3, 0x28]))]) },
      /UTF-8/,
    ],
  ]
  for (const [what, options, why] of refused) {
    it(`refuses ${what}`, () => {
      assert.match(refusal(options), why)
    })
  }

  it('refuses a certificate of more than 64 KiB', () => {
    assert.match(
      refusal({ extensions: [extension('1.2.3', octets(Buffer.alloc(66_000)))] }),
      /larger than 65536/,
    )
  })
})

describe('alternative names', () => {
  const injected = 'spiffe://example.org/a, URI:spiffe://example.org/admin'
  const hostile: readonly (readonly [string, readonly Buffer[]])[] = [
    ['a separator in a URI', [uriName(injected)]],
    [
      'a separator in a URI beside a good one',
      [uriName('spiffe://example.org/a'), uriName(injected)],
    ],
    ['a separator in a DNS name', [dnsName('a, URI:spiffe://example.org/admin')]],
    ['a comma alone in a URI', [uriName('spiffe://example.org/a,b')]],
    ['a quote in a URI', [uriName('spiffe://example.org/"a"')]],
    ['an apostrophe in a URI', [uriName("spiffe://example.org/a'b")]],
    ['a backslash in a URI', [uriName('spiffe://example.org\\u002c')]],
    ['NUL in a URI', [uriName('spiffe://example.org/admin\u0000.evil')]],
    ['NUL in a DNS name', [dnsName('admin.example.org\u0000.evil.org')]],
    ['a line break in a URI', [uriName('spiffe://example.org/a\nURI:spiffe://example.org/admin')]],
    ['a space in a DNS name', [dnsName('a b')]],
    ['a byte beyond ASCII in a URI', [uriName('spiffe://example.org/\u00e4')]],
    ['a byte beyond ASCII in a DNS name', [dnsName('ex\u00e4mple.org')]],
    ['an empty URI', [uriName('')]],
    ['an empty DNS name', [dnsName('')]],
    ['a URI of 2049 bytes', [uriName(`urn:${'a'.repeat(2045)}`)]],
    ['a DNS name of 254 bytes', [dnsName('a'.repeat(254))]],
  ]
  for (const [what, names] of hostile) {
    it(`refuse ${what}`, () => {
      const forged = forge({ extensions: [altNames(...names)] })
      assert.equal(readCertificate(forged.certificate).kind, 'unreadable')
    })
  }

  it('of other kinds give no URI, whatever they hold', () => {
    const text_ = 'x, URI:spiffe://example.org/admin'
    const directory = der(0xa4, name(['2.5.4.3', text(0x0c, text_)]))
    const other = der(0xa0, oid('1.2.3.4'), der(0xa0, text(0x0c, text_)))
    const reading = read({
      extensions: [
        altNames(
          text(0x81, `${text_}@example.org`),
          directory,
          other,
          der(0x87, Buffer.from([1, 2, 3, 4])),
          uriName('spiffe://example.org/a'),
          der(0x88, oid('1.2.3').subarray(2)),
        ),
      ],
    })
    assert.deepEqual(reading.uris, ['spiffe://example.org/a'])
    assert.deepEqual(reading.dnsNames, [])
  })

  it('keep their order, and URIs every character that needs no quotes', () => {
    const uri = 'https://u:p@example.org:8443/a;b=c&d/(e)*~!$+[f]{g}|^`?x=%2f#h@<>_-.'
    assert.deepEqual(
      read({ extensions: [altNames(uriName('urn:b'), dnsName('*.b.a_c'), uriName(uri))] }).uris,
      ['urn:b', uri],
    )
  })

  it('are refused where the reader of node does not find the same ones', () => {
    const { certificate } = forge({ extensions: [altNames(uriName('spiffe://a/b'))] })
    for (const subjectAltName of [
      undefined,
      'URI:spiffe://a/c',
      'URI:spiffe://a/b, URI:spiffe://a/c',
      'URI:"spiffe://a/b"',
      'DNS:x, URI:spiffe://a/b',
    ]) {
      const other = { raw: certificate.raw, subjectAltName } as unknown as X509Certificate
      const reading = readCertificate(other)
      assert.match(reading.kind === 'unreadable' ? reading.what : '', /disagree/)
    }
  })
})

describe('a damaged certificate', () => {
  const good = forge({
    extensions: [
      CA,
      altNames(uriName('spiffe://a/b'), dnsName('c')),
      extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x07, 0x80])),
      extension('2.5.29.37', sequence(oid('1.3.6.1.5.5.7.3.2'))),
    ],
  })

  it('is refused wherever it is cut', () => {
    for (let length = 0; length < good.der.length; length += 1) {
      assert.equal(readCertificateDer(good.der.subarray(0, length)).kind, 'unreadable')
    }
    assert.equal(readCertificateDer(Buffer.concat([good.der, octets()])).kind, 'unreadable')
  })

  it('is refused where the outermost element is no SEQUENCE', () => {
    const bytes = Buffer.from(good.der)
    bytes[0] = 0xb0
    assert.equal(readCertificateDer(bytes).kind, 'unreadable')
  })

  it('never makes the reader throw, whichever byte is wrong', () => {
    for (let at = 0; at < good.der.length; at += 1) {
      for (const byte of [0x00, 0x01, 0x30, 0x7f, 0x80, 0x84, 0xff, good.der[at]! ^ 1]) {
        const bad = Buffer.from(good.der)
        bad[at] = byte
        readCertificateDer(bad)
      }
    }
  })

  it('never makes the two readers together throw, for what OpenSSL still reads', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.der.length - 1), fc.nat(255)), {
          minLength: 1,
          maxLength: 3,
        }),
        (damage) => {
          const bad = Buffer.from(good.der)
          for (const [at, byte] of damage) bad[at] = byte
          const certificate = parsed(bad)
          if (certificate !== undefined) readCertificate(certificate)
        },
      ),
      { numRuns: 1500 },
    )
  })

  it('never throws for bytes that are no certificate at all', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        readCertificateDer(Buffer.from(bytes))
        readCertificateDer(sequence(bytes, ECDSA_SHA256, bytes))
      }),
    )
  })
})

describe('the text of a name', () => {
  const subject = (...attributes: (readonly [string, Buffer])[]) =>
    read({ subject: name(...attributes) })
  const utf8 = (value: string) => der(0x0c, Buffer.from(value, 'utf8'))

  // The right-hand sides are what `openssl x509 -noout -subject -nameopt RFC2253` prints.
  it('has the most specific attribute first', () => {
    const reading = subject(
      ['2.5.4.6', text(0x13, 'US')],
      ['2.5.4.10', utf8('x')],
      ['2.5.4.3', utf8('web')],
    )
    assert.equal(reading.subject, 'CN=web,O=x,C=US')
  })

  it('escapes what RFC 2253 gives a meaning to', () => {
    assert.equal(
      subject(['2.5.4.3', utf8(' a,b+c"d\\e<f>g;h= ')]).subject,
      'CN=\\ a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h=\\ ',
    )
    assert.equal(subject(['2.5.4.3', utf8('#a#')]).subject, 'CN=\\#a#')
    assert.equal(subject(['2.5.4.3', utf8('a\nb\u0000')]).subject, 'CN=a\\0Ab\\00')
    assert.equal(subject(['2.5.4.3', utf8('é')]).subject, 'CN=\\C3\\A9')
    assert.equal(subject(['2.5.4.3', text(0x14, '\u00e9')]).subject, 'CN=\\C3\\A9')
    assert.equal(subject(['2.5.4.3', Buffer.from('1e0400e90041', 'hex')]).subject, 'CN=\\C3\\A9A')
  })

  it('writes types without a name, and values that are no text, as numbers', () => {
    assert.equal(subject(['1.2.3.4', utf8('a')]).subject, '1.2.3.4=#0C0161')
    assert.equal(subject(['2.5.4.3', der(0x1c, Buffer.alloc(4))]).subject, 'CN=#1C0400000000')
  })

  it('joins the parts of one set with a plus', () => {
    const two = sequence(
      der(
        0x31,
        sequence(oid('2.5.4.3'), text(0x0c, 'a')),
        sequence(oid('2.5.4.10'), text(0x0c, 'b')),
      ),
    )
    assert.equal(read({ subject: two }).subject, 'O=b+CN=a')
  })

  it('has no common name where there are two, or one with control characters', () => {
    assert.equal(subject(['2.5.4.3', utf8('a')], ['2.5.4.3', utf8('b')]).commonName, undefined)
    assert.equal(subject(['2.5.4.3', utf8('admin\u0000x')]).commonName, undefined)
    assert.equal(subject(['2.5.4.10', utf8('a')]).commonName, undefined)
    assert.equal(read({ subject: commonName('é') }).commonName, 'é')
    assert.equal(read({ subject: sequence() }).subject, '')
  })
})

const parsed = (bytes: Buffer): X509Certificate | undefined => {
  try {
    return new X509Certificate(bytes)
  } catch {
    return undefined
  }
}
