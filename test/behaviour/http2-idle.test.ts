import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { ask, openSession } from '../support/http2.ts'
import { startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

/** A few beats of the thread's clock, between which all of a request happens. */
const IDLE_MS = 300
const REQUESTS = 60
const PAUSE_MS = 30

describe('an HTTP/2 connection', () => {
  const t = suiteCleanup()

  it('is not idle while there are requests on it, however short they are and however long it lasts', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { timeouts: { idle: `${IDLE_MS}ms` } } },
    })
    const session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
    for (let i = 0; i < REQUESTS; i++) {
      const { status } = await ask(session, { ':path': `/${i}` })
      assert.equal(status, 200, `request ${i}`)
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
    assert.equal(await sidecar.metric('postern_connections_total'), 1)
    await eventually('it is ended once there are none', () => session.closed)
    const idle = 'postern_connections_closed_total{reason="idle"}'
    await eventually('as what it is', async () => (await sidecar.metric(idle)) === 1)
  })
})
