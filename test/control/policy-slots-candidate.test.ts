// Candidates are loaded with the policy in force: the same sources, signatures and gate, and whatever
// is wrong with them is told and held against nothing else.
import assert from 'node:assert/strict'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { type Loaded, loadMaterials } from '../../src/control/loader.ts'
import { PolicyBundles } from '../../src/control/policy-bundles.ts'
import { nextGeneration } from '../../src/control/snapshot-builder.ts'
import { watchedPaths } from '../../src/control/watcher.ts'
import { bundleUrl } from '../policy/support.ts'
import { eventually } from '../support/eventually.ts'
import { bundleHost, SERVICE } from './bundle-host.ts'
import { materials } from './materials.ts'

type Policy = NonNullable<Config['policy']>

const SIGNED = new URL('../policy/signed/bundles/', import.meta.url)

async function setting(t: TestContext, changes: Partial<Policy> = {}) {
  const made = await materials(t, { policy: true })
  const candidate = made.path('candidate.tar.gz')
  const policy = {
    ...(made.config.policy as Policy),
    candidate: { bundle: candidate, sample: 0.5 },
    ...changes,
  }
  return { ...made, candidate, config: { ...made.config, policy } }
}

const load = (config: Config, before?: Loaded) => loadMaterials(config, Date.now(), before)

test('a candidate has a slot and a share, and lies in a file that is watched', async (t) => {
  const { config, candidate } = await setting(t)
  await copyFile(bundleUrl('slots-new'), candidate)
  const { loaded, perSource, problems } = await load(config)
  assert.deepEqual([problems, perSource.candidate], [[], 'changed'])
  assert.equal(loaded?.candidate?.material.revision, 'new')
  assert.ok(watchedPaths(config).includes(candidate))
  const again = await load(config, loaded)
  assert.equal(again.loaded?.candidate, loaded.candidate)
  assert.equal(again.perSource.candidate, 'unchanged')
  const { candidate: piece, policy } = loaded
  const slots = { ...(policy && { active: policy }), ...(piece && { candidate: piece }) }
  const { snapshot } = nextGeneration(config, loaded, Date.now(), undefined, slots)
  assert.equal(snapshot.settings.candidateSample, 0.5)
  assert.equal(
    nextGeneration(config, loaded, Date.now()).snapshot.settings.candidateSample,
    undefined,
  )
})

test('what is wrong with it is a warning under its own key, and its last good version stays', async (t) => {
  const { config, candidate } = await setting(t)
  const missing = await load(config)
  assert.deepEqual(
    missing.problems.map(({ where, severity }) => [where, severity]),
    [['policy.candidate.bundle', 'warning']],
  )
  assert.equal(missing.perSource.candidate, 'failed')
  assert.ok(missing.loaded?.policy)
  await copyFile(bundleUrl('slots-new'), candidate)
  const good = await load(config, missing.loaded)
  for (const bad of ['http-send', 'wrong-type']) {
    await copyFile(bundleUrl(bad), candidate)
    const { loaded, perSource, problems } = await load(config, good.loaded)
    assert.equal(perSource.candidate, 'failed', bad)
    assert.equal(perSource.policy, 'unchanged')
    assert.ok(problems.length > 0 && problems.every(({ severity }) => severity === 'warning'))
    assert.equal(loaded?.candidate, good.loaded?.candidate)
  }
})

test('it needs a signature as soon as the policy in force does', async (t) => {
  const signing = {
    keys: [{ id: 'release', file: new URL('rsa.pem', SIGNED).pathname }],
    scope: '',
    monotonic: false,
  }
  const { config, candidate, path } = await setting(t, { signing })
  await copyFile(new URL('policy.tar.gz', SIGNED), path('bundle.tar.gz'))
  await copyFile(bundleUrl('slots-new'), candidate)
  const unsigned = await load(config)
  assert.equal(unsigned.loaded?.candidate, undefined)
  assert.match(JSON.stringify(unsigned.problems), /is not signed/)
  await copyFile(new URL('policy.tar.gz', SIGNED), candidate)
  const { loaded, problems } = await load(config, unsigned.loaded)
  assert.deepEqual(problems, [])
  assert.equal(loaded?.candidate?.parts[0]?.keyId, 'release')
})

test('it may come from a server while the policy in force is a file', async (t) => {
  const host = await bundleHost(t)
  const { config, path } = await setting(t)
  await writeFile(path('host.pem'), host.ca)
  const policy = {
    ...config.policy,
    candidate: { bundle: `${host.url}/candidate`, sample: 1 },
    service: { ...SERVICE, ca: path('host.pem') },
  }
  const candidates = new PolicyBundles({ clock: () => Date.now() })
  t.after(() => candidates.stop())
  const attempt = (before?: Loaded) =>
    loadMaterials({ ...config, policy }, Date.now(), before, undefined, undefined, candidates)
  const without = await attempt()
  assert.ok(without.loaded?.policy)
  assert.equal(without.perSource.candidate, 'failed')
  host.serve(await readFile(bundleUrl('slots-new')), '"1"')
  await eventually('it has come', async () => {
    const { loaded } = await attempt(without.loaded)
    return loaded?.candidate?.material.revision === 'new'
  })
})

test('a candidate that reads more of bodies than is collected is told to be compared without', async (t) => {
  const { config, candidate } = await setting(t)
  await copyFile(bundleUrl('body'), candidate)
  const { problems, perSource } = await load(config)
  assert.equal(perSource.candidate, 'changed')
  const [warning, ...others] = problems
  assert.deepEqual(others, [])
  assert.match(
    warning?.what ?? '',
    /reads request bodies of \d+ bytes, and the active policy has 0/,
  )
})
