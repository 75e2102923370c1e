import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReloadLag } from '../../src/control/reload-lag.ts'
import type { ReloadReport } from '../../src/control/reloader.ts'

const UNCHANGED = {
  identity: 'unchanged',
  trust: 'unchanged',
  revocation: 'unchanged',
  policy: 'unchanged',
} as const

const report = (
  generation: number,
  sinceMs: number | undefined,
  perSource: Partial<ReloadReport['perSource']>,
) =>
  ({
    generation,
    perSource: { ...UNCHANGED, ...perSource },
    ...(sinceMs === undefined ? {} : { sinceMs }),
  }) as ReloadReport

function lag() {
  const told: [string, number][] = []
  return { told, lag: new ReloadLag((source, seconds) => told.push([source, seconds])) }
}

test('the lag of a change ends when the last thread applies it', () => {
  const { told, lag: one } = lag()
  one.reloaded(report(2, 1_000, { identity: 'changed', trust: 'changed', policy: 'failed' }))
  one.applied(1, 1_100)
  assert.deepEqual(told, [])
  one.applied(2, 1_250)
  one.applied(2, 9_000)
  assert.deepEqual(told, [
    ['identity', 0.25],
    ['trust', 0.25],
  ])
})

test('a newer generation ends the lag of an older one that was skipped', () => {
  const { told, lag: one } = lag()
  one.reloaded(report(2, 1_000, { identity: 'changed' }))
  one.reloaded(report(3, 1_500, { policy: 'changed' }))
  one.applied(3, 2_000)
  assert.deepEqual(told, [
    ['identity', 1],
    ['policy', 0.5],
  ])
})

test('what nobody wrote has no lag, and a clock that was set back gives none', () => {
  const { told, lag: one } = lag()
  one.reloaded(report(1, undefined, { identity: 'changed' }))
  one.reloaded(report(2, 5_000, {}))
  one.reloaded(report(3, 5_000, { identity: 'changed' }))
  one.applied(3, 4_000)
  assert.deepEqual(told, [['identity', 0]])
})
