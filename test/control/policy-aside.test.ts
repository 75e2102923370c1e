import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { LARGE_BYTES, loadBundleAside, readPartAside } from '../../src/control/policy-aside.ts'
import { type BundleEntries, combineBundles, unpackArchive } from '../../src/policy/bundle.ts'
import { PolicyHost } from '../../src/policy/host.ts'
import { buildInput } from '../../src/policy/input.ts'
import { NOW_MS, request } from '../policy/support.ts'

const SAMPLE = new URL('../../policies/bundle.tar.gz', import.meta.url)
const MEMORY_BYTES = 64 * 1024 * 1024

/** The sample policy with callers enough to be read aside. */
async function large(): Promise<BundleEntries> {
  const unpacked = await unpackArchive(await readFile(SAMPLE), 'sample')
  assert.equal(unpacked.kind, 'entries')
  const entries = new Map(unpacked.kind === 'entries' ? unpacked.entries : [])
  const data = JSON.parse(entries.get('data.json')?.toString() ?? '')
  for (let i = 0; i < 30_000; i++) data.authz.callers[`spiffe://example.org/caller/${i}`] = ['none']
  entries.set('data.json', Buffer.from(JSON.stringify(data)))
  return entries
}

const options = { entrypoint: undefined, fuel: undefined, memoryBytes: MEMORY_BYTES }

test('a large bundle is read in a thread of its own, and decides as any', async () => {
  const read = await readPartAside(await large(), 'bundle')
  assert.equal(read.kind, 'part')
  if (read.kind !== 'part') return
  assert.ok(read.part.dataJson.length > LARGE_BYTES)
  const combined = combineBundles([read.part])
  assert.equal(combined.kind, 'bundle')
  if (combined.kind !== 'bundle') return
  let turns = 0
  const counting = setInterval(() => turns++, 1)
  const source = { file: 'bundle', digest: 'd', bundle: combined.bundle }
  const loaded = await loadBundleAside(source, options)
  clearInterval(counting)
  assert.equal(loaded.kind, 'policy', JSON.stringify(loaded))
  assert.ok(turns > 0)
  if (loaded.kind !== 'policy') return
  assert.ok(loaded.material.data.bytes.byteLength > LARGE_BYTES)
  const outcome = new PolicyHost(loaded.material).evaluate(
    buildInput(request('/api/orders')),
    NOW_MS,
  )
  assert.equal(outcome.kind === 'result' && JSON.parse(outcome.text).allowed, true)
})

test('what is wrong with a large bundle is said as of any', async () => {
  const entries = new Map(await large())
  entries.set('more/data.json', Buffer.from('{'))
  const read = await readPartAside(entries, 'bundle')
  assert.equal(read.kind, 'problems')
  assert.match(read.kind === 'problems' ? (read.problems[0]?.what ?? '') : '', /is not JSON/)
  const whole = await readPartAside(await large(), 'bundle')
  const combined = combineBundles(whole.kind === 'part' ? [whole.part] : [])
  if (combined.kind !== 'bundle') return assert.fail('not combined')
  const source = { file: 'bundle', digest: 'd', bundle: combined.bundle }
  const loaded = await loadBundleAside(source, { ...options, memoryBytes: 4 * 1024 * 1024 })
  assert.equal(loaded.kind, 'problems')
  assert.match(loaded.kind === 'problems' ? (loaded.problems[0]?.what ?? '') : '', /memoryBytes/)
})
