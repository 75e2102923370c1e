// What clients may take of memory, where nobody says it: as much as the container has room for. A process
// that takes more is killed, with every request in it. An eighth is for requests in progress and bytes that
// wait, and the rest, but what the program itself takes, for connections.
import type { Limits } from './config.ts'

type MemoryBounds = Pick<
  Limits,
  'connections' | 'connectionsPerAddress' | 'connectionsPerPeer' | 'heldBytes'
>

const MIB = 1024 * 1024
/**
 * Without a client 96 MiB, the sample policy included; under load some 64 MiB more, which nobody has collected
 * yet (measured 2026-11). A data thread beside the first takes some as well.
 */
const BASE_BYTES = 160 * MIB
const WORKER_BYTES = 16 * MIB
const CONNECTION_BYTES = 64 * 1024
const MOST_CONNECTIONS = 10_000
const LEAST_CONNECTIONS = 256
const MOST_HELD_BYTES = 256 * MIB
const LEAST_HELD_BYTES = 8 * MIB

/** @param memoryBytes that the process may have; each of its data threads keeps the bounds */
export function memoryBounds(
  wanted: { readonly [Name in keyof MemoryBounds]: number | 'auto' },
  memoryBytes: number,
  workers: number,
): MemoryBounds {
  const heldBytes = memoryBytes / 8
  const left = memoryBytes - heldBytes - BASE_BYTES - (workers - 1) * WORKER_BYTES
  const room = between(LEAST_CONNECTIONS, left / workers / CONNECTION_BYTES, MOST_CONNECTIONS)
  const connections = wanted.connections === 'auto' ? room : wanted.connections
  const or = (value: number | 'auto', otherwise: number): number =>
    value === 'auto' ? otherwise : value
  const half = Math.ceil(connections / 2)
  return {
    connections,
    connectionsPerAddress: or(wanted.connectionsPerAddress, half),
    connectionsPerPeer: or(wanted.connectionsPerPeer, half),
    heldBytes: or(
      wanted.heldBytes,
      between(LEAST_HELD_BYTES, heldBytes / workers, MOST_HELD_BYTES),
    ),
  }
}

const between = (least: number, value: number, most: number): number =>
  Math.floor(Math.min(most, Math.max(least, value)))
