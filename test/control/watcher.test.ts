import assert from 'node:assert/strict'
import { appendFile, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Watcher, type WatcherOptions } from '../../src/control/watcher.ts'
import { AtomicWriter } from '../support/atomic-writer.ts'
import { temporaryDirectory, writeFiles } from '../support/pki.ts'

type Options = Partial<Pick<WatcherOptions, 'settleMs' | 'pollMs' | 'watchDirectory'>>

const POLLING = 60 * 60 * 1000

async function watching(t: TestContext, paths: readonly string[], options: Options = {}) {
  const seen = { changes: 0, sinceMs: 0, degraded: [] as string[] }
  const watcher = new Watcher({
    paths,
    clock: Date.now,
    events: {
      changed: (sinceMs) => {
        seen.sinceMs = sinceMs
        seen.changes++
      },
      degraded: (message) => seen.degraded.push(message),
    },
    settleMs: 10,
    ...options,
  })
  t.after(() => watcher.stop())
  await watcher.start()
  return seen
}

async function noticed(seen: { changes: number }, change: () => Promise<unknown>): Promise<void> {
  const before = seen.changes
  await change()
  while (seen.changes === before) await delay(5)
}

/** Each way in which files are replaced, once by directory watches alone and once by looking alone. */
const MEANS: readonly [string, Options][] = [
  ['a directory watch', { pollMs: POLLING }],
  [
    'looking alone',
    {
      pollMs: 20,
      watchDirectory: () => {
        throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' })
      },
    },
  ],
]

for (const [means, options] of MEANS) {
  test(`notices every swap of a volume by ${means}`, async (t) => {
    const volume = new AtomicWriter(await temporaryDirectory(t))
    await volume.write({ 'tls.crt': '0', 'tls.key': '0' })
    const seen = await watching(t, [volume.path('tls.crt'), volume.path('tls.key')], options)
    for (const n of ['1', '2', '3', '4', '5']) {
      await noticed(seen, () => volume.write({ 'tls.crt': n, 'tls.key': n }))
    }
  })

  test(`notices a file that is renamed over by ${means}`, async (t) => {
    const directory = await temporaryDirectory(t)
    const { file } = await writeFiles(directory, { file: 'old' })
    const seen = await watching(t, [file], options)
    await writeFile(`${file}.new`, 'new')
    await noticed(seen, () => rename(`${file}.new`, file))
  })

  test(`notices a file that is rewritten in place by ${means}`, async (t) => {
    const { file } = await writeFiles(await temporaryDirectory(t), { file: 'old' })
    const seen = await watching(t, [file], options)
    await noticed(seen, () => writeFile(file, 'new'))
    await noticed(seen, () => appendFile(file, 'er'))
  })

  test(`notices a bundle directory whose content changes by ${means}`, async (t) => {
    const directory = await temporaryDirectory(t)
    await writeFiles(directory, { 'policy.wasm': 'old' })
    const seen = await watching(t, [directory], options)
    await noticed(seen, () => writeFile(join(directory, 'data.json'), '{}'))
  })
}

test('notices a directory that is removed and put back, and what changes in it then', async (t) => {
  const directory = join(await temporaryDirectory(t), 'mount')
  await mkdir(directory)
  const { file } = await writeFiles(directory, { file: 'old' })
  const seen = await watching(t, [file], { pollMs: 50 })
  await noticed(seen, () => rm(directory, { recursive: true }))
  await noticed(seen, async () => {
    await mkdir(directory)
    await writeFile(file, 'new')
  })
  await noticed(seen, () => writeFile(file, 'newer'))
})

test('says once that it can only look', async (t) => {
  const directory = await temporaryDirectory(t)
  const { a, b } = await writeFiles(directory, { a: '', b: '' })
  const [, options] = MEANS[1] as (typeof MEANS)[number]
  const seen = await watching(t, [a, b, directory], options)
  await noticed(seen, () => writeFile(a, 'new'))
  await noticed(seen, () => writeFile(a, 'newer'))
  assert.equal(seen.degraded.length, 1)
  assert.match(seen.degraded[0] ?? '', /cannot be watched \(ENOSPC.*compared every 20 ms/)
})

test('tells what is written together as one change, and nothing of other files', async (t) => {
  const directory = await temporaryDirectory(t)
  const { a, b } = await writeFiles(directory, { a: '', b: '' })
  const seen = await watching(t, [a, b], { settleMs: 300, pollMs: POLLING })
  await writeFile(join(directory, 'other'), 'x')
  await noticed(seen, async () => {
    await writeFile(a, 'new')
    await writeFile(b, 'new')
  })
  await writeFile(join(directory, 'other'), 'y')
  await noticed(seen, () => writeFile(a, 'newer'))
  assert.equal(seen.changes, 2)
})

for (const [means, options] of MEANS) {
  test(`says since when a file may have been what it is now: ${means}`, async (t) => {
    const directory = await temporaryDirectory(t)
    const path = join(directory, 'one')
    await writeFile(path, 'a')
    const seen = await watching(t, [path], options)
    const beforeMs = Date.now()
    await noticed(seen, () => writeFile(path, 'b'))
    // Never later than it was; and not earlier than the last look, which was at most one poll before.
    const earliestMs = options.pollMs === POLLING ? beforeMs : beforeMs - 1_000
    assert.ok(seen.sinceMs >= earliestMs && seen.sinceMs <= Date.now(), String(seen.sinceMs))
  })
}
