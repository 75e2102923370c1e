import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ReadShares } from '../../src/proxy/read-shares.ts'
import type { Turn } from '../../src/proxy/turn.ts'

/** A data thread whose turns end, and whose time passes, as the test says. */
function setUp() {
  const steps: (() => void)[] = []
  const clock = { tickMs: 1_000, ms: 1_000 }
  const turn = { beforeEnd: (step: () => void) => void steps.push(step) }
  const shares = new ReadShares(
    turn as unknown as Turn,
    () => clock.tickMs,
    () => clock.ms,
  )
  const readOn: string[] = []
  const waits = (principal: string, name: string, takesMs = 0, expectedMs = 0): void =>
    shares.wait(principal, {
      expectedMs,
      goOn: () => {
        readOn.push(name)
        clock.ms += takesMs
      },
    })
  /** Who is read on at the end of the turn. */
  const endTurn = (): string[] => {
    readOn.length = 0
    for (const step of steps.splice(0)) step()
    return [...readOn]
  }
  const two = (): void => {
    shares.took('a', 0)
    shares.took('b', 0)
    endTurn()
  }
  return { shares, clock, steps, waits, endTurn, two }
}

describe('the time of a turn that clients are read for', () => {
  it('is all of a short turn for a principal that is alone', () => {
    const { shares, endTurn, steps } = setUp()
    for (let turn = 0; turn < 3; turn++) {
      for (let i = 0; i < 7; i++) assert.equal(shares.took('a', 0.5), false)
      assert.equal(shares.took('a', 0.5), true)
      endTurn()
    }
    assert.equal(steps.length, 0, 'nothing keeps the loop busy')
  })

  it('is half a millisecond for each of several', () => {
    const { shares, endTurn, two } = setUp()
    two()
    assert.equal(shares.shared, true)
    assert.equal(shares.took('a', 0.4), false)
    assert.equal(shares.took('b', 0.4), false)
    assert.equal(shares.took('a', 0.1), true)
    assert.equal(shares.took('b', 0), false)
    endTurn()
    assert.equal(shares.took('a', 0.4), false)
  })

  it('is shared until the others have been silent for a while', () => {
    const { shares, clock, two } = setUp()
    two()
    clock.tickMs += 9_900
    shares.took('b', 0)
    assert.equal(shares.shared, true)
    clock.tickMs += 100
    assert.equal(shares.shared, false)
    shares.took('a', 0)
    assert.equal(shares.shared, true)
  })
})

describe('clients that have had theirs', () => {
  it('are all read on in the next turn where there is one principal', () => {
    const { waits, endTurn, steps } = setUp()
    for (const name of ['1', '2', '3']) waits('a', name, 5, 5)
    assert.deepEqual(endTurn(), ['1', '2', '3'])
    endTurn()
    assert.equal(steps.length, 0)
  })

  it('are as many as take half a millisecond where there are several, principals in turn', () => {
    const { waits, endTurn, two } = setUp()
    two()
    for (const name of ['a1', 'a2', 'a3', 'a4']) waits('a', name, 0.1, 0.1)
    waits('b', 'b1', 0.1, 0.1)
    assert.deepEqual(endTurn(), ['a1', 'b1', 'a2'])
    assert.deepEqual(endTurn(), ['a3', 'a4'])
  })

  it('are one at the least, whatever it takes', () => {
    const { waits, endTurn, two } = setUp()
    two()
    waits('a', 'a1', 50)
    waits('a', 'a2', 0, 50)
    waits('a', 'a3')
    assert.deepEqual([endTurn(), endTurn(), endTurn()], [['a1'], ['a2'], ['a3']])
  })

  it('have what that took taken from the turn that follows', () => {
    const { shares, waits, endTurn, two } = setUp()
    two()
    waits('a', 'a1', 0.4)
    endTurn()
    assert.equal(shares.took('b', 0.4), false)
    assert.equal(shares.took('a', 0.2), true)
  })

  it('do not wait in the turn in which they wait again', () => {
    const { shares, endTurn } = setUp()
    let reads = 0
    const reader = {
      expectedMs: 0,
      goOn: () => {
        reads++
        shares.wait('a', reader)
      },
    }
    shares.wait('a', reader)
    endTurn()
    endTurn()
    assert.equal(reads, 2)
  })
})

describe('a principal is light', () => {
  it('that takes less than half of what others take on average, and where there are others', () => {
    const { shares } = setUp()
    shares.took('little', 1)
    assert.equal(shares.isLight('little'), false)
    shares.took('much', 10)
    assert.equal(shares.isLight('little'), true)
    assert.equal(shares.isLight('much'), false)
    assert.equal(shares.isLight('unheard of'), true)
    shares.took('little', 3)
    assert.equal(shares.isLight('little'), false)
  })

  it('by all that was done for it, whatever it took of a turn', () => {
    const { shares, two } = setUp()
    two()
    shares.took('a', 0.2)
    shares.took('b', 0.2)
    assert.equal(shares.isLight('a'), false)
    shares.charge('b', 10)
    assert.equal(shares.isLight('a'), true)
    assert.equal(shares.took('b', 0.2), false, 'its part of the turn is what it was')
  })

  it('in none of many that are alike', () => {
    const { shares } = setUp()
    const names = Array.from({ length: 64 }, (_, i) => `client ${i}`)
    for (const name of names) shares.took(name, 0.05)
    assert.deepEqual(
      names.filter((name) => shares.isLight(name)),
      [],
    )
  })

  it('by the last seconds, the less the longer ago', () => {
    const { shares, clock } = setUp()
    shares.took('a', 10)
    shares.took('b', 4)
    assert.equal(shares.isLight('b'), false)
    clock.tickMs += 1_000
    // What was 10 and 4 counts for 5 and 2 now; 11.5 and 4 would be too little of a difference.
    shares.took('a', 1.5)
    assert.equal(shares.isLight('b'), true)
    for (let second = 0; second < 3; second++) {
      clock.tickMs += 1_000
      shares.took('b', 4)
    }
    assert.equal(shares.isLight('a'), true)
  })

  it('whoever was forgotten', () => {
    const { shares, clock } = setUp()
    shares.took('gone', 0.1)
    for (let second = 0; second < 8; second++) {
      clock.tickMs += 1_000
      shares.took('a', 1)
      shares.took('b', 1)
    }
    // Half of the average of two, not of three.
    shares.took('c', 0.9)
    assert.equal(shares.isLight('c'), false)
  })
})
