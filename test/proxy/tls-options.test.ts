import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, it, type TestContext } from 'node:test'
import tls from 'node:tls'
import { contextOptions, contextProblem, SERVER_OPTIONS } from '../../src/proxy/tls-options.ts'
import { eventually } from '../support/eventually.ts'
import { type Listening, secureConnect, startListener } from './listening.ts'

/** What OpenSSL said to the last handshake that came to nothing. */
const lastRefusal = (listening: Listening): string => {
  const record = listening.records.findLast(({ kind }) => kind === 'handshake')
  return record?.kind === 'handshake' ? `${record.reason}: ${record.detail}` : ''
}

async function protocolRefusal(
  t: TestContext,
  listening: Listening,
  options: tls.ConnectionOptions,
): Promise<string> {
  const before = listening.failures('protocol')
  const web = await listening.authority.svid('web')
  const socket = tls.connect({ ...listening.client(web), ...options })
  t.after(() => socket.destroy())
  socket.on('secureConnect', () => assert.fail('the handshake succeeded'))
  await assert.rejects(once(socket, 'secureConnect'))
  await eventually('the refusal is counted', () => listening.failures('protocol') > before)
  assert.equal(listening.successes(), 0)
  return lastRefusal(listening)
}

/** A listener whose context has been replaced a few times, which is where options get lost. */
async function startReloaded(t: TestContext): Promise<Listening> {
  const listening = await startListener(t, { limits: { handshakeFailuresPerAddress: 1000 } })
  for (let i = 0; i < 3; i++) {
    listening.apply(({ trust }) => ({ trust: { ...trust, generation: trust.generation + 1 } }))
  }
  return listening
}

describe('the TLS options', () => {
  it('ask for a client certificate with exactly true', () => {
    assert.equal(SERVER_OPTIONS.requestCert, true)
  })

  it('leave nothing that the environment could decide', async (t) => {
    const { context } = await startListener(t)
    const { identity, trust } = context.generation.snapshot
    const options = contextOptions(identity, trust.bundles)
    assert.deepEqual(Object.keys(options).sort(), [
      'ca',
      'cert',
      'ciphers',
      'ecdhCurve',
      'honorCipherOrder',
      'key',
      'maxVersion',
      'minVersion',
      'secureOptions',
      'sessionIdContext',
      'sessionTimeout',
      'sigalgs',
    ])
    assert.ok(Object.values(options).every((value) => value !== undefined && value !== ''))
  })

  it('never have an empty list of authorities, which would be every public one', async (t) => {
    const { context } = await startListener(t)
    const { identity, trust } = context.generation.snapshot
    assert.throws(() => contextOptions(identity, []), /without a trust bundle/)
    const [bundle] = trust.bundles
    assert.ok(bundle)
    assert.throws(() => contextOptions(identity, [{ ...bundle, certificates: [] }]))
    assert.match(contextProblem(identity, [])?.what ?? '', /without a trust bundle/)
  })

  for (const maxVersion of ['TLSv1', 'TLSv1.1'] as const) {
    it(`refuse ${maxVersion}, after reloads too`, async (t) => {
      const options = { minVersion: 'TLSv1', maxVersion, ciphers: 'ALL:@SECLEVEL=0' } as const
      const refusal = await protocolRefusal(t, await startReloaded(t), options)
      assert.match(refusal, /unsupported protocol/)
    })
  }

  it('refuse suites without AEAD or forward secrecy, after reloads too', async (t) => {
    const listening = await startReloaded(t)
    for (const ciphers of [
      'ECDHE-ECDSA-AES128-SHA256',
      'ECDHE-ECDSA-AES256-SHA',
      'AES128-GCM-SHA256',
      'ECDHE-ECDSA-AES128-CCM',
      'DHE-RSA-AES128-GCM-SHA256',
    ]) {
      const refusal = await protocolRefusal(t, listening, { ciphers, maxVersion: 'TLSv1.2' })
      assert.match(refusal, /no shared cipher/, ciphers)
    }
  })

  it('refuse signatures with SHA-1, after reloads too', async (t) => {
    const refusal = await protocolRefusal(t, await startReloaded(t), {
      maxVersion: 'TLSv1.2',
      ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256:@SECLEVEL=0',
      sigalgs: 'ECDSA+SHA1:RSA+SHA1',
    })
    assert.match(refusal, /no shared signature algorithms|signature|no shared cipher/)
  })

  it('refuse groups that are not offered, after reloads too', async (t) => {
    const listening = await startReloaded(t)
    const refusal = await protocolRefusal(t, listening, { ecdhCurve: 'X448' })
    assert.match(refusal, /no suitable key share|no shared groups/)
  })

  it('refuse renegotiation, after reloads too', async (t) => {
    const listening = await startReloaded(t)
    const web = await listening.authority.svid('web')
    const socket = await secureConnect(t, { ...listening.client(web), maxVersion: 'TLSv1.2' })
    await eventually('it is in', () => listening.open() === 1)
    const error = await new Promise<Error | null>((resolve) => {
      socket.on('error', resolve).on('close', () => resolve(new Error('closed')))
      socket.renegotiate({}, resolve)
    })
    assert.match(error?.message ?? 'renegotiated', /no renegotiation|closed/i)
    assert.equal(listening.successes(), 1)
    socket.destroy()
    await eventually('no connection is left', () => listening.listener.idle)
  })

  it('refuse every application protocol but HTTP', async (t) => {
    const refusal = await protocolRefusal(t, await startReloaded(t), { ALPNProtocols: ['spdy/3'] })
    assert.match(refusal, /no application protocol|alpn/i)
  })

  it('agree on the post-quantum hybrid by default, and on what else clients know', async (t) => {
    const listening = await startReloaded(t)
    const web = await listening.authority.svid('web')
    const agreed = async (options: tls.ConnectionOptions): Promise<unknown> =>
      (await secureConnect(t, { ...listening.client(web), ...options })).getEphemeralKeyInfo()
    const named = (name: string) => ({ name })
    for (const [options, group] of [
      [{}, named('X25519MLKEM768')],
      [{ ecdhCurve: 'X25519MLKEM768' }, named('X25519MLKEM768')],
      [{ ecdhCurve: 'X25519' }, named('X25519')],
      [{ ecdhCurve: 'P-256' }, named('prime256v1')],
      // In TLS 1.2 the groups are those of certificates, too, and ours has a P-256 key.
      [{ ecdhCurve: 'X25519:P-256', maxVersion: 'TLSv1.2' }, named('X25519')],
      [{ ecdhCurve: 'P-256', maxVersion: 'TLSv1.2' }, named('prime256v1')],
    ] as const) {
      assert.partialDeepStrictEqual(await agreed(options), group)
    }
  })
})
