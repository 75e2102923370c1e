// The previous policy of a data thread: the very engine that decided before, and ready to.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SYSTEM_CLOCK } from '../../src/proxy/clock.ts'
import { Generation } from '../../src/proxy/generation.ts'
import type { Snapshot } from '../../src/threads.ts'
import { bundleUrl, loadMaterial } from '../policy/support.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { startListener } from './listening.ts'

const named = async (digest: string) => ({ ...(await loadMaterial(bundleUrl(digest))), digest })
const old = await named('slots-old')
const next = await named('slots-new')
const { context } = await startListener(suiteCleanup())
const { snapshot } = context.generation
const generation = (policies: Partial<Snapshot>, before: readonly Generation[] = []) =>
  new Generation({ ...snapshot, ...policies } as Snapshot, before, SYSTEM_CLOCK, () => {})

test('a rollback finds the engine that decided before, with its memory', () => {
  const first = generation({ policy: old })
  assert.equal(first.standby, undefined)
  first.prepare(Number.POSITIVE_INFINITY)
  const second = generation({ policy: next, previousPolicy: old }, [first])
  assert.equal(second.standby, first.engine)
  second.prepare(Number.POSITIVE_INFINITY)
  assert.equal(second.memoryBytes, first.engine.memoryBytes + second.engine.memoryBytes)
  const third = generation({ policy: old }, [second])
  assert.equal(third.engine, first.engine)
  assert.equal(third.prepare(0), true)
})

test('a thread that is younger than the previous policy gets it ready when it has time', () => {
  const young = generation({ policy: next, previousPolicy: old })
  young.prepare(Number.POSITIVE_INFINITY)
  assert.equal(young.standby?.memoryBytes, 0)
  while (!young.standby?.prepare(64 * 1024));
  assert.ok((young.standby?.memoryBytes ?? 0) > 0)
  assert.equal(generation({ policy: old }, [young]).engine, young.standby)
})

test('an engine of before is not taken under other allow rules', () => {
  const first = generation({ policy: next, previousPolicy: old })
  const rules = { allow: [{ uri: 'spiffe://example.org/web' }] }
  const second = generation({ ...rules, policy: next, previousPolicy: old }, [first])
  assert.notEqual(second.engine, first.engine)
  assert.notEqual(second.standby, first.standby)
})
