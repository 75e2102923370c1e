import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { ChunkedDecoder } from '../../src/http/chunked.ts'
import type { RequestHead } from '../../src/http/head.ts'
import { Collecting } from '../../src/proxy/collecting.ts'
import { BodyBudget, RequestBody } from '../../src/proxy/request-body.ts'

const need = (maxBytes: number, enough = (_: Buffer) => false) => ({ maxBytes, enough })
const owner = (principal = 'one', giveUp = () => {}) => ({ principal, giveUp })
const add = (body: RequestBody, text: string) => {
  const bytes = Buffer.from(`<${text}>`)
  return body.add(bytes, 1, bytes.length - 1)
}

describe('a collected body', () => {
  it('is ready when it is over its limit, or enough', () => {
    const budget = new BodyBudget()
    const body = new RequestBody(need(5), budget, 100, owner())
    assert.deepEqual(
      ['abc', 'de', 'f'].map((text) => add(body, text)),
      ['more', 'more', 'ready'],
    )
    body.end()
    assert.deepEqual([String(body.bytes), body.atHand.complete], ['abcdef', false])
    const other = new RequestBody(
      need(5, (bytes) => bytes.length > 1),
      budget,
      100,
      owner(),
    )
    assert.deepEqual(
      ['a', 'b'].map((text) => add(other, text)),
      ['more', 'ready'],
    )
  })

  it('is complete at its end', () => {
    const body = new RequestBody(need(3), new BodyBudget(), 100, owner())
    add(body, 'abc')
    assert.equal(body.atHand.complete, false)
    body.end()
    assert.deepEqual([String(body.atHand.bytes), body.atHand.complete], ['abc', true])
  })

  it('takes memory from all, and gives it back', () => {
    const budget = new BodyBudget()
    const bodies = Array.from({ length: 3 }, () => new RequestBody(need(40), budget, 100, owner()))
    const [one, two, three] = bodies as [RequestBody, RequestBody, RequestBody]
    assert.equal(add(one, 'x'.repeat(40)), 'more')
    assert.equal(add(two, 'x'.repeat(40)), 'more')
    assert.equal(add(three, 'x'.repeat(40)), 'full')
    assert.equal(budget.usedBytes, 80)
    one.release()
    assert.equal(add(three, 'x'.repeat(40)), 'more')
    for (const body of bodies) body.release()
    assert.equal(budget.usedBytes, 0)
  })

  it('makes room for who has less, the oldest of who has most first', () => {
    const budget = new BodyBudget()
    const gone: string[] = []
    const bodies = new Map<string, RequestBody>()
    const begin = (principal: string, name: string, bytes: number): string => {
      const giveUp = (): void => {
        gone.push(name)
        bodies.get(name)?.release()
      }
      const body = new RequestBody(need(100), budget, 100, owner(principal, giveUp))
      bodies.set(name, body)
      return add(body, 'x'.repeat(bytes))
    }
    assert.deepEqual(
      ['a', 'b', 'c', 'd'].map((name) => begin('much', name, 25)),
      ['more', 'more', 'more', 'more'],
    )
    assert.equal(begin('much', 'e', 1), 'full')
    assert.equal(begin('little', 'f', 30), 'more')
    assert.deepEqual(gone, ['a', 'b'])
    // Now nobody has more than it would have.
    assert.equal(begin('little', 'g', 31), 'full')
    assert.equal(begin('another', 'h', 40), 'more')
    assert.deepEqual(gone, ['a', 'b', 'c'])
    for (const body of bodies.values()) body.release()
    assert.equal(budget.usedBytes, 0)
  })

  it('finds no room where whoever is to make some does not', () => {
    const budget = new BodyBudget()
    assert.equal(add(new RequestBody(need(100), budget, 100, owner()), 'x'.repeat(100)), 'more')
    assert.equal(add(new RequestBody(need(9), budget, 100, owner('two')), 'x'), 'full')
  })

  it('that comes byte by byte takes no more than twice its size', () => {
    const budget = new BodyBudget()
    const body = new RequestBody(need(1 << 20), budget, 1 << 20, owner())
    for (let i = 0; i < 5_000; i++) {
      add(body, 'x')
      assert.ok(budget.usedBytes <= 2 * (i + 1))
    }
  })
})

describe('an HTTP/1.1 request that is collected', () => {
  const head = (body: RequestHead['body']) =>
    ({ body, fields: [], expectContinue: true }) as unknown as RequestHead

  it('hands on where it stopped, wherever the bytes are cut', () => {
    const parts = fc.array(fc.string({ minLength: 1, maxLength: 20, unit: 'binary-ascii' }), {
      maxLength: 5,
    })
    fc.assert(
      fc.property(
        parts,
        fc.boolean(),
        fc.nat(60),
        fc.nat(40),
        (texts, isChunked, maxBytes, cut) => {
          const text = texts.join('')
          const wire = isChunked
            ? `${texts.map((one) => `${one.length.toString(16)}\r\n${one}\r\n`).join('')}0\r\n\r\n`
            : text
          const bytes = Buffer.from(`${wire}GET`, 'latin1')
          const framing = isChunked
            ? ({ kind: 'chunked' } as const)
            : ({ kind: 'length', length: text.length } as const)
          const budget = new BodyBudget()
          const body = new RequestBody(need(maxBytes), budget, 1 << 20, owner())
          const collecting = new Collecting(head(framing), body, 0, 0, 0)
          assert.equal(collecting.head.expectContinue, false)
          let at = 0
          while (!collecting.ready && at < wire.length) {
            const end = Math.min(at + cut + 1, bytes.length)
            const taken = collecting.take(bytes, at, end, 0)
            assert.ok(typeof taken === 'number')
            at = taken
          }
          const { read } = collecting
          // The rest, as an exchange would read it.
          let rest = ''
          if (!read.done && read.decoder !== undefined) {
            const stop = (read.decoder as ChunkedDecoder).decode(
              bytes,
              at,
              bytes.length,
              (from, to) => {
                rest += bytes.toString('latin1', from, to)
              },
            )
            assert.equal(stop, wire.length)
          } else if (!read.done) rest = bytes.toString('latin1', at, at + read.left)
          else if (text.length > 0) assert.equal(at, wire.length)
          assert.equal(read.bytes.toString('latin1') + rest, text)
          assert.equal(
            collecting.body.atHand.complete,
            read.done && text.length <= maxBytes && collecting.ready,
          )
          collecting.body.release()
          assert.equal(budget.usedBytes, 0)
        },
      ),
    )
  })

  it('is refused for bad chunks, over the limit of all bodies, or without memory', () => {
    const take = (text: string, { bodyLimit = 0, totalBytes = 1 << 20 }) => {
      const body = new RequestBody(need(1_000), new BodyBudget(), totalBytes, owner())
      const collecting = new Collecting(head({ kind: 'chunked' }), body, bodyLimit, 0, 0)
      const bytes = Buffer.from(text)
      return collecting.take(bytes, 0, bytes.length, 0)
    }
    assert.equal(take('zz\r\n', {}), 'bad_chunk')
    assert.equal(take('5\r\nabcde\r\n', { bodyLimit: 4 }), 'body_too_large')
    assert.equal(take('5\r\nabcde\r\n', { totalBytes: 4 }), 'body_memory_full')
    assert.equal(take('5\r\nabcde\r\n', {}), 10)
  })
})
