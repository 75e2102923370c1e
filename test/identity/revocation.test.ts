import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { RevocationRules } from '../../src/identity/material.ts'
import { hasSerial, packSerials } from '../../src/identity/serials.ts'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import {
  altNames,
  CA,
  commonName,
  type Forged,
  type Forgery,
  forge,
  forgeCrl,
  integer,
  name,
  revoked,
  text,
  uriName,
} from './forge.ts'
import { accepted, bundleOf, rejected, trustOf } from './trust-material.ts'

const NOW = Date.now()
const HOUR_MS = 3_600_000
const authority = (label: string, options: Forgery = {}): Forged =>
  forge({ subject: commonName(label), extensions: [CA], ...options })
const leafOf = (issuer: Forged, serial: string): Forged =>
  forge({
    issuer,
    serial: integer(serial),
    extensions: [altNames(uriName('spiffe://example.org/web'))],
  })

const root = authority('root')
const intermediate = authority('intermediate', { issuer: root, serial: integer('77') })
const bundles = [bundleOf([root, intermediate])]
const leaf = leafOf(intermediate, 'abcd')

const verify = (crls: readonly Buffer[], chain = [leaf], required = true, nowMs = NOW) =>
  new PeerVerifier(trustOf(bundles, { crls, revocation: { required } })).verify(
    chain.map(({ certificate }) => certificate),
    nowMs,
  )

const staleOf = (issuer: Forged, ...entries: readonly Buffer[]): Buffer =>
  forgeCrl({
    issuer,
    entries,
    thisUpdate: new Date(NOW - 2 * HOUR_MS),
    nextUpdate: new Date(NOW - HOUR_MS),
  })

describe('revocation', () => {
  it('admits a leaf that the current CRL of its issuer does not list', () => {
    accepted(verify([forgeCrl({ issuer: intermediate, entries: [revoked('abce')] })]))
    accepted(verify([forgeCrl({ issuer: intermediate })]))
  })

  it('refuses a leaf that is listed, however its serial is written', () => {
    const crl = forgeCrl({ issuer: intermediate, entries: [revoked('01'), revoked('abcd')] })
    rejected(verify([crl]), 'revoked', /CRL ca\.crl of CN=intermediate lists serial abcd/)
  })

  it('knows an authority by its name however that is encoded', () => {
    const printable = name(['2.5.4.3', text(0x13, 'Root')])
    const twin = authority('root', { key: root.key, subject: printable })
    const chains = [bundleOf([root, intermediate]), bundleOf([root, twin, intermediate])]
    for (const issuer of [root, twin]) {
      const crls = [
        forgeCrl({ issuer, entries: [revoked('77')] }),
        forgeCrl({ issuer: intermediate }),
      ]
      for (const bundle of chains) {
        const verifier = new PeerVerifier(trustOf([bundle], { crls }))
        rejected(verifier.verify([leaf.certificate], NOW), 'revoked', /lists serial 77/)
      }
    }
  })

  it('does not know without a CRL of the issuer, where CRLs are required', () => {
    rejected(verify([]), 'revocation_unknown', /no CRL of CN=intermediate/)
    rejected(
      verify([forgeCrl({ issuer: root })]),
      'revocation_unknown',
      /no CRL of CN=intermediate/,
    )
    accepted(verify([], [leaf], false))
  })

  it('does not know from a CRL that has gone stale, and says until when it held', () => {
    const nextUpdate = new Date(NOW - HOUR_MS)
    const crl = forgeCrl({
      issuer: intermediate,
      thisUpdate: new Date(NOW - 2 * HOUR_MS),
      nextUpdate,
    })
    rejected(
      verify([crl]),
      'revocation_unknown',
      new RegExp(`to ${nextUpdate.toISOString().slice(0, 19)}.*now ${new Date(NOW).toISOString()}`),
    )
  })

  it('does not know from a CRL of the future', () => {
    const crl = forgeCrl({ issuer: intermediate, thisUpdate: new Date(NOW + HOUR_MS / 2) })
    rejected(verify([crl]), 'revocation_unknown', /holds from/)
  })

  it('still believes a stale CRL in what it lists', () => {
    const crl = forgeCrl({
      issuer: intermediate,
      entries: [revoked('abcd')],
      thisUpdate: new Date(NOW - 2 * HOUR_MS),
      nextUpdate: new Date(NOW - HOUR_MS),
    })
    rejected(verify([crl]), 'revoked', /lists serial/)
  })

  it('believes a CRL without nextUpdate for ever', () => {
    const crl = forgeCrl({ issuer: intermediate, nextUpdate: null })
    const peer = accepted(verify([crl]))
    assert.equal(peer.acceptableUntilMs, peer.notAfterMs)
  })

  it('bounds the peer by the nextUpdate of the CRL', () => {
    const nextUpdate = new Date(Math.floor(NOW / 1000) * 1000 + HOUR_MS / 2)
    const peer = accepted(verify([forgeCrl({ issuer: intermediate, nextUpdate })]))
    assert.equal(peer.acceptableUntilMs, nextUpdate.getTime())
  })

  it('of an intermediate counts where its issuer has a CRL', () => {
    const current = forgeCrl({ issuer: intermediate })
    rejected(
      verify([current, forgeCrl({ issuer: root, entries: [revoked('77')] })]),
      'revoked',
      /CN=intermediate: .* of CN=root lists serial 77/,
    )
    accepted(verify([current, forgeCrl({ issuer: root, entries: [revoked('78')] })]))
    // Where its own CRL is old or missing, nobody is locked out by it: leaves are what counts.
    accepted(verify([current, staleOf(root)]))
    rejected(verify([current, staleOf(root, revoked('77'))]), 'revoked', /lists serial 77/)
  })

  it('goes by the key of an authority, not by its name alone', () => {
    const old = authority('shared')
    const young = authority('shared')
    const both = [bundleOf([old, young])]
    const crls = [
      forgeCrl({ issuer: old, entries: [revoked('05')], thisUpdate: new Date(NOW - HOUR_MS) }),
      forgeCrl({ issuer: young }),
    ]
    const verifier = new PeerVerifier(trustOf(both, { crls }))
    rejected(verifier.verify([leafOf(old, '05').certificate], NOW), 'revoked', /serial 5/)
    accepted(verifier.verify([leafOf(young, '05').certificate], NOW))
  })

  it('uses the newest CRL of an issuer, in whatever order they come', () => {
    const older = forgeCrl({ issuer: intermediate, thisUpdate: new Date(NOW - HOUR_MS) })
    const newer = forgeCrl({ issuer: intermediate, entries: [revoked('abcd')] })
    rejected(verify([older, newer]), 'revoked', /serial/)
    rejected(verify([newer, older]), 'revoked', /serial/)
  })
})

