import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inOwnMemory, joined, ownCopyOf } from '../../src/http/own-bytes.ts'

describe('bytes that are kept', () => {
  it('are as they were when what they came in is used again', () => {
    const lent = Buffer.from('what was read')
    const kept = [ownCopyOf(lent.subarray(5)), joined(lent, lent.subarray(4))]
    lent.fill(0)
    assert.deepEqual(kept.map(String), ['was read', 'what was read was read'])
  })

  it('keep no memory but their own', () => {
    const [one, other] = [Buffer.alloc(100, 'a'), Buffer.alloc(10, 'b')]
    assert.equal(ownCopyOf(one.subarray(50)).buffer.byteLength, 50)
    assert.equal(joined(one, other).buffer.byteLength, 110)
  })

  it('stay where they are until they are a quarter of it', () => {
    const own = Buffer.alloc(400)
    assert.equal(inOwnMemory(own.subarray(299)).byteOffset, 299)
    const moved = inOwnMemory(own.subarray(300))
    assert.equal(moved.buffer.byteLength, 100)
  })
})
