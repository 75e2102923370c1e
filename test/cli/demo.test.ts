import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { MAIN, postern } from '../support/command.ts'
import { temporaryDirectory } from '../support/pki.ts'

const run = promisify(execFile)

/** Node would keep its compile cache there too. */
const temporaryIn = (directory: string) => ({ TMPDIR: directory, NODE_DISABLE_COMPILE_CACHE: '1' })

test('shows one call allowed and one denied, and leaves nothing behind', async (t) => {
  const directory = await temporaryDirectory(t)
  const { exitCode, stdout, stderr } = await postern(['demo', '--once'], {
    env: temporaryIn(directory),
  })
  assert.deepEqual([exitCode, stderr], [0, ''])
  assert.match(stdout, /^GET \/api\/orders {2}-> {2}200 OK, answered by the workload:$/m)
  assert.match(stdout, /"x-forwarded-client-cert": "By=spiffe:.*URI=spiffe:.*\/sa\/web"/)
  assert.match(stdout, /^POST \/api\/orders {2}-> {2}403 Forbidden, the workload saw nothing:$/m)
  assert.deepEqual(await readdir(directory), [])
})

test('serves the curl lines that it prints, until it is interrupted', async (t) => {
  if (!(await hasCurl())) return t.skip('curl is not installed')
  const directory = await temporaryDirectory(t)
  const demo = await startDemo(t, directory)
  const lines = [...demo.output().matchAll(/^ {2}curl (--cert .*)$/gm)].map(([, args = '']) => args)
  assert.equal(lines.length, 2)
  const statuses = lines.map(async (line) => {
    const { stdout } = await run('curl', ['-sS', '-w', '\n%{http_code}', ...line.split(' ')])
    return stdout.split('\n').at(-1)
  })
  assert.deepEqual(await Promise.all(statuses), ['200', '403'])

  demo.interrupt()
  assert.equal(await demo.exited, 0)
  assert.deepEqual(await readdir(directory), [])
})

test('says where it cannot work', async (t) => {
  const missing = join(await temporaryDirectory(t), 'missing')
  const { exitCode, stderr } = await postern(['demo', '--once'], { env: temporaryIn(missing) })
  assert.equal(exitCode, 1)
  assert.match(stderr, /missing: cannot be written: there is no such file or directory/)
})

async function hasCurl(): Promise<boolean> {
  return run('curl', ['--version']).then(
    () => true,
    () => false,
  )
}

async function startDemo(t: TestContext, directory: string) {
  const child = spawn(process.execPath, [MAIN, 'demo'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...temporaryIn(directory) },
  })
  const exited = once(child, 'close').then(([code]) => code as number | null)
  // Not SIGKILL: the demo has a process of its own to end.
  t.after(async () => {
    child.kill('SIGTERM')
    await exited
  })
  let output = ''
  child.stderr.on('data', (text) => (output += text))
  const serving = new Promise<void>((resolve) => {
    child.stdout.on('data', (text) => {
      output += text
      if (output.includes('Serving until Ctrl-C.')) resolve()
    })
  })
  const ended = exited.then((code) => {
    throw new Error(`the demo ended with ${code}: ${output}`)
  })
  ended.catch(() => {})
  await Promise.race([serving, ended])
  return { output: () => output, exited, interrupt: () => void child.kill('SIGINT') }
}
