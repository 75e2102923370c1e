// What must not weaken TLS from outside of the configuration, and trust files that must not be used.
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import tls from 'node:tls'
import { postern } from '../support/command.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory, testAuthority } from '../support/pki.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

/** The version agreed on, or undefined. */
function negotiated(
  t: TestContext,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  version: tls.SecureVersion,
): Promise<string | null | undefined> {
  return new Promise((resolve) => {
    const socket = tls.connect({
      ...sidecar.clientOptions(certificate),
      minVersion: version,
      maxVersion: version,
      ciphers: 'ALL:@SECLEVEL=0',
    })
    t.after(() => socket.destroy())
    socket.on('error', () => resolve(undefined))
    socket.on('secureConnect', () => {
      resolve(socket.getProtocol())
      socket.destroy()
    })
  })
}

describe('the environment', () => {
  it('adds no TLS version and no authority', async (t) => {
    const strangers = await testAuthority()
    const extra = join(await temporaryDirectory(t), 'extra.pem')
    await writeFile(extra, strangers.root.certificatePem)
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      env: {
        NODE_OPTIONS: '--tls-min-v1.0 --tls-cipher-list=ALL:@SECLEVEL=0',
        NODE_EXTRA_CA_CERTS: extra,
        NODE_TLS_REJECT_UNAUTHORIZED: '0',
      },
    })
    const web = await sidecar.authority.svid('web')
    assert.equal(await negotiated(t, sidecar, web, 'TLSv1'), undefined)
    assert.equal(await negotiated(t, sidecar, web, 'TLSv1.1'), undefined)
    assert.equal(await negotiated(t, sidecar, web, 'TLSv1.2'), 'TLSv1.2')
    assert.equal(await negotiated(t, sidecar, web, 'TLSv1.3'), 'TLSv1.3')
    assert.equal((await call(sidecar, await strangers.svid('web'))).status, 403)
    await sidecar.logged('handshake_failed', { reason: 'untrusted' })
    assert.equal(workload.seen.length, 0)
  })

  it('takes no version away either', async (t) => {
    const { url } = await startWorkload(t)
    const env = { NODE_OPTIONS: '--tls-max-v1.2' }
    const sidecar = await startSidecar(t, { forward: url, env })
    const web = await sidecar.authority.svid('web')
    assert.equal(await negotiated(t, sidecar, web, 'TLSv1.3'), 'TLSv1.3')
  })

  it('takes no start away with ciphers that OpenSSL does not know', async (t) => {
    const { url } = await startWorkload(t)
    const env = { NODE_OPTIONS: '--tls-cipher-list=NONSENSE' }
    const sidecar = await startSidecar(t, { forward: url, env })
    assert.equal((await call(sidecar, await sidecar.authority.svid('web'))).status, 200)
  })
})

describe('a trust bundle', () => {
  const spoilt = (good: string): Readonly<Record<string, string>> => ({
    empty: '',
    'nothing but blanks': ' \n\n',
    garbage: 'this is no certificate\n',
    'broken in its second block': `${good}${good.replace(/\n(.{20})/, '\n!!!$1')}`,
    'broken between two good blocks': `${good}-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n${good}`,
    'cut off': good.slice(0, good.length / 2),
  })

  it('that is empty, garbage or broken stops the start', async (t) => {
    const sidecar = await startSidecar(t, { forward: (await startWorkload(t)).url })
    const good = await readFile(sidecar.files.trustBundle, 'utf8')
    for (const [what, text] of Object.entries(spoilt(good))) {
      await writeFile(sidecar.files.trustBundle, text)
      const { exitCode, stderr } = await postern(['run', '--config', sidecar.files.config])
      assert.deepEqual([what, exitCode], [what, 2])
      assert.match(stderr, /ca\.crt/)
    }
  })

  it('that becomes so later is kept out, and the old one stays in force', async (t) => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const stranger = await (await testAuthority()).svid('web')
    const good = await readFile(sidecar.files.trustBundle, 'utf8')
    const failed = 'postern_reload_total{source="trust",result="failure"}'
    for (const text of Object.values(spoilt(good))) {
      const before = await sidecar.metric(failed)
      await writeFile(sidecar.files.trustBundle, text)
      await sidecar.admin('POST', '/reload')
      await eventually('the reload fails', async () => (await sidecar.metric(failed)) > before)
      assert.equal((await call(sidecar, web)).status, 200)
      assert.equal((await call(sidecar, stranger)).status, 403)
    }
    assert.equal(workload.seen.length, Object.keys(spoilt(good)).length)
  })
})
