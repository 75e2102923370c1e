import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, it } from 'node:test'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import {
  altNames,
  boolean,
  CA,
  commonName,
  der,
  dnsName,
  extension,
  type Forged,
  type Forgery,
  forge,
  integer,
  name,
  newKey,
  octets,
  oid,
  sequence,
  time,
  uriName,
} from './forge.ts'
import { accepted, bundleOf, rejected, trustOf } from './trust-material.ts'

const NOW = Date.now()
const HOUR_MS = 3_600_000
const at = (offsetMs: number): Buffer => time(new Date(NOW + offsetMs))

const WEB = altNames(uriName('spiffe://example.org/web'))
const SIGNS = extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x01, 0x06]), true)
const usages = (...oids: string[]): Buffer =>
  extension('2.5.29.37', sequence(...oids.map((one) => oid(one))))
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3'
const keyUsage = (...bytes: number[]): Buffer => extension('2.5.29.15', Buffer.from(bytes), true)
const pathLength = (limit: number): Buffer =>
  extension('2.5.29.19', sequence(boolean(true), integer(limit.toString(16))), true)

const authority = (label: string, options: Forgery = {}): Forged =>
  forge({ subject: commonName(label), extensions: [CA, SIGNS], ...options })
const leafOf = (issuer: Forged, options: Forgery = {}): Forged =>
  forge({ issuer, subject: commonName('web'), extensions: [WEB], ...options })

const root = authority('root')
const intermediate = authority('intermediate', { issuer: root })
const general = bundleOf([root])

const verify = (chain: readonly Forged[], bundles = [general], nowMs = NOW) =>
  new PeerVerifier(trustOf(bundles)).verify(
    chain.map(({ certificate }) => certificate),
    nowMs,
  )

