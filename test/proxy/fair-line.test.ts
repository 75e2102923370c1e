import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { FairLine } from '../../src/proxy/fair-line.ts'
import { randomness, SEED } from '../support/randomness.ts'

/** Each waits under its first letter: `a1`, `a2`, `b1`. */
function lineOf(...waiting: string[]): FairLine<string> {
  const line = new FairLine<string>()
  for (const one of waiting) line.wait(one.slice(0, 1), one)
  return line
}

function served<T>(line: FairLine<T>): T[] {
  const all: T[] = []
  for (let one = line.next(); one !== undefined; one = line.next()) all.push(one)
  return all
}

describe('a line', () => {
  it('is served client by client in turn, and for each in the order of its arrival', () => {
    const line = lineOf('a1', 'a2', 'a3', 'b1', 'c1', 'c2')
    assert.deepEqual([line.waiting, line.clients, line.waitingOf('a')], [6, 3, 3])
    assert.deepEqual(served(line), ['a1', 'b1', 'c1', 'a2', 'c2', 'a3'])
    assert.deepEqual([line.waiting, line.clients, line.waitingOf('a')], [0, 0, 0])
  })

  it('lets a client that comes later wait for one of each other, and no more', () => {
    const line = lineOf('a1', 'a2', 'a3')
    assert.equal(line.next(), 'a1')
    line.wait('b', 'b1')
    assert.equal(line.next(), 'a2')
    assert.deepEqual(served(line), ['b1', 'a3'])
  })

  it('passes over clients that may not be next, who keep their place', () => {
    const line = lineOf('a1', 'b1', 'c1')
    const mayBeNext = (client: string): boolean => client !== 'a'
    assert.equal(line.next(mayBeNext), 'b1')
    assert.equal(line.next(mayBeNext), 'c1')
    assert.equal(line.next(mayBeNext), undefined)
    assert.deepEqual(served(line), ['a1'])
  })

  it('forgets one, wherever it is', () => {
    const line = lineOf('a1')
    const [second, other] = [line.wait('a', 'a2'), line.wait('b', 'b1')]
    line.forget('a', second)
    line.forget('b', other)
    assert.deepEqual([line.waiting, line.clients, line.waitingOf('a')], [1, 1, 1])
    assert.deepEqual(served(line), ['a1'])
    const again = line.wait('a', 'a3')
    line.forget('a', again)
    line.forget('a', again)
    assert.deepEqual([line.waiting, line.clients, line.next()], [0, 0, undefined])
  })

  it('is left by all whose time is over', () => {
    const line = lineOf('a1', 'a2', 'a3', 'b1', 'b3')
    assert.deepEqual(
      line.leave((one) => one < `${one.slice(0, 1)}3`),
      ['a1', 'a2', 'b1'],
    )
    assert.deepEqual([line.waiting, line.clients], [2, 2])
    assert.deepEqual(served(line), ['a3', 'b3'])
  })

  it('keeps the order of many of a client, whatever is taken out meanwhile', () => {
    const random = randomness(SEED)
    const line = new FairLine<number>()
    const places: number[] = []
    let expected: number[] = []
    for (let i = 0; i < 5_000; i++) {
      places.push(line.wait('a', i))
      expected.push(i)
      if (random.chance(0.3)) assert.equal(line.next(), expected.shift())
      if (random.chance(0.1)) {
        const gone = random.below(i + 1)
        if (expected.includes(gone)) line.forget('a', places[gone]!)
        expected = expected.filter((one) => one !== gone)
      }
      if (random.chance(0.01)) {
        const first = (expected[0] ?? 0) + random.below(10)
        assert.deepEqual(
          line.leave((one) => one < first),
          expected.filter((one) => one < first),
        )
        expected = expected.filter((one) => one >= first)
      }
      assert.equal(line.waitingOf('a'), expected.length)
    }
    assert.deepEqual(served(line), expected)
  })
})
