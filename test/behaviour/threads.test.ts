// Data threads beside the control thread: they share a port and their counters add up, a policy that
// never ends costs its own requests and nobody else's, and a thread that hangs is replaced.
import assert from 'node:assert/strict'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { call, connectRaw, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const bundle = (name: string): string =>
  fileURLToPath(new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url))

async function replace(path: string, by: string): Promise<void> {
  await writeFile(`${path}.new`, await readFile(by))
  await rename(`${path}.new`, path)
}

async function controlAnswers(sidecar: TestSidecar): Promise<void> {
  assert.match(await sidecar.metrics(), /^postern_build_info/m)
  assert.equal((await sidecar.admin('GET', '/snapshot')).status, 200)
  assert.equal((await fetch(`http://127.0.0.1:${sidecar.metricsPort}/livez`)).status, 200)
}

describe('two data threads', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate

  before(async () => {
    const { url } = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: url,
      config: { workers: 2, log: { access: 'all' } },
    })
    web = await sidecar.authority.svid('web')
  })

  it('share one port, also one that the kernel chose, and their counters add up', async () => {
    const threads = new Set<unknown>()
    let requests = 0
    await eventually('both have answered', async () => {
      assert.equal((await call(sidecar, web)).status, 200)
      requests++
      for (const line of sidecar.lines) if (line.event === 'access') threads.add(line['thread'])
      return threads.size === 2
    })
    assert.deepEqual([...threads].sort(), [0, 1])
    const series = 'postern_requests_total{protocol="http/1.1",outcome="allow",status_class="2xx"}'
    assert.equal(await sidecar.metric(series), requests)
    assert.equal(await sidecar.metric('postern_connections_total'), requests)
    for (const thread of ['control', 'data-0', 'data-1']) {
      assert.match(
        await sidecar.metrics(),
        new RegExp(`postern_event_loop_lag_seconds\\{thread="${thread}"\\}`),
      )
    }
  })

  it('take a new generation both', async () => {
    const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, own.privateKeyPem)
    await writeFile(sidecar.files.certificate, own.chainPem)
    let connections = 0
    // Enough of them that one thread cannot have had them all by chance.
    await eventually('every connection is shown the new certificate', async () => {
      const { socket } = await connectRaw(t, sidecar, web)
      const serial = socket.getPeerX509Certificate()?.serialNumber.toLowerCase() ?? ''
      socket.end()
      connections = serial === own.serial ? connections + 1 : 0
      return connections === 32
    })
  })
})

describe('a policy that never ends', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let web: IssuedCertificate
  let policy: string

  before(async () => {
    policy = join(await temporaryDirectory(t), 'bundle.tar.gz')
    await replace(policy, bundle('allow-all'))
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: policy } },
    })
    web = await sidecar.authority.svid('web')
  })

  it('ends each request with 504 while everything else answers, until a good one is back', async () => {
    assert.equal((await call(sidecar, web)).status, 200)
    await replace(policy, bundle('runaway'))
    await eventually('it is in force', async () => (await call(sidecar, web)).status === 504)
    const forwarded = workload.seen.length
    const replies = Array.from({ length: 15 }, () => call(sidecar, web))
    await controlAnswers(sidecar)
    for (const reply of await Promise.all(replies)) {
      assert.equal(reply.status, 504)
      assert.equal(JSON.parse(reply.body).error, 'policy_timeout')
    }
    assert.equal(workload.seen.length, forwarded)
    assert.ok(
      (await sidecar.metric('postern_decisions_total{outcome="timeout",rule="policy"}')) >= 15,
    )
    assert.equal(await sidecar.metric('postern_data_thread_restarts_total{reason="stalled"}'), 0)
    // The sample request of the activation ran into the same wall, and said so.
    const line = await sidecar.logged('reload_problem')
    assert.match(String(line['what']), /used up its (fuel|memory)/)
    await replace(policy, bundle('allow-all'))
    await eventually('it is good again', async () => (await call(sidecar, web)).status === 200)
  })
})

describe('a data thread that hangs', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate

  before(async () => {
    const policy = join(await temporaryDirectory(t), 'bundle.tar.gz')
    // With so much fuel an evaluation takes more than twice what a thread may be silent.
    await replace(policy, bundle('spin'))
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { policy: { bundle: policy, fuel: 1_000_000_000 }, stall: '400ms' },
    })
    web = await sidecar.authority.svid('web')
  })

  it('is replaced on the same port, while admin and metrics answer and counters stay', async () => {
    assert.equal((await call(sidecar, web)).status, 200)
    const answered =
      'postern_requests_total{protocol="http/1.1",outcome="allow",status_class="2xx"}'
    const restarts = 'postern_data_thread_restarts_total{reason="stalled"}'
    const before = await sidecar.metric(answered)
    assert.ok(before >= 1)
    const hanging = call(sidecar, web, { path: '/spin' }).catch((error: Error) => error)
    await eventually('it is replaced', async () => {
      await controlAnswers(sidecar)
      return (await sidecar.metric(restarts)) >= 1
    })
    assert.ok((await hanging) instanceof Error)
    const line = await sidecar.logged('data_thread_restart')
    assert.deepEqual([line['reason'], line.level], ['stalled', 'error'])
    await eventually('it serves again', async () => {
      const reply = await call(sidecar, web).catch(() => undefined)
      return reply?.status === 200
    })
    assert.ok((await sidecar.metric(answered)) > before)
    await eventually('it is ready', async () => {
      const { status } = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
      return status === 200
    })
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})
