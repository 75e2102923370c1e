// dist/ is another arrangement of the same program: what is found by its path has to be there, each
// thread has to load what is its own, and the whole has to run from wherever it is installed.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { cp, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { COMMANDS } from '../src/cli/commands.ts'
import { build } from '../tools/build.ts'
import { postern } from './support/command.ts'

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url))

describe('the built program', () => {
  let installed: string
  let dist: string
  let main: string

  before(async () => {
    installed = await mkdtemp(join(tmpdir(), 'postern-build-'))
    dist = join(installed, 'dist')
    main = join(dist, 'main.js')
    await build(dist)
    await cp(join(REPOSITORY, 'package.json'), join(installed, 'package.json'))
    await cp(join(REPOSITORY, 'policies'), join(installed, 'policies'), { recursive: true })
    await symlink(join(REPOSITORY, 'node_modules'), join(installed, 'node_modules'))
  })
  after(() => rm(installed, { recursive: true, force: true }))

  it('does the main job', async () => {
    const { exitCode, stdout, stderr } = await postern(['demo', '--once'], { main })
    assert.equal(exitCode, 0, stderr)
    assert.match(stdout, /200 OK/)
    assert.match(stdout, /403 Forbidden/)
  })

  it('has every command', async () => {
    for (const { name } of COMMANDS) {
      const { exitCode, stdout, stderr } = await postern([name, '--help'], { main })
      assert.equal(exitCode, 0, stderr)
      assert.match(stdout, new RegExp(`^Usage: postern ${name}`))
    }
  })

  it('knows the version of its package', async () => {
    const { version } = JSON.parse(await readFile(join(REPOSITORY, 'package.json'), 'utf8'))
    assert.equal((await postern(['--version'], { main })).stdout, `${version}\n`)
  })

  it('has the module of every builtin, with all that it exports', async () => {
    const directory = 'policy/builtins'
    const source = join(REPOSITORY, 'src', directory)
    for (const file of await readdir(source)) {
      const built = join(dist, directory, file.replace(/\.ts$/, '.js'))
      assert.deepEqual(
        Object.keys(await import(pathToFileURL(built).href)),
        Object.keys(await import(pathToFileURL(join(source, file)).href)),
        file,
      )
    }
  })

  it('reads large bundles in a thread of their own, which runs no command', async () => {
    const worker = new Worker(pathToFileURL(join(dist, 'control/policy-thread.js')))
    try {
      const entries = new Map([['data.json', Buffer.from('{"a":')]])
      worker.postMessage({ kind: 'part', entries, file: 'broken.tar.gz' })
      const [answer] = await once(worker, 'message')
      assert.equal(answer.kind, 'problems')
      assert.equal(answer.problems[0].where, 'broken.tar.gz')
    } finally {
      await worker.terminate()
    }
  })

  it('lets a data thread load little, and nothing of the control thread', async () => {
    const files = await evaluated(join(dist, 'proxy/data-thread.js'))
    assert.ok(!files.has(join(dist, 'control.js')), [...files].join('\n'))
    assert.ok(files.size <= 4, [...files].join('\n'))
  })

  it('lets the control thread load little, and nothing of a data thread', async () => {
    const files = await evaluated(main)
    assert.ok(files.has(join(dist, 'control.js')))
    assert.ok(!files.has(join(dist, 'data.js')), [...files].join('\n'))
    assert.ok(files.size <= 4, [...files].join('\n'))
  })

  it('takes of the modules of Node.js only the names that it uses', async () => {
    for (const file of [...(await evaluated(main)), join(dist, 'proxy/data-thread.js')]) {
      const imported = (await readFile(file, 'utf8')).matchAll(/^import\b.*? from "(node:.*?)";$/gm)
      const others = [...imported].map(([, name]) => name).filter((name) => name !== 'node:module')
      assert.deepEqual(others, [], file)
    }
  })

  it('is text of one byte for a character', async () => {
    for (const file of await readdir(dist, { recursive: true })) {
      if (!file.endsWith('.js')) continue
      assert.ok(!/[^\0-\x7f]/.test(await readFile(join(dist, file), 'utf8')), file)
    }
  })

  it('brings the licences of the packages that are in it', async () => {
    const licences = await readFile(join(dist, 'LICENSES.txt'), 'utf8')
    for (const name of ['commander', 'pino', 'prom-client', 'yaml'])
      assert.match(licences, new RegExp(`^${name} \\d+\\.\\d+\\.\\d+\n\n`, 'm'))
  })
})

/** The files of dist/ that are loaded with this one. */
async function evaluated(file: string): Promise<ReadonlySet<string>> {
  const found = new Set([file])
  for (const one of found) {
    const code = await readFile(one, 'utf8')
    for (const [, path = ''] of code.matchAll(/^(?:import|export)\b[^;]*?"(\.[^"]+)";$/gm))
      found.add(join(dirname(one), path))
  }
  return found
}
