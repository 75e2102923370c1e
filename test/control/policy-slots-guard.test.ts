import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PolicyGuard } from '../../src/control/policy-slots-guard.ts'

const CONFIG = { windowMs: 60_000, maxDenyIncrease: 0.2, maxErrorIncrease: 0.05, minDecisions: 10 }
const counts = (allow: number, deny = 0, error = 0) => ({ allow, deny, error })

function watching(before: Parameters<typeof counts>, watch = true): PolicyGuard {
  const guard = new PolicyGuard()
  guard.switched(counts(0), counts(0), 0, CONFIG, false)
  const at = counts(...before)
  guard.look(at, 10_000, CONFIG)
  guard.switched(at, at, 20_000, CONFIG, watch)
  return guard
}

test('a policy that denies as often as the one before stays', () => {
  const guard = watching([50, 50])
  assert.equal(guard.look(counts(100, 100), 21_000, CONFIG), undefined)
  assert.deepEqual(guard.status(counts(100, 100)), {
    untilMs: 80_000,
    decisions: 100,
    denyShare: 0.5,
    errorShare: 0,
    denyShareBefore: 0.5,
    errorShareBefore: 0,
  })
})

test('one that denies more often than is allowed goes, as soon as there are enough decisions', () => {
  const guard = watching([50, 50])
  assert.equal(guard.look(counts(50, 59), 21_000, CONFIG), undefined)
  const reason = guard.look(counts(52, 58), 22_000, CONFIG)
  assert.equal(reason, '80 % denials in 10 decisions, 50 % before')
  assert.equal(guard.look(counts(52, 100), 23_000, CONFIG), undefined)
})

test('one that fails goes, at a bound of its own', () => {
  const guard = watching([100])
  assert.equal(guard.look(counts(200, 0, 5), 21_000, CONFIG), undefined)
  assert.match(guard.look(counts(200, 0, 20), 22_000, CONFIG) ?? '', /^16\.7 % errors in 120/)
})

test('nothing is watched after the window, nor after a rollback', () => {
  const late = watching([100])
  assert.equal(late.look(counts(105), 79_000, CONFIG), undefined)
  assert.equal(late.look(counts(105), 80_000, CONFIG), undefined)
  assert.equal(late.look(counts(105, 500), 81_000, CONFIG), undefined)
  assert.equal(late.status(counts(105, 500)), undefined)
  assert.equal(watching([100], false).look(counts(100, 100), 21_000, CONFIG), undefined)
})

test('only what happened within a window before counts for the comparison', () => {
  const guard = new PolicyGuard()
  guard.switched(counts(0), counts(0), 0, CONFIG, false)
  // A day of denials, and then a quiet hour.
  for (let at = 0; at < 86_400_000; at += 60_000) guard.look(counts(0, at / 1000), at, CONFIG)
  for (let at = 0; at < 3_600_000; at += 1_000) {
    guard.look(counts(at / 1000, 86_400), 86_400_000 + at, CONFIG)
  }
  const now = counts(3_600, 86_400)
  guard.switched(now, now, 90_000_000, CONFIG, true)
  assert.equal(guard.status(now)?.denyShareBefore, 0)
})
