// What a start of a data thread would load and compile while everybody waits for it: done before,
// while the thread waits for its first snapshot. Nothing depends on it.
import net from 'node:net'
import { readLoop } from './overload.ts'

/** A third of what the thread takes from its first snapshot to listening (2026-11, Node 26.10). */
export function warmUp(): void {
  // Of the first server that listens: its address is looked up, tested and handed to node:cluster.
  process.getBuiltinModule('node:dns')
  process.getBuiltinModule('node:cluster')
  // The pattern is compiled by its first use, and once more, to machine code, by its second.
  for (let use = 0; use < 2; use++) net.isIP('::1')
  readLoop()
}
