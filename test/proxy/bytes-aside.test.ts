import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import v8 from 'node:v8'
import vm from 'node:vm'
import { BytesAside, MOST_ASIDE_BYTES, SharedPieces } from '../../src/proxy/bytes-aside.ts'
import { eventually } from '../support/eventually.ts'

describe('bytes that are put aside', () => {
  it('come back as they were, once, however many wait and of whatever length', () => {
    const pieces = new SharedPieces()
    const all = [0, 1, 700, MOST_ASIDE_BYTES, ...Array(300).fill(997)].map((length, i) => ({
      at: new BytesAside(),
      bytes: Buffer.alloc(length, `${i} `),
    }))
    for (const { at, bytes } of all) {
      const lent = Buffer.from(bytes)
      pieces.put(lent, at)
      lent.fill(0)
    }
    for (const { at, bytes } of all) {
      assert.deepEqual(at.take(), bytes)
      assert.equal(at.take(), undefined)
    }
  })

  it('are those of last time no more when it is used again', () => {
    const pieces = new SharedPieces()
    const at = new BytesAside()
    for (const text of ['first', 'second']) {
      pieces.put(Buffer.from(text), at)
      assert.equal(at.take()?.toString(), text)
    }
  })

  it('stay where they are when a part was taken, until little is left', () => {
    const pieces = new SharedPieces()
    const at = new BytesAside()
    const text = 'GET / HTTP/1.1\r\n'.repeat(100)
    pieces.put(Buffer.from(text), at)
    const all = at.take()
    assert.ok(all)
    const rest = all.subarray(text.length / 2)
    assert.equal(pieces.holds(rest, at), true)
    pieces.put(rest, at)
    const again = at.take()
    assert.equal(again?.toString(), text.slice(text.length / 2))
    assert.equal(again?.byteOffset, rest.byteOffset)
    const little = all.subarray(text.length - 16)
    assert.equal(pieces.holds(little, at), false)
    pieces.put(little, at)
    const moved = at.take()
    assert.equal(moved?.toString(), 'GET / HTTP/1.1\r\n')
    assert.notEqual(moved?.byteOffset, little.byteOffset)
  })

  it('are copied where they are in memory of another, however large', () => {
    const pieces = new SharedPieces()
    const at = new BytesAside()
    const lent = Buffer.from('lent'.repeat(100))
    pieces.put(lent, at)
    lent.fill(0)
    const rest = at.take()
    assert.equal(rest?.toString(), 'lent'.repeat(100))
    assert.equal(pieces.holds(Buffer.from(rest ?? ''), at), false)
  })

  it('take no memory any more when all that shared it were taken back', async () => {
    v8.setFlagsFromString('--expose-gc')
    const collectGarbage = vm.runInNewContext('gc') as () => void
    const pieces = new SharedPieces()
    const all = Array.from({ length: 100 }, () => new BytesAside())
    const putAll = (): void => {
      for (const at of all) pieces.put(Buffer.alloc(1_000), at)
    }
    const firstPiece = (): WeakRef<ArrayBufferLike> => {
      const memory = all.map((at) => at.take()?.buffer)[0]
      assert.ok(memory)
      return new WeakRef(memory)
    }
    putAll()
    const memory = firstPiece()
    putAll()
    await eventually('it is free', () => {
      collectGarbage()
      return memory.deref() === undefined
    })
  })
})
