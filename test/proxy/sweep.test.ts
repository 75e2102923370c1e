import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { VerifiedPeer } from '../../src/identity/peer.ts'
import { type SweptConnection, sweep } from '../../src/proxy/sweep.ts'

/** A connection whose every check takes so long. */
function connections(count: number, clock: { ms: number }, costMs = 0) {
  const looked: number[] = []
  const all = Array.from(
    { length: count },
    (_, at): SweptConnection => ({
      peer: { kind: 'peer', serial: String(at) } as VerifiedPeer,
      verifyAgain: () => {
        looked.push(at)
        clock.ms += costMs
      },
      guarded(step) {
        step(this)
      },
    }),
  )
  return { all, looked }
}

const clockOf = (clock: { ms: number }) => ({
  nowMs: () => clock.ms,
  monotonicMs: () => clock.ms,
})

test('looks again at those that the news are about, and at nobody else', () => {
  const clock = { ms: 0 }
  const { all, looked } = connections(10, clock)
  sweep(all, { concerns: ({ serial }) => Number(serial) % 3 === 0 }, clockOf(clock))
  assert.deepEqual(looked, [0, 3, 6, 9])
})

test('lets requests have the thread every few milliseconds, and comes to its end', async () => {
  const clock = { ms: 0 }
  const { all, looked } = connections(100, clock, 1)
  sweep(all, { concerns: () => true }, clockOf(clock))
  const turns = [looked.length]
  while (looked.length < all.length) {
    await nextTurn()
    turns.push(looked.length)
  }
  assert.deepEqual(
    looked,
    all.map((_, at) => at),
  )
  for (const [at, seen] of turns.entries()) assert.ok(seen - (turns[at - 1] ?? 0) <= 10, `${turns}`)
})

test('ends no sweep because another one began', async () => {
  const clock = { ms: 0 }
  const { all, looked } = connections(20, clock, 1)
  sweep(all, { concerns: ({ serial }) => serial === '19' || serial === '0' }, clockOf(clock))
  sweep(all, { concerns: ({ serial }) => serial === '18' }, clockOf(clock))
  while (looked.length < 3) await nextTurn()
  assert.deepEqual(
    looked.toSorted((one, other) => one - other),
    [0, 18, 19],
  )
})

test('goes on after a connection that cannot be looked at', () => {
  const clock = { ms: 0 }
  const { all, looked } = connections(3, clock)
  const broken: SweptConnection = { ...(all[1] as SweptConnection), guarded: () => {} }
  sweep(
    [all[0] as SweptConnection, broken, all[2] as SweptConnection],
    { concerns: () => true },
    clockOf(clock),
  )
  assert.deepEqual(looked, [0, 2])
})
