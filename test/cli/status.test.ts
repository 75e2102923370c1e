import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ReadinessFacts, readiness } from '../../src/cli/status.ts'

const FACTS = {
  generation: {
    slots: {},
    snapshot: { generation: 3, createdAtMs: 0, identity: { facts: { notAfterMs: 1e9 } } },
  },
  appliedGeneration: 3,
  serving: 2,
  threads: 2,
  draining: false,
  lastReload: 'published',
  failedSources: [],
  problems: [],
  nowMs: 60_000,
} as unknown as ReadinessFacts

const notReady = (facts: Partial<ReadinessFacts>): string[] =>
  readiness({ ...FACTS, ...facts })
    .parts.filter(({ ready }) => !ready)
    .map(({ name }) => name)

describe('readiness', () => {
  it('holds when everything in force is applied by every thread', () => {
    assert.deepEqual(notReady({}), [])
  })

  it('ends when a data thread goes on with an older generation', () => {
    assert.deepEqual(notReady({ appliedGeneration: 2, nowMs: 1_000 }), [])
    assert.deepEqual(notReady({ appliedGeneration: 2 }), ['applied'])
  })

  it('names each part that is not ready', () => {
    assert.deepEqual(notReady({ serving: 1, draining: true }), ['data_threads', 'drain'])
    assert.deepEqual(notReady({ generation: undefined }), ['snapshot'])
  })

  it('does not end with a failed reload: what was good before stays in force', () => {
    const report = readiness({ ...FACTS, lastReload: 'failed', failedSources: ['policy'] })
    assert.ok(report.parts.every(({ ready }) => ready))
    assert.deepEqual(report.details['failed_sources'], ['policy'])
  })
})
