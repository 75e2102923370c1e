// What TLS 1.3 lets a client send after its handshake beside data: changes of keys, records without
// data, padding, the end. Data is what was between them, in order, and there is none behind the end.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertUnharmed } from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, post } from '../support/http1.ts'
import { openRawTls } from '../support/raw-tls.ts'
import { startSidecar } from '../support/sidecar.ts'
import { startRawWorkload, startWorkload } from '../support/workload.ts'

/** More than the system keeps for a client that does not read. */
const LARGE = 32 * 1024 * 1024
const BODY = Array.from({ length: 40_000 }, (_, i) => `${i},`).join('')

describe('records of a client after its handshake', () => {
  const t = suiteCleanup()

  it('may change keys, be empty or padded, and a request is what it is', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const { socket, records, received } = await openRawTls(t, sidecar, web, ['http/1.1'])
    const said = post('/first', BODY) + get('/second')
    const sent: Buffer[] = []
    for (let at = 0, i = 0; at < said.length; i++) {
      const to = at + 1 + ((i * 7_919) % 12_000)
      sent.push(records.data(said.slice(at, to), i % 3 === 0 ? 100 : 0))
      sent.push(records.keyUpdate(i % 2 === 0), records.data(''))
      at = to
    }
    const bytes = Buffer.concat(sent)
    for (let at = 0; at < bytes.length; at += 10_007) {
      await new Promise((done) => socket.write(bytes.subarray(at, at + 10_007), done))
    }
    await eventually('both are answered', () => received().split('200 OK').length === 3)
    assert.equal(workload.seen[0]?.body.toString(), BODY)
    assert.equal(workload.seen[1]?.url, '/second')
    socket.destroy()
    await assertUnharmed(sidecar, { upstream: 2 })
  })

  it('are no request, and no part of one, behind the end', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const head = 'POST /half HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n'
    for (const [before, behind] of [
      [get('/whole'), get('/behind')],
      [`${head}ab`, `cd${get('/behind')}`],
      ['GET /half HTTP/1.1\r\nhost: localhost\r\n', '\r\n'],
    ] as const) {
      const { socket, records } = await openRawTls(t, sidecar, web, ['http/1.1'])
      const sent = [records.data(before), records.closeNotify(), records.data(behind)]
      socket.write(Buffer.concat(sent))
      await eventually('it is over', () => socket.readableEnded || socket.destroyed)
      socket.destroy()
    }
    await assertUnharmed(sidecar, { upstream: 1 })
    assert.deepEqual(
      workload.seen.map(({ url }) => url),
      ['/whole'],
    )
  })

  it('are nothing for a workload behind tcp:// either, behind the end', async () => {
    const workload = await startRawWorkload(t, (socket) => void socket.pipe(socket))
    const sidecar = await startSidecar(t, { forward: workload.url.replace('http', 'tcp') })
    const web = await sidecar.authority.svid('web')
    const { socket, records, received } = await openRawTls(t, sidecar, web, [])
    const sent = [records.data('one '), records.keyUpdate(true), records.data('two')]
    socket.write(Buffer.concat([...sent, records.closeNotify(), records.data('three')]))
    await eventually('it is over', () => socket.readableEnded || socket.destroyed)
    assert.equal(received(), 'one two')
    assert.deepEqual(workload.received, ['one two'])
    socket.destroy()
    await assertUnharmed(sidecar, { upstream: 0 })
  })

  it('are gone with their client where it reads nothing of what TLS answers by itself', async () => {
    const workload = await startWorkload(t, (_, response) => void response.end(Buffer.alloc(LARGE)))
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const { socket, records } = await openRawTls(t, sidecar, web, ['http/1.1'])
    socket.pause()
    socket.write(records.data(get('/')))
    await eventually('the workload answers', () => workload.seen.length === 1)
    await eventually('it is ended', async () => {
      const sent = Array.from({ length: 1_000 }, () => records.keyUpdate(true))
      socket.write(Buffer.concat(sent))
      return (await sidecar.metric('postern_connections_open')) === 0
    })
    socket.destroy()
    await assertUnharmed(sidecar, { upstream: 0 })
  })
})
