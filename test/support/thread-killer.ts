// Ends one data thread of a sidecar, in the way that a test wants: as a fault would that nobody thought
// of. The sidecar's process loads this file before anything else, in every thread.
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { threadName } from 'node:worker_threads'

const DIRECTORY = 'POSTERN_TEST_KILLS'

/** `memory`: its heap is full; `hang`: it lives and does nothing any more. */
export type Death = 'exit' | 'throw' | 'memory' | 'hang'

export interface ThreadKiller {
  /** For `startSidecar`. */
  readonly env: Record<string, string>
  kill(thread: string, how: Death): Promise<void>
}

export function threadKiller(directory: string): ThreadKiller {
  return {
    env: { NODE_OPTIONS: `--import=${import.meta.url}`, [DIRECTORY]: directory },
    kill: async (thread, how) => {
      const order = join(directory, thread)
      await writeFile(`${order}.new`, how)
      await rename(`${order}.new`, order)
    },
  }
}

const directory = process.env[DIRECTORY]
if (directory !== undefined && threadName?.startsWith('data-')) {
  const order = join(directory, threadName)
  setInterval(() => {
    if (!existsSync(order)) return
    const how = readFileSync(order, 'utf8')
    rmSync(order)
    if (how === 'throw') throw new Error('told to throw')
    const hoard: unknown[] = []
    while (how === 'memory') hoard.push(new Array(4_000_000).fill(1.5))
    while (how === 'hang') {}
    process.exit(7)
  }, 20).unref()
}
