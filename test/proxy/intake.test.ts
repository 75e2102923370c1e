import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Intake } from '../../src/proxy/intake.ts'
import type { Turn } from '../../src/proxy/turn.ts'

const MOST = 64

/** A data thread whose turns end, and whose time passes, as the test says. */
function setUp() {
  const steps: (() => void)[] = []
  const clock = { ms: 1_000 }
  const faults: unknown[] = []
  const turn = { beforeEnd: (step: () => void) => void steps.push(step) }
  const shares = { shared: false, requestsBegun: 0 }
  const intake = new Intake(
    turn as unknown as Turn,
    shares,
    () => clock.ms,
    (error) => faults.push(error),
  )
  const begun: string[] = []
  const begins = (name: string, takesMs: number): void => {
    intake.began()
    begun.push(name)
    clock.ms += takesMs
  }
  const comes = (name: string, takesMs = 0, client = 'a'): void => {
    if (intake.hasRoom) begins(name, takesMs)
    else intake.wait(client, { begin: () => begins(name, takesMs) })
  }
  const endTurn = (): void => {
    for (const step of steps.splice(0)) step()
  }
  /** What begins until the end of the turn. */
  const turnOf = (arrivals: readonly string[] = [], takesMs = 0, client = 'a'): string[] => {
    begun.length = 0
    for (const name of arrivals) comes(name, takesMs, client)
    endTurn()
    return [...begun]
  }
  return { intake, shares, clock, faults, steps, begun, comes, turnOf }
}

const names = (count: number, from = 0): string[] =>
  Array.from({ length: count }, (_, i) => `${from + i}`)

describe('the requests that a turn begins', () => {
  it('are all that come where they are few, at once', () => {
    const { intake, comes, begun, turnOf, steps } = setUp()
    for (let i = 0; i < 10; i++) {
      for (const name of names(MOST)) comes(name)
      assert.equal(begun.length, MOST)
      turnOf()
    }
    assert.equal(intake.line.served, 10 * MOST)
    assert.equal(steps.length, 0, 'nothing keeps the loop busy')
  })

  it('are no more than are of use, and the others begin in the turns after it, in order', () => {
    const { intake, turnOf, steps } = setUp()
    const all = names(200)
    assert.deepEqual(turnOf(all), all.slice(0, 64))
    assert.equal(intake.line.waiting, 136)
    assert.deepEqual(turnOf(['late']), all.slice(64, 128))
    assert.deepEqual(turnOf(), all.slice(128, 192))
    assert.deepEqual(turnOf(), [...all.slice(192), 'late'])
    assert.deepEqual([intake.line.waiting, intake.line.served, steps.length], [0, 201, 0])
  })

  it('are fewer where they take long, and one at the least', () => {
    const { turnOf } = setUp()
    assert.deepEqual(turnOf(names(5), 0.8), ['0', '1', '2'])
    assert.deepEqual(turnOf(), ['3', '4'])
    assert.deepEqual(turnOf(names(3), 50), ['0'])
    assert.deepEqual(turnOf(), ['1'])
    assert.deepEqual(turnOf(), ['2'])
  })

  it('are fewer still while several principals are about', () => {
    const { shares, turnOf } = setUp()
    shares.shared = true
    const all = names(20)
    assert.deepEqual(turnOf(all), all.slice(0, 16))
    assert.deepEqual(turnOf(), all.slice(16))
    assert.deepEqual(turnOf(names(5), 0.2), ['0', '1', '2'])
    assert.deepEqual(turnOf(), ['3', '4'])
  })

  it('are of each client in turn where they have to wait', () => {
    const { intake, comes, turnOf } = setUp()
    turnOf(names(500))
    comes('modest', 0, 'b')
    assert.deepEqual(
      [intake.line.clients, intake.line.waitingOf('a'), intake.line.waitingOf('b')],
      [2, 436, 1],
    )
    assert.deepEqual(turnOf().slice(0, 3), ['64', 'modest', '65'])
  })

  it('are not taken for begun when nothing comes of them', () => {
    const { intake, clock, turnOf } = setUp()
    turnOf(names(MOST))
    let asked = 0
    for (let i = 0; i < 1_000; i++) intake.wait('gone', { begin: () => void asked++ })
    intake.wait('gone', { begin: () => intake.began() })
    turnOf()
    assert.equal(asked, 1_000)
    // They have left the line all the same.
    assert.deepEqual([intake.line.waiting, intake.line.served], [0, MOST + 1_001])
    turnOf(names(MOST))
    for (let i = 0; i < 1_000; i++) {
      intake.wait('gone', { begin: () => void (clock.ms += 1) })
    }
    turnOf()
    assert.equal(intake.line.waiting, 998, 'nor do they make a turn long')
  })

  it('go on though one fails, and those that are none any more leave the line as well', () => {
    const { intake, faults, begun, turnOf } = setUp()
    turnOf(names(MOST))
    for (let i = 0; i < MOST; i++) intake.began()
    const failure = new Error('as it begins')
    intake.wait('a', {
      begin: () => {
        throw failure
      },
    })
    intake.wait('a', { begin: () => {} })
    intake.wait('a', { begin: () => begun.push('the last') })
    turnOf()
    assert.deepEqual(turnOf(), ['the last'])
    assert.deepEqual(faults, [failure])
    assert.equal(intake.line.waiting, 0)
    assert.equal(intake.line.served, 2 * MOST + 3)
    assert.ok(intake.hasRoom)
  })
})
