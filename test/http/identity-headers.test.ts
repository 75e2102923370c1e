import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { isFieldValue } from '../../src/field-names.ts'
import { clientCertField, combineXfcc, xfccElement } from '../../src/http/identity-headers.ts'

const HASH = 'ab'.repeat(32)
const BY = ['spiffe://d/ns/x/sa/api']

it('has exactly three parts for a SPIFFE peer, as published Rego expects', () => {
  assert.equal(
    xfccElement({ by: BY, hash: HASH, uris: ['spiffe://d/ns/x/sa/a'] }),
    `By=spiffe://d/ns/x/sa/api;Hash=${HASH};URI=spiffe://d/ns/x/sa/a`,
  )
})

it('has one pair for every URI and DNS name, and quotes Subject, Cert and Chain', () => {
  assert.equal(
    xfccElement({
      by: [...BY, 'urn:b'],
      hash: HASH,
      uris: ['urn:a', 'urn:b'],
      subject: '/C=US/CN=Test Client',
      dns: ['a', 'b'],
      certPem: '-----BEGIN A-----\n+/=\n',
      chainPem: 'x',
    }),
    [
      'By=spiffe://d/ns/x/sa/api;By=urn:b',
      `Hash=${HASH}`,
      'Cert="-----BEGIN%20A-----%0A%2B%2F%3D%0A"',
      'Chain="x"',
      'Subject="/C=US/CN=Test Client"',
      'URI=urn:a;URI=urn:b',
      'DNS=a;DNS=b',
    ].join(';'),
  )
})

describe('no value can end its own pair', () => {
  const uri = (value: string) => xfccElement({ by: [], hash: '', uris: [value] })
  it('quotes separators and escapes quotes and backslashes', () => {
    assert.equal(uri('urn:a,b'), 'Hash=;URI="urn:a,b"')
    assert.equal(uri('urn:a;URI=urn:b'), 'Hash=;URI="urn:a;URI=urn:b"')
    assert.equal(uri('urn:"a'), 'Hash=;URI="urn:\\"a"')
    assert.equal(uri('urn:a\\'), 'Hash=;URI="urn:a\\\\"')
  })
  it('percent-encodes line breaks and other alphabets', () => {
    assert.equal(uri('urn:a\r\nb'), 'Hash=;URI="urn:a%0D%0Ab"')
    assert.equal(uri('urn:\u00e9\u{1f600}'), 'Hash=;URI="urn:%C3%A9%F0%9F%98%80"')
    assert.equal(uri('\ud800'), 'Hash=;URI="%EF%BF%BD"')
  })
  it('holds for any text', () => {
    const piece = fc.constantFrom(',', ';', '=', '"', '\\', 'URI=x', 'a', '\r', '\n', '\u2028')
    fc.assert(
      fc.property(
        fc.array(piece).map((pieces) => pieces.join('')),
        (value) => {
          const element = xfccElement({
            by: [],
            hash: 'h',
            uris: ['u'],
            subject: value,
            dns: [value],
          })
          assert.equal(isFieldValue(element), true)
          const keys = splitOutsideQuotes(element).map((pair) => pair.slice(0, pair.indexOf('=')))
          assert.deepEqual(keys, ['Hash', 'Subject', 'URI', 'DNS'])
        },
      ),
    )
  })
})

it('combines as the mode says', () => {
  assert.equal(combineXfcc('sanitize', 'theirs', 'ours'), undefined)
  assert.equal(combineXfcc('sanitize_set', 'theirs', 'ours'), 'ours')
  assert.equal(combineXfcc('sanitize_set', 'theirs', undefined), undefined)
  assert.equal(combineXfcc('forward_only', 'theirs', 'ours'), 'theirs')
  assert.equal(combineXfcc('always_forward_only', 'theirs', 'ours'), 'theirs')
  assert.equal(combineXfcc('forward_only', undefined, 'ours'), undefined)
  assert.equal(combineXfcc('append_forward', 'theirs', 'ours'), 'theirs,ours')
  assert.equal(combineXfcc('append_forward', undefined, 'ours'), 'ours')
  assert.equal(combineXfcc('append_forward', 'theirs', undefined), 'theirs')
})

it('appends to nothing in which the element for the peer would be part of a quoted value', () => {
  for (const open of ['Subject="', 'a,Subject="x', 'Subject="\\"', '"a""', '\\"a"', 'Hash=1\\']) {
    assert.equal(combineXfcc('append_forward', open, 'ours'), 'ours', open)
  }
  for (const closed of ['Subject="a,b"', 'Subject="\\"";URI=x', 'Subject=""', 'a,"b\\\\"']) {
    assert.equal(combineXfcc('append_forward', closed, 'ours'), `${closed},ours`)
  }
})

it('writes client-cert as a structured-field byte sequence', () => {
  assert.equal(clientCertField(Uint8Array.of(0, 255, 62)), ':AP8+:')
  assert.equal(clientCertField(Buffer.from('xyz').subarray(1)), ':eXo=:')
})

function splitOutsideQuotes(text: string): string[] {
  return text.match(/(?:[^";]|"(?:[^"\\]|\\.)*")+/g) ?? []
}
