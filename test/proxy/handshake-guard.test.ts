import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  type Applicant,
  type HandshakeEnd,
  HandshakeGuard,
  NO_ADDRESS,
  type Refusal,
  type Slot,
} from '../../src/proxy/handshake-guard.ts'

const LIMITS = { handshakes: 8, handshakesPerAddress: 4, handshakeFailuresPerAddress: 3 }
const DEAR_BYTES = 38_000

function guardAt(clock: { nowMs: number }, limits = LIMITS) {
  const steps: (() => void)[] = []
  const inOneTurn = new HandshakeGuard(
    limits,
    () => clock.nowMs,
    (step) => steps.push(step),
  )
  const endTurn = (): void => {
    for (const step of steps.splice(0)) step()
  }
  /** As many turns as there is something to do in. */
  const settled = <T>(result: T): T => {
    while (steps.length > 0) endTurn()
    return result
  }
  const guard = {
    ask: (address: string, applicant: Applicant) => settled(inOneTurn.ask(address, applicant)),
    end: (slot: Slot, how: HandshakeEnd) => settled(inOneTurn.end(slot, how)),
    tick: (timeoutMs: number) => settled(inOneTurn.tick(timeoutMs)),
    forget: inOneTurn.forget.bind(inOneTurn),
    punish: inOneTurn.punish.bind(inOneTurn),
    get inProgress() {
      return inOneTurn.inProgress
    },
    get waiting() {
      return inOneTurn.waiting
    },
    get addresses() {
      return inOneTurn.addresses
    },
  }
  const begun: Slot[] = []
  const refusals: Refusal[] = []
  const applicant = (): Applicant => ({
    start: (slot) => begun.push(slot),
    refuse: (reason) => refusals.push(reason),
  })
  const end = (slot: Slot | undefined, kind: HandshakeEnd['kind'], bytes = 3_000): void => {
    assert.ok(slot)
    guard.end(slot, kind === 'failure' ? { kind, bytes } : { kind })
  }
  const ask = (address: string) => guard.ask(address, applicant())
  return {
    guard,
    inOneTurn,
    endTurn,
    applicant,
    begun,
    refusals,
    ask,
    end,
    /** Makes an address that has completed a handshake. */
    prove: (address: string) => {
      ask(address)
      end(begun.pop(), 'success')
    },
  }
}

