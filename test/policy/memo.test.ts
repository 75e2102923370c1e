import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PolicyEngine } from '../../src/policy/engine.ts'
import { canRemember, Memo } from '../../src/policy/memo.ts'
import type { Denial } from '../../src/policy/permit.ts'
import { bundleUrl, loadMaterial, NOW_MS, request } from './support.ts'

const denial = (result: string): Denial => ({
  kind: 'denial',
  code: 'denied',
  status: 403,
  headers: [],
  body: undefined,
  reason: '',
  evaluation: { outcome: 'deny', rule: 'policy', input: '', result, error: undefined, evalNs: 1 },
})

test('remembers by the whole key, and what was used last', () => {
  const memo = new Memo()
  memo.remember('a', denial('1'))
  assert.equal(memo.find('a')?.evaluation.result, '1')
  assert.equal(memo.find('b'), undefined)
  for (let i = 0; i < 10_000; i++) {
    memo.remember(`input ${i}`, denial('0'))
    if (i % 500 === 0) assert.equal(memo.find('a')?.evaluation.result, '1', String(i))
  }
  assert.equal(memo.find('input 0'), undefined)
})

test('remembers nothing large', () => {
  const memo = new Memo()
  memo.remember('x'.repeat(10_000), denial('1'))
  memo.remember('a', denial('x'.repeat(10_000)))
  assert.equal(memo.find('x'.repeat(10_000)), undefined)
  assert.equal(memo.find('a'), undefined)
})

test('a policy that calls what may answer anew is asked each time', () => {
  assert.equal(canRemember(['sprintf', 'io.jwt.decode']), true)
  for (const name of ['rand.intn', 'uuid.rfc4122', 'opa.runtime', 'io.jwt.encode_sign']) {
    assert.equal(canRemember(['sprintf', name]), false, name)
  }
})

test('what was decided by the clock is decided anew', async () => {
  const policy = await loadMaterial(bundleUrl('clock'))
  assert.notEqual(policy.reads, 'all')
  const engine = new PolicyEngine({ allow: [], policy, clock: { nowMs: () => NOW_MS } })
  const outcome = (path: string, timeMs: number) =>
    engine.decide(request(path, { timeMs })).evaluation.outcome
  assert.equal(outcome('/before', NOW_MS - 1), 'allow')
  assert.equal(outcome('/before', NOW_MS + 1), 'deny')
  assert.equal(outcome('/before', NOW_MS - 1), 'allow')
  assert.equal(outcome('/always', NOW_MS - 1), 'allow')
  assert.equal(outcome('/always', NOW_MS + 1), 'allow')
})
