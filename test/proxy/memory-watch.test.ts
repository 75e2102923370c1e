import assert from 'node:assert/strict'
import { it } from 'node:test'
import { MemoryWatch } from '../../src/proxy/memory-watch.ts'

it('memory is looked at when it has grown, however often and from wherever, and not more than now and then', () => {
  let [nowMs, bytes, looks, measured] = [0, 1_000, 0, 0]
  const watch = new MemoryWatch(
    () => nowMs,
    () => {
      measured++
      return bytes
    },
    () => 100,
    () => looks++,
  )
  const after = (ms: number, grownTo: number): number => {
    nowMs += ms
    bytes = grownTo
    watch.turn()
    return looks
  }
  assert.equal(after(10, 1_000), 1)
  assert.equal(after(10, 1_100), 1)
  assert.equal(after(10, 1_101), 2)
  // Too soon.
  assert.equal(after(9, 9_000), 2)
  assert.equal(after(1, 9_000), 3)
  assert.equal(after(10, 500), 3)
  assert.equal(after(10, 600), 3)
  assert.equal(after(10, 601), 4)
  assert.equal(measured, 7)
})
