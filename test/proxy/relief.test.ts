import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Holder as Held, relieve } from '../../src/proxy/relief.ts'

const closed: string[] = []

type Holder = Held & { readonly heldBytes: number }

const heldBytesOf = (holder: Holder): number => holder.heldBytes

function holder(principal: string, heldBytes: number): Holder {
  return {
    peer: { principal },
    heldBytes,
    drop: () => void closed.push(`${principal} ${heldBytes}`),
  }
}

function relieved(holders: readonly Holder[], limitBytes: number) {
  closed.length = 0
  const heldBytes = holders.reduce((sum, one) => sum + one.heldBytes, 0)
  return relieve(holders, heldBytesOf, heldBytes, limitBytes)
}

describe('the relief of a data thread', () => {
  it('is nothing up to the limit', () => {
    assert.equal(relieved([holder('a', 60), holder('b', 40)], 100), undefined)
    assert.deepEqual(closed, [])
  })

  it('closes the largest connection of the principal that holds most, until a quarter is free', () => {
    const small = Array.from({ length: 7 }, () => holder('many', 10))
    const relief = relieved([holder('one', 50), ...small, holder('many', 15)], 100)
    assert.deepEqual(closed, ['many 15', 'many 10', 'many 10', 'one 50'])
    assert.deepEqual(relief, { closed: 4, principal: 'many' })
  })

  it('leaves alone who holds little, however much another one holds', () => {
    const relief = relieved([holder('little', 1), holder('much', 1_000), holder('little', 2)], 100)
    assert.deepEqual(closed, ['much 1000'])
    assert.deepEqual(relief, { closed: 1, principal: 'much' })
  })

  it('ends where nobody is left', () => {
    assert.deepEqual(relieve([], heldBytesOf, 200, 100), undefined)
    relieved([holder('a', 0), holder('b', 0)], -1)
    assert.ok(closed.length <= 2)
  })
})