describe('the rules of revocation', () => {
  const under = (
    rules: Partial<RevocationRules>,
    crls: readonly Buffer[],
    clockSkewMs = 0,
  ): PeerVerifier => new PeerVerifier(trustOf(bundles, { crls, revocation: rules, clockSkewMs }))
  const chain = [leaf.certificate]

  it('of the whole chain want a current CRL of every issuer', () => {
    const verifyChain = (...crls: readonly Buffer[]) =>
      under({ scope: 'chain' }, crls).verify(chain, NOW)
    const ours = forgeCrl({ issuer: intermediate })
    accepted(verifyChain(ours, forgeCrl({ issuer: root })))
    rejected(verifyChain(ours), 'revocation_unknown', /CN=intermediate: there is no CRL of CN=root/)
    rejected(verifyChain(ours, staleOf(root)), 'revocation_unknown', /of CN=root holds from/)
  })

  it('bound the peer by the CRLs that count, and by no other', () => {
    const rootUntil = new Date(Math.floor(NOW / 1000) * 1000 + HOUR_MS / 4)
    const ours = new Date(Math.floor(NOW / 1000) * 1000 + HOUR_MS / 2)
    const crls = [
      forgeCrl({ issuer: intermediate, nextUpdate: ours }),
      forgeCrl({ issuer: root, nextUpdate: rootUntil }),
    ]
    const until = (rules: Partial<RevocationRules>) =>
      accepted(under(rules, crls).verify(chain, NOW)).acceptableUntilMs
    assert.equal(until({ scope: 'chain' }), rootUntil.getTime())
    assert.equal(until({ scope: 'leaf' }), ours.getTime())
    assert.equal(until({ graceMs: 60_000 }), ours.getTime() + 60_000)
    assert.equal(until({ mode: 'soft-fail' }), accepted(verify([], [leaf], false)).notAfterMs)
  })

  it('keep a CRL current through its grace, and not a moment longer', () => {
    const crls = [staleOf(intermediate)]
    const graceMs = NOW - Math.floor((NOW - HOUR_MS) / 1000) * 1000 + 5_000
    accepted(under({ graceMs }, crls).verify(chain, NOW))
    rejected(
      under({ graceMs }, crls).verify(chain, NOW + 6_000),
      'revocation_unknown',
      /and \d+(\.\d+)? s of grace/,
    )
  })

  it('that fail soft let in what is not known, say so, and still refuse what is listed', () => {
    const soft = { mode: 'soft-fail' } as const
    const gap = (crls: readonly Buffer[], rules: Partial<RevocationRules> = soft) => {
      const verifier = under(rules, crls)
      return verifier.revocationGap(accepted(verifier.verify(chain, NOW)), NOW)
    }
    assert.equal(gap([]), 'missing')
    assert.equal(gap([staleOf(intermediate)]), 'stale')
    assert.equal(gap([forgeCrl({ issuer: intermediate })]), undefined)
    assert.equal(gap([forgeCrl({ issuer: intermediate })], { ...soft, scope: 'chain' }), 'missing')
    assert.equal(gap([], { ...soft, required: false }), undefined)
    rejected(
      under(soft, [staleOf(intermediate, revoked('abcd'))]).verify(chain, NOW),
      'revoked',
      /lists/,
    )
  })

  it('allow a CRL the clock skew that certificates are allowed', () => {
    const early = [forgeCrl({ issuer: intermediate, thisUpdate: new Date(NOW + 20_000) })]
    rejected(under({}, early).verify(chain, NOW), 'revocation_unknown', /holds from/)
    accepted(under({}, early, 30_000).verify(chain, NOW))
  })
})

describe('packed serials', () => {
  const serial = fc.bigInt({ min: 0n, max: (1n << 160n) - 1n }).map((value) => value.toString(16))

  it('hold what was put in, and nothing else', () => {
    fc.assert(
      fc.property(fc.array(serial, { maxLength: 40 }), serial, (serials, other) => {
        const packed = packSerials(serials)
        for (const one of serials) assert.equal(hasSerial(packed, one), true)
        assert.equal(hasSerial(packed, other), serials.includes(other))
      }),
    )
  })

  it('leave out what no acceptable certificate has', () => {
    const long = 'f'.repeat(41)
    const packed = packSerials([long, '1'])
    assert.equal(packed.length, 20)
    assert.equal(hasSerial(packed, long), false)
    assert.equal(hasSerial(packed, '1'), true)
  })
})
