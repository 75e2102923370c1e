// Certificates in DER. The walk never throws; what it accepts is what node:crypto (OpenSSL) and
// @peculiar/x509 read in the same bytes, and is one certificate, minimally encoded.
import 'reflect-metadata'
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import * as peculiar from '@peculiar/x509'
import { readCertificate, readCertificateDer } from '../../../src/identity/certificate.ts'
import { linkOf, publicKeyOf } from '../../../src/identity/link.ts'
import { derMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

export const target: Target = {
  name: 'certificate',
  runs: 1_500,
  seeds: () => [],
  dictionary: [
    ...[
      '\x86\x10spiffe://a/b/c/d',
      '\x82\x01a',
      '\x30\x80',
      '\x30\x84\xff\xff\xff\xff',
      '\x02\x01\x00',
    ],
    ...[
      '\x01\x01\xff',
      '\x06\x03\x55\x1d\x11',
      '\x06\x03\x55\x1d\x13',
      '\x06\x03\x55\x1d\x1e',
      '\x05\x00',
    ],
    ...[
      '99991231235959Z',
      '500101000000Z',
      'spiffe://',
      '\0',
      ', URI:spiffe://example.org/admin',
      '%2e',
    ],
  ],
  mutators: [derMutator],
  check: (input) => {
    const ours = readCertificateDer(input)
    const openssl = byOpenssl(input)
    if (openssl !== undefined) {
      const link = linkOf(openssl)
      if (link.kind === 'link') publicKeyOf(link)
    }
    if (ours.kind === 'unreadable') {
      assert.ok(ours.what.length < 300)
      assert.doesNotMatch(ours.what, /\p{Cc}/u)
      return
    }
    assert.equal(input.length < 2 || input[0], 0x30)
    assert.match(ours.serial, /^(0|[1-9a-f][0-9a-f]{0,39})$/)
    assert.doesNotMatch(ours.subject + ours.issuer, /[^ -~]/)
    for (const uri of ours.uris) assert.match(uri, /^[!-~]{1,2048}$/)
    // OpenSSL reads more strictly in places where nothing follows for us; then nobody is let in.
    if (openssl === undefined) return
    assert.ok(openssl.raw.equals(input))
    assert.equal(openssl.serialNumber.toLowerCase().replace(/^0+(?=.)/, ''), ours.serial)
    assert.equal(openssl.validFromDate.getTime(), ours.notBeforeMs)
    assert.equal(openssl.validToDate.getTime(), ours.notAfterMs)
    const held = readCertificate(openssl)
    if (held.kind === 'unreadable') return
    if (openssl.keyUsage !== undefined) assert.deepEqual(ours.extendedKeyUsages, openssl.keyUsage)
    if (openssl.ca) assert.equal(ours.basicConstraints?.ca ?? ours.version === 1, true)
    // Milliseconds each: only where there is something to compare.
    if (ours.uris.length + ours.dnsNames.length > 0) byPeculiar(input, ours)
  },
}

function byOpenssl(input: Buffer): X509Certificate | undefined {
  try {
    const certificate = new X509Certificate(input)
    return certificate.raw.equals(input) ? certificate : undefined
  } catch {
    return undefined
  }
}

function byPeculiar(
  input: Buffer,
  ours: ReturnType<typeof readCertificateDer> & { kind: 'certificate' },
) {
  let names: readonly { readonly type: string; readonly value: string }[] | undefined
  try {
    const certificate = new peculiar.X509Certificate(input)
    names = certificate.getExtension(peculiar.SubjectAlternativeNameExtension)?.names.items
  } catch {
    // It knows fewer algorithms and string types.
    return
  }
  const of = (type: string) => names?.flatMap((one) => (one.type === type ? one.value : [])) ?? []
  assert.deepEqual(of('url'), ours.uris)
  assert.deepEqual(of('dns'), ours.dnsNames)
}
