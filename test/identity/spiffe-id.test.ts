import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { claimsSpiffe, parseSpiffeId } from '../../src/identity/spiffe-id.ts'

describe('parseSpiffeId', () => {
  it('takes the ID of a workload apart', () => {
    assert.deepEqual(parseSpiffeId('spiffe://example.org/ns/shop/sa/web'), {
      id: 'spiffe://example.org/ns/shop/sa/web',
      trustDomain: 'example.org',
      path: '/ns/shop/sa/web',
    })
  })

  for (const id of [
    'spiffe://a/b',
    'spiffe://a_b-c.d/..._/-/A.Z',
    'spiffe://1.2.3.4/x',
    'spiffe://a/...',
    'spiffe://a/.b/c..',
  ]) {
    it(`accepts ${id}`, () => {
      assert.equal(parseSpiffeId(id)?.id, id)
    })
  }

  for (const text of [
    '',
    'spiffe://',
    'spiffe:///path',
    'spiffe://example.org',
    'spiffe://example.org/',
    'spiffe://example.org/a/',
    'spiffe://example.org//a',
    'spiffe://example.org/a//b',
    'spiffe://example.org/.',
    'spiffe://example.org/..',
    'spiffe://example.org/a/./b',
    'spiffe://example.org/a/../b',
    'spiffe://example.org/a/..',
    'spiffe://Example.org/a',
    'SPIFFE://example.org/a',
    'Spiffe://example.org/a',
    'spiffe:/example.org/a',
    'spiffe:example.org/a',
    'https://example.org/a',
    'spiffe://example.org:443/a',
    'spiffe://user@example.org/a',
    'spiffe://example.org/a?b=c',
    'spiffe://example.org/a#b',
    'spiffe://example.org/%61',
    'spiffe://ex%61mple.org/a',
    'spiffe://example.org/a b',
    'spiffe://example.org/a\n',
    '\nspiffe://example.org/a',
    ' spiffe://example.org/a',
    'spiffe://example.org/a\u0000',
    'spiffe://example.org/ä',
    'spiffe://exämple.org/a',
    'spiffe://example.org/a,URI:spiffe://example.org/b',
    'spiffe://example.org/a;b',
    'spiffe://example.org\\a/b',
    `spiffe://${'a'.repeat(256)}/b`,
    `spiffe://a/${'b'.repeat(2048)}`,
  ]) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.equal(parseSpiffeId(text), undefined)
    })
  }

  it('takes 2048 bytes and not one more', () => {
    const prefix = 'spiffe://a/'
    const longest = prefix + 'b'.repeat(2048 - prefix.length)
    assert.equal(parseSpiffeId(longest)?.id, longest)
    assert.equal(parseSpiffeId(`${longest}b`), undefined)
  })

  it('never throws, and accepts nothing that two readers could read differently', () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom('spiffe://', 'example.org', '/', '.', '..', '%2e', '?', '#', ':', '@', 'a'),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = pieces.join('')
        const id = parseSpiffeId(text)
        if (id === undefined) return
        assert.equal(id.id, text)
        assert.equal(`spiffe://${id.trustDomain}${id.path}`, text)
        const url = new URL(text)
        assert.equal(url.host, id.trustDomain)
        assert.equal(url.pathname, id.path)
        assert.equal(url.href, text)
      }),
      { numRuns: 2000 },
    )
  })

  it('accepts every combination of allowed characters', () => {
    const domain = fc.stringMatching(/^[a-z0-9._-]{1,40}$/)
    const segment = fc.stringMatching(/^[A-Za-z0-9._-]{1,20}$/).filter((s) => !/^\.\.?$/.test(s))
    fc.assert(
      fc.property(domain, fc.array(segment, { minLength: 1, maxLength: 6 }), (name, segments) => {
        const path = segments.map((one) => `/${one}`).join('')
        assert.deepEqual(parseSpiffeId(`spiffe://${name}${path}`), {
          id: `spiffe://${name}${path}`,
          trustDomain: name,
          path,
        })
      }),
    )
  })
})

describe('claimsSpiffe', () => {
  it('sees the claim in any letter case, so that a misspelt ID is refused and not taken for another name', () => {
    for (const uri of ['spiffe://a/b', 'SPIFFE://a/b', 'sPiFfe:whatever']) {
      assert.equal(claimsSpiffe(uri), true)
    }
    for (const uri of ['https://a/b', 'xspiffe://a/b', 'urn:spiffe:a']) {
      assert.equal(claimsSpiffe(uri), false)
    }
  })
})
