import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { VerifiedPeer } from '../../src/identity/peer.ts'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import {
  altNames,
  CA,
  commonName,
  der,
  extension,
  type Forged,
  type Forgery,
  forge,
  forgeCrl,
  integer,
  revoked,
  sequence,
  text,
  time,
  uriName,
} from './forge.ts'
import { accepted, bundleOf, rejected, trustOf } from './trust-material.ts'

const NOW = Date.now()
const HOUR_MS = 3_600_000
const authority = (label: string, options: Forgery = {}): Forged =>
  forge({ subject: commonName(label), extensions: [CA], ...options })
const WEB = altNames(uriName('spiffe://example.org/web'))

const root = authority('root')
const intermediate = authority('intermediate', { issuer: root })
const leaf = forge({ issuer: intermediate, subject: commonName('web'), extensions: [WEB] })
const full = [leaf.certificate, intermediate.certificate]
const bundle = bundleOf([root])

describe('a verifier', () => {
  it('recognises by its leaf alone a peer that it has verified, as on a resumed session', () => {
    const verifier = new PeerVerifier(trustOf([bundle]))
    rejected(verifier.verify([leaf.certificate], NOW), 'untrusted', /no path/)
    const first = accepted(verifier.verify(full, NOW))
    const again = accepted(verifier.verify([new X509Certificate(leaf.der)], NOW))
    assert.deepEqual(
      again.chain.map(({ fingerprint256 }) => fingerprint256),
      first.chain.map(({ fingerprint256 }) => fingerprint256),
    )
    assert.equal(again.chain.length, 3)
  })

  it('gives the connections of one peer the same proof, as long as it holds', () => {
    const verifier = new PeerVerifier(trustOf([bundle]))
    const first = accepted(verifier.verify(full, NOW))
    assert.equal(verifier.verify([new X509Certificate(leaf.der)], NOW), first)
    rejected(verifier.verify(full, first.notAfterMs + 1000), 'expired', /now /)
    assert.notEqual(new PeerVerifier(trustOf([bundle])).verify(full, NOW), first)
  })

  it('holds a remembered peer against the clock', () => {
    const verifier = new PeerVerifier(trustOf([bundle]))
    const { notAfterMs, notBeforeMs } = accepted(verifier.verify(full, NOW))
    for (const chain of [[leaf.certificate], full]) {
      rejected(verifier.verify(chain, notAfterMs + 1000), 'expired', /now /)
      rejected(verifier.verify(chain, notBeforeMs - 1000), 'not_yet_valid', /now /)
    }
    accepted(verifier.verify([leaf.certificate], NOW))
  })

  it('holds a remembered peer against the age of the CRL', () => {
    const crl = forgeCrl({ issuer: intermediate, nextUpdate: new Date(NOW + HOUR_MS / 2) })
    const trust = trustOf([bundleOf([root, intermediate])], { crls: [crl] })
    const verifier = new PeerVerifier(trust)
    accepted(verifier.verify(full, NOW))
    rejected(
      verifier.verify([leaf.certificate], NOW + (HOUR_MS * 2) / 3),
      'revocation_unknown',
      /CN=intermediate/,
    )
  })

  it('finds another way when the remembered one has closed', () => {
    const short = authority('short', { notAfter: time(new Date(NOW + HOUR_MS / 2)) })
    const issuing = authority('issuing', { issuer: short })
    const cross = authority('issuing', { issuer: root, key: issuing.key })
    const peer = forge({ issuer: issuing, extensions: [WEB] })
    const verifier = new PeerVerifier(trustOf([bundleOf([short, root])]))
    const chain = [peer, issuing, cross].map(({ certificate }) => certificate)
    assert.equal(accepted(verifier.verify(chain, NOW)).chain.at(-1)?.subject, 'CN=short')
    const later = NOW + (HOUR_MS * 2) / 3
    assert.equal(accepted(verifier.verify(chain, later)).chain.at(-1)?.subject, 'CN=root')
    assert.equal(accepted(verifier.verify([peer.certificate], later)).chain.length, 3)
  })

  it('remembers no peer that it refused', () => {
    const stranger = forge({ issuer: authority('intermediate'), extensions: [WEB] })
    const verifier = new PeerVerifier(trustOf([bundle]))
    for (let time = 0; time < 2; time += 1) {
      rejected(verifier.verify([stranger.certificate], NOW), 'untrusted', /no path/)
    }
  })

  it('knows nothing of what a verifier of other trust remembered', () => {
    accepted(new PeerVerifier(trustOf([bundle])).verify(full, NOW))
    rejected(
      new PeerVerifier(trustOf([bundle])).verify([leaf.certificate], NOW),
      'untrusted',
      /no path/,
    )
  })

  it('recognises a resumed session by an intermediate of others, when its own peer is forgotten', () => {
    const verifier = new PeerVerifier(trustOf([bundle]))
    const other = forge({ issuer: intermediate, extensions: [altNames(uriName('spiffe://a/b'))] })
    accepted(verifier.verify([other.certificate, intermediate.certificate], NOW))
    accepted(verifier.verify([leaf.certificate], NOW, 'resumed'))
    // A full handshake without the intermediate must not depend on who was there before.
    const another = forge({ issuer: intermediate, extensions: [WEB] })
    rejected(verifier.verify([another.certificate], NOW), 'untrusted', /no path/)
  })

  it('forgets the peer that was used least recently', () => {
    const key = root.key
    const issued = (serial: number): Forged =>
      forge({
        key,
        issuer: intermediate,
        serial: integer((serial + 16).toString(16)),
        extensions: [WEB],
      })
    const verifier = new PeerVerifier(trustOf([bundle]))
    const verified = (serial: number): Forged => {
      const one = issued(serial)
      accepted(verifier.verify([one.certificate, intermediate.certificate], NOW))
      return one
    }
    const used = verified(0)
    const idle = verified(1)
    for (let serial = 2; serial < 4096; serial += 1) verified(serial)
    accepted(verifier.verify([used.certificate], NOW))
    verified(4096)
    accepted(verifier.verify([used.certificate], NOW))
    rejected(verifier.verify([idle.certificate], NOW), 'untrusted', /no path/)
  })
})