describe('a chain', () => {
  it('of a leaf and a root in the bundle is accepted', () => {
    const peer = accepted(verify([leafOf(root)]))
    assert.equal(peer.chain.length, 2)
    assert.equal(peer.principal, 'spiffe://example.org/web')
  })

  it('is accepted through an intermediate that the peer sent, in any order and beside others', () => {
    const leaf = leafOf(intermediate)
    const stranger = authority('intermediate')
    for (const chain of [
      [leaf, intermediate],
      [leaf, root, intermediate],
      [leaf, stranger, intermediate, stranger],
    ]) {
      const peer = accepted(verify(chain))
      assert.deepEqual(
        peer.chain.map(({ subject }) => subject),
        ['CN=web', 'CN=intermediate', 'CN=root'],
      )
    }
  })

  it('is accepted through an intermediate that only the bundle has', () => {
    const peer = accepted(verify([leafOf(intermediate)], [bundleOf([root, intermediate])]))
    assert.equal(peer.chain.length, 3)
  })

  it('ends at an intermediate where the bundle has no more than that', () => {
    const peer = accepted(verify([leafOf(intermediate), intermediate], [bundleOf([intermediate])]))
    assert.equal(peer.chain.length, 2)
  })

  it('goes on to the root of the bundle, whose expiry counts', () => {
    const old = authority('old', { notAfter: at(-HOUR_MS), notBefore: at(-2 * HOUR_MS) })
    const young = authority('young', { issuer: old })
    rejected(verify([leafOf(young)], [bundleOf([young, old])]), 'expired', /CN=old/)
  })

  it('is refused without the intermediate', () => {
    rejected(verify([leafOf(intermediate)]), 'untrusted', /no path from its issuer CN=intermediate/)
  })

  it('is refused when only names fit, not the key', () => {
    const impostor = authority('root')
    rejected(verify([leafOf(impostor)]), 'untrusted', /no path/)
    rejected(verify([leafOf(impostor), impostor]), 'untrusted', /no path/)
    const below = authority('intermediate', { issuer: impostor })
    rejected(verify([leafOf(below), below, impostor]), 'untrusted', /no path/)
  })

  it('finds the right one of several roots, of the same name too', () => {
    const twin = authority('root')
    const other = authority('other')
    const bundles = [bundleOf([other, twin, root])]
    for (const issuer of [root, twin, other]) accepted(verify([leafOf(issuer)], bundles))
  })

  it('takes the other way round where an authority is cross-signed and one way is closed', () => {
    const gone = authority('gone', { notBefore: at(-2 * HOUR_MS), notAfter: at(-HOUR_MS) })
    const issuing = authority('issuing', { issuer: gone })
    const cross = authority('issuing', { issuer: root, key: issuing.key })
    const leaf = leafOf(issuing)
    for (const sent of [
      [issuing, cross],
      [cross, issuing],
    ]) {
      const peer = accepted(verify([leaf, ...sent], [bundleOf([gone, root])]))
      assert.equal(peer.chain.at(-1)?.subject, 'CN=root')
    }
    rejected(verify([leaf, issuing], [bundleOf([gone, root])]), 'expired', /CN=gone/)
  })

  it('ends at a self-signed root, also where the bundle has it cross-signed by an expired one', () => {
    const gone = authority('gone', { notBefore: at(-2 * HOUR_MS), notAfter: at(-HOUR_MS) })
    const cross = authority('root', { issuer: gone, key: root.key })
    accepted(verify([leafOf(root)], [bundleOf([cross, gone, root])]))
  })

  it('of five issuers is accepted, of six not', () => {
    const chain = [root]
    for (let level = 1; level <= 5; level += 1) {
      chain.unshift(authority(`level ${level}`, { issuer: chain[0]! }))
    }
    accepted(verify([leafOf(chain[1]!), ...chain.slice(1)]))
    rejected(verify([leafOf(chain[0]!), ...chain]), 'untrusted', /no path/)
  })

  it('finds the right one of very many roots of one name by its key identifier', () => {
    const roots = Array.from({ length: 20 }, (_, index) =>
      authority('root', {
        extensions: [CA, extension('2.5.29.14', octets(Buffer.from([index])))],
      }),
    )
    const keyId = extension('2.5.29.35', sequence(der(0x80, Buffer.from([19]))))
    const leaf = leafOf(roots[19]!, { extensions: [WEB, keyId] })
    accepted(verify([leaf], [bundleOf(roots)]))
  })

  it('costs a bounded number of signature checks', () => {
    const key = newKey()
    const twins = Array.from({ length: 9 }, (_, serial) =>
      authority('loop', {
        key,
        issuer: { key, subject: commonName('loop') },
        serial: integer(`1${serial}`),
      }),
    )
    rejected(verify([leafOf(twins[0]!), ...twins]), 'untrusted', /within 16 signature checks/)
  })

  it('is refused when it is empty, or cannot be read', () => {
    rejected(verify([]), 'untrusted', /sent no certificate/)
    const broken = forge({ issuer: root, extensions: [altNames(dnsName('a\u0000b'))] })
    rejected(verify([broken]), 'bad_identity', /its certificate: /)
  })

  it('does without an intermediate that cannot be read', () => {
    const broken = forge({ issuer: root, extensions: [CA, altNames(dnsName('a\u0000b'))] })
    accepted(verify([leafOf(intermediate), broken, intermediate]))
  })
})

