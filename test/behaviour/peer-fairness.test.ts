// What one peer, whose certificate is good, can take from others.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2 from 'node:http2'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient, startScriptedWorkload } from '../support/http1.ts'
import { ask, openSession } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload, startWorkload } from '../support/workload.ts'

const LIMITED = 'postern_handshakes_total{result="failure",reason="peer_limited"}'

describe('connections of one principal', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let batch: IssuedCertificate
  before(async () => {
    const { url } = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: url,
      config: { inbound: { limits: { connectionsPerPeer: 3 } } },
    })
    web = await sidecar.authority.svid('web')
    batch = await sidecar.authority.svid('batch')
  })

  it('beyond the limit are told so and closed, until others have ended', async () => {
    const one = await openClient(t, sidecar, web)
    const renewed = await openClient(t, sidecar, await sidecar.authority.svid('web'))
    const session = await openSession(t, sidecar, web)
    assert.equal((await ask(session)).status, 200)
    const refused = await call(sidecar, web)
    assert.equal(refused.status, 503)
    assert.equal(JSON.parse(refused.body).error, 'peer_limited')
    const grpc = { ':method': 'POST', 'content-type': 'application/grpc' }
    const over = await ask(await openSession(t, sidecar, web), grpc, 'x')
    assert.equal(over.headers['grpc-status'], '8')
    assert.equal((await call(sidecar, batch)).status, 200)
    for (const client of [one, renewed]) {
      client.send(get('/'))
      assert.equal((await client.answer()).status, 200)
    }
    assert.equal(await sidecar.metric(LIMITED), 2)
    one.socket.destroy()
    await eventually('there is room', async () => (await call(sidecar, web)).status === 200)
  })

  it('to a tcp:// workload are ended without a byte', async () => {
    const workload = await startRawWorkload(t, (socket) => socket.pipe(socket))
    const tcp = await startSidecar(t, {
      forward: workload.url.replace('http:', 'tcp:'),
      config: { inbound: { limits: { connectionsPerPeer: 1 }, timeouts: { tunnelIdle: '2s' } } },
    })
    const identity = await tcp.authority.svid('web')
    const { ALPNProtocols: _, ...options } = tcp.clientOptions(identity)
    const open = async (): Promise<{ socket: tls.TLSSocket; bytes: () => number }> => {
      const socket = tls.connect(options)
      t.after(() => socket.destroy())
      let bytes = 0
      socket
        .on('error', () => {})
        .on('data', (chunk: Buffer) => {
          bytes += chunk.length
        })
      await once(socket, 'secureConnect')
      socket.write('hello')
      return { socket, bytes: () => bytes }
    }
    const first = await open()
    await eventually('the echo', () => first.bytes() === 5)
    const second = await open()
    await eventually('it is over', () => second.socket.readableEnded || second.socket.destroyed)
    assert.equal(second.bytes(), 0)
    assert.equal(workload.sockets.length, 1)
    await eventually('the idle one is ended', () => first.socket.destroyed)
    assert.equal(await tcp.metric('postern_tunnels_ended_total{kind="tcp",reason="idle"}'), 1)
  })
})

describe('a peer that takes what it can', () => {
  const t = suiteCleanup()

  it('does not keep another from its answers', async () => {
    const big = 'x'.repeat(4 * 1024 * 1024)
    const workload = await startScriptedWorkload(t, (socket, request) => {
      const path = request.line.split(' ')[1]
      // `/hang` is never answered: its connection to the workload stays taken.
      if (path === '/big') socket.write(ok(big))
      else if (path !== '/hang') socket.write(ok('well'))
    })
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { limits: { upstreamConnections: 64 } } },
    })
    const noisy = await sidecar.authority.svid('noisy')
    const web = await sidecar.authority.svid('web')
    const hangs = await Promise.all(Array.from({ length: 70 }, () => openClient(t, sidecar, noisy)))
    for (const client of hangs) client.send(get('/hang'))
    const slow = await Promise.all(Array.from({ length: 8 }, () => openClient(t, sidecar, noisy)))
    for (const client of slow) {
      client.socket.pause()
      client.send(get('/big').repeat(20))
    }
    const pipelining = await Promise.all(
      Array.from({ length: 8 }, () => openClient(t, sidecar, noisy)),
    )
    let flooding = true
    for (const { socket } of pipelining) {
      const flood = (): void => {
        if (flooding) socket.write(get('/flood').repeat(200), () => setImmediate(flood))
      }
      flood()
    }
    const session = await openSession(t, sidecar, noisy)
    const reset = (): void => {
      if (!flooding || session.closed || session.destroyed) return
      for (let i = 0; i < 10; i++) {
        const stream = session.request({ ':path': '/big' })
        stream.on('error', () => {})
        stream.close(http2.constants.NGHTTP2_CANCEL)
      }
      setImmediate(reset)
    }
    reset()
    await eventually('the connections are taken', async () => {
      return (await sidecar.metric('postern_upstream_connections_open')) >= 56
    })
    const statuses = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const seen: number[] = []
        for (let i = 0; i < 10; i++) seen.push((await call(sidecar, web)).status)
        return seen
      }),
    )
    const kept = await openClient(t, sidecar, web)
    for (let i = 0; i < 20; i++) {
      kept.send(get('/'))
      assert.equal((await kept.answer()).status, 200)
    }
    flooding = false
    assert.deepEqual([...new Set(statuses.flat())], [200])
  })
})