describe('recheck', () => {
  const before = new PeerVerifier(trustOf([bundle]))
  const peer = accepted(before.verify(full, NOW))

  it('gives the same peer back while nothing has changed', () => {
    assert.equal(before.recheck(peer, NOW), peer)
  })

  it('under the same trust ends with its validity, and minds no clock that was put back', () => {
    rejected(before.recheck(peer, peer.notAfterMs + 1000), 'expired', /now /)
    assert.equal(before.recheck(peer, peer.notBeforeMs - 1000), peer)
  })

  it('under newer trust gives a peer of the new generation', () => {
    const after = new PeerVerifier(trustOf([bundle], { generation: 2 }))
    const again = accepted(after.recheck(peer, NOW))
    assert.equal(again.trustGeneration, 2)
    assert.equal(again.principal, peer.principal)
    assert.equal(after.recheck(again, NOW), again)
  })

  it('refuses a peer whose authority is gone, though the old root is in its chain', () => {
    const after = new PeerVerifier(trustOf([bundleOf([authority('next')])], { generation: 2 }))
    rejected(after.recheck(peer, NOW), 'untrusted', /no path/)
  })

  it('follows a root that was renewed with the same key', () => {
    const renewed = authority('root', { key: root.key, serial: integer('99') })
    const after = new PeerVerifier(trustOf([bundleOf([renewed])], { generation: 2 }))
    const again = accepted(after.recheck(peer, NOW))
    assert.equal(again.chain.at(-1)?.serialNumber, '99')
  })

  it('refuses a peer that a new CRL lists', () => {
    const bundles = [bundleOf([root, intermediate])]
    const crl = forgeCrl({ issuer: intermediate, entries: [revoked('1234')] })
    const after = new PeerVerifier(trustOf(bundles, { crls: [crl], generation: 2 }))
    rejected(after.recheck(peer, NOW), 'revoked', /lists serial 1234/)
  })

  it('refuses a peer whose trust domain now has a bundle of its own', () => {
    const own = bundleOf([authority('own')], 'example.org')
    const after = new PeerVerifier(trustOf([bundle, own], { generation: 2 }))
    rejected(after.recheck(peer, NOW), 'untrusted', /no path/)
  })

  it('refuses a peer that new name constraints do not allow', () => {
    const excluded = der(0xa1, sequence(text(0x86, 'example.org')))
    const constrained = authority('root', {
      key: root.key,
      extensions: [CA, extension('2.5.29.30', sequence(excluded), true)],
    })
    const after = new PeerVerifier(trustOf([bundleOf([constrained])], { generation: 2 }))
    rejected(after.recheck(peer, NOW), 'purpose', /name constraints do not allow/)
  })
})

