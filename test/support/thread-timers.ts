// How many timers the data threads of a sidecar hold, also those that keep nothing alive: connections have
// theirs there, and the metrics of Node.js tell of the control thread only. The sidecar's process loads this
// file before anything else, in every thread.
import { createHook } from 'node:async_hooks'
import { renameSync, writeFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { threadName } from 'node:worker_threads'
import { eventually } from './eventually.ts'

const DIRECTORY = 'POSTERN_TEST_TIMERS'
const LOOK_MS = 20

export interface ThreadTimers {
  /** For `startSidecar`. */
  readonly env: Record<string, string>
  /** As of now, of all data threads. */
  count(): Promise<number>
}

export function threadTimers(directory: string): ThreadTimers {
  const looks = async (): Promise<readonly Look[]> => {
    const files = (await readdir(directory)).filter((name) => name.startsWith('data-'))
    return Promise.all(
      files.map(async (name) => JSON.parse(await readFile(join(directory, name), 'utf8')) as Look),
    )
  }
  return {
    env: { NODE_OPTIONS: `--import=${import.meta.url}`, [DIRECTORY]: directory },
    count: async () => {
      const before = await looks()
      // The second one from now began after now.
      const now = await eventually('every data thread has counted', async () => {
        const after = await looks()
        const fresh = after.every(({ number }, at) => number >= (before[at]?.number ?? 0) + 2)
        return after.length > 0 && fresh ? after : undefined
      })
      return now.reduce((sum, { timers }) => sum + timers, 0)
    },
  }
}

interface Look {
  readonly number: number
  readonly timers: number
}

const directory = process.env[DIRECTORY]
if (directory !== undefined && threadName?.startsWith('data-')) {
  const live = new Set<number>()
  createHook({
    init: (id, type) => {
      if (type === 'Timeout') live.add(id)
    },
    destroy: (id) => void live.delete(id),
  }).enable()
  const file = join(directory, threadName)
  let number = 0
  setInterval(() => {
    const look: Look = { number: ++number, timers: live.size }
    writeFileSync(join(directory, `.${threadName}`), JSON.stringify(look))
    renameSync(join(directory, `.${threadName}`), file)
  }, LOOK_MS).unref()
}
