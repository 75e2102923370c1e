import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { KeptBytes, UNSHARED } from '../../src/http/kept-bytes.ts'
import { SEED } from '../support/randomness.ts'
import { SharedMemory } from '../support/shared-memory.ts'

describe('bytes that are kept', () => {
  it('are as they were when what they came in is used again', () => {
    const lent = Buffer.from('what was read')
    for (const memory of [UNSHARED, new SharedMemory()]) {
      const kept = new KeptBytes(memory).keep(lent.subarray(5))
      const both = new KeptBytes(memory).append(lent, lent.subarray(4))
      assert.deepEqual([kept, both].map(String), ['was read', 'what was read was read'])
    }
    const bytes = Buffer.alloc(10_000, 'a')
    const kept = new KeptBytes(new SharedMemory()).keep(bytes)
    bytes.fill('b')
    assert.deepEqual(kept, Buffer.alloc(10_000, 'a'))
  })

  it('have memory of their own where they are few', () => {
    const lent = Buffer.alloc(10_000, 'a')
    const [memory, other] = [new SharedMemory(), new SharedMemory()]
    assert.equal(new KeptBytes(memory).keep(lent.subarray(0, 50)).buffer.byteLength, 50)
    assert.equal(memory.taken, 0)
    const kept = new KeptBytes(other)
    const moved = kept.keep(kept.keep(lent).subarray(9_950))
    assert.equal(moved.buffer.byteLength, 50)
    assert.equal(other.free.length, 1)
  })

  it('stay where they are while they are a good part of it, and grow there', () => {
    const memory = new SharedMemory()
    const kept = new KeptBytes(memory)
    const whole = kept.keep(Buffer.alloc(25_000, 'a'))
    const { memoryBytes } = kept
    assert.ok(memoryBytes >= 25_000)
    const rest = kept.keep(whole.subarray(5_000))
    const grown = kept.append(rest, Buffer.from('bcd'))
    assert.equal(grown.byteOffset, whole.byteOffset + 5_000)
    assert.equal(grown.toString('latin1', 19_999), 'abcd')
    assert.equal(memory.taken, 1)
    assert.equal(kept.memoryBytes, memoryBytes)
  })

  it('give their memory back once', () => {
    const memory = new SharedMemory()
    const kept = new KeptBytes(memory)
    kept.keep(Buffer.alloc(20_000))
    kept.drop()
    kept.drop()
    assert.equal(memory.free.length, 1)
    assert.equal(kept.memoryBytes, 0)
  })

  it('are what came and was not taken, whoever uses the memory besides', () => {
    const step = fc.record({
      reader: fc.nat(2),
      comes: fc.oneof(fc.nat(40), fc.integer({ min: 3_000, max: 12_000 })),
      takes: fc.oneof(fc.constant(0), fc.nat(40), fc.nat(30_000), fc.constant(60_000)),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const memory = new SharedMemory()
        const readers = Array.from({ length: 3 }, () => {
          const left: { bytes: Buffer | undefined; expected: Buffer } = {
            bytes: undefined,
            expected: Buffer.alloc(0),
          }
          return { kept: new KeptBytes(memory), left }
        })
        const lent = Buffer.alloc(12_000)
        let next = 0
        for (const { reader, comes, takes } of steps) {
          const { kept, left } = readers[reader]!
          const chunk = lent.subarray(0, comes)
          for (let i = 0; i < comes; i++) chunk[i] = next++ % 251
          if (left.expected.length + comes > 60_000) continue
          left.expected = Buffer.concat([left.expected, chunk])
          const whole = left.bytes === undefined ? chunk : kept.append(left.bytes, chunk)
          assert.deepEqual(whole, left.expected)
          const rest = whole.subarray(takes)
          left.expected = left.expected.subarray(takes)
          left.bytes = rest.length === 0 ? undefined : kept.keep(rest)
          if (left.bytes === undefined) kept.drop()
          lent.fill('!')
          for (const { left } of readers) {
            assert.deepEqual(left.bytes ?? Buffer.alloc(0), left.expected)
          }
        }
      }),
      { seed: SEED, numRuns: 300 },
    )
  })
})
