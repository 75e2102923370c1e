import assert from 'node:assert/strict'
import type { X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { surplusBytesOf } from '../../src/identity/certificate-weight.ts'
import { altNames, commonName, der, forge } from './forge.ts'

const name = der(0x82, Buffer.from('a'))

function certificate(names: number): X509Certificate {
  const extensions = [altNames(...Array.from({ length: names }, () => name))]
  return forge({ subject: commonName('a'), extensions }).certificate
}

describe('what certificates take of memory', () => {
  it('is nothing beyond the usual for a usual path', () => {
    assert.equal(surplusBytesOf([]), 0)
    assert.equal(surplusBytesOf([certificate(1), certificate(0), certificate(0)]), 0)
  })

  it('goes by their number, and by what they consist of', () => {
    const many = Array.from({ length: 300 }, () => certificate(0))
    assert.ok(surplusBytesOf(many) > 300 * 6_000)
    assert.ok(surplusBytesOf([certificate(10_000)]) > 10_000 * 40)
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
