import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { describe, it } from 'node:test'
import { Turn } from '../../src/proxy/turn.ts'
import { eventually } from '../support/eventually.ts'

function sink(): { stream: Writable; written: string[] } {
  const written: string[] = []
  const write = (chunk: Buffer, _encoding: string, done: () => void): void => {
    written.push(chunk.toString())
    done()
  }
  return { stream: new Writable({ write }), written }
}

describe('writes of one turn of the event loop', () => {
  it('leave at its end, in order', async () => {
    const turn = new Turn()
    const { stream, written } = sink()
    for (const text of ['a', 'b', 'c']) {
      turn.hold(stream)
      stream.write(text)
    }
    assert.deepEqual(written, [])
    await eventually('they have left', () => written.length === 3)
    assert.deepEqual(written, ['a', 'b', 'c'])
    assert.equal(stream.writableCorked, 0)
  })

  it('leave before it where they have filled their stream', () => {
    const turn = new Turn()
    const { stream, written } = sink()
    turn.hold(stream)
    stream.write('much')
    assert.equal(turn.relieve(stream), true)
    assert.deepEqual(written, ['much'])
    const slow = new Writable({ write: () => {} })
    turn.hold(slow)
    slow.write('much')
    assert.equal(turn.relieve(slow), false)
  })

  it('leave before it up to a bound, so that others have their turn', async () => {
    const turn = new Turn()
    const { stream, written } = sink()
    const piece = Buffer.alloc(300_000)
    const fill = (): boolean => {
      turn.hold(stream)
      stream.write(piece)
      return turn.relieve(stream)
    }
    assert.deepEqual([fill(), fill(), fill(), fill(), fill()], [true, true, true, true, false])
    assert.equal(written.length, 4)
    await new Promise(setImmediate)
    assert.equal(written.length, 5)
    assert.equal(fill(), true)
  })

  it('leave before their stream is destroyed', () => {
    const turn = new Turn()
    const { stream, written } = sink()
    turn.hold(stream)
    stream.write('last words')
    turn.release(stream)
    stream.destroy()
    assert.deepEqual(written, ['last words'])
  })

  it('leave with what collectors have collected, in each turn that they ask for', async () => {
    const turn = new Turn()
    const { stream, written } = sink()
    let flushed = 0
    const collector = { flush: () => flushed++ }
    turn.collect(collector)
    assert.equal(flushed, 0)
    await eventually('it is flushed', () => flushed === 1)
    turn.hold(stream)
    stream.write('a')
    turn.collect(collector)
    await eventually('both have left', () => flushed === 2 && written.length === 1)
  })

  it('are held again in the next turn, and after a release', async () => {
    const turn = new Turn()
    const { stream, written } = sink()
    turn.hold(stream)
    stream.write('a')
    turn.release(stream)
    turn.hold(stream)
    stream.write('b')
    assert.deepEqual(written, ['a'])
    await eventually('it has left', () => written.length === 2)
    turn.hold(stream)
    stream.write('c')
    await eventually('it has left, too', () => written.length === 3)
    assert.equal(stream.writableCorked, 0)
  })

  it('do not wait for what its last steps take on, whose writes leave together behind them', async () => {
    const turn = new Turn()
    const { stream, written } = sink()
    const numbers = [turn.number]
    const stepThatWrites = (text: string) => (): void => {
      assert.deepEqual(written, ['a'])
      numbers.push(turn.number)
      turn.hold(stream)
      stream.write(text)
    }
    turn.hold(stream)
    stream.write('a')
    turn.beforeEnd(stepThatWrites('b'))
    turn.beforeEnd(stepThatWrites('c'))
    await new Promise(setImmediate)
    assert.deepEqual(written, ['a', 'b', 'c'])
    numbers.push(turn.number)
    const [before, first, second, after] = numbers
    assert.equal(first, second)
    assert.equal(new Set([before, first, after]).size, 3, 'another number when something has left')
  })

  it('are not put off by a step that runs again in the next', async () => {
    const turn = new Turn()
    const { stream, written } = sink()
    let steps = 0
    const step = (): void => {
      turn.hold(stream)
      stream.write(`${++steps}`)
      if (steps < 3) turn.beforeEnd(step)
    }
    turn.beforeEnd(step)
    await new Promise(setImmediate)
    assert.deepEqual(written, ['1'])
    await eventually('all have left', () => written.length === 3)
    assert.deepEqual(written, ['1', '2', '3'])
  })
})
