import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { surplusBytesOf } from '../../src/identity/certificate-weight.ts'
import { altNames, commonName, der, extension, forge, name, octets } from './forge.ts'

const dnsName = der(0x82, Buffer.from('a'))

function certificate(names: number): X509Certificate {
  const extensions = [altNames(...Array.from({ length: names }, () => dnsName))]
  return forge({ subject: commonName('a'), extensions }).certificate
}

/** The same in BER, which OpenSSL takes: the length of its first element is not said. */
function withoutLength({ raw }: X509Certificate): X509Certificate {
  const length = raw.readUInt16BE(6)
  const [content, rest] = [raw.subarray(8, 8 + length), raw.subarray(8 + length)]
  const open = Buffer.concat([Buffer.from([0x30, 0x80]), content, Buffer.from([0, 0])])
  return new X509Certificate(der(0x30, open, rest))
}

describe('what certificates take of memory', () => {
  it('is nothing beyond the usual for a usual path', () => {
    assert.equal(surplusBytesOf([]), 0)
    assert.equal(surplusBytesOf([certificate(1), certificate(0), certificate(0)]), 0)
  })

  it('goes by their number, and by what they consist of', () => {
    const many = Array.from({ length: 300 }, () => certificate(0))
    assert.ok(surplusBytesOf(many) > 300 * 6_000)
    assert.ok(surplusBytesOf([certificate(10_000)]) > 10_000 * 25)
    const attribute = ['2.5.4.3', der(0x0c, Buffer.from('a'))] as const
    const subject = name(...Array.from({ length: 1_000 }, () => attribute))
    assert.ok(surplusBytesOf([forge({ subject, extensions: [] }).certificate]) > 1_000 * 450)
  })

  it('is not less for what is written in another way, or nested deeply', () => {
    const plain = certificate(4_000)
    assert.ok(surplusBytesOf([withoutLength(plain)]) >= surplusBytesOf([plain]))
    let nested = octets(Buffer.alloc(0))
    while (nested.length < 60_000) nested = der(0x30, nested)
    const deep = { raw: extension('2.5.29.99', nested) } as unknown as X509Certificate
    assert.ok(surplusBytesOf([deep]) > 1_000_000)
  })

  it('can be told of any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const raw = Buffer.concat([Buffer.from([0x30, bytes.length]), bytes])
        const held = surplusBytesOf(Array.from({ length: 10 }, () => ({ raw }) as X509Certificate))
        assert.ok(held >= 0 && held < 200_000)
      }),
    )
  })
})