describe('time', () => {
  it('outside the validity of the leaf is told with both times', () => {
    const leaf = leafOf(root)
    const { notBeforeMs, notAfterMs } = accepted(verify([leaf]))
    const late = notAfterMs + 1000
    rejected(
      verify([leaf], [general], late),
      'expired',
      new RegExp(`to ${new Date(notAfterMs).toISOString()}, now ${new Date(late).toISOString()}`),
    )
    const early = notBeforeMs - 1000
    rejected(
      verify([leaf], [general], early),
      'not_yet_valid',
      new RegExp(
        `from ${new Date(notBeforeMs).toISOString()} .*now ${new Date(early).toISOString()}`,
      ),
    )
    accepted(verify([leaf], [general], notBeforeMs))
    accepted(verify([leaf], [general], notAfterMs))
  })

  it('outside the validity of an issuer counts as much', () => {
    const young = authority('young', { issuer: root, notBefore: at(HOUR_MS / 2) })
    rejected(verify([leafOf(young), young]), 'not_yet_valid', /CN=young/)
    const old = authority('old', { notBefore: at(-2 * HOUR_MS), notAfter: at(-HOUR_MS) })
    rejected(verify([leafOf(old)], [bundleOf([old])]), 'expired', /CN=old/)
  })

  it('bounds the peer by the first certificate of the chain that ends', () => {
    const short = authority('short', { issuer: root, notAfter: at(HOUR_MS / 2) })
    const leaf = leafOf(short, { notBefore: at(-30_000) })
    const peer = accepted(verify([leaf, short]))
    assert.equal(peer.acceptableUntilMs, Math.floor((NOW + HOUR_MS / 2) / 1000) * 1000)
    assert.ok(peer.notAfterMs > peer.acceptableUntilMs)
    assert.equal(peer.acceptableFromMs, peer.notBeforeMs)
  })
})

describe('clock skew', () => {
  it('widens every validity of the chain, and no further', () => {
    const chain = [leafOf(root).certificate]
    const skewed = new PeerVerifier(trustOf([general], { clockSkewMs: 30_000 }))
    const { notBeforeMs, notAfterMs } = accepted(skewed.verify(chain, NOW))
    const peer = accepted(skewed.verify(chain, notAfterMs + 30_000))
    assert.equal(peer.acceptableUntilMs, notAfterMs + 30_000)
    assert.equal(peer.acceptableFromMs, notBeforeMs - 30_000)
    accepted(skewed.verify(chain, notBeforeMs - 30_000))
    rejected(skewed.verify(chain, notAfterMs + 31_000), 'expired', /clocks 30 s apart/)
    rejected(skewed.verify(chain, notBeforeMs - 31_000), 'not_yet_valid', /clocks 30 s apart/)
  })
})

describe('a leaf', () => {
  const cases: readonly (readonly [string, readonly Buffer[], RegExp])[] = [
    ['for servers only', [usages(SERVER_AUTH)], /lacks clientAuth/],
    ['for signing code only', [usages(CODE_SIGNING)], /lacks clientAuth/],
    ['with an empty list of usages', [usages()], /lacks clientAuth/],
    ['for any usage', [usages('2.5.29.37.0')], /lacks clientAuth/],
    ['that is a CA', [CA], /is a CA certificate/],
    ['that may sign certificates', [keyUsage(0x03, 0x02, 0x02, 0x84)], /allows signing/],
    ['that may sign CRLs', [keyUsage(0x03, 0x02, 0x01, 0x82)], /allows signing/],
    ['whose key may not sign', [keyUsage(0x03, 0x02, 0x05, 0x20)], /lacks digitalSignature/],
  ]
  for (const [what, extensions, why] of cases) {
    it(`${what} is refused for its purpose`, () => {
      rejected(verify([leafOf(root, { extensions: [WEB, ...extensions] })]), 'purpose', why)
    })
  }

  for (const [what, extensions] of [
    ['for clients and servers', [usages(SERVER_AUTH, CLIENT_AUTH)]],
    ['without any limit', []],
    ['that may sign what it sends', [keyUsage(0x03, 0x02, 0x07, 0x80)]],
    ['that is told not to be a CA', [extension('2.5.29.19', sequence(), true)]],
  ] as const) {
    it(`${what} is accepted`, () => {
      accepted(verify([leafOf(root, { extensions: [WEB, ...extensions] })]))
    })
  }

  it('with a critical extension that is not understood is refused', () => {
    const odd = leafOf(root, { extensions: [WEB, extension('1.2.3.4', sequence(), true)] })
    rejected(verify([odd]), 'untrusted', /critical extension .*1\.2\.3\.4/)
  })

  it('that is not version 3 is refused', () => {
    const old = forge({ issuer: root, version: Buffer.alloc(0) })
    rejected(verify([old]), 'untrusted', /version 3/)
  })
})

