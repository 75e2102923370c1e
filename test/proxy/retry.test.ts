import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Copies } from '../../src/proxy/copies.ts'
import { Retry } from '../../src/proxy/retry.ts'

const LENT = Buffer.alloc(16 * 1024)

/** Keeps `pieces`, each lent in the same memory. */
function retryOf(copies: Copies, pieces: readonly string[], length = 10_000): Retry {
  const retry = new Retry(copies)
  for (const piece of pieces) retry.keep(LENT.fill(piece).subarray(0, length))
  LENT.fill('!')
  return retry
}

describe('the body of a request that may be sent once more', () => {
  it('is what was sent, though its bytes were only lent', () => {
    const kept = retryOf(new Copies(), ['a', 'b', 'c']).again('POST', 'always')
    assert.deepEqual(kept?.toString(), 'a'.repeat(10_000) + 'b'.repeat(10_000) + 'c'.repeat(10_000))
  })

  it('stays what it is while other requests come and are answered', () => {
    const copies = new Copies()
    const retry = retryOf(copies, ['a'])
    retryOf(copies, ['b']).answered()
    const kept = retry.again('PUT', 'if_idempotent')
    const other = retryOf(copies, ['c', 'd'])
    assert.deepEqual(kept, Buffer.alloc(10_000, 'a'))
    other.answered()
    retryOf(copies, ['e', 'f'])
    assert.deepEqual(kept, Buffer.alloc(10_000, 'a'))
  })

  it('is given once, and only where the request may be sent again', () => {
    const retry = retryOf(new Copies(), ['a'])
    assert.equal(retry.again('POST', 'if_idempotent'), undefined)
    assert.equal(retry.again('POST', 'always'), undefined)
    const answered = retryOf(new Copies(), ['a'])
    answered.answered()
    assert.equal(answered.again('GET', 'always'), undefined)
  })

  it('takes at most about twice its size, in however small pieces it comes', () => {
    const pieces = Array.from({ length: 1_000 }, (_, i) => String.fromCharCode(97 + (i % 26)))
    const kept = retryOf(new Copies(), pieces, 7).again('PUT', 'always')
    assert.equal(kept?.toString(), pieces.map((piece) => piece.repeat(7)).join(''))
    assert.ok(kept.buffer.byteLength <= 2 * 8_192 + 2_048, String(kept.buffer.byteLength))
  })

  it('is not kept beyond 64 KiB', () => {
    const copies = new Copies()
    const retry = retryOf(copies, ['a', 'b', 'c', 'd'], 16 * 1024)
    retry.keep(LENT.subarray(0, 1))
    assert.equal(retry.again('PUT', 'always'), undefined)
  })
})
