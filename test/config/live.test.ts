// What of a new configuration goes into force at once.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { applyLive } from '../../src/config/live.ts'
import { configOf, loadFlags } from './loading.ts'

const BY_API = { cert: undefined, key: undefined, ca: undefined }

test('an identity that comes from another place takes a restart, and its trust with it', () => {
  const files = configOf(loadFlags({}))
  const api = configOf(loadFlags({ ...BY_API, workloadApi: 'unix:///run/agent.sock' }))
  for (const [current, wanted] of [
    [files, api],
    [api, files],
    [api, configOf(loadFlags({ ...BY_API, workloadApi: 'unix:///run/other.sock' }))],
  ] as const) {
    const { config, restart } = applyLive(current, wanted)
    assert.deepEqual(restart, ['identity.workloadApi'])
    assert.deepEqual(config.identity, current.identity)
    assert.deepEqual(config.trust, current.trust)
  }
})

test('other files, another directory and another hint need none', () => {
  const of = (flags: Parameters<typeof loadFlags>[0]) => configOf(loadFlags(flags))
  const directory = { ...BY_API, identityDirectory: '/svid' }
  for (const [current, wanted] of [
    [of({}), of({ cert: 'other.crt', key: 'other.key' })],
    [of({}), of(directory)],
    [of(directory), of({})],
  ] as const) {
    const { config, restart } = applyLive(current, wanted)
    assert.deepEqual(restart, [])
    assert.deepEqual(config.identity, wanted.identity)
    assert.deepEqual(config.trust, wanted.trust)
  }
})

test('options for migrations go into force and out of it at once', () => {
  const policy = { policy: 'bundle.tar.gz' }
  const [without, with_] = [policy, { ...policy, unsafePlaintext: true }].map((flags) =>
    configOf(loadFlags(flags)),
  )
  assert.ok(without && with_)
  assert.equal(applyLive(without, with_).config.inbound.unsafePlaintext, true)
  assert.equal(applyLive(with_, without).config.inbound.unsafePlaintext, false)
})