describe('an issuer', () => {
  const through = (extensions: readonly Buffer[], from: Forged = root): Forged =>
    authority('middle', { issuer: from, extensions })

  const cases: readonly (readonly [string, readonly Buffer[]])[] = [
    ['is no CA', [extension('2.5.29.19', sequence(), true)]],
    ['says nothing about being a CA', []],
    ['may not sign certificates', [CA, keyUsage(0x03, 0x02, 0x01, 0x02)]],
    ['is for servers only', [CA, SIGNS, usages(SERVER_AUTH)]],
    ['has an unknown critical extension', [CA, SIGNS, extension('1.2.3.4', sequence(), true)]],
    ['has policy constraints', [CA, SIGNS, extension('2.5.29.36', sequence(), true)]],
  ]
  for (const [what, extensions] of cases) {
    it(`that ${what} is refused`, () => {
      const middle = through(extensions)
      const result = verify([leafOf(middle), middle])
      assert.ok(result.kind === 'rejection' && /^(untrusted|purpose)$/.test(result.reason))
    })
  }

  it('for clients, with a path length that is long enough, is accepted', () => {
    const middle = through([pathLength(0), SIGNS, usages(SERVER_AUTH, CLIENT_AUTH)])
    accepted(verify([leafOf(middle), middle]))
  })

  it('whose path length is too short is refused', () => {
    const middle = through([pathLength(0), SIGNS])
    const below = authority('below', { issuer: middle })
    rejected(verify([leafOf(below), below, middle]), 'purpose', /path length 0/)
    const short = authority('short', { extensions: [pathLength(0), SIGNS] })
    const under = authority('under', { issuer: short })
    rejected(verify([leafOf(under), under], [bundleOf([short])]), 'purpose', /path length 0/)
    accepted(verify([leafOf(short)], [bundleOf([short])]))
  })
})

describe('strength', () => {
  const rsa = (modulusLength: number) => generateKeyPairSync('rsa', { modulusLength }).privateKey
  const RSA_SHA256 = sequence(oid('1.2.840.113549.1.1.11'), der(0x05))

  it('of a leaf with RSA of 1024 bits is not enough, of 2048 it is', () => {
    rejected(verify([leafOf(root, { key: rsa(1024) })]), 'untrusted', /RSA key of 1024 bits/)
    accepted(verify([leafOf(root, { key: rsa(2048) })]))
  })

  it('of an issuer with RSA of 1024 bits is not enough', () => {
    const weak = authority('weak', { issuer: root, key: rsa(1024) })
    const leaf = leafOf(weak, { algorithm: RSA_SHA256 })
    rejected(verify([leaf, weak]), 'untrusted', /CN=weak: it has an RSA key of 1024 bits/)
  })

  it('of a key on another curve is not enough', () => {
    const key = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey
    rejected(verify([leafOf(root, { key })]), 'untrusted', /curve secp256k1/)
  })

  it('of a signature with SHA-1 is not enough', () => {
    const sha1 = sequence(oid('1.2.840.10045.4.1'))
    const leaf = leafOf(root, { algorithm: sha1, sign: (tbs, key) => sign('sha1', tbs, key) })
    rejected(verify([leaf]), 'untrusted', /algorithm that is not believed/)
    const middle = authority('intermediate', {
      issuer: root,
      algorithm: sha1,
      sign: (tbs, key) => sign('sha1', tbs, key),
    })
    rejected(verify([leafOf(middle), middle]), 'untrusted', /no path/)
  })

  it('of Ed25519, RSA and RSA-PSS authorities is enough', () => {
    const hash = sequence(oid('2.16.840.1.101.3.4.2.1'), der(0x05))
    const pss = sequence(
      oid('1.2.840.113549.1.1.10'),
      sequence(
        der(0xa0, hash),
        der(0xa1, sequence(oid('1.2.840.113549.1.1.8'), hash)),
        der(0xa2, integer('20')),
      ),
    )
    const ed25519 = generateKeyPairSync('ed25519').privateKey
    for (const [key, algorithm, hashName, padding] of [
      [ed25519, sequence(oid('1.3.101.112')), undefined, {}],
      [rsa(2048), RSA_SHA256, 'sha256', {}],
      [rsa(2048), pss, 'sha256', { padding: 6, saltLength: 32 }],
    ] as const) {
      const anchor = forge({
        subject: commonName('anchor'),
        key,
        algorithm,
        extensions: [CA],
        sign: (tbs) => sign(hashName, tbs, { key, ...padding }),
      })
      const leaf = leafOf(anchor, {
        algorithm,
        sign: (tbs) => sign(hashName, tbs, { key, ...padding }),
      })
      accepted(verify([leaf], [bundleOf([anchor])]))
    }
  })
})

