import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { readDenyList } from '../../src/config/deny-list.ts'

const NOW = Date.UTC(2026, 10, 22)
const DIGEST = 'ab'.repeat(32)
const read = (text: string) => readDenyList({ path: 'revoked.yaml', text }, NOW)
const whatOf = (text: string) => read(text).entries?.map(({ what }) => what)

describe('a deny list', () => {
  it('names peers in three ways, with an end and a reason', () => {
    const { entries, problems } = read(`
- spiffeId: spiffe://example.org/ns/*/sa/web
  reason: laptop stolen
- { issuer: "CN=issuing,O=Example", serial: "0A:bc" }
- spki: sha256:${DIGEST}
  until: 2027-01-31T12:00:00Z
`)
    assert.deepEqual(problems, [])
    assert.deepEqual(entries, [
      {
        where: 'revoked.yaml:2',
        what: { kind: 'spiffe_id', pattern: 'spiffe://example.org/ns/*/sa/web' },
        reason: 'laptop stolen',
      },
      {
        where: 'revoked.yaml:4',
        what: { kind: 'certificate', issuer: 'CN=issuing,O=Example', serial: 'abc' },
      },
      {
        where: 'revoked.yaml:5',
        what: { kind: 'key', spkiSha256: DIGEST },
        untilMs: Date.UTC(2027, 0, 31, 12),
      },
    ])
  })

  it('may be JSON, and may be empty', () => {
    assert.deepEqual(whatOf('[{"spiffeId": "spiffe://a/b"}]'), [
      { kind: 'spiffe_id', pattern: 'spiffe://a/b' },
    ])
    assert.deepEqual(whatOf('[]'), [])
  })

  it('takes the spellings of a digest and of a serial that tools print', () => {
    const base64 = Buffer.from(DIGEST, 'hex').toString('base64')
    const colons = DIGEST.toUpperCase().replace(/..(?=.)/g, '$&:')
    for (const spki of [DIGEST, colons, `sha256:${colons}`, `sha256//${base64}`, base64]) {
      assert.deepEqual(whatOf(`- { spki: "${spki}" }`), [{ kind: 'key', spkiSha256: DIGEST }])
    }
    for (const serial of ['0012AB', '12:ab', '0x12ab']) {
      const [what] = whatOf(`- { issuer: CN=a, serial: "${serial}" }`) ?? []
      assert.equal(what?.kind === 'certificate' && what.serial, '12ab')
    }
  })

  const wrong: readonly (readonly [what: string, text: string, line: number, message: RegExp])[] = [
    ['nothing', '', 1, /not a list/],
    ['no list', 'spiffeId: spiffe://a/b', 1, /not a list/],
    ['no YAML', '- [', 1, /not YAML/],
    ['an alias', '- &a {spiffeId: spiffe://a/b}\n- *a', 2, /not a section/],
    ['a text for an entry', '- spiffe://a/b', 1, /not a section/],
    ['an entry that says nothing', '- { reason: x }', 1, /denies nobody/],
    ['two ways in one entry', `- { spiffeId: spiffe://a/b, spki: ${DIGEST} }`, 1, /two things/],
    ['a serial alone', '- serial: ab', 1, /a serial and no issuer/],
    ['an issuer alone', '- issuer: CN=a', 1, /an issuer and no serial/],
    ['an unknown key', '- spiffeId: spiffe://a/b\n  untill: 2027-01-31T12:00:00Z', 2, /not a key/],
    ['a key without value', '- spiffeId:\n', 1, /has no value/],
    ['a list for a value', '- spiffeId: [a]\n', 1, /has no value/],
    ['a key twice', '- spiffeId: spiffe://a/b\n  spiffeId: spiffe://a/c', 2, /unique|not YAML/],
    ['a star within a segment', '- spiffeId: spiffe://a/b*', 1, /only a part of a segment/],
    ['no URI', '- spiffeId: example.org', 1, /not a URI/],
    ['a trust domain alone', '- spiffeId: spiffe://example.org', 1, /fits no SPIFFE ID/],
    ['another scheme', '- spiffeId: https://example.org/a', 1, /fits no SPIFFE ID/],
    ['a trust domain in capitals', '- spiffeId: spiffe://Example.org/a', 1, /fits no SPIFFE ID/],
    ['a trailing slash', '- spiffeId: spiffe://example.org/a/', 1, /fits no SPIFFE ID/],
    ['a SHA-1', `- spki: ${'ab'.repeat(20)}`, 1, /not a SHA-256/],
    ['a serial that is none', '- { issuer: CN=a, serial: 12xyz }', 1, /not a serial number/],
    ['an issuer that is none', '- { issuer: /C=US/CN=a, serial: 12 }', 1, /not a distinguished/],
    ['a time without zone', '- spiffeId: spiffe://a/b\n  until: 2027-01-31 12:00', 2, /its zone/],
    ['a day that is none', '- spiffeId: spiffe://a/b\n  until: 2027-02-31T99:00:00Z', 2, /until/],
    [
      'more patterns than may be tried on everybody',
      '- spiffeId: spiffe://a/*\n'.repeat(1_001),
      1,
      /1001 patterns/,
    ],
    ['more entries than may be', '- spiffeId: spiffe://a/b\n'.repeat(10_001), 1, /10001 entries/],
  ]
  for (const [what, text, line, message] of wrong) {
    it(`is refused as a whole for ${what}, with line and remedy`, () => {
      const { entries, problems } = read(`${text}`)
      assert.equal(entries, undefined)
      const [problem] = problems
      assert.match(problem?.what ?? '', message)
      assert.match(problem?.where ?? '', new RegExp(`^trust\\.revoked \\(revoked\\.yaml:${line}:`))
      assert.notEqual(problem?.remedy, '')
    })
  }

  it('tells of every wrong entry at once', () => {
    const { problems } = read('- serial: ab\n- spki: x\n- spiffeId: spiffe://a/b\n- {}')
    assert.equal(problems.length, 3)
  })

  it('warns of an entry that has ended, and keeps it', () => {
    const { entries, problems } = read('- { spiffeId: spiffe://a/b, until: "2026-11-21T00:00Z" }')
    assert.equal(entries?.length, 1)
    assert.deepEqual(
      problems.map(({ severity }) => severity),
      ['warning'],
    )
  })

  it('is answered with entries or problems, whatever the text', () => {
    const line = fc.oneof(
      fc.constantFrom(
        '- spiffeId: spiffe://a/b',
        '  until: 2027',
        '- spki: x',
        '- &a',
        '- {}',
        ': ',
      ),
      fc.string(),
    )
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
        const { entries, problems } = read(lines.join('\n'))
        assert.ok(entries !== undefined || problems.length > 0)
      }),
      { numRuns: 300 },
    )
  })
})
