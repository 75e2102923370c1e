import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { writePem } from '../../src/identity/pem.ts'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import { handshake } from '../support/handshake.ts'
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
  name,
  sequence,
  text,
  uriName,
} from './forge.ts'
import { accepted, bundleOf, rejected, trustOf } from './trust-material.ts'

const NOW = Date.now()
const SIGNS = extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x01, 0x06]), true)
const authority = (label: string, options: Forgery = {}): Forged =>
  forge({ subject: commonName(label), extensions: [CA, SIGNS], ...options })
const root = authority('root')

const permitted = (...bases: readonly Buffer[]): Buffer =>
  der(0xa0, ...bases.map((base) => sequence(base)))
const excluded = (...bases: readonly Buffer[]): Buffer =>
  der(0xa1, ...bases.map((base) => sequence(base)))
const constraints = (...subtrees: readonly Buffer[]): Buffer =>
  extension('2.5.29.30', sequence(...subtrees), true)
const directory = (written: Buffer): Buffer => der(0xa4, written)
const organisation = (tag: number, value: string) => ['2.5.4.10', text(tag, value)] as const
const called = (value: string) => ['2.5.4.3', text(0x0c, value)] as const

const constrainedBy = (extensionDer: Buffer, options: Forgery = {}): Forged =>
  authority('team', { issuer: root, extensions: [CA, SIGNS, extensionDer], ...options })
const verify = (chain: readonly Forged[], bundles = [bundleOf([root])]) =>
  new PeerVerifier(trustOf(bundles)).verify(
    chain.map(({ certificate }) => certificate),
    NOW,
  )

const pem = ({ key }: Forged): string => key.export({ type: 'pkcs8', format: 'pem' }) as string
const chainPem = (chain: readonly Forged[]): string =>
  chain.map((one) => writePem('CERTIFICATE', one.der)).join('')
const server = forge({ issuer: root, extensions: [altNames(dnsName('server'))] })
/** Whether OpenSSL accepts the chain from a client. */
const openSslAccepts = (chain: readonly Forged[]): Promise<boolean> => {
  const ca = chainPem([root])
  const client = { ca, cert: chainPem(chain), key: pem(chain[0]!) }
  return handshake({ ca, cert: chainPem([server]), key: pem(server) }, client).then(
    () => true,
    () => false,
  )
}

const WEB = altNames(uriName('spiffe://example.org/web'))
const SHOP = altNames(dnsName('web.shop.example'))
const SHOP_CN = name(called('web.shop.example'))
const ACME = name(organisation(0x0c, 'Acme  Corp'), called('web'))

const cases: readonly (readonly [string, boolean, Buffer[], Buffer[] | undefined, Buffer?])[] = [
  ['a URI of the permitted host', true, [permitted(text(0x86, 'Example.ORG'))], [WEB]],
  ['a URI of another host', false, [permitted(text(0x86, 'other.example'))], [WEB]],
  ['a URI below a permitted host', false, [permitted(text(0x86, 'org'))], [WEB]],
  ['a URI below a permitted dot', true, [permitted(text(0x86, '.org'))], [WEB]],
  ['a URI of an excluded host', false, [excluded(text(0x86, 'example.org'))], [WEB]],
  ['a URI below an excluded dot', false, [excluded(text(0x86, '.org'))], [WEB]],
  ['a URI beside an excluded host', true, [excluded(text(0x86, 'xample.org'))], [WEB]],
  [
    'a URI both permitted and excluded',
    false,
    [permitted(text(0x86, '.org')), excluded(text(0x86, 'example.org'))],
    [WEB],
  ],
  [
    'a URI without a host',
    false,
    [excluded(text(0x86, 'example.org'))],
    [altNames(uriName('urn:x:1'))],
  ],
  ['a URI where only DNS is constrained', true, [permitted(text(0x82, 'other.example'))], [WEB]],
  ['a DNS name below the permitted one', true, [permitted(text(0x82, 'SHOP.example'))], [SHOP]],
  ['a DNS name below a permitted dot', true, [permitted(text(0x82, '.shop.example'))], [SHOP]],
  ['a DNS name that only ends alike', false, [permitted(text(0x82, 'op.example'))], [SHOP]],
  ['a DNS name below an excluded one', false, [excluded(text(0x82, 'example'))], [SHOP]],
  ['any DNS name where none is', false, [excluded(text(0x82, ''))], [SHOP]],
  ['a common name like a DNS name', false, [permitted(text(0x82, 'org'))], undefined, SHOP_CN],
  ['a common name where a DNS name is', true, [permitted(text(0x82, 'shop.example'))], [SHOP]],
  [
    'a subject below the permitted one',
    true,
    [permitted(directory(name(organisation(0x13, ' acme corp '))))],
    [WEB],
    ACME,
  ],
  [
    'a subject elsewhere',
    false,
    [permitted(directory(name(organisation(0x13, 'other'))))],
    [WEB],
    ACME,
  ],
  [
    'a subject below an excluded one',
    false,
    [excluded(directory(name(organisation(0x13, 'ACME Corp'))))],
    [WEB],
    ACME,
  ],
  ['addresses alone', true, [excluded(der(0x87, Buffer.alloc(8)))], [WEB]],
]

