import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Rests } from '../../src/proxy/rests.ts'

describe('rests', () => {
  it('grow while it goes on, up to a hundredth of the time, and are short again after a pause', () => {
    const rests = new Rests()
    let nowMs = 1_000
    const factors: number[] = []
    for (let i = 0; i < 8; i++) {
      const restMs = rests.after(10, nowMs)
      factors.push(restMs / 10)
      nowMs += restMs
    }
    assert.deepEqual(factors, [3, 6, 12, 24, 48, 96, 96, 96])
    nowMs += 9_999
    assert.equal(rests.after(10, nowMs), 960)
    nowMs += 960 + 10_000
    assert.equal(rests.after(10, nowMs), 30)
  })

  it('follow one another, so that more connections get no more', () => {
    const rests = new Rests()
    assert.equal(rests.after(10, 0), 30)
    assert.equal(rests.after(10, 0), 30 + 60)
    assert.equal(rests.after(10, 50), 30 + 60 + 120 - 50)
  })
})
