// What clients may take of memory where the configuration does not say: as much as the container has.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryBounds } from '../../src/config/memory-bounds.ts'

const MIB = 1024 * 1024
const AUTO = {
  connections: 'auto',
  connectionsPerAddress: 'auto',
  connectionsPerPeer: 'auto',
  heldBytes: 'auto',
} as const

test('where there is room, limits are for a busy sidecar', () => {
  assert.deepEqual(memoryBounds(AUTO, 16_384 * MIB, 1), {
    connections: 10_000,
    connectionsPerAddress: 5_000,
    connectionsPerPeer: 5_000,
    heldBytes: 256 * MIB,
  })
})

test('in a small container they fit into it, with the program itself', () => {
  for (const mib of [256, 384, 512, 768, 1_024]) {
    for (const workers of [1, 2]) {
      const { connections, heldBytes } = memoryBounds(AUTO, mib * MIB, workers)
      const taken = 160 * MIB + workers * (connections * 64 * 1024 + heldBytes)
      assert.ok(taken <= mib * MIB, `${mib} MiB, ${workers} workers: ${taken / MIB} MiB`)
      assert.ok(connections >= 256, `${connections}`)
    }
  }
})

test('in the smallest container there are some all the same', () => {
  assert.deepEqual(memoryBounds(AUTO, 16 * MIB, 1), {
    connections: 256,
    connectionsPerAddress: 128,
    connectionsPerPeer: 128,
    heldBytes: 8 * MIB,
  })
})

test('what is configured holds, and the shares are halves of it', () => {
  const wanted = { ...AUTO, connections: 5, heldBytes: 3 * MIB }
  assert.deepEqual(memoryBounds(wanted, 256 * MIB, 1), {
    connections: 5,
    connectionsPerAddress: 3,
    connectionsPerPeer: 3,
    heldBytes: 3 * MIB,
  })
})
