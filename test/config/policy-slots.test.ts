import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printConfig } from '../../src/config/print.ts'
import { assertOneProblem, COMPLETE_FILE, configOf, load } from './loading.ts'

const withPolicy = (text: string) =>
  load(
    COMPLETE_FILE.replace('  bundle: bundle.tar.gz\n', () => `  bundle: bundle.tar.gz\n${text}\n`),
  )
const policyOf = (text: string) => configOf(withPolicy(text)).policy

test('a candidate is asked about every decision and promoted by hand, unless it is said otherwise', () => {
  assert.deepEqual(policyOf('  candidate: { bundle: next.tar.gz }')?.candidate, {
    bundle: 'next.tar.gz',
    sample: 1,
  })
  assert.deepEqual(
    policyOf('  candidate: { bundle: next, sample: 0.05, promoteAfter: 1000 }')?.candidate,
    { bundle: 'next', sample: 0.05, promoteAfter: 1000 },
  )
})

test('nothing rolls back by itself unless a bound is given', () => {
  assert.equal(policyOf('  entrypoint: a/b')?.rollback, undefined)
  assert.deepEqual(policyOf('  rollback: { maxErrorIncrease: 0.01 }')?.rollback, {
    windowMs: 300_000,
    maxErrorIncrease: 0.01,
    minDecisions: 100,
  })
})

test('what is printed gives the same slots again', () => {
  const config = configOf(
    withPolicy(`  candidate: { bundle: next, sample: 0.25, promoteAfter: 10 }
  rollback: { window: 90s, maxDenyIncrease: 0.1, maxErrorIncrease: 0, minDecisions: 5 }`),
  )
  assert.deepEqual(configOf(load(printConfig(config))), config)
})

test('a candidate from a server brings the settings of policy.service with it', () => {
  const policy = policyOf(
    '  candidate: { bundle: https://bundles.example/next }\n  service: { pollMin: 1s, pollMax: 2s }',
  )
  assert.equal(policy?.service?.pollMinMs, 1000)
  assertOneProblem(
    withPolicy('  candidate: { bundle: http://bundles.example/next }'),
    /policy.candidate.bundle \(/,
    /plain text/,
    /https/,
  )
})

test('what would never do anything is refused', () => {
  const wrong = {
    'candidate: { sample: 0.5 }': [/policy.candidate.sample/, /no effect/, /name the bundle/],
    'candidate: {}': [/policy.candidate \(/, /no keys/, /bundle/],
    'candidate: { bundle: a, sample: 0, promoteAfter: 5 }': [/promoteAfter/, /never/, /asked/],
    'candidate: { bundle: a, sample: 50 }': [/sample/, /not a share/, /0 to 1/],
    'rollback: { window: 1m }': [/policy.rollback.window/, /no effect/, /at least one/],
    'rollback: { maxDenyIncrease: 5% }': [/maxDenyIncrease/, /not a share/, /0\.05/],
  } as const
  for (const [text, [where, what, remedy]] of Object.entries(wrong)) {
    assertOneProblem(withPolicy(`  ${text}`), where, what, remedy)
  }
})
