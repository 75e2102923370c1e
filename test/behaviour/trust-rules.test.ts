// What `trust.clockSkew` and `trust.revocation` change at the real process, and what they do not.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type Authority,
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  WEB,
  writeFiles,
} from '../support/pki.ts'
import { call, connectRaw, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const
const GET = 'GET / HTTP/1.1\r\nhost: localhost\r\n\r\n'

describe('a clock skew of half an hour', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  before(async () => {
    authority = await testAuthority()
    const { url: forward } = await startWorkload(t)
    sidecar = await startSidecar(t, {
      authority,
      forward,
      config: { trust: { clockSkew: '30m' } },
    })
  })
  const valid = (fromMs: number, toMs: number, issuer: Authority = authority.intermediate) =>
    issuer.issue({
      uris: [WEB],
      notBefore: new Date(Date.now() + fromMs),
      notAfter: new Date(Date.now() + toMs),
    })
  const answer = async (certificate: IssuedCertificate, version: (typeof VERSIONS)[number]) => {
    const client = await connectRaw(t, sidecar, certificate, {
      minVersion: version,
      maxVersion: version,
    })
    client.write(GET)
    const [line] = await client.until(/^HTTP\/1.1 \d+[\s\S]*\r\n\r\n/)
    return { client, line }
  }

  for (const version of VERSIONS) {
    it(`lets in who expired, or will be valid, within it (${version})`, async () => {
      for (const one of [
        await valid(-HOUR_MS, -10 * MINUTE_MS),
        await valid(10 * MINUTE_MS, HOUR_MS),
      ])
        assert.match((await answer(one, version)).line, /^HTTP\/1.1 200/)
    })

    it(`lets nobody in beyond it (${version})`, async () => {
      for (const one of [await valid(-2 * HOUR_MS, -HOUR_MS), await valid(HOUR_MS, 2 * HOUR_MS)])
        assert.match((await answer(one, version)).line, /^HTTP\/1.1 403[\s\S]*/)
    })

    it(`excuses nothing but the time (${version})`, async () => {
      const { root } = await testAuthority()
      const strangers = await valid(-HOUR_MS, -10 * MINUTE_MS, root)
      const { client } = await answer(strangers, version)
      assert.match(client.received(), /403[\s\S]*peer_untrusted/)
      const server = await authority.intermediate.issue({
        uris: [WEB],
        usages: ['serverAuth'],
        notBefore: new Date(Date.now() - HOUR_MS),
        notAfter: new Date(Date.now() - 10 * MINUTE_MS),
      })
      assert.match((await answer(server, version)).client.received(), /403[\s\S]*peer_untrusted/)
    })

    it(`holds for a resumed session as well (${version})`, async () => {
      const expired = await valid(-HOUR_MS, -10 * MINUTE_MS)
      const first = await connectRaw(t, sidecar, expired, {
        minVersion: version,
        maxVersion: version,
      })
      let session: Buffer | undefined
      first.socket.on('session', (ticket: Buffer) => {
        session = ticket
      })
      first.write(GET)
      await first.until(/^HTTP\/1.1 200/)
      session ??= first.socket.getSession()
      first.socket.destroy()
      const again = await connectRaw(t, sidecar, expired, {
        minVersion: version,
        maxVersion: version,
        ...(session && { session }),
      })
      assert.equal(again.socket.isSessionReused(), true)
      again.write(GET)
      await again.until(/^HTTP\/1.1 200/)
    })
  }
})

describe('revocation', () => {
  const t = suiteCleanup()
  let authority: TestAuthority
  let forward: string
  let bad: IssuedCertificate
  before(async () => {
    authority = await testAuthority()
    forward = (await startWorkload(t)).url
    bad = await authority.svid('bad')
  })
  /** `ageMs`: since when the CRL of the leaves has been out of date. */
  const start = async (revocation: Readonly<Record<string, string>>, ageMs: number) => {
    const directory = await temporaryDirectory(t)
    await writeFiles(directory, {
      'ca.crt': authority.root.certificatePem + authority.intermediate.certificatePem,
      'ca.crl': await authority.intermediate.crl({
        revoked: [{ serial: bad.serial }],
        thisUpdate: new Date(Date.now() - 2 * HOUR_MS),
        nextUpdate: new Date(Date.now() - ageMs),
      }),
    })
    return startSidecar(t, {
      authority,
      forward,
      config: {
        trust: {
          bundles: [{ file: join(directory, 'ca.crt') }],
          crls: [join(directory, 'ca.crl')],
          revocation,
        },
      },
    })
  }
  const statusOf = async (sidecar: TestSidecar, certificate: IssuedCertificate) =>
    (await call(sidecar, certificate)).status

  it('that fails soft lets in and counts, is called unsafe, and refuses what is listed', async () => {
    const sidecar = await start({ mode: 'soft-fail' }, HOUR_MS)
    assert.equal(await statusOf(sidecar, await authority.svid('good')), 200)
    assert.equal(await statusOf(sidecar, bad), 403)
    const count = 'postern_revocation_soft_failures_total'
    assert.equal(await sidecar.metric(`${count}{reason="stale"}`), 1)
    // Of the authority that issues directly, there is none at all.
    assert.equal(await statusOf(sidecar, await authority.root.issue({ uris: [WEB] })), 200)
    assert.equal(await sidecar.metric(`${count}{reason="missing"}`), 1)
    const unsafe = 'postern_unsafe_options{option="trust.revocation.mode"}'
    assert.equal(await sidecar.metric(unsafe), 1)
    await eventually('the age is logged', () =>
      sidecar.lines.find(({ what }) => /is not current/.test(String(what))),
    )
  })

  it('has a time of grace, after which nobody is let in', async () => {
    const within = await start({ grace: '2h' }, HOUR_MS)
    assert.equal(await statusOf(within, await authority.svid('good')), 200)
    assert.equal(await statusOf(within, bad), 403)
    const beyond = await start({ grace: '30m' }, HOUR_MS)
    assert.equal(await statusOf(beyond, await authority.svid('good')), 403)
    await beyond.logged('handshake_failed', { reason: 'revocation_unknown' })
  })

  it('of the whole chain wants the CRL of the root, too', async () => {
    const sidecar = await start({ scope: 'chain', grace: '2h' }, HOUR_MS)
    assert.equal(await statusOf(sidecar, await authority.svid('good')), 403)
    const line = await sidecar.logged('handshake_failed', { reason: 'revocation_unknown' })
    assert.match(String(line['detail']), /there is no CRL of CN=example\.org root/)
  })
})
