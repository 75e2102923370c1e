// A container with a fifth of a processor: the kernel lets the process run for 20 ms and stops it for
// 80, all of its threads at once. Nothing may take that for a fault of its own, or for overload.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { limitedGroup } from '../support/cgroups.ts'
import { get, openClient } from '../support/http1.ts'
import { call, startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const QUOTA_US = 20_000
const PERIOD_US = 100_000

/** Version 1 of cgroups, then version 2. */
const LIMITS = [
  { parent: '/sys/fs/cgroup/cpu', file: 'cpu.cfs_quota_us', value: String(QUOTA_US) },
  { parent: '/sys/fs/cgroup', file: 'cpu.max', value: `${QUOTA_US} ${PERIOD_US}` },
]

describe('with a fifth of a processor', () => {
  it('requests are answered, reloads come into force, no thread is replaced, and a drain ends', async (t) => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: url,
      // Twice the default: it shares what it gets with nobody, but others run here too.
      config: { workers: 2, inbound: { overload: { eventLoopLag: '200ms' } } },
    })
    const web = await sidecar.authority.svid('web')
    const group = await limitedGroup(t, LIMITS)
    if ('obstacle' in group) return t.skip(group.obstacle)
    await writeFile(group.processes, String(sidecar.pid))
    const clients = await Promise.all(Array.from({ length: 16 }, () => openClient(t, sidecar, web)))
    const asking = clients.map(async (client) => {
      for (let i = 0; i < 40; i++) {
        client.send(get('/'))
        assert.equal((await client.answer()).status, 200)
      }
    })
    sidecar.signal('SIGHUP')
    for (let i = 0; i < 5; i++) assert.equal((await call(sidecar, web)).status, 200)
    await Promise.all(asking)
    for (const reason of ['stalled', 'exited']) {
      const restarts = `postern_data_thread_restarts_total{reason="${reason}"}`
      assert.equal(await sidecar.metric(restarts), 0)
    }
    assert.ok(!sidecar.lines.some(({ event }) => event === 'overload'))
    const { status } = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    assert.equal(status, 200)
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})