describe('identity', () => {
  const withNames = (...names: Buffer[]): Forged =>
    leafOf(root, { extensions: names.length === 0 ? [] : [altNames(...names)] })

  it('is the URI, else the DNS name, else the subject', () => {
    const principal = (...names: Buffer[]): string =>
      accepted(verify([withNames(...names)])).principal
    assert.equal(principal(dnsName('a.b'), uriName('spiffe://x/y')), 'spiffe://x/y')
    assert.equal(principal(uriName('urn:a'), uriName('urn:b')), 'urn:a')
    assert.equal(principal(dnsName('a.b'), dnsName('c')), 'a.b')
    assert.equal(principal(), 'CN=web')
  })

  it('comes with all that a peer is known by', () => {
    const leaf = forge({
      issuer: root,
      serial: integer('00ab'.slice(2)),
      subject: name(
        ['2.5.4.10', der(0x0c, Buffer.from('x'))],
        ['2.5.4.3', der(0x0c, Buffer.from('web'))],
      ),
      extensions: [altNames(uriName('spiffe://example.org/a/b'), dnsName('web'))],
    })
    const peer = accepted(verify([leaf]))
    assert.deepEqual(peer.spiffeId, {
      id: 'spiffe://example.org/a/b',
      trustDomain: 'example.org',
      path: '/a/b',
    })
    assert.equal(peer.trustDomain, 'example.org')
    assert.deepEqual(peer.uris, ['spiffe://example.org/a/b'])
    assert.deepEqual(peer.dnsNames, ['web'])
    assert.equal(peer.commonName, 'web')
    assert.equal(peer.subject, 'CN=web,O=x')
    assert.equal(peer.issuer, 'CN=root')
    assert.equal(peer.serial, 'ab')
    assert.equal(
      peer.fingerprint,
      leaf.certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    )
    assert.match(peer.spkiFingerprint, /^[0-9a-f]{64}$/)
    assert.equal(peer.trustGeneration, 1)
  })

  for (const [what, names] of [
    ['two SPIFFE IDs', [uriName('spiffe://example.org/a'), uriName('spiffe://example.org/b')]],
    [
      'the same SPIFFE ID twice',
      [uriName('spiffe://example.org/a'), uriName('spiffe://example.org/a')],
    ],
    ['a SPIFFE ID after another URI', [uriName('urn:a'), uriName('spiffe://example.org/a')]],
    ['a SPIFFE ID before another URI', [uriName('spiffe://example.org/a'), uriName('urn:a')]],
    ['the ID of a trust domain', [uriName('spiffe://example.org')]],
    ['a SPIFFE ID in capitals', [uriName('SPIFFE://example.org/a')]],
    ['a SPIFFE ID with a dot segment', [uriName('spiffe://example.org/a/../b')]],
    [
      'a SPIFFE ID with percent-encoding beside a DNS name',
      [uriName('spiffe://example.org/%61'), dnsName('a')],
    ],
  ] as const) {
    it(`with ${what} is refused and falls back to nothing`, () => {
      const result = verify([withNames(...names)])
      assert.equal(result.kind === 'rejection' && result.reason, 'bad_identity')
    })
  }

  it('that names nobody is refused', () => {
    rejected(verify([forge({ issuer: root, subject: sequence() })]), 'bad_identity', /names nobody/)
  })
})

