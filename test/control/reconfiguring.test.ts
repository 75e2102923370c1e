import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { applyLive } from '../../src/config/live.ts'
import { loadMaterials } from '../../src/control/loader.ts'
import { type ConfigReading, Reloader, type ReloadReport } from '../../src/control/reloader.ts'
import { SERVICE } from './bundle-host.ts'
import { type Materials, materials } from './materials.ts'

function reloading(t: TestContext, { config }: Materials, reading: () => ConfigReading) {
  const reports: ReloadReport[] = []
  const gate = { held: Promise.resolve() }
  const reloader = new Reloader({
    config,
    configuration: reading,
    clock: Date.now,
    publish: () => {},
    onReload: (report) => reports.push(report),
    load: async (...given) => {
      await gate.held
      return loadMaterials(...given)
    },
  })
  t.after(() => reloader.stop())
  return { reloader, reports, gate }
}

const WRONG = { where: 'allow', what: 'is wrong', remedy: 'mend it' }

test('reads the configuration when somebody asks, and not for a notice or a retry', async (t) => {
  const made = await materials(t)
  let readings = 0
  const { reloader } = reloading(t, made, () => {
    readings++
    return { config: made.config, problems: [] }
  })
  await reloader.reload('start')
  await reloader.reload('watch')
  await reloader.reload('retry')
  assert.equal(readings, 0)
  const report = await reloader.reload('admin')
  assert.deepEqual(
    [readings, report.result, report.perSource.config],
    [1, 'unchanged', 'unchanged'],
  )
})

test('reads it, too, when the question joins a load that waits for another reason', async (t) => {
  const made = await materials(t)
  const wanted: Config = { ...made.config, allow: [{ cn: 'web' }] }
  const { reloader, gate } = reloading(t, made, () => ({ config: wanted, problems: [] }))
  await reloader.reload('start')
  const held = Promise.withResolvers<void>()
  gate.held = held.promise
  const running = reloader.reload('watch')
  // Once the first load runs, the next two questions share one.
  await new Promise((resolve) => setImmediate(resolve))
  const waiting = [reloader.reload('watch'), reloader.reload('signal'), reloader.reload('watch')]
  held.resolve()
  await running
  for (const report of await Promise.all(waiting)) {
    assert.deepEqual([report.reason, report.perSource.config], ['signal', 'changed'])
  }
  assert.deepEqual(reloader.current?.snapshot.allow, wanted.allow)
})

test('a configuration that cannot be used changes nothing, and is not tried again by itself', async (t) => {
  const made = await materials(t)
  const { reloader, reports } = reloading(t, made, () => ({ config: undefined, problems: [WRONG] }))
  await reloader.reload('start')
  const report = await reloader.reload('admin')
  assert.deepEqual([report.result, report.generation, report.problems], ['failed', 1, [WRONG]])
  assert.equal(reloader.config, made.config)
  const next = await reloader.reload('watch')
  assert.deepEqual([next.result, next.perSource.config], ['unchanged', undefined])
  assert.equal(reports.length, 3)
})

test('a configuration whose files cannot be used changes nothing, while others rotate', async (t) => {
  const made = await materials(t)
  const wanted: Config = {
    ...made.config,
    trust: { ...made.config.trust, bundles: [{ file: made.path('nope') }], crls: [] },
  }
  const { reloader } = reloading(t, made, () => ({ config: wanted, problems: [] }))
  await reloader.reload('start')
  const serial = await made.rotate()
  const report = await reloader.reload('signal')
  assert.deepEqual([report.result, report.perSource.config], ['failed', 'failed'])
  assert.match(report.problems[0]?.what ?? '', /nope does not exist/)
  const { snapshot } = reloader.current ?? {}
  assert.match(snapshot?.identity.facts.serial ?? '', new RegExp(serial, 'i'))
  assert.equal(snapshot?.trust.bundles.length, 1)
  assert.equal(reloader.config, made.config)
})

test('nothing of what an old configuration had loaded stands in for a file of the new one', async (t) => {
  const made = await materials(t)
  const file = made.path('other.crt')
  await writeFile(file, 'broken')
  const wanted: Config = { ...made.config, trust: { ...made.config.trust, bundles: [{ file }] } }
  const { reloader } = reloading(t, made, () => ({ config: wanted, problems: [] }))
  await reloader.reload('start')
  const report = await reloader.reload('admin')
  assert.equal(report.perSource.config, 'failed')
  assert.deepEqual(
    reloader.current?.snapshot.trust.bundles.map((bundle) => bundle.file),
    [made.path('ca.crt')],
  )
})

test('a configuration whose policy has not come from its server takes nothing away', async (t) => {
  const made = await materials(t, { policy: true })
  const policy = made.config.policy as NonNullable<Config['policy']>
  const remote = { ...policy, bundle: 'https://localhost:1/b', service: SERVICE }
  const { reloader } = reloading(t, made, () => ({
    config: { ...made.config, policy: remote },
    problems: [],
  }))
  await reloader.reload('start')
  const before = reloader.current
  const report = await reloader.reload('signal')
  assert.deepEqual([report.result, report.perSource.config], ['failed', 'failed'])
  assert.match(JSON.stringify(report.problems), /has not come/)
  assert.equal(reloader.current, before)
})

test('what takes a restart is named and stays; everything else is taken', async (t) => {
  const { config } = await materials(t)
  const wanted = {
    ...config,
    inbound: { ...config.inbound, listen: { kind: 'tcp', host: '0.0.0.0', port: 1 } },
    admin: { listen: { kind: 'tcp', host: '127.0.0.1', port: 2 } },
    log: { ...config.log, access: 'all', level: 'debug' },
    drain: { timeoutMs: 1 },
    workers: 7,
  } as Config
  const { config: live, restart } = applyLive(config, wanted)
  assert.deepEqual(restart, ['inbound.listen', 'admin.listen', 'log.level', 'workers'])
  assert.deepEqual(live.inbound.listen, config.inbound.listen)
  assert.equal('admin' in live, false)
  assert.deepEqual([live.log.access, live.log.level], ['all', config.log.level])
  assert.deepEqual([live.drain.timeoutMs, live.workers], [1, config.workers])
})
