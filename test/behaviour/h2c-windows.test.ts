// Flow control towards a workload that speaks HTTP/2: one that takes nothing holds up its own uploads
// until they are given up, and one that sends more than was asked for loses the stream.
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { H2_ERROR, SETTING } from '../../src/http/h2/frames.ts'
import { askHttp1, askHttp2 } from '../support/asker.ts'
import {
  assertUnharmed,
  type Bystander,
  calmAnswer,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { type RawStream, startRawH2cWorkload } from '../support/raw-h2c.ts'
import { data, head, openRawHttp2, requestFields } from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const WINDOW = 65_535
const FRAME = Buffer.alloc(16_384)
/** Many times the window of a stream. */
const FRAMES = 256

describe('flow control towards a workload that speaks HTTP/2', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystander: Bystander
  const streams: RawStream[] = []
  before(async () => {
    const workload = await startRawH2cWorkload(
      t,
      async (stream) => {
        const { id, path, send } = stream
        const answer = (body: string): void =>
          send(head(id, [':status', '200'], false), data(id, body, true))
        if (isCalm(path)) return answer(calmAnswer(path))
        streams.push(stream)
        if (path === '/flood') {
          send(head(id, [':status', '200'], false))
          for (let i = 0; i < FRAMES; i++) send(data(id, FRAME))
        } else if (path !== '/stall') {
          await eventually('the body', () => stream.ended)
          answer(`${stream.body.length}`)
        }
      },
      {
        settings: [[SETTING.initialWindowSize, 10 * WINDOW]],
        creditConnection: ({ path }) => path !== '/stall',
      },
    )
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { timeouts: { upstreamResponse: '1s' } }, log: { decisions: 'off' } },
    })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
  })

  for (const [protocol, ask] of [
    ['HTTP/1.1', askHttp1],
    ['HTTP/2', askHttp2],
  ] as const) {
    it(`lets a request with a body of no length end (${protocol})`, async (test) => {
      assert.equal(await ask(test, sidecar, web, { path: '/upload', body: '' }), '200 0')
    })

    it(`lets uploads wait behind one that takes the window of all, until that is given up (${protocol})`, async (test) => {
      streams.length = 0
      const stalled = ask(test, sidecar, web, { path: '/stall', body: 'x'.repeat(WINDOW) })
      await eventually('the window is used up', () => streams[0]?.body.length === WINDOW)
      const sinceMs = performance.now()
      await eventually('half its time is over', () => performance.now() - sinceMs > 500)
      const waiting = ask(test, sidecar, web, { path: '/upload', body: 'y'.repeat(1_000) })
      await eventually('another waits for it', () => streams.length === 2)
      await bystander.served()
      assert.equal(streams[1]?.body.length, 0)
      assert.equal(await stalled, '504 upstream_timeout')
      assert.equal(await waiting, '200 1000')
    })
  }

  it('resets a stream on which more comes than its client has room for (HTTP/2)', async (test) => {
    streams.length = 0
    const settings = [[SETTING.initialWindowSize, 0]] as const
    const raw = await openRawHttp2(test, sidecar, web, { settings, credit: false })
    raw.send(head(1, requestFields({ ':path': '/flood' })))
    const { status, ended, reset } = await raw.answered(1)
    assert.deepEqual([status, ended, reset !== undefined], [200, false, true])
    await eventually('the workload is told', () => streams[0]?.reset === H2_ERROR.flowControl)
    await bystander.served()
    raw.socket.destroy()
  })

  it('resets a stream on which more comes than its client has room for (HTTP/1.1)', async (test) => {
    streams.length = 0
    const client = await openClient(test, sidecar, web)
    client.socket.pause()
    client.send(get('/flood'))
    await eventually('the workload is told', () => streams[0]?.reset === H2_ERROR.flowControl)
    client.socket.resume()
    const text = await client.ended
    assert.match(text, /^HTTP\/1.1 200 /)
    assert.ok(!text.endsWith('0\r\n\r\n'), 'it looks complete')
    await bystander.served()
    client.socket.destroy()
  })

  it('leaves nothing behind', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 1 })
  })
})