describe('name constraints', () => {
  for (const [what, allowed, subtrees, extensions, subject] of cases) {
    it(`${allowed ? 'allow' : 'refuse'} ${what}, as OpenSSL does`, async () => {
      const team = constrainedBy(constraints(...subtrees))
      const leaf = forge({
        issuer: team,
        subject: subject ?? commonName('web'),
        ...(extensions === undefined ? { extensions: [DIGITAL] } : { extensions }),
      })
      const result = verify([leaf, team])
      assert.equal(result.kind === 'peer', allowed, JSON.stringify(result))
      assert.equal(await openSslAccepts([leaf, team]), allowed)
    })
  }

  it('bind an authority below, but not its own key rollover', () => {
    const only = constraints(permitted(directory(name(called('web')))))
    const team = constrainedBy(only)
    const rolled = authority('team', { issuer: team })
    const below = authority('below', { issuer: team })
    accepted(
      verify([
        forge({ issuer: rolled, subject: commonName('web'), extensions: [WEB] }),
        rolled,
        team,
      ]),
    )
    rejected(
      verify([
        forge({ issuer: below, subject: commonName('web'), extensions: [WEB] }),
        below,
        team,
      ]),
      'purpose',
      /name constraints do not allow CN=below/,
    )
  })

  it('of a trust anchor count too', () => {
    const own = authority('own', {
      extensions: [CA, SIGNS, constraints(excluded(text(0x86, 'example.org')))],
    })
    const leaf = forge({ issuer: own, subject: commonName('web'), extensions: [WEB] })
    rejected(verify([leaf], [bundleOf([own])]), 'purpose', /do not allow spiffe:/)
  })

  it('cannot be evaded through an authority of another trust domain', () => {
    // OpenSSL knows one set of roots, and may climb from the same key to the partner's.
    const partner = authority('partner')
    const team = constrainedBy(constraints(excluded(text(0x86, 'example.org'))))
    const unbound = authority('team', { issuer: partner, key: team.key })
    const leaf = forge({ issuer: team, subject: commonName('web'), extensions: [WEB] })
    const bundles = [bundleOf([root], 'example.org'), bundleOf([partner], 'partner.example')]
    rejected(verify([leaf, unbound, team], bundles), 'purpose', /do not allow spiffe:/)
  })

  it('that cannot be understood make the certificate unreadable', () => {
    const bad = [
      constraints(excluded(text(0x86, 'spiffe://example.org'))),
      constraints(der(0xa1, sequence(text(0x82, 'a'), der(0x80, Buffer.from([1]))))),
      constraints(der(0xa1, sequence(text(0x82, 'a'), der(0x81, Buffer.from([1]))))),
      constraints(excluded(...Array.from({ length: 257 }, () => text(0x82, 'a')))),
      extension('2.5.29.30', boolean(true), true),
    ]
    for (const one of bad) {
      const team = constrainedBy(one)
      const leaf = forge({ issuer: team, subject: commonName('web'), extensions: [WEB] })
      rejected(verify([leaf, team]), 'untrusted', /no path/)
    }
  })
})

const DIGITAL = extension('2.5.29.15', Buffer.from([0x03, 0x02, 0x07, 0x80]), true)
