import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { DenyEntry } from '../../src/config/config.ts'
import { sha256 } from '../../src/identity/certificate.ts'
import { DenyList, entriesAdded, sameNameText } from '../../src/identity/deny-list.ts'
import { type Link, linkOf } from '../../src/identity/link.ts'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import {
  altNames,
  CA,
  commonName,
  type Forged,
  forge,
  integer,
  name,
  text,
  uriName,
} from './forge.ts'
import { accepted, bundleOf, rejected, trustOf } from './trust-material.ts'

const NOW = Date.now()
const ID = 'spiffe://example.org/ns/shop/sa/web'
const root = forge({ subject: commonName('root'), extensions: [CA] })
const intermediate = forge({
  subject: name(['2.5.4.10', text(0x0c, 'Example, Inc')], ['2.5.4.3', text(0x0c, 'issuing')]),
  issuer: root,
  serial: integer('77'),
  extensions: [CA],
})
const leaf = forge({
  issuer: intermediate,
  serial: integer('00abcd'),
  extensions: [altNames(uriName(ID))],
})
const spkiOf = (one: Forged): string => sha256((linkOf(one.certificate) as Link).reading.spkiDer)

const entry = (what: DenyEntry['what'], more: Partial<DenyEntry> = {}): DenyEntry => ({
  where: 'revoked.yaml:3',
  what,
  ...more,
})
const id = (pattern: string, more?: Partial<DenyEntry>): DenyEntry =>
  entry({ kind: 'spiffe_id', pattern }, more)
const serial = (issuer: string, hex: string): DenyEntry =>
  entry({ kind: 'certificate', issuer, serial: hex })
const key = (one: Forged): DenyEntry => entry({ kind: 'key', spkiSha256: spkiOf(one) })

const bundles = [bundleOf([root])]
const chain = [leaf.certificate, intermediate.certificate]
const verify = (denied: readonly DenyEntry[], nowMs = NOW) =>
  new PeerVerifier(trustOf(bundles, { denied })).verify(chain, nowMs)

describe('the deny list', () => {
  it('refuses by SPIFFE ID, exactly or by pattern, and names the entry', () => {
    for (const pattern of [
      ID,
      'spiffe://example.org/ns/*/sa/web',
      'spiffe://example.org/**',
      'spiffe://*/ns/shop/sa/*',
    ]) {
      rejected(
        verify([id('spiffe://example.org/other'), id(pattern, { reason: 'stolen laptop' })]),
        'deny_listed',
        /has its SPIFFE ID spiffe:\/\/example\.org\/ns\/shop\/sa\/web \(revoked\.yaml:3: stolen laptop\)/,
      )
    }
  })

  it('refuses by issuer and serial, however the name is written', () => {
    for (const issuer of [
      'CN=issuing,O=Example\\, Inc',
      'O = Example\\, Inc, CN = issuing',
      'cn=ISSUING, o=example\\, inc',
    ]) {
      rejected(verify([serial(issuer, 'abcd')]), 'deny_listed', /serial abcd of CN=issuing/)
    }
  })

  it('refuses by the key of the leaf', () => {
    rejected(verify([key(leaf)]), 'deny_listed', /key sha256:[0-9a-f]{64}/)
  })

  it('refuses everything below an authority by its serial or key, also the anchor', () => {
    rejected(verify([serial('CN=root', '77')]), 'deny_listed', /serial 77 of CN=root/)
    rejected(verify([key(intermediate)]), 'deny_listed', /CN=issuing.*key/)
    rejected(verify([key(root)]), 'deny_listed', /CN=root.*key/)
  })

  it('says nothing about anybody else', () => {
    accepted(
      verify([
        id('spiffe://example.org/ns/shop/sa/web2'),
        id('spiffe://example.org/ns/shop/*'),
        id('spiffe://example.org/ns/shop/sa/web/*'),
        serial('CN=issuing,O=Example\\, Inc', 'abce'),
        serial('CN=root', 'abcd'),
        key(forge({ extensions: [CA] })),
      ]),
    )
  })

  it('lets an entry end', () => {
    const until = [id(ID, { untilMs: NOW + 1_000 })]
    rejected(verify(until), 'deny_listed', /SPIFFE ID/)
    accepted(verify(until, NOW + 1_000))
    rejected(verify([...until, id('spiffe://example.org/**')], NOW + 2_000), 'deny_listed', /./)
  })

  it('finds another way where an authority is denied on one alone', () => {
    const other = forge({ subject: commonName('other root'), extensions: [CA] })
    const crossed = forge({
      subject: intermediate.subject,
      key: intermediate.key,
      issuer: other,
      serial: integer('78'),
      extensions: [CA],
    })
    const verifier = new PeerVerifier(
      trustOf([bundleOf([root, other])], { denied: [serial('CN=root', '77')] }),
    )
    const peer = accepted(verifier.verify([...chain, crossed.certificate], NOW))
    assert.equal(peer.chain.at(-1)?.fingerprint256, other.certificate.fingerprint256)
  })

  it('tells which entries are new, whatever else of the file has changed', () => {
    const old = [id(ID), key(leaf)]
    const moved = old.map((one) => ({ ...one, where: 'revoked.yaml:9', reason: 'another text' }))
    assert.deepEqual(entriesAdded(old, moved), [])
    const longer = id(ID, { untilMs: NOW })
    assert.deepEqual(entriesAdded(old, [...moved, longer]), [longer])
  })

  it('finds an exact ID and nothing else, whatever the IDs', () => {
    const path = fc.stringMatching(/^[a-z]{1,3}$/)
    const ids = fc.array(
      path.map((one) => `spiffe://example.org/${one}`),
      { maxLength: 20 },
    )
    fc.assert(
      fc.property(ids, path, (denied, mine) => {
        const uri = `spiffe://example.org/${mine}`
        const links = [{ reading: { uris: [uri], serial: '1', issuer: '' } } as unknown as Link]
        const list = new DenyList(denied.map((one) => id(one)))
        assert.equal(list.find(links, NOW) !== undefined, denied.includes(uri))
      }),
      { numRuns: 200 },
    )
  })
})

describe('the text of a name', () => {
  it('is compared in time that grows with its length alone', () => {
    assert.notEqual(sameNameText('CN=a,O=b'), sameNameText('CN=a,O=c'))
    assert.equal(sameNameText('CN=a + OU=x, O=b'), sameNameText('O=b,OU=x+CN=A'))
    sameNameText(`${'\\,'.repeat(2_000)}${' '.repeat(2_000)}=`)
  })
})
