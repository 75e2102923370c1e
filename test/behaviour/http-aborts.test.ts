import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient, openResettableClient } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { type RawWorkload, startRawWorkload } from '../support/workload.ts'

describe('what breaks off', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  let answer: (socket: net.Socket) => void = () => {}
  const t = suiteCleanup()
  before(async () => {
    workload = await startRawWorkload(t, (socket) => {
      socket.on('data', () => answer(socket))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { limits: { bodyBytes: '64KiB' } } },
    })
    web = await sidecar.authority.svid('web')
  })

  const chunkedHead = 'POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n'

  /** Waits until the workload has that text on a connection, and gives that connection. */
  const arrived = (text: string): Promise<net.Socket> =>
    eventually(`${text} at the workload`, () => {
      const place = workload.received.findIndex((all) => all.includes(text))
      return workload.sockets[place]
    })
  const gone = (socket: net.Socket): Promise<unknown> =>
    eventually(
      'the connection to the workload is gone',
      () => socket.destroyed || socket.readableEnded,
    )

  for (const [what, bad, status, code] of [
    ['a chunk size that is none', 'zz\r\n', 400, 'bad_chunk'],
    ['a chunk that is longer than it said', '3\r\nabcd\r\n', 400, 'bad_chunk'],
    ['a trailer that would frame', '0\r\ncontent-length: 5\r\n\r\n', 400, 'bad_trailer'],
    [
      'more than is allowed',
      `${(0x10001).toString(16)}\r\n${'a'.repeat(0x10001)}`,
      413,
      'body_too_large',
    ],
  ] as const) {
    it(`is a body with ${what}: refused, and the workload’s connection destroyed`, async () => {
      answer = () => {}
      const client = await openClient(t, sidecar, web)
      const mark = `mark-${code}-${bad.length}`
      client.send(`${chunkedHead}${mark.length.toString(16)}\r\n${mark}\r\n`)
      const socket = await arrived(mark)
      client.send(`${bad}GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n`)
      const refused = await client.answer()
      assert.deepEqual([refused.status, JSON.parse(String(refused.body)).error], [status, code])
      assert.equal(await client.ended, '')
      await gone(socket)
      assert.ok(!workload.received.some((all) => /smuggled|0\r\n\r\n$/.test(all)))
    })
  }

  it('is a body that turns bad when the answer has begun: no more of it', async () => {
    answer = (socket) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun')
    const client = await openClient(t, sidecar, web)
    client.send(`${chunkedHead}5\r\nearly\r\n`)
    await eventually('the answer has begun', () => client.bytesRead() > 0)
    answer = () => {}
    client.send('zz\r\n')
    const text = await client.ended
    assert.match(text, /begun$/)
  })

  it('is a client in the middle of its request', async () => {
    answer = () => {}
    for (const how of ['reset', 'end'] as const) {
      const client = await openResettableClient(t, sidecar, web)
      client.send(`POST /${how} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf`)
      const socket = await arrived(`POST /${how} `)
      if (how === 'reset') client.reset()
      else client.socket.end()
      await gone(socket)
    }
  })

  it('is a client that has gone while the workload thinks', async () => {
    answer = () => {}
    const client = await openResettableClient(t, sidecar, web)
    client.send(get('/thinking'))
    const socket = await arrived('GET /thinking')
    client.reset()
    await gone(socket)
  })

  it('is a client in the middle of its answer', async () => {
    let stop = false
    answer = (socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n')
      const more = (): void => {
        while (!stop && !socket.destroyed && socket.write(Buffer.alloc(65536))) {}
        if (!stop && !socket.destroyed) socket.once('drain', more)
      }
      more()
    }
    const client = await openClient(t, sidecar, web)
    client.send(get('/endless'))
    const socket = await arrived('GET /endless')
    await eventually('it streams', () => client.bytesRead() > 1_000_000)
    client.socket.destroy()
    await gone(socket)
    stop = true
  })

  it('leaves nothing behind', async () => {
    answer = (socket) => void socket.write(ok('fine'))
    const client = await openClient(t, sidecar, web)
    client.send(get('/after'))
    assert.equal(String((await client.answer()).body), 'fine')
    client.socket.end()
    await eventually(
      'all client connections are closed',
      async () => (await sidecar.metric('postern_connections_open')) === 0,
    )
    assert.equal(await sidecar.metric('postern_upstream_connections_open'), 1)
    assert.ok((await sidecar.metric('postern_requests_rejected_total{code="client_closed"}')) >= 4)
  })
})
