// Certificates that a client sends beside those of its path, which OpenSSL keeps as long as the connection lasts.
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { altNames, commonName, der, forge } from '../identity/forge.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient } from '../support/http1.ts'
import { startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const KEY = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const CLOSED = 'postern_connections_closed_total{reason="memory"}'

/** @param names that it has, of a byte each */
function junk(number: number, names: number): string {
  const name = der(0x82, Buffer.from('a'))
  const extensions = names === 0 ? [] : [altNames(...Array.from({ length: names }, () => name))]
  return forge({ key: KEY, subject: commonName(String(number)), extensions }).certificate.toString()
}

describe('certificates beside the path of a client', () => {
  const t = suiteCleanup()

  async function stand(beside: readonly string[]) {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: url,
      config: { inbound: { limits: { heldBytes: '8MiB' } } },
    })
    const certificate = await sidecar.authority.svid('web')
    const secureContext = tls.createSecureContext({
      ca: sidecar.authority.root.certificatePem,
      cert: certificate.chainPem + beside.join(''),
      key: certificate.privateKeyPem,
    })
    const open = async (): Promise<tls.TLSSocket> => {
      const options = { ...sidecar.clientOptions(certificate), secureContext }
      const socket = tls.connect(options as tls.ConnectionOptions)
      t.after(() => socket.destroy())
      socket.on('error', () => {})
      socket.write(get('/'))
      await Promise.race([once(socket, 'data'), once(socket, 'close')])
      return socket
    }
    return { sidecar, open }
  }

  it('are taken where they are few', async () => {
    const { sidecar, open } = await stand([junk(1, 0), junk(2, 0)])
    for (let i = 0; i < 50; i++) assert.equal((await open()).destroyed, false)
    assert.equal(await sidecar.metric(CLOSED), 0)
  })

  it('are refused where they are many', async () => {
    const { sidecar, open } = await stand(Array.from({ length: 290 }, (_, i) => junk(i, 0)))
    await open()
    const { reason, detail } = await sidecar.logged('handshake_failed')
    assert.equal(reason, 'untrusted')
    assert.match(String(detail), /it sent 29\d certificates, and 10 are the most/)
  })

  it('are counted among what the client holds where each is large', async () => {
    const { sidecar, open } = await stand(Array.from({ length: 7 }, (_, i) => junk(i, 2_800)))
    for (let i = 0; i < 16; i++) await open()
    await eventually('some were closed', async () => (await sidecar.metric(CLOSED)) > 0)
    const calm = await openClient(t, sidecar, await sidecar.authority.svid('calm'))
    calm.send(get('/'))
    assert.equal((await calm.answer()).status, 200)
  })
})
