// A data thread dies of something nobody thought of, or hangs. Its own connections go with it; those of the
// other thread do not notice, a new thread takes its place, and nothing that was counted is forgotten.
import assert from 'node:assert/strict'
import https from 'node:https'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { type Death, type ThreadKiller, threadKiller } from '../support/thread-killer.ts'
import { startWorkload } from '../support/workload.ts'

const ANSWERED = 'postern_requests_total{protocol="http/1.1",outcome="allow",status_class="2xx"}'
const CONNECTIONS = 16
const DEATHS: readonly (readonly [how: Death, what: string, reason: string])[] = [
  ['exit', 'that ends', 'exited'],
  ['throw', 'with an error that nobody catches', 'exited'],
  ['memory', 'whose memory is full', 'exited'],
  ['hang', 'that hangs', 'stalled'],
]

describe('a data thread', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let killer: ThreadKiller

  before(async () => {
    killer = threadKiller(await temporaryDirectory(t))
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      // A heap that is soon full.
      env: { ...killer.env, NODE_OPTIONS: `${killer.env['NODE_OPTIONS']} --max-old-space-size=96` },
      threadsDie: true,
      config: { workers: 2, stall: '3s', log: { access: 'all', decisions: 'off' } },
    })
    web = await sidecar.authority.svid('web')
  })

  /** A connection, and the thread that has it. */
  async function connected(): Promise<{ agent: https.Agent; thread: unknown }> {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
    t.after(() => agent.destroy())
    const requestId = crypto.randomUUID()
    await call(sidecar, web, { agent, headers: { 'x-request-id': requestId } })
    const { thread } = await sidecar.logged('access', { request_id: requestId })
    return { agent, thread }
  }

  for (const [how, what, reason] of DEATHS) {
    it(`${what} takes only its own connections along`, async () => {
      const series = `postern_data_thread_restarts_total{reason="${reason}"}`
      const clients = await Promise.all(Array.from({ length: CONNECTIONS }, connected))
      const others = clients.filter(({ thread }) => thread === 1)
      assert.ok(others.length > 0 && others.length < CONNECTIONS, `${others.length}`)
      const [restarts, answered] = [await sidecar.metric(series), await sidecar.metric(ANSWERED)]
      const opened = await sidecar.metric('postern_connections_total')

      await killer.kill('data-0', how)
      await eventually('it is told', async () => {
        for (const { agent } of others) {
          assert.equal((await call(sidecar, web, { agent })).status, 200)
        }
        return (await sidecar.metric(series)) === restarts + 1
      })
      const line = await sidecar.logged('data_thread_restart', { reason, thread: 0 })
      assert.equal(line.level, 'error')
      await eventually('both serve again', async () => {
        const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
        return ready.status === 200
      })
      await eventually('the new thread has clients', async () => (await connected()).thread === 0)
      for (const { agent } of others) {
        assert.equal((await call(sidecar, web, { agent })).status, 200)
        assert.equal(Object.values(agent.freeSockets).flat().length, 1)
      }
      assert.ok((await sidecar.metric(ANSWERED)) > answered)
      assert.ok((await sidecar.metric('postern_connections_total')) > opened)
      for (const { agent } of clients) agent.destroy()
    })
  }
})
