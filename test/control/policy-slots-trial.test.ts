import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  CandidateTrial,
  type TrialOptions,
  type TrialPair,
} from '../../src/control/policy-slots-trial.ts'
import type { Judgement } from '../../src/policy/judge.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import type { DecisionRecord } from '../../src/threads.ts'

const material = (digest: string) => ({ digest }) as unknown as PolicyMaterial
const PAIR: TrialPair = { id: 'a b', active: material('a'), candidate: material('b') }
const ALLOWED: Judgement = { outcome: 'allow', result: 'true', evalNs: 1 }
const record = (changes: Partial<DecisionRecord> = {}): DecisionRecord =>
  ({ outcome: 'allow', result: 'true', input: '{}', bundleDigest: 'a', ...changes }) as never

/** With a clock that only evaluations move, by `costMs` each, and steps that are run by hand. */
function trial({ costMs = 0, ...changes }: Partial<TrialOptions> & { costMs?: number } = {}) {
  const told: string[] = []
  const clock = { nowMs: 0 }
  const steps: { readonly step: () => void; readonly atMs: number }[] = []
  let dropped = 0
  const made = new CandidateTrial({
    pair: () => PAIR,
    judge: () => {
      clock.nowMs += costMs
      return ALLOWED
    },
    compared: ({ change }) => told.push(change),
    dropped: (count) => {
      dropped += count
    },
    promoteAfter: () => undefined,
    agreed: () => told.push('agreed'),
    disagreed: () => told.push('disagreed'),
    nowMs: () => clock.nowMs,
    later: (step, ms) => steps.push({ step, atMs: clock.nowMs + ms }),
    ...changes,
  })
  const run = (untilMs = 0): void => {
    for (let next = steps.shift(); next !== undefined; next = steps.shift()) {
      if (next.atMs > untilMs) return void steps.unshift(next)
      clock.nowMs = Math.max(clock.nowMs, next.atMs)
      next.step()
    }
  }
  return { trial: made, told, run, dropped: () => dropped }
}

test('nothing is asked before the event loop had its turn', () => {
  const { trial: made, told, run } = trial()
  made.take(record())
  assert.deepEqual(told, [])
  run()
  assert.deepEqual(told, ['same'])
})

test('a candidate gets a tenth of the time, however long it takes', () => {
  const { trial: made, told, run } = trial({ costMs: 10 })
  for (let i = 0; i < 500; i++) made.take(record())
  run(1_000)
  assert.ok(
    told.length >= 10 && told.length <= 16,
    `${told.length} evaluations of 10 ms in a second`,
  )
  run(10_000)
  assert.ok(told.length >= 100 && told.length <= 106, `${told.length} in ten seconds`)
})

test('what waits is bounded in number and in size, and the rest is counted', () => {
  const many = trial()
  for (let i = 0; i < 1_500; i++) many.trial.take(record())
  assert.equal(many.dropped(), 500)
  many.run()
  assert.equal(many.told.length, 1_000)
  const large = trial()
  for (let i = 0; i < 5; i++) large.trial.take(record({ input: 'x'.repeat(1024 * 1024) }))
  assert.equal(large.dropped(), 1)
})

test('decisions of a policy that is gone are compared with nothing', () => {
  const { trial: made, told, run, dropped } = trial()
  made.take(record({ bundleDigest: 'z' }))
  run()
  assert.deepEqual([told, dropped()], [[], 1])
})

test('promotion comes after enough decisions in a row, once', () => {
  const { trial: made, told, run } = trial({ promoteAfter: () => 3 })
  for (let i = 0; i < 5; i++) made.take(record())
  run()
  assert.equal(told.filter((one) => one === 'agreed').length, 1)
  assert.deepEqual(made.status, { compared: 5, withoutDifference: 5, stopped: false })
})

test('a difference that only the workload would see ends it for this candidate, not for the next', () => {
  let pair = PAIR
  let said = ALLOWED
  const {
    trial: made,
    told,
    run,
  } = trial({
    promoteAfter: () => 2,
    pair: () => pair,
    judge: () => said,
  })
  const ask = (judgement: Judgement) => {
    said = judgement
    made.take(record())
    run()
  }
  ask(ALLOWED)
  ask({ ...ALLOWED, result: '{"allowed":true,"headers":{"x":"y"}}' })
  ask(ALLOWED)
  ask(ALLOWED)
  ask(ALLOWED)
  assert.ok(!told.includes('agreed'))
  assert.equal(told.filter((one) => one === 'disagreed').length, 1)
  assert.deepEqual(made.status, { compared: 5, withoutDifference: 3, stopped: true })
  pair = { ...PAIR, candidate: material('b2') }
  assert.equal(made.status.stopped, true)
  pair = { ...pair, id: 'a c' }
  assert.deepEqual(made.status, { compared: 0, withoutDifference: 0, stopped: false })
  ask(ALLOWED)
  ask(ALLOWED)
  assert.equal(told.filter((one) => one === 'agreed').length, 1)
})

test('a result that cannot be read is an error of the candidate, and the next one is asked', () => {
  const nested = `{"allowed":true,"x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`
  const {
    trial: made,
    told,
    run,
  } = trial({
    judge: (_, { input }) => ({ ...ALLOWED, result: input === 'deep' ? nested : 'true' }),
  })
  made.take(record({ input: 'deep', result: '{"allowed":true}' }))
  made.take(record())
  run()
  assert.equal(told.length, 2)
  assert.equal(told[1], 'same')
})
