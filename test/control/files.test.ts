import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmod, mkdir, open, rename, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type FileContent, readFiles, readTree } from '../../src/control/files.ts'
import { AtomicWriter } from '../support/atomic-writer.ts'
import { temporaryDirectory, writeFiles } from '../support/pki.ts'

const LIMITS = { fileBytes: 1024, totalBytes: 2048, fileCount: 10 }
const named = (...paths: string[]) =>
  paths.map((path) => ({ path, where: 'some.key', maxBytes: 1024 }))
const text = (content: FileContent | undefined) =>
  content?.kind === 'bytes' ? String(content.bytes) : content?.problem.what

async function problemOf(path: string): Promise<string> {
  const [content] = await readFiles(named(path))
  assert.ok(content?.kind === 'problem', 'a problem was expected')
  assert.equal(content.problem.where, 'some.key')
  assert.ok(content.problem.remedy.length > 0)
  return content.problem.what.replace(path, 'FILE')
}

/**
 * Runs `change` over and over while `read` is called `times` times; gives what was read. That a
 * machine under load never got between two changes is an honest answer and left out.
 */
async function tortured<T>(
  change: (n: number) => Promise<void>,
  read: () => Promise<T>,
  times: number,
) {
  let going = true
  let changes = 0
  const writer = (async () => {
    while (going) {
      await change(++changes)
      await delay(1)
    }
  })()
  const seen: T[] = []
  for (let n = 0; n < times; n++) {
    const content = await read()
    if (!JSON.stringify(content).includes('again and again')) seen.push(content)
    await delay(0)
  }
  going = false
  await writer
  assert.ok(seen.length > 0, 'nothing was ever read')
  return { seen, changes }
}

test('never reads files of two generations while a volume is swapped', async (t) => {
  const volume = new AtomicWriter(await temporaryDirectory(t))
  const write = (n: number) =>
    volume.write({ 'tls.crt': `${n}`, 'tls.key': `${n}`, 'deeper/ca.crt': `${n}` })
  await write(0)
  const paths = named(...['tls.crt', 'tls.key', 'deeper/ca.crt'].map((name) => volume.path(name)))
  const { seen, changes } = await tortured(write, () => readFiles(paths), 120)
  assert.ok(changes > 10, `only ${changes} swaps happened`)
  for (const contents of seen) {
    const [certificate, ...rest] = contents.map(text)
    assert.match(certificate ?? '', /^\d+$/)
    assert.deepEqual(rest, [certificate, certificate])
  }
  assert.ok(new Set(seen.map(([one]) => text(one))).size > 1, 'no swap was ever seen')
})

test('never reads the half of a file that is renamed over', async (t) => {
  const directory = await temporaryDirectory(t)
  const path = join(directory, 'ca.crt')
  const write = async (n: number) => {
    await writeFile(`${path}.new`, `${n % 10}`.repeat(n % 900 || 1))
    await rename(`${path}.new`, path)
  }
  await write(1)
  const { seen } = await tortured(write, () => readFiles(named(path)), 100)
  for (const [content] of seen) assert.match(text(content) ?? '', /^(\d)\1*$/)
})

test('reads again when a file is rewritten in place while it is read', async (t) => {
  const { a, b } = await writeFiles(await temporaryDirectory(t), { a: '0'.repeat(600), b: '0' })
  const handle = await open(a, 'r+')
  t.after(() => handle.close())
  const write = async (n: number) => {
    for (let at = 0; at < 600; at += 200) await handle.write(`${n % 10}`.repeat(200), at)
    await delay(20)
  }
  const { seen } = await tortured(write, () => readFiles(named(a, b)), 60)
  for (const [content] of seen) assert.match(text(content) ?? '', /^(\d)\1*$/)
})

test('says what is wrong with a file that cannot be used', async (t) => {
  const directory = await temporaryDirectory(t)
  const { big, empty, loop } = await writeFiles(directory, {
    big: 'x'.repeat(1025),
    empty: '',
    loop: '',
  })
  await symlink('circle', join(directory, 'circle'))
  execFileSync('mkfifo', [join(directory, 'pipe')])
  assert.match(await problemOf(join(directory, 'absent')), /FILE does not exist/)
  assert.match(await problemOf(directory), /FILE is a directory/)
  assert.match(await problemOf(big), /FILE is too large: 1025 bytes, and at most 1024/)
  assert.match(await problemOf(empty), /FILE is empty/)
  assert.match(await problemOf(join(loop, 'below')), /goes through something that is no directory/)
  assert.match(await problemOf(join(directory, 'circle')), /loop of symbolic links/)
  assert.match(await problemOf(join(directory, 'pipe')), /no regular file/)
})

test('says that a file may not be read', { skip: process.getuid?.() === 0 }, async (t) => {
  const { secret } = await writeFiles(await temporaryDirectory(t), { secret: 'x' })
  await chmod(secret, 0o000)
  assert.match(await problemOf(secret), /may not be read by user \d+/)
})

test('gives the other files when one is missing', async (t) => {
  const directory = await temporaryDirectory(t)
  const { a } = await writeFiles(directory, { a: 'here' })
  const contents = await readFiles(named(join(directory, 'absent'), a))
  assert.equal(text(contents[1]), 'here')
})

test('reads a bundle directory with everything below it', async (t) => {
  const directory = await temporaryDirectory(t)
  await mkdir(join(directory, 'roles'))
  await writeFiles(directory, { '.manifest': 'm', 'policy.wasm': 'w', 'roles/data.json': '' })
  const tree = await readTree(directory, 'policy.bundle', LIMITS)
  assert.deepEqual(
    tree.kind === 'entries' && [...tree.entries].map(([name, b]) => [name, `${b}`]),
    [
      ['.manifest', 'm'],
      ['policy.wasm', 'w'],
      ['roles/data.json', ''],
    ],
  )
})

test('never reads a bundle directory of two generations', async (t) => {
  const volume = new AtomicWriter(await temporaryDirectory(t))
  const write = (n: number) => volume.write({ 'policy.wasm': `${n}`, 'data.json': `${n}` })
  await write(0)
  const { seen } = await tortured(
    write,
    () => readTree(volume.directory, 'policy.bundle', LIMITS),
    80,
  )
  for (const tree of seen) {
    assert.equal(tree.kind, 'entries')
    const [data, wasm] = tree.kind === 'entries' ? [...tree.entries.values()].map(String) : []
    assert.match(data ?? '', /^\d+$/)
    assert.equal(wasm, data)
  }
})

test('refuses a bundle directory that leads out of itself or is too much', async (t) => {
  const outside = await temporaryDirectory(t)
  await writeFiles(outside, { secret: 'x' })
  const links = await temporaryDirectory(t)
  await symlink(join(outside, 'secret'), join(links, 'data.json'))
  const many = await temporaryDirectory(t)
  for (let n = 0; n < 11; n++) await writeFiles(many, { [`${n}.json`]: '{}' })
  const large = await temporaryDirectory(t)
  for (const name of 'abc') await writeFiles(large, { [name]: 'x'.repeat(1000) })
  const round = await temporaryDirectory(t)
  await mkdir(join(round, 'a'))
  await symlink('../a', join(round, 'a', 'a'))
  for (const [directory, what] of [
    [links, /symbolic link that leads out of it \(data.json\)/],
    [many, /more than 10 files/],
    [large, /too large: 3000 bytes/],
    [round, /more than/],
  ] as const) {
    const tree = await readTree(directory, 'policy.bundle', LIMITS)
    assert.match(tree.kind === 'problem' ? tree.problem.what : '', what)
  }
})
