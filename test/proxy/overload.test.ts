import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Overload } from '../../src/proxy/overload.ts'

const TICK_MS = 100
const TURN_MS = 25

interface Change {
  readonly active: boolean
  readonly shed: number
}

/** Who waits to be begun, or for a connection to the workload, each principal in turn. */
class Queue {
  served = 0
  readonly #waiting = new Map<string, number>()

  get waiting(): number {
    return [...this.#waiting.values()].reduce((sum, count) => sum + count, 0)
  }

  get clients(): number {
    return this.#waiting.size
  }

  waitingOf(principal: string): number {
    return this.#waiting.get(principal) ?? 0
  }

  wait(principal: string): void {
    this.#waiting.set(principal, this.waitingOf(principal) + 1)
  }

  serve(count: number): void {
    for (let i = 0; i < count; i++) {
      const [first] = this.#waiting
      if (first === undefined) return
      const [principal, waiting] = first
      this.#waiting.delete(principal)
      if (waiting > 1) this.#waiting.set(principal, waiting - 1)
      this.served++
    }
  }
}

/** A data thread whose time passes as the test says. */
function setUp(limitMs = 100) {
  let nowMs = 10_000
  let turns = 0
  let busyMs = 0
  const steps: (() => void)[] = []
  const changes: Change[] = []
  const limit = { ms: limitMs }
  const queue = new Queue()
  const other = new Queue()
  const overload = new Overload({
    limitMs: () => limit.ms,
    nowMs: () => nowMs,
    readLoop: () => ({ turns, busyMs }),
    lines: [other, queue],
    later: (step) => void steps.push(step),
    changed: ({ active, shed }) => void changes.push({ active, shed }),
  })
  /** Turns of one length until a tick is due, and the tick. */
  const tickAfterTurnsOf = (turnMs: number): void => {
    const count = Math.max(1, Math.floor(TICK_MS / turnMs))
    turns += count
    busyMs += count * turnMs
    nowMs += Math.max(TICK_MS, turnMs)
    overload.tick()
  }
  const ticks = (count: number, turnMs: number): void => {
    for (let i = 0; i < count; i++) tickAfterTurnsOf(turnMs)
  }
  /** One turn in which principals ask for so much, each request taking so long. */
  const turn = (requests: Readonly<Record<string, number>>, costMs: number) => {
    const admitted: Record<string, number> = {}
    for (const [principal, count] of Object.entries(requests)) {
      admitted[principal] = 0
      for (let i = 0; i < count; i++) {
        if (overload.sheds(principal)) continue
        admitted[principal]++
        nowMs += costMs
      }
    }
    for (const step of steps.splice(0)) step()
    return admitted
  }
  /**
   * Turns of 25 ms in which principals ask for so much, until a tick is due, and the tick. All that is
   * let in waits for one of 200 connections, on each of which one request a turn is answered.
   */
  const tickOfQueue = (requests: Readonly<Record<string, number>>, idleMs = 0) => {
    const admitted: Record<string, number> = {}
    for (let i = 0; i < TICK_MS / TURN_MS; i++) {
      for (const [principal, count] of Object.entries(requests)) {
        for (let j = 0; j < count; j++) {
          if (overload.sheds(principal)) continue
          admitted[principal] = (admitted[principal] ?? 0) + 1
          queue.wait(principal)
        }
      }
      queue.serve(200)
      turns++
      busyMs += TURN_MS - idleMs
      nowMs += TURN_MS
      for (const step of steps.splice(0)) step()
    }
    overload.tick()
    return admitted
  }
  const overloaded = (): void => {
    ticks(10, 200)
    assert.ok(overload.active)
  }
  return {
    overload,
    limit,
    changes,
    steps,
    queue,
    other,
    ticks,
    turn,
    tickOfQueue,
    overloaded,
    pass: (ms: number) => (nowMs += ms),
  }
}

describe('overload', () => {
  it('is what long turns of the event loop are that follow on each other', () => {
    const { overload, changes, ticks } = setUp()
    ticks(4, 150)
    assert.ok(!overload.active)
    ticks(1, 150)
    assert.ok(overload.active)
    assert.deepEqual(changes, [{ active: true, shed: 0 }])
  })

  it('is not a single long turn, nor two', () => {
    const { overload, ticks } = setUp()
    for (let i = 0; i < 10; i++) {
      ticks(2, 3_000)
      ticks(1, 5)
    }
    ticks(50, 99)
    assert.ok(!overload.active)
    assert.ok(!overload.sheds('a'))
  })

  it('is what requests wait in line for, however short the turns are', () => {
    const { overload, changes, queue, tickOfQueue } = setUp()
    for (let i = 0; i < 2_000; i++) queue.wait('a')
    for (let i = 0; i < 4; i++) tickOfQueue({ a: 200 })
    assert.ok(!overload.active)
    for (let i = 0; i < 2; i++) tickOfQueue({ a: 200 })
    assert.ok(overload.active)
    assert.deepEqual(changes, [{ active: true, shed: 0 }])
  })

  it('is what they wait for in several lines together', () => {
    const { overload, queue, other, tickOfQueue } = setUp()
    const tick = (): void => {
      for (let i = 0; i < 800; i++) other.wait('a')
      other.serve(800)
      tickOfQueue({ a: 200 })
    }
    for (let i = 0; i < 20; i++) tick()
    for (let i = 0; i < 500; i++) queue.wait('a')
    for (let i = 0; i < 20; i++) tick()
    assert.ok(!overload.active)
    assert.equal(queue.waiting, 500)
    for (let i = 0; i < 500; i++) other.wait('a')
    for (let i = 0; i < 6; i++) tick()
    assert.ok(overload.active)
  })

  it('is not a line that is soon over, nor one that is as long as may be', () => {
    const { overload, queue, tickOfQueue } = setUp()
    for (let burst = 0; burst < 5; burst++) {
      for (let i = 0; i < 2_000; i++) queue.wait('a')
      for (let i = 0; i < 4; i++) tickOfQueue({ a: 0 })
      assert.equal(queue.waiting, 0)
    }
    for (let i = 0; i < 500; i++) queue.wait('a')
    for (let i = 0; i < 50; i++) tickOfQueue({ a: 200 })
    assert.equal(queue.waiting, 500)
    assert.ok(!overload.active)
  })

  it('is not a line before a slow workload, while the thread has time left', () => {
    const { overload, queue, tickOfQueue } = setUp()
    for (let i = 0; i < 50_000; i++) queue.wait('a')
    for (let i = 0; i < 50; i++) tickOfQueue({ a: 200 }, 5)
    assert.ok(!overload.active)
  })

  it('is nothing where it is switched off, and ends when that happens', () => {
    const { overload, limit, ticks, overloaded, changes } = setUp(0)
    ticks(50, 5_000)
    assert.ok(!overload.active)
    limit.ms = 100
    overloaded()
    limit.ms = 0
    ticks(1, 5_000)
    assert.ok(!overload.active)
    assert.equal(changes.length, 2)
  })

  it('is over when nothing was refused for a second', () => {
    const { overload, changes, ticks, turn, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 20; i++) {
      turn({ noisy: 100 }, 10)
      ticks(1, 5)
    }
    assert.ok(overload.active)
    ticks(12, 5)
    assert.ok(!overload.active)
    assert.equal(changes.length, 2)
    assert.ok(changes[1]!.shed > 0)
    assert.deepEqual(turn({ noisy: 100 }, 10), { noisy: 100 })
  })

  it('goes on while handshakes have to wait', () => {
    const { overload, ticks, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 50; i++) {
      overload.press()
      ticks(1, 5)
    }
    assert.ok(overload.active)
  })

  it('does not go on where those wait for their clients, and the thread for something to do', () => {
    const { overload, ticks, pass, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 6; i++) {
      overload.press()
      pass(150)
      ticks(1, 5)
    }
    assert.ok(!overload.active)
  })
})

describe('the requests of an overloaded thread', () => {
  it('are as many as fit into a turn, whatever one takes', () => {
    const { turn, overloaded } = setUp()
    overloaded()
    for (const costMs of [1, 10, 0.1]) {
      const settled = Array.from({ length: 400 }, () => turn({ noisy: 5_000 }, costMs)).slice(-20)
      for (const { noisy } of settled) {
        const turnMs = noisy! * costMs
        assert.ok(turnMs > 70 && turnMs < 110, `${noisy} requests of ${costMs} ms`)
      }
    }
  })

  it('are refused to those who send most', () => {
    const { turn, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 200; i++) {
      const { modest, busy, noisy } = turn({ noisy: 500, busy: 40, modest: 3 }, 1)
      assert.equal(modest, 3)
      if (i < 50) continue
      assert.equal(busy, 40)
      assert.ok(noisy! >= 40 && noisy! < 70, `${noisy}`)
    }
  })

  it('are as many as leave the line within the limit', () => {
    const { tickOfQueue, queue, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 20; i++) tickOfQueue({ noisy: 5_000 })
    for (let i = 0; i < 50; i++) {
      const { noisy } = tickOfQueue({ noisy: 5_000 })
      assert.ok(noisy! > 780 && noisy! < 860, `${noisy} of the 800 that the thread can do`)
      const waitMs = TURN_MS + (queue.waiting / 200) * TURN_MS
      assert.ok(waitMs > 50 && waitMs <= 100, `${waitMs} ms`)
    }
  })

  it('are not refused to those who have few in the line', () => {
    const { tickOfQueue, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 20; i++) tickOfQueue({ noisy: 5_000 })
    for (let i = 0; i < 50; i++) {
      const { busy, modest, noisy } = tickOfQueue({ noisy: 5_000, busy: 40, modest: 3 })
      assert.deepEqual({ busy, modest }, { busy: 160, modest: 12 })
      assert.ok(noisy! > 500, `${noisy}`)
    }
  })

  it('are not kept out of a line that is not full, nor refused for its length once they have waited', () => {
    const { overload, tickOfQueue, queue, overloaded } = setUp()
    assert.ok(!overload.keepsOut('noisy'))
    overloaded()
    for (let i = 0; i < 20; i++) tickOfQueue({ noisy: 5_000 })
    for (let i = 0; i < 500; i++) queue.wait('noisy')
    assert.ok(overload.keepsOut('noisy'))
    assert.ok(!overload.keepsOut('modest'))
    assert.ok(overload.sheds('noisy'))
    assert.ok(!overload.sheds('noisy', true))
    queue.serve(500)
    assert.ok(!overload.keepsOut('noisy'))
  })

  it('are refused in a turn that is too long though they have waited for it', () => {
    const { overload, turn, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 50; i++) turn({ noisy: 500 }, 10)
    const admitted = Array.from({ length: 50 }, () => overload.sheds('noisy', true))
    assert.ok(admitted.includes(true))
  })

  it('are not refused for a line that the workload is to blame for', () => {
    const { tickOfQueue, overloaded, queue } = setUp()
    overloaded()
    for (let i = 0; i < 5_000; i++) queue.wait('noisy')
    tickOfQueue({ noisy: 0 }, 5)
    assert.deepEqual(tickOfQueue({ noisy: 500 }), { noisy: 2_000 })
  })

  it('are not refused to everybody for a line where turns alone are too long', () => {
    const { turn, ticks, overloaded, queue } = setUp()
    overloaded()
    queue.served += 1_000
    ticks(1, 120)
    for (const principal of ['a', 'b']) for (let i = 0; i < 3; i++) queue.wait(principal)
    assert.deepEqual(turn({ a: 5, b: 5 }, 0.1), { a: 5, b: 5 })
  })

  it('are as many again when it was switched off and on', () => {
    const { turn, overloaded, limit } = setUp()
    overloaded()
    limit.ms = 0
    turn({ noisy: 1 }, 0)
    limit.ms = 100
    for (let i = 0; i < 50; i++) turn({ noisy: 5_000 }, 1)
    const { noisy } = turn({ noisy: 5_000 }, 1)
    assert.ok(noisy! < 110, `${noisy} requests of 1 ms`)
  })

  it('may be of any number of principals', () => {
    const { turn, overloaded, overload } = setUp()
    overloaded()
    turn(Object.fromEntries(Array.from({ length: 200_000 }, (_, i) => [`p${i}`, 1])), 0.001)
    assert.ok(overload.active)
  })

  it('are one of each at the least', () => {
    const { turn, overloaded } = setUp()
    overloaded()
    for (let i = 0; i < 50; i++) turn({ a: 5, b: 5, c: 5 }, 80)
    assert.deepEqual(turn({ a: 5, b: 5, c: 5 }, 80), { a: 1, b: 1, c: 1 })
  })
})

describe('the answers to refused requests', () => {
  it('leave as far as time is for them, the oldest first, and none waits for long', () => {
    const { overload, turn, overloaded, pass } = setUp()
    overloaded()
    for (let i = 0; i < 50; i++) turn({ noisy: 200 }, 1)
    const told: number[] = []
    const waits = (from: number, count: number): void => {
      for (let i = from; i < from + count; i++) {
        overload.tell(() => {
          pass(1)
          told.push(i)
        })
      }
    }
    waits(0, 200)
    turn({ noisy: 100 }, 1)
    assert.ok(told.length >= 4 && told.length <= 12, `${told.length} in a turn of 100 ms`)
    for (let i = 0; i < 150; i++) turn({ noisy: 100 }, 1)
    assert.deepEqual(
      told,
      Array.from({ length: 200 }, (_, i) => i),
    )
  })

  it('take their part of the time and no more, however short the turns are', () => {
    const cases = [1, 5, 20].flatMap((turnMs) => [1, 50].map((clients) => ({ turnMs, clients })))
    for (const { turnMs, clients } of cases) {
      const { overload, turn, ticks, overloaded, pass } = setUp()
      overloaded()
      turn({ noisy: 1 }, 1)
      let spentMs = 0
      let heard = 0
      // As a client that has heard asks again a moment later.
      const again = (): void => {
        pass(0.5)
        spentMs += 0.5
        heard++
      }
      for (let i = 0; i < clients; i++) overload.tell(again)
      ticks(1, 100)
      spentMs = 0
      for (let i = 0; i < 2_000 / turnMs; i++) {
        for (; heard > 0; heard--) overload.tell(again)
        turn({ noisy: 1 }, turnMs)
      }
      // 1 % of the time; a fifth of 50 in a second, as none waits for more than five, is less.
      assert.ok(spentMs >= 8 && spentMs <= 24, `${spentMs} ms of 2,000 in turns of ${turnMs} ms`)
    }
  })

  it('are told once, whatever one of them comes to', () => {
    const { overload, ticks, overloaded } = setUp()
    overloaded()
    const told: number[] = []
    for (let i = 0; i < 3; i++) {
      overload.tell(() => {
        told.push(i)
        if (i === 1) throw new Error('fault')
      })
    }
    assert.throws(() => ticks(10, 1), /fault/)
    ticks(10, 1)
    assert.deepEqual(told, [0, 1, 2])
  })

  it('are not kept for who has gone', () => {
    const { overload, ticks, overloaded } = setUp()
    overloaded()
    const told: number[] = []
    const owed = [0, 1, 2].map((i) => overload.tell(() => void told.push(i)))
    overload.withdraw(owed[1]!)
    ticks(10, 1)
    assert.deepEqual(told, [0, 2])
  })

  it('wait in no greater number than memory is for', () => {
    const { overload, turn, overloaded, pass } = setUp()
    overloaded()
    let told = 0
    for (let i = 0; i < 50_000; i++) {
      overload.tell(() => {
        pass(0.01)
        told++
      })
    }
    turn({ noisy: 1 }, 0.01)
    assert.equal(told, 40_000)
  })

  it('leave sooner where the thread has time left', () => {
    const toldInTicksOf = (turnMs: number): number => {
      const { overload, ticks, overloaded, pass } = setUp()
      overloaded()
      ticks(1, turnMs)
      let told = 0
      for (let i = 0; i < 1_000; i++) {
        overload.tell(() => {
          pass(0.1)
          told++
        })
      }
      ticks(1, turnMs)
      return told
    }
    assert.ok(toldInTicksOf(100) < 50)
    assert.ok(toldInTicksOf(60) > 150)
  })

  it('leave in the end though no more requests come', () => {
    const { overload, steps, ticks, overloaded } = setUp()
    overloaded()
    let told = 0
    for (let i = 0; i < 1_000; i++) overload.tell(() => void told++)
    ticks(100, 1)
    assert.equal(told, 1_000)
    assert.equal(steps.length, 0, 'nothing keeps the loop busy')
  })
})
