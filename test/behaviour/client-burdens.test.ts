// Clients that send too much, too slowly, or never the end of what they began: each is answered or
// closed in its time, takes a bounded part of memory, and holds up nobody else.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { before, describe, it } from 'node:test'
import { FLAG, FRAME } from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'
import {
  assertUnharmed,
  type Bystander,
  calmAnswer,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient, openResettableClient } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { data, frame, head, openRawHttp2, requestFields } from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const PIPELINED = 5_000
const GIANT = 4 * 1024 * 1024
const POST = requestFields({ ':method': 'POST', ':path': '/slow' })

describe('a client that is a burden', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let web: IssuedCertificate
  let bystander: Bystander
  before(async () => {
    workload = await startWorkload(t, ({ url, body }, response) =>
      response.end(isCalm(url) ? calmAnswer(url) : `${url} ${body.length}`),
    )
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: { timeouts: { requestHead: '600ms', requestBody: '600ms', idle: '1200ms' } },
        log: { decisions: 'off', access: 'off' },
      },
    })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
  })
  const residentKiB = async (): Promise<number> =>
    Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${sidecar.pid}/status`, 'latin1'))?.[1])

  it('floods with pipelined requests, reads nothing, and resets', async (test) => {
    const flood = await openResettableClient(test, sidecar, web)
    flood.socket.pause()
    flood.send(get('/flood').repeat(PIPELINED))
    await eventually('some have arrived', () => workload.seen.some(({ url }) => url === '/flood'))
    await bystander.served()
    flood.reset()
    const gone = 'postern_connections_closed_total{reason="client"}'
    await eventually('it is gone', async () => (await sidecar.metric(gone)) >= 1)
    const arrived = workload.seen.filter(({ url }) => url === '/flood').length
    await bystander.served()
    const later = workload.seen.filter(({ url }) => url === '/flood').length
    assert.ok(later <= arrived + 1, 'requests of a client that has gone')
  })

  it('sends a head without end over HTTP/1.1', async (test) => {
    const before = await residentKiB()
    const refused = 'postern_requests_rejected_total{code="head_too_large"}'
    for (const [already, line] of ['x: y\r\n', 'x'].entries()) {
      const client = await openClient(test, sidecar, web)
      client.send(
        `GET /giant HTTP/1.1\r\nhost: localhost\r\nx: ${line.repeat(GIANT / line.length)}`,
      )
      // Whoever is still sending after a MiB is reset, perhaps before it has read its 431.
      assert.match(await client.ended, /^(HTTP\/1\.1 431 |$)/)
      assert.equal(await sidecar.metric(refused), already + 1)
      client.socket.destroy()
    }
    await bystander.served()
    assert.ok((await residentKiB()) - before < 64 * 1024)
  })

  it('sends a head over HTTP/2 that is larger than it may be', async (test) => {
    const raw = await openRawHttp2(test, sidecar, web)
    raw.send(head(1, [...requestFields(), 'x', 'y'.repeat(200_000)]))
    await eventually('it is refused', () => {
      const { status, reset } = raw.answer(1)
      return status === 431 || reset !== undefined || raw.over
    })
    await bystander.served()
    raw.socket.destroy()
  })

  it('begins a header block over HTTP/2 and sends no more', async (test) => {
    const raw = await openRawHttp2(test, sidecar, web)
    raw.send(frame(FRAME.headers, FLAG.endStream, 1, encodeHeaderBlock(requestFields())))
    await raw.closed()
    assert.equal(raw.answer(1).status, 0)
  })

  it('begins a frame over HTTP/2 and sends no more', async (test) => {
    const raw = await openRawHttp2(test, sidecar, web)
    raw.send(head(1, POST, false), data(1, 'half of it').subarray(0, 12))
    assert.equal((await raw.answered(1)).status, 408)
    await raw.closed()
  })

  it('sends slowly, and not too slowly, and is served', async (test) => {
    const client = await openClient(test, sidecar, web)
    const raw = await openRawHttp2(test, sidecar, web)
    raw.send(head(1, POST, false))
    client.send('POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 12\r\n\r\n')
    // Longer in all than a body may pause.
    for (let i = 0; i < 12; i++) {
      await new Promise((resolve) => setTimeout(resolve, 80))
      client.send('x')
      raw.send(data(1, 'x', i === 11))
    }
    assert.equal(String((await client.answer()).body), '/slow 12')
    assert.equal(String((await raw.answered(1)).body), '/slow 12')
    client.socket.destroy()
    raw.socket.destroy()
  })

  it('sends a body over HTTP/2 too slowly, and loses the stream alone', async (test) => {
    const raw = await openRawHttp2(test, sidecar, web)
    raw.send(head(1, POST, false), data(1, 'x'))
    assert.equal((await raw.answered(1)).status, 408)
    raw.send(head(3, requestFields({ ':path': '/calm/after' })))
    assert.equal(String((await raw.answered(3)).body), calmAnswer('/calm/after'))
    raw.socket.destroy()
  })

  it('leaves nothing behind', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 0 })
    const urls = new Set(workload.seen.map(({ url }) => url).filter((url) => !isCalm(url)))
    assert.deepEqual([...urls].toSorted(), ['/flood', '/slow'])
    const slow = workload.seen.filter(({ url }) => url === '/slow')
    assert.ok(slow.every(({ body }) => body.length === 12))
  })
})