describe('the handshake guard', () => {
  it('lets an unknown address begin one handshake at a time, and more once it has completed one', () => {
    const { ask, begun, end } = guardAt({ nowMs: 0 })
    for (let i = 0; i < 5; i++) assert.equal(ask('10.0.0.1'), undefined)
    assert.equal(begun.length, 1)
    end(begun[0], 'success')
    assert.equal(begun.length, 5)
  })

  it('lets one handshake begin in a turn of the event loop, addresses in turn', () => {
    const { inOneTurn, endTurn, applicant, begun, prove } = guardAt({ nowMs: 0 })
    prove('10.0.0.1')
    for (let i = 0; i < 4; i++) inOneTurn.ask('10.0.0.1', applicant())
    inOneTurn.ask('10.0.0.2', applicant())
    const order: string[] = []
    for (let turn = 1; turn <= 5; turn++) {
      assert.equal(begun.length, turn)
      order.push(begun.at(-1)?.address.name ?? '')
      endTurn()
    }
    assert.equal(begun.length, 5)
    assert.deepEqual(order.slice(0, 2), ['10.0.0.1', '10.0.0.2'])
  })

  it('does not let one address hold up another', () => {
    const { ask, begun } = guardAt({ nowMs: 0 })
    ask('10.0.0.1')
    ask('10.0.0.1')
    ask('10.0.0.2')
    assert.deepEqual(
      begun.map(({ address }) => address.name),
      ['10.0.0.1', '10.0.0.2'],
    )
  })

  it('does not let a slow handshake hold up its own address for long', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, begun } = guardAt(clock)
    ask('10.0.0.1')
    ask('10.0.0.1')
    assert.equal(begun.length, 1)
    clock.nowMs = 1_000
    guard.tick(10_000)
    assert.equal(begun.length, 2)
  })

  it('keeps half of few places for addresses that have completed one', () => {
    const { ask, begun, prove } = guardAt({ nowMs: 0 }, { ...LIMITS, handshakes: 4 })
    prove('10.0.0.1')
    for (let i = 0; i < 4; i++) ask(`10.1.0.${i}`)
    assert.equal(begun.length, 2)
    for (let i = 0; i < 2; i++) ask('10.0.0.1')
    assert.equal(begun.length, 4)
  })

  it('never has more handshakes in progress than the limit, over all addresses', () => {
    const { guard, ask, begun, end, prove } = guardAt({ nowMs: 0 })
    for (let i = 0; i < 20; i++) prove(`10.0.0.${i}`)
    for (let i = 0; i < 20; i++) ask(`10.0.0.${i}`)
    assert.equal(guard.inProgress, 8)
    assert.equal(guard.waiting, 12)
    end(begun[0], 'failure')
    assert.equal(guard.inProgress, 8)
    assert.equal(begun.length, 9)
  })

  it('refuses an address that failed more often than its allowance, and takes it back later', () => {
    const clock = { nowMs: 0 }
    const { ask, begun, end } = guardAt(clock)
    for (let i = 0; i < 4; i++) {
      assert.equal(ask('10.0.0.1'), undefined)
      end(begun.at(-1), 'failure')
    }
    assert.equal(ask('10.0.0.1'), 'address_limited')
    assert.equal(ask('10.0.0.2'), undefined)
    clock.nowMs = 1_001
    assert.equal(ask('10.0.0.1'), undefined)
  })

  it('refuses an address that is punished for a minute, those that wait too, and no other', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, prove, refusals } = guardAt(clock)
    prove('10.0.0.1')
    for (let i = 0; i < LIMITS.handshakesPerAddress + 1; i++) ask('10.0.0.1')
    guard.punish('10.0.0.1')
    guard.punish(NO_ADDRESS)
    assert.deepEqual(refusals, ['address_limited'])
    assert.equal(ask('10.0.0.1'), 'address_limited')
    assert.equal(ask('10.0.0.2'), undefined)
    assert.equal(ask(NO_ADDRESS), undefined)
    clock.nowMs = 59_999
    assert.equal(ask('10.0.0.1'), 'address_limited')
    clock.nowMs = 60_001
    assert.equal(ask('10.0.0.1'), undefined)
  })

  it('doubles the penalty of an address that goes on failing', () => {
    const clock = { nowMs: 0 }
    const { ask, begun, end } = guardAt(clock, { ...LIMITS, handshakeFailuresPerAddress: 0 })
    const penalties: number[] = []
    for (let i = 0; i < 8; i++) {
      ask('10.0.0.1')
      end(begun.at(-1), 'failure')
      const beganMs = clock.nowMs
      while (ask('10.0.0.1') === 'address_limited') clock.nowMs += 500
      penalties.push((clock.nowMs - beganMs) / 1_000)
      end(begun.at(-1), 'free')
    }
    assert.deepEqual(penalties, [1, 2, 4, 8, 16, 32, 60, 60])
  })

  it('puts the sender of an oversized certificate chain away for a minute, at the first one', () => {
    const clock = { nowMs: 0 }
    const { ask, begun, end } = guardAt(clock)
    ask('10.0.0.1')
    end(begun[0], 'failure', DEAR_BYTES)
    clock.nowMs = 59_999
    assert.equal(ask('10.0.0.1'), 'address_limited')
    clock.nowMs = 60_000
    assert.equal(ask('10.0.0.1'), undefined)
  })

  it('refuses those who were waiting when their address is put away', () => {
    const { ask, begun, end, refusals } = guardAt({ nowMs: 0 })
    ask('10.0.0.1')
    ask('10.0.0.1')
    ask('10.0.0.1')
    end(begun[0], 'failure', DEAR_BYTES)
    assert.deepEqual(refusals, ['address_limited', 'address_limited'])
    assert.equal(begun.length, 1)
  })

  it('does not charge a probe that connects and leaves', () => {
    const { ask, begun, end } = guardAt({ nowMs: 0 })
    for (let i = 0; i < 100; i++) {
      assert.equal(ask('10.0.0.1'), undefined)
      end(begun.at(-1), 'free', 0)
    }
  })

  it('refuses waiting clients when the handshake timeout has passed', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, refusals } = guardAt(clock, { ...LIMITS, handshakes: 1 })
    ask('10.0.0.1')
    ask('10.0.0.2')
    clock.nowMs = 10_000
    guard.tick(10_000)
    assert.deepEqual(refusals, ['overload'])
    assert.equal(guard.waiting, 0)
  })

  it('keeps no more than a bounded number of addresses, whatever is thrown at it', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, begun, end } = guardAt(clock)
    for (let i = 0; i < 30_000; i++) {
      clock.nowMs++
      ask(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
      end(begun.pop(), 'free', 0)
    }
    assert.ok(guard.addresses <= 10_000)
  })

  it('charges a failure by what it was sent, so that medium-sized chains run out sooner', () => {
    const { ask, begun, end } = guardAt({ nowMs: 0 })
    ask('10.0.0.1')
    end(begun[0], 'failure', 15_000)
    assert.equal(ask('10.0.0.1'), 'address_limited')
  })

  it('forgets the penalties of an address that completes a handshake', () => {
    const clock = { nowMs: 0 }
    const { ask, begun, end } = guardAt(clock, { ...LIMITS, handshakeFailuresPerAddress: 0 })
    const fail = (): void => {
      ask('10.0.0.1')
      end(begun.at(-1), 'failure')
    }
    fail()
    clock.nowMs = 1_000
    fail()
    clock.nowMs = 3_000
    ask('10.0.0.1')
    end(begun.at(-1), 'success')
    fail()
    clock.nowMs = 4_000
    assert.equal(ask('10.0.0.1'), undefined)
  })

  it('begins only a few handshakes at once of addresses that never completed one', () => {
    const limits = { ...LIMITS, handshakes: 64 }
    const { ask, begun, end, prove } = guardAt({ nowMs: 0 }, limits)
    prove('10.1.0.1')
    for (let i = 0; i < 100; i++) ask(`10.0.0.${i}`)
    assert.equal(begun.length, 4)
    ask('10.1.0.1')
    assert.equal(begun.length, 5)
    end(begun[0], 'failure')
    assert.equal(begun.length, 6)
  })

  it('after one dear failure takes newcomers one by one, and after a pause, but others at once', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, begun, end, prove } = guardAt(clock)
    prove('10.1.0.1')
    ask('10.0.0.1')
    end(begun.pop(), 'failure', DEAR_BYTES)
    ask('10.0.0.2')
    ask('10.0.0.3')
    assert.equal(begun.length, 0)
    ask('10.1.0.1')
    assert.equal(begun.length, 1)
    clock.nowMs = 1_000
    guard.tick(10_000)
    assert.deepEqual(
      begun.map(({ address }) => address.name),
      ['10.1.0.1', '10.0.0.2'],
    )
    end(begun[1], 'success')
    assert.equal(begun.at(-1)?.address.name, '10.0.0.3')
  })

  it('spends at most a fifth of its time on dear handshakes, from however many addresses', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, begun, end } = guardAt(clock, { ...LIMITS, handshakes: 64 })
    const dearMs = 250
    let spentMs = 0
    for (let i = 0; i < 1_000; i++) ask(`10.0.${i >> 8}.${i & 255}`)
    while (clock.nowMs < 120_000) {
      const slot = begun.shift()
      if (slot === undefined) clock.nowMs += 100
      else {
        clock.nowMs += dearMs
        spentMs += dearMs
        end(slot, 'failure', DEAR_BYTES)
      }
      guard.tick(300_000)
    }
    // The first ones are let in together, before anything is known.
    assert.ok(spentMs - 4 * dearMs <= 120_000 / 5, `${spentMs} ms of 120000`)
    assert.ok(spentMs > 10_000)
  })

  it('lets a newcomer begin before those who fill the queue', () => {
    const { ask, begun, end } = guardAt({ nowMs: 0 }, { ...LIMITS, handshakes: 1 })
    for (let i = 0; i < 100; i++) ask('10.0.0.1')
    ask('10.0.0.2')
    end(begun[0], 'failure')
    assert.equal(begun[1]?.address.name, '10.0.0.2')
  })

  it('does not let one address fill the queue', () => {
    const { guard, ask } = guardAt({ nowMs: 0 })
    const answers = new Set(Array.from({ length: 5_000 }, () => ask('10.0.0.1')))
    assert.deepEqual([...answers], [undefined, 'address_limited'])
    assert.equal(guard.waiting, 1_024)
    assert.equal(ask('10.0.0.2'), undefined)
  })

  it('does not let silent clients take the places of those that are at work', () => {
    const clock = { nowMs: 0 }
    const { guard, ask, begun } = guardAt(clock)
    for (let i = 0; i < 4; i++) ask(`10.0.0.${i}`)
    ask('10.0.1.1')
    assert.equal(begun.length, 4)
    clock.nowMs = 1_000
    guard.tick(10_000)
    assert.equal(begun.at(-1)?.address.name, '10.0.1.1')
    assert.equal(guard.inProgress, 5)
  })

  it('takes back an applicant whose client has gone', () => {
    const { guard, ask, begun, end } = guardAt({ nowMs: 0 })
    ask('10.0.0.1')
    const gone: Applicant = {
      start: () => assert.fail('started'),
      refuse: () => assert.fail('refused'),
    }
    guard.ask('10.0.0.1', gone)
    guard.forget('10.0.0.1', gone)
    guard.forget('10.0.0.1', gone)
    assert.equal(guard.waiting, 0)
    end(begun[0], 'failure', DEAR_BYTES)
  })

  it('survives thousands of applicants that give their slot back as soon as they have it', () => {
    const { guard, ask, begun, end, prove } = guardAt({ nowMs: 0 }, { ...LIMITS, handshakes: 1 })
    prove('10.0.0.2')
    ask('10.0.0.1')
    for (let i = 0; i < 1_000; i++) {
      guard.ask('10.0.0.2', {
        start: (slot) => guard.end(slot, { kind: 'free' }),
        refuse: () => assert.fail('refused'),
      })
    }
    end(begun[0], 'success')
    assert.deepEqual([guard.waiting, guard.inProgress], [0, 0])
  })

  it('puts nobody away who has no address of their own', () => {
    const { ask, begun, end } = guardAt({ nowMs: 0 })
    for (let i = 0; i < 20; i++) {
      assert.equal(ask(NO_ADDRESS), undefined)
      end(begun.pop(), 'failure', DEAR_BYTES)
    }
    for (let i = 0; i < 20; i++) ask(NO_ADDRESS)
    assert.equal(begun.length, LIMITS.handshakes)
  })
})
