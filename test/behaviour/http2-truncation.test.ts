import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openSession, startH2cWorkload } from '../support/http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload } from '../support/workload.ts'

const BODY_POLICY = fileURLToPath(new URL('../policy/bundles/body.tar.gz', import.meta.url))
const NO_ERROR = 0

/** An upload that the client breaks off must never look to the workload as if it were complete. */
describe('an upload over HTTP/2 that its client breaks off', () => {
  const t = suiteCleanup()
  let received: string[]
  let h1: TestSidecar
  let h2: TestSidecar
  let reading: TestSidecar
  const ends: string[] = []
  before(async () => {
    const raw = await startRawWorkload(t, (socket) => {
      socket.on('end', () => socket.end())
    })
    received = raw.received
    const h2c = await startH2cWorkload(t, (stream) => {
      stream.on('end', () => ends.push(stream.rstCode === NO_ERROR ? 'complete' : 'cut'))
      stream.on('close', () => ends.push('closed')).resume()
    })
    ;[h1, h2, reading] = await Promise.all([
      startSidecar(t, { forward: raw.url }),
      startSidecar(t, { forward: h2c.url }),
      startSidecar(t, { forward: raw.url, config: { policy: { bundle: BODY_POLICY } } }),
    ])
  })

  /** `destroy` sends a RST_STREAM alone; `close` would end the stream first. */
  const upload = async (sidecar: TestSidecar, path: string, body: string) => {
    const session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/json',
    })
    stream.on('error', () => {})
    stream.write(body)
    return { stream, reset: () => stream.destroy(new Error('broken off')) }
  }

  it('reaches a workload that speaks HTTP/1.1 without its last chunk', async () => {
    const { reset } = await upload(h1, '/cut', 'part')
    await eventually('the part', () => received[0]?.endsWith('part\r\n'))
    reset()
    await eventually('it is recorded', async () =>
      /requests_total\{protocol="http\/2",outcome="allow",status_class="none"\} 1/.test(
        await h1.metrics(),
      ),
    )
    assert.match(received[0] ?? '', /part\r\n$/)
  })

  it('reaches a workload that speaks HTTP/2 as a reset', async () => {
    const { stream, reset } = await upload(h2, '/cut', 'part')
    await eventually('the workload has it', async () => {
      return (await h2.metric('postern_upstream_connections_open')) === 1 && !stream.pending
    })
    reset()
    await eventually('it is over', () => ends.includes('closed'))
    assert.ok(!ends.includes('complete'))
  })

  it('is not decided about, and does not reach the workload, where policy reads bodies', async () => {
    const { reset } = await upload(reading, '/read', '{"allow":true}')
    await eventually('it is on its way', async () => {
      return (await reading.metric('postern_connections_open')) === 1
    })
    reset()
    await eventually('it is recorded', async () =>
      /requests_rejected_total\{code="client_closed"\} 1/.test(await reading.metrics()),
    )
    assert.ok(!received.some((one) => one.startsWith('POST /read ')))
  })
})
