import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { describe, it } from 'node:test'
import type { KeptCopy } from '../../src/http/kept-bytes.ts'
import { Copies } from '../../src/proxy/copies.ts'

/** Takes what is written, and is done with it when it is told so. */
function slowSink() {
  const taken: Buffer[] = []
  const done: ((error?: Error) => void)[] = []
  const write = (chunk: Buffer, _encoding: string, callback: () => void): void => {
    taken.push(chunk)
    done.push(callback)
  }
  const stream = new Writable({ write, highWaterMark: 100_000 })
  stream.on('error', () => {})
  return { stream, taken, done }
}

const SIZES = [
  0, 1, 256, 257, 2_048, 2_049, 4_095, 4_096, 6_144, 6_145, 10_000, 34_817, 65_536, 67_584, 200_000,
]

describe('copies of lent bytes', () => {
  it('are in one piece with the text around them, whatever their size', () => {
    for (const size of SIZES) {
      const { stream, taken } = slowSink()
      const lent = Buffer.alloc(size + 2, 'x')
      lent[0] = 0x61
      lent[size + 1] = 0x61
      new Copies().write(stream, 'before ', lent, 1, size + 1, ' after')
      assert.equal(taken.length, 1)
      assert.equal(taken[0]?.toString('latin1'), `before ${'x'.repeat(size)} after`)
    }
  })

  it('tell what the stream tells about its room', () => {
    const { stream } = slowSink()
    const copies = new Copies()
    const lent = Buffer.alloc(60_000)
    assert.equal(copies.write(stream, '', lent, 0, lent.length, ''), true)
    assert.equal(copies.write(stream, '', lent, 0, lent.length, ''), false)
  })

  it('keep their bytes until the stream is done with them, and not longer', () => {
    const { stream, taken, done } = slowSink()
    const copies = new Copies()
    const lent = Buffer.alloc(10_000)
    const write = (fill: string): void =>
      void copies.write(stream, '', lent.fill(fill), 0, 10_000, '')
    write('a')
    // What is on its way is not touched by what follows, of another connection neither.
    const other = slowSink()
    copies.write(other.stream, '', lent.fill('b'), 0, 10_000, '')
    assert.deepEqual(taken[0], Buffer.alloc(10_000, 'a'))
    assert.deepEqual(other.taken[0], Buffer.alloc(10_000, 'b'))
    done[0]?.()
    return new Promise<void>((resolve) =>
      // A stream calls back in a tick of its own.
      setImmediate(() => {
        write('c')
        assert.equal(taken[1]?.buffer, taken[0]?.buffer)
        assert.deepEqual(other.taken[0], Buffer.alloc(10_000, 'b'))
        resolve()
      }),
    )
  })

  it('never use memory again that a stream failed with', async () => {
    const copies = new Copies()
    const lent = Buffer.alloc(10_000)
    const failing = slowSink()
    copies.write(failing.stream, '', lent, 0, 10_000, '')
    failing.done[0]?.(new Error('reset'))
    const destroyed = slowSink()
    copies.write(destroyed.stream, '', lent, 0, 10_000, '')
    copies.write(destroyed.stream, '', lent, 0, 10_000, '')
    destroyed.stream.destroy()
    await new Promise((resolve) => setImmediate(resolve))
    const { stream, taken } = slowSink()
    copies.write(stream, '', lent, 0, 10_000, '')
    const before = [...failing.taken, ...destroyed.taken].map(({ buffer }) => buffer)
    assert.equal(before.includes(taken[0]?.buffer as ArrayBuffer), false)
  })

  it('have one user at a time, until they are given back', () => {
    const copies = new Copies()
    const [first, second] = [copies.take(10_000), copies.take(10_000)]
    assert.notEqual(first.memory.buffer, second.memory.buffer)
    first.release()
    assert.equal(copies.take(9_000).memory.buffer, first.memory.buffer)
  })

  it('have one user at a time, though they are given back twice', () => {
    const copies = new Copies()
    const one = copies.take(10_000)
    one.release()
    one.release()
    assert.notEqual(copies.take(10_000).memory.buffer, copies.take(10_000).memory.buffer)
  })

  it('leave to the garbage collector what was in use at once and is more than is kept for the next', () => {
    const copies = new Copies()
    const pieces = (size: number) => Array.from({ length: 100 }, () => copies.take(size))
    const inBoth = (one: readonly KeptCopy[], two: readonly KeptCopy[]): number => {
      const memories = new Set(one.map(({ memory }) => memory.buffer))
      return two.filter(({ memory }) => memories.has(memory.buffer)).length
    }
    const large = pieces(130_000)
    for (const piece of large) piece.release()
    const again = pieces(130_000)
    const both = inBoth(large, again)
    assert.ok(both >= 16 && both <= 40, `${both} of 100 are kept`)
    // Those of a size that is not used any more make room for others.
    for (const piece of again) piece.release()
    const small = pieces(20_000)
    for (const piece of small) piece.release()
    assert.ok(inBoth(small, pieces(20_000)) > 50)
  })

  it('have room for what was asked for, of any size, also in memory that is used again', () => {
    const copies = new Copies()
    for (const size of [...SIZES, ...SIZES, ...SIZES.toReversed()]) {
      const copy = copies.take(size)
      assert.ok(copy.memory.length >= size, String(size))
      copy.release()
    }
  })

  it('write nothing where there is nothing', () => {
    const { stream, taken } = slowSink()
    const copies = new Copies()
    assert.equal(copies.write(stream, '', Buffer.alloc(1), 1, 1, ''), true)
    assert.equal(taken.length, 0)
    copies.write(stream, '', Buffer.alloc(60_000), 0, 60_000, '')
    copies.write(stream, '', Buffer.alloc(60_000), 0, 60_000, '')
    assert.equal(copies.write(stream, '', Buffer.alloc(1), 1, 1, ''), false)
  })

  it('take at most twice the memory of what they hold, and the room for a head', () => {
    for (const size of SIZES) {
      const { stream, taken } = slowSink()
      const lent = Buffer.alloc(size)
      new Copies().write(stream, '', lent, 0, size, '')
      const memory = taken[0]?.buffer.byteLength ?? 0
      // Small ones share a piece of node's.
      if (size >= 4_096) assert.ok(memory <= 2 * size + 2_048, `${size} in ${memory}`)
    }
  })
})
