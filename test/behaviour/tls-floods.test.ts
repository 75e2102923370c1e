// Clients that keep TLS busy with what brings nothing: a client that means no harm has no reason to, so
// that its connections are ended before they cost others their time, and its address is not let in for a
// while. Everybody else is served as before.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { assertUnharmed, calmAnswer, startBystander } from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { openRawTls, openRawTls12, type RecordWriter } from '../support/raw-tls.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload, startWorkload } from '../support/workload.ts'

const FLOODS = 'postern_requests_rejected_total{code="tls_flood"}'
const REJECTED = 'postern_connections_closed_total{reason="rejected"}'
const KEPT_OUT = 'postern_handshakes_total{result="failure",reason="address_limited"}'
/** More than node reads at once. */
const MANY = 5_000

const isOver = (socket: Socket): boolean => socket.readableEnded || socket.destroyed

const keyUpdates = (records: RecordWriter, count: number): Buffer =>
  Buffer.concat(Array.from({ length: count }, () => records.keyUpdate(false)))

const connectFrom = (
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  localAddress: string,
): tls.TLSSocket =>
  tls.connect({ ...sidecar.clientOptions(certificate), localAddress } as tls.ConnectionOptions)

/** Whether a client that connects from there gets as far as its first answer. */
async function isLetIn(
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  localAddress: string,
): Promise<boolean> {
  const socket = connectFrom(sidecar, certificate, localAddress)
  try {
    socket.write(get('/calm/in'))
    await once(socket, 'data')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

describe('changes of keys without end', () => {
  const t = suiteCleanup()

  for (const protocol of ['http/1.1', 'h2'] as const) {
    it(`end what the client has open, and keep it out, over ${protocol}`, async () => {
      const workload = await startWorkload(t, (request, response) => {
        response.end(calmAnswer(request.url ?? ''))
      })
      const sidecar = await startSidecar(t, { forward: workload.url })
      const [web, batch] = [
        await sidecar.authority.svid('web'),
        await sidecar.authority.svid('batch'),
      ]
      const bystander = await startBystander(t, sidecar, batch)
      await bystander.served()
      const other = await openClient(t, sidecar, web)
      const elsewhere = connectFrom(sidecar, web, '127.0.0.2')
      t.after(() => elsewhere.destroy())
      await once(elsewhere, 'secureConnect')
      const { socket, records } = await openRawTls(t, sidecar, web, [protocol])
      await eventually('all are open', async () => {
        return (await sidecar.metric('postern_connections_open')) === 5
      })
      socket.write(keyUpdates(records, MANY))
      await eventually('its connections are ended', () => isOver(socket) && isOver(other.socket))
      await bystander.served()
      // Another instance of the same service.
      elsewhere.write(get('/calm/elsewhere'))
      await once(elsewhere, 'data')
      assert.equal(await sidecar.metric(FLOODS), 1)
      assert.equal(await sidecar.metric(REJECTED), 2)
      assert.equal(await isLetIn(sidecar, web, '127.0.0.1'), false)
      assert.equal(await sidecar.metric(KEPT_OUT), 1)
      assert.equal(await isLetIn(sidecar, web, '127.0.0.3'), true)
      elsewhere.destroy()
      await bystander.stop()
      await assertUnharmed(sidecar, { upstream: 2 })
    })
  }

  it('end the connection behind tcp:// as well', async () => {
    const workload = await startRawWorkload(t, (socket) => void socket.pipe(socket))
    const sidecar = await startSidecar(t, { forward: workload.url.replace('http', 'tcp') })
    const web = await sidecar.authority.svid('web')
    const { socket, records } = await openRawTls(t, sidecar, web, [])
    socket.write(Buffer.concat([records.data('one'), keyUpdates(records, MANY)]))
    await eventually('it is ended', () => isOver(socket))
    assert.equal(await sidecar.metric(FLOODS), 1)
    await assertUnharmed(sidecar, { upstream: 0 })
  })

  it('are not hidden by data in between', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const { socket, records } = await openRawTls(t, sidecar, web, ['http/1.1'])
    const piece = (): Buffer[] => [records.data(get('/')), keyUpdates(records, 31)]
    socket.write(Buffer.concat(Array.from({ length: MANY / 31 }, piece).flat()))
    await eventually('it is ended', () => isOver(socket))
    assert.equal(await sidecar.metric(FLOODS), 1)
    await assertUnharmed(sidecar, { upstream: 1 })
  })

  it('are what a client is kept out for that was refused', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const { socket, records } = await openRawTls(t, sidecar, undefined, ['http/1.1'])
    socket.write(keyUpdates(records, 1))
    const web = await sidecar.authority.svid('web')
    await eventually('its address is not let in', async () => {
      return !(await isLetIn(sidecar, web, '127.0.0.1'))
    })
    assert.equal(await isLetIn(sidecar, web, '127.0.0.2'), true)
    await assertUnharmed(sidecar, { upstream: 1 })
  })
})

describe('requests for another handshake without end', () => {
  const t = suiteCleanup()

  it('end what the client has open, and keep it out', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const other = await openClient(t, sidecar, web)
    const { socket, records, received } = await openRawTls12(t, sidecar, web)
    socket.write(records.data(get('/first')))
    await eventually('it is served', () => received().includes('200 OK'))
    socket.write(Buffer.concat(Array.from({ length: MANY }, () => records.clientHello())))
    await eventually('its connections are ended', () => isOver(socket) && isOver(other.socket))
    assert.equal(await sidecar.metric(FLOODS), 1)
    assert.equal(await isLetIn(sidecar, web, '127.0.0.1'), false)
    assert.equal(await isLetIn(sidecar, web, '127.0.0.2'), true)
    await assertUnharmed(sidecar, { upstream: 1 })
  })
})