describe('a verifier that follows another under the same bundles', () => {
  const bundles = [bundleOf([root, intermediate])]
  const listed = (...serials: readonly string[]) => [
    forgeCrl({ issuer: intermediate, entries: serials.map((serial) => revoked(serial)) }),
    forgeCrl({ issuer: root }),
  ]
  const trust = (generation: number, options: Parameters<typeof trustOf>[1] = {}) =>
    trustOf(bundles, { crls: listed(), ...options, generation, bundleGeneration: 1 })
  const first = new PeerVerifier(trust(1))
  const peer = accepted(first.verify(full, NOW))

  it('knows the peers of the one before, by their leaf alone', () => {
    const next = new PeerVerifier(trust(2), first)
    const again = accepted(next.verify([leaf.certificate], NOW))
    assert.equal(again.trustGeneration, 2)
    assert.equal(accepted(next.recheck(peer, NOW)), again)
    assert.equal(next.recheck(again, NOW), again)
  })

  it('holds them against the new CRL and the new deny list', () => {
    const revoking = new PeerVerifier(trust(2, { crls: listed('1234') }), first)
    rejected(revoking.recheck(peer, NOW), 'revoked', /lists serial 1234/)
    rejected(revoking.verify(full, NOW), 'revoked', /lists serial 1234/)
    const denied = [
      {
        where: 'revoked.yaml:1',
        what: { kind: 'spiffe_id', pattern: 'spiffe://example.org/*' },
      } as const,
    ]
    const denying = new PeerVerifier(trust(3, { denied }), revoking)
    rejected(denying.recheck(peer, NOW), 'deny_listed', /revoked\.yaml:1/)
    rejected(denying.verify(full, NOW), 'deny_listed', /revoked\.yaml:1/)
    accepted(new PeerVerifier(trust(4), denying).recheck(peer, NOW))
  })

  it('says whom its news concern', () => {
    const concerned = (options: Parameters<typeof trustOf>[1], bundleGeneration = 1) =>
      new PeerVerifier(
        { ...trust(2, options), bundleGeneration },
        new PeerVerifier(trust(1)),
      ).concerns(peer, NOW)
    assert.equal(concerned({}), false)
    assert.equal(concerned({ crls: listed('99') }), true)
    assert.equal(concerned({ crls: listed().slice(0, 1) }), true)
    assert.equal(concerned({ clockSkewMs: 1 }), true)
    assert.equal(concerned({ revocation: { scope: 'chain' } }), true)
    assert.equal(concerned({}, 2), true)
    const denying = (pattern: string) => [
      { where: 'r:1', what: { kind: 'spiffe_id', pattern } } as const,
    ]
    assert.equal(concerned({ denied: denying('spiffe://example.org/other') }), false)
    assert.equal(concerned({ denied: denying('spiffe://example.org/web') }), true)
  })

  it('has news about no one for a CRL of another authority', () => {
    const other = authority('another')
    const all = [bundleOf([root, intermediate, other])]
    const with2 = (generation: number, entries: readonly Buffer[]) =>
      trustOf(all, {
        crls: [...listed(), forgeCrl({ issuer: other, entries })],
        generation,
        bundleGeneration: 1,
      })
    const before = new PeerVerifier(with2(1, []))
    const mine = accepted(before.verify(full, NOW))
    const theirs = forge({ issuer: other, serial: integer('55'), extensions: [WEB] })
    const stranger = accepted(before.verify([theirs.certificate], NOW))
    const after = new PeerVerifier(with2(2, [revoked('55')]), before)
    assert.equal(after.concerns(mine, NOW), false)
    assert.equal(after.concerns(stranger, NOW), true)
    rejected(after.recheck(stranger, NOW), 'revoked', /lists serial 55/)
    accepted(after.recheck(mine, NOW))
  })

  it('never takes over what was known under other bundles', () => {
    const next = new PeerVerifier(trustOf([bundle], { generation: 2 }), first)
    rejected(next.verify([leaf.certificate], NOW), 'untrusted', /no path/)
    rejected(next.verify([leaf.certificate], NOW, 'resumed'), 'untrusted', /no path/)
  })
})

describe('a VerifiedPeer', () => {
  const peer = accepted(new PeerVerifier(trustOf([bundle])).verify(full, NOW))

  it('cannot be changed', () => {
    assert.ok(Object.isFrozen(peer))
    for (const list of [peer.uris, peer.dnsNames, peer.chain]) assert.ok(Object.isFrozen(list))
  })

  it('cannot be imitated', () => {
    const verifier = new PeerVerifier(trustOf([bundle]))
    const fake = Object.assign(Object.create(VerifiedPeer.prototype), { ...peer })
    assert.throws(() => verifier.recheck(fake, NOW), TypeError)
    assert.throws(() => verifier.recheck({ ...peer } as unknown as VerifiedPeer, NOW), TypeError)
  })

  it('is made by the verifier alone', () => {
    const source = new URL('../../src/', import.meta.url)
    const makers = readdirSync(source, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts'))
      .filter((path) => /\bvouchFor\b/.test(readFileSync(new URL(path, source), 'utf8')))
    assert.deepEqual(makers.sort(), ['identity/peer.ts', 'identity/verifier.ts'])
  })
})
