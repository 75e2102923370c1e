import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { HandshakeGuard, type Slot } from '../../src/proxy/handshake-guard.ts'

const LIMITS = { handshakes: 8, handshakesPerAddress: 4, handshakeFailuresPerAddress: 3 }
const DEAR_BYTES = 38_000

function guardAt(clock: { nowMs: number }, limits = LIMITS) {
  const guard = new HandshakeGuard(limits, () => clock.nowMs)
  const begun: Slot[] = []
  let refused = 0
  return {
    guard,
    begun,
    refusals: () => refused,
    ask: (address: string) =>
      guard.ask(
        address,
        (slot) => begun.push(slot),
        () => refused++,
      ),
    end: (slot: Slot | undefined, kind: 'success' | 'failure' | 'free', bytes = 3_000) => {
      assert.ok(slot)
      guard.end(slot, { kind, bytes })
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

  it('never has more handshakes in progress than the limit, over all addresses', () => {
    const { guard, ask, begun, end } = guardAt({ nowMs: 0 })
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
    assert.equal(refusals(), 2)
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
    assert.equal(refusals(), 1)
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
})
