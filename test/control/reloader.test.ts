import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type LoadOutcome, loadMaterials } from '../../src/control/loader.ts'
import { Reloader, type ReloaderOptions, type ReloadReport } from '../../src/control/reloader.ts'
import { Watcher, watchedPaths } from '../../src/control/watcher.ts'
import { hasSerial } from '../../src/identity/serials.ts'
import type { Snapshot } from '../../src/threads.ts'
import { type Materials, materials } from './materials.ts'

function reloading(t: TestContext, { config }: Materials, options: Partial<ReloaderOptions> = {}) {
  const published: Snapshot[] = []
  const reports: ReloadReport[] = []
  const reloader = new Reloader({
    config,
    clock: Date.now,
    publish: (snapshot) => published.push(snapshot),
    onReload: (report) => reports.push(report),
    ...options,
  })
  t.after(() => reloader.stop())
  return { reloader, published, reports }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5)
}

test('publishes what it loaded at the start and nothing when nothing has changed', async (t) => {
  const { reloader, published } = reloading(t, await materials(t))
  const start = await reloader.reload('start')
  assert.deepEqual([start.result, start.generation], ['published', 1])
  assert.equal(reloader.current?.snapshot, published[0])
  const again = await reloader.reload('signal')
  assert.deepEqual([again.result, again.generation], ['unchanged', 1])
  assert.equal(published.length, 1)
})

test('publishes nothing when the first load fails, and says why', async (t) => {
  const made = await materials(t)
  await writeFile(made.path('ca.crt'), 'broken')
  const { reloader, published } = reloading(t, made)
  const report = await reloader.reload('start')
  assert.deepEqual([report.result, report.generation], ['failed', 0])
  assert.equal(report.perSource.trust, 'failed')
  assert.ok(report.problems.length > 0)
  assert.deepEqual(published, [])
})

test('loads once more for all who ask while a load is running, and the newest wins', async (t) => {
  const made = await materials(t)
  const gate = Promise.withResolvers<void>()
  let loads = 0
  let running = 0
  const load = async (...given: Parameters<typeof loadMaterials>): Promise<LoadOutcome> => {
    assert.equal(++running, 1, 'two loads ran at once')
    const outcome = await loadMaterials(...given)
    if (++loads === 1) await gate.promise
    running--
    return outcome
  }
  const { reloader, published } = reloading(t, made, { load })
  const start = reloader.reload('start')
  await until(() => loads === 1)
  const serial = await made.rotate()
  const later = [reloader.reload('watch'), reloader.reload('admin'), reloader.reload('signal')]
  gate.resolve()
  const reports = await Promise.all([start, ...later])
  assert.equal(loads, 2)
  assert.deepEqual(
    reports.map(({ generation }) => generation),
    [1, 2, 2, 2],
  )
  assert.match(published.at(-1)?.identity.facts.serial ?? '', new RegExp(serial, 'i'))
})

test('a pair that was replaced one file after the other goes in without being asked again', async (t) => {
  const made = await materials(t)
  const { reloader, reports } = reloading(t, made)
  await reloader.reload('start')
  const old = await readFile(made.path('tls.crt'))
  await made.rotate()
  const fresh = await readFile(made.path('tls.crt'))
  await writeFile(made.path('tls.crt'), old)
  const mismatch = await reloader.reload('watch')
  assert.deepEqual([mismatch.result, mismatch.generation], ['failed', 1])
  await until(() => reports.some(({ reason }) => reason === 'retry'))
  assert.equal(reports.at(-1)?.repeated, true)
  await writeFile(made.path('tls.crt'), fresh)
  await until(() => reloader.current?.snapshot.generation === 2)
  assert.deepEqual([reports.at(-1)?.reason, reports.at(-1)?.result], ['retry', 'published'])
})

test('a fault while loading or publishing leaves the old generation in force', async (t) => {
  const made = await materials(t)
  let fault = false
  const { reloader } = reloading(t, made, {
    publish: () => {
      if (fault) throw new Error('cannot be cloned')
    },
  })
  await reloader.reload('start')
  fault = true
  await made.rotate()
  const report = await reloader.reload('watch')
  assert.deepEqual([report.result, report.generation], ['failed', 1])
  assert.match(report.problems[0]?.what ?? '', /cannot be cloned/)
  fault = false
  await until(() => reloader.current?.snapshot.generation === 2)
})

test('a broken policy does not hold up a new certificate, and heals when it is put back', async (t) => {
  const made = await materials(t, { policy: true })
  const { reloader } = reloading(t, made)
  const start = await reloader.reload('start')
  assert.deepEqual(start.problems, [])
  const policy = reloader.current?.snapshot.policy
  assert.ok(policy)
  const bundle = await readFile(made.path('bundle.tar.gz'))
  await writeFile(made.path('bundle.tar.gz'), bundle.subarray(0, 500))
  const serial = await made.rotate()
  const report = await reloader.reload('watch')
  assert.deepEqual(report.perSource, {
    identity: 'changed',
    trust: 'unchanged',
    revocation: 'unchanged',
    policy: 'failed',
  })
  const snapshot = reloader.current?.snapshot
  assert.match(snapshot?.identity.facts.serial ?? '', new RegExp(serial, 'i'))
  assert.equal(snapshot?.policy, policy)
  await writeFile(made.path('bundle.tar.gz'), bundle)
  const healed = await reloader.reload('watch')
  assert.deepEqual([healed.result, healed.generation], ['unchanged', 2])
  assert.equal(reloader.current?.snapshot.policy, policy)
})

test('what changes on disk is in force without being asked for', async (t) => {
  const made = await materials(t)
  const { reloader } = reloading(t, made)
  const watcher = new Watcher({
    paths: watchedPaths(made.config),
    clock: Date.now,
    events: { changed: (since) => void reloader.reload('watch', since), degraded: assert.fail },
  })
  t.after(() => watcher.stop())
  await watcher.start()
  await reloader.reload('start')
  const serial = await made.rotate()
  const inForce = () => reloader.current?.snapshot
  await until(() => inForce()?.identity.facts.serial.toLowerCase() === serial.toLowerCase())
  await made.revoke('0c')
  await until(
    () => inForce()?.trust.crls.some((crl) => hasSerial(crl.revokedSerials, 'c')) === true,
  )
})
