import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient, startScriptedWorkload } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

describe('time limits of a connection', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, { line }) => {
      if (!line.includes('/silent')) socket.write(ok(line))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: {
          timeouts: {
            requestHead: '300ms',
            requestBody: '300ms',
            upstreamResponse: '300ms',
            idle: '1500ms',
          },
        },
        log: { access: 'all' },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  const errorOf = (body: Buffer): unknown => JSON.parse(body.toString()).error

  it('refuse a head that does not come to its end', async () => {
    const client = await openClient(t, sidecar, web)
    client.send('GET / HTTP/1.1\r\nhost: localhost\r\n')
    const answer = await client.answer()
    assert.equal(answer.status, 408)
    assert.equal(errorOf(answer.body), 'head_timeout')
    assert.equal(await client.ended, '')
  })

  it('refuse a head that trickles in', async () => {
    const client = await openClient(t, sidecar, web)
    client.send('GET / HTTP/1.1\r\nhost: localhost\r\nx: ')
    const drip = setInterval(() => client.send('a'), 20)
    t.after(() => clearInterval(drip))
    assert.equal((await client.answer()).status, 408)
    clearInterval(drip)
  })

  it('refuse a body that stops', async () => {
    const client = await openClient(t, sidecar, web)
    client.send('POST /b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf')
    const answer = await client.answer()
    assert.equal(answer.status, 408)
    assert.equal(errorOf(answer.body), 'body_timeout')
    assert.equal(await client.ended, '')
  })

  it('answer for a workload that does not, and keep the connection', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/silent'))
    const answer = await client.answer()
    assert.equal(answer.status, 504)
    assert.equal(errorOf(answer.body), 'upstream_timeout')
    client.send(get('/again'))
    assert.equal((await client.answer()).status, 200)
  })

  it('blame the workload when a client waits for its 100 (Continue)', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(
      'POST /silent HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n',
    )
    const answer = await client.answer()
    assert.equal(errorOf(answer.body), 'upstream_timeout')
    assert.equal(await client.ended, '')
  })

  it('close an idle connection without a word', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/1'))
    await client.answer()
    assert.equal(await client.ended, '')
    assert.ok((await sidecar.metric('postern_connections_closed_total{reason="idle"}')) >= 0)
    client.socket.destroy()
    await eventually(
      'counted as idle',
      async () => (await sidecar.metric('postern_connections_closed_total{reason="idle"}')) >= 1,
    )
  })

  it('count each in its metric', async () => {
    for (const [series, least] of [
      ['requests_rejected_total{code="head_timeout"}', 2],
      ['requests_rejected_total{code="body_timeout"}', 1],
      ['upstream_errors_total{code="upstream_timeout"}', 2],
    ] as const) {
      assert.equal(await sidecar.metric(`postern_${series}`), least, series)
    }
  })
})

describe('the time of a head', () => {
  const t = suiteCleanup()
  const headMs = 2_000

  it('runs from its first byte, not from the last answer', async () => {
    const workload = await startScriptedWorkload(t, (socket, { line }) => {
      socket.write(ok(line))
    })
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { timeouts: { requestHead: `${headMs}ms`, idle: '60s' } } },
    })
    const web = await sidecar.authority.svid('web')
    const client = await openClient(t, sidecar, web)
    client.send(get('/1'))
    await client.answer()
    // Idle for longer than a head may take; other clients' answers tell how the time goes.
    const beganMs = performance.now()
    await eventually('idle for longer than a head may take', async () => {
      const other = await openClient(t, sidecar, web)
      other.send(get('/other', 'connection: close\r\n'))
      await other.answer()
      return performance.now() - beganMs > 1.2 * headMs
    })
    client.send('GET /2 HTTP/1.1\r\n')
    // The data thread has looked at its deadlines since.
    const before = await eventLoopLag(sidecar)
    await eventually('a beat', async () => (await eventLoopLag(sidecar)) !== before)
    client.send('host: localhost\r\n\r\n')
    assert.equal((await client.answer()).status, 200)
  })

  /** Measured anew with each beat of the data thread's clock. */
  async function eventLoopLag(sidecar: TestSidecar): Promise<string> {
    const lines = (await sidecar.metrics()).split('\n')
    return lines.filter((line) => line.startsWith('postern_event_loop_lag')).join()
  }
})

describe('limits of a connection', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    const workload = await startScriptedWorkload(t, (socket, { line }) => {
      socket.write(ok(line))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: {
          limits: { requestsPerConnection: 3 },
          timeouts: { connectionLifetime: '1s' },
        },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  it('announce the end with the last request that it may carry', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/1') + get('/2') + get('/3') + get('/4'))
    const said: string[][] = []
    for (let i = 0; i < 3; i++) said.push((await client.answer()).values('connection'))
    assert.deepEqual(said, [[], [], ['close']])
    assert.equal(await client.ended, '')
    client.socket.destroy()
    await eventually(
      'counted',
      async () =>
        (await sidecar.metric('postern_connections_closed_total{reason="requests"}')) === 1,
    )
  })

  it('close a connection that is old', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/1'))
    assert.deepEqual((await client.answer()).values('connection'), [])
    assert.equal(await client.ended, '')
    client.socket.destroy()
    await eventually(
      'counted',
      async () =>
        (await sidecar.metric('postern_connections_closed_total{reason="lifetime"}')) === 1,
    )
  })
})