describe('trust domains', () => {
  const ours = authority('ours')
  const partner = authority('partner')
  const anyone = authority('anyone')
  const domains = [bundleOf([ours], 'example.org'), bundleOf([partner], 'partner.example')]
  const spiffe = (issuer: Forged, id: string): Forged =>
    leafOf(issuer, { extensions: [altNames(uriName(id))] })

  it('each believe their own authority', () => {
    accepted(verify([spiffe(ours, 'spiffe://example.org/a')], domains))
    accepted(verify([spiffe(partner, 'spiffe://partner.example/a')], domains))
  })

  it('cannot mint names of one another', () => {
    rejected(verify([spiffe(partner, 'spiffe://example.org/a')], domains), 'untrusted', /no path/)
    rejected(verify([spiffe(ours, 'spiffe://partner.example/a')], domains), 'untrusted', /no path/)
  })

  it('cannot be joined by sending the chain of another along', () => {
    const leaf = spiffe(partner, 'spiffe://example.org/a')
    rejected(verify([leaf, partner, ours], domains), 'untrusted', /no path/)
  })

  it('without a bundle are refused', () => {
    const leaf = spiffe(ours, 'spiffe://example.com/a')
    rejected(
      verify([leaf], domains),
      'untrusted',
      /no trust bundle for the trust domain example\.com/,
    )
  })

  it('with a bundle of their own are not vouched for by the general one', () => {
    const all = [...domains, bundleOf([anyone])]
    rejected(verify([spiffe(anyone, 'spiffe://example.org/a')], all), 'untrusted', /no path/)
    accepted(verify([spiffe(anyone, 'spiffe://elsewhere.example/a')], all))
  })

  it('may have several bundles', () => {
    const next = authority('next')
    const two = [...domains, bundleOf([next], 'example.org')]
    accepted(verify([spiffe(ours, 'spiffe://example.org/a')], two))
    accepted(verify([spiffe(next, 'spiffe://example.org/a')], two))
  })

  it('vouch for no peer without SPIFFE ID', () => {
    const plain = leafOf(ours, { extensions: [altNames(dnsName('web'))] })
    rejected(verify([plain], domains), 'untrusted', /no trust bundle for peers without SPIFFE ID/)
    const other = leafOf(ours, { extensions: [altNames(uriName('https://example.org/a'))] })
    rejected(verify([other], domains), 'untrusted', /without SPIFFE ID/)
    accepted(verify([plain], [bundleOf([ours])]))
  })

  it('vouch for no DNS name and no common name beside a SPIFFE ID', () => {
    const names = altNames(uriName('spiffe://partner.example/a'), dnsName('pay.example.org'))
    const leaf = leafOf(partner, { subject: commonName('admin'), extensions: [names] })
    const bound = accepted(verify([leaf], domains))
    assert.deepEqual([bound.uris, bound.dnsNames], [['spiffe://partner.example/a'], []])
    assert.equal(bound.commonName, undefined)
    const free = accepted(verify([leaf], [bundleOf([partner])]))
    assert.deepEqual([free.dnsNames, free.commonName], [['pay.example.org'], 'admin'])
    const after = new PeerVerifier(trustOf(domains, { generation: 2 }))
    rejected(after.recheck(free, NOW), 'untrusted', /names need a new handshake/)
    accepted(after.recheck(bound, NOW))
  })
})
