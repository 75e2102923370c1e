import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { LineWriter } from '../../src/observe/line-writer.ts'

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-lines-'))
after(() => fs.rmSync(directory, { recursive: true }))

function fileWriter(name: string, maxPending?: number): { writer: LineWriter; file: string } {
  const file = path.join(directory, name)
  const writer = LineWriter.file(file, 'log.decisionFile', maxPending)
  assert.ok(writer instanceof LineWriter)
  return { writer, file }
}

test('appends whole lines in order, many at a time', async () => {
  const { writer, file } = fileWriter('order.log')
  fs.writeFileSync(file, 'before\n')
  const lines = Array.from({ length: 5000 }, (_, i) => `line ${i} ü`)
  for (const line of lines) assert.equal(writer.write(line), true)
  assert.equal(await writer.flush(10_000), true)
  writer.close()
  assert.equal(fs.readFileSync(file, 'utf8'), `before\n${lines.join('\n')}\n`)
})

test('a reader that never reads costs bounded memory; what does not fit is refused', async () => {
  const fifo = path.join(directory, 'blocked')
  execFileSync('mkfifo', [fifo])
  const reader = fs.openSync(fifo, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  const writer = LineWriter.file(fifo, 'log.decisionFile', 200_000)
  assert.ok(writer instanceof LineWriter)
  const line = 'x'.repeat(999)
  let refused = 0
  for (let turn = 0; turn < 20; turn++) {
    for (let i = 0; i < 100; i++) if (!writer.write(line)) refused++
    await new Promise((resolve) => setImmediate(resolve))
    assert.ok(writer.pending <= 200_000)
  }
  assert.ok(refused > 1500, `${refused} refused`)
  assert.equal(writer.write(line, 10_000), true, 'the reserve is still there')
  assert.equal(await writer.flush(30), false)

  // The reader comes back: everything accepted arrives, complete, and writing works again.
  const accepted = 2000 - refused + 1
  let text = ''
  const buffer = Buffer.alloc(65_536)
  while (writer.pending > 0 || text.length < accepted * 1000) {
    try {
      text += buffer.toString('latin1', 0, fs.readSync(reader, buffer))
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN')
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.equal(text, `${line}\n`.repeat(accepted))
  assert.equal(writer.write('again'), true)
  assert.equal(writer.lost, 0)
  writer.close()
  fs.closeSync(reader)
})

for (const kind of ['pipe', 'socket'] as const) {
  test(`a process whose standard output is a ${kind} that nobody reads can still exit`, async () => {
    const module = new URL('../../src/observe/line-writer.ts', import.meta.url).href
    const script = `
      const { LineWriter } = await import(${JSON.stringify(module)})
      const out = LineWriter.standardOutput()
      for (let i = 0; i < 5000; i++) out.write('x'.repeat(200))
      process.stderr.write('flushed ' + await out.flush(50) + '\\n')
      process.exit(7)`
    const fifo = path.join(directory, 'stdout')
    if (kind === 'pipe') execFileSync('mkfifo', [fifo])
    // Node gives its children sockets as "pipe"; ours stays paused and fills up.
    const out = kind === 'pipe' ? fs.openSync(fifo, fs.constants.O_RDWR) : 'pipe'
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', out, 'pipe'],
    })
    let errors = ''
    child.stderr!.on('data', (chunk) => (errors += chunk))
    const code = await new Promise((resolve) => child.once('exit', resolve))
    child.stdout?.destroy()
    assert.equal(code, 7)
    assert.equal(errors, 'flushed false\n')
    if (typeof out === 'number') fs.closeSync(out)
  })
}

test('standard output that is a file is appended to without losing what others wrote', () => {
  const file = path.join(directory, 'stdout.log')
  const out = fs.openSync(file, 'w')
  const module = new URL('../../src/observe/line-writer.ts', import.meta.url).href
  const script = `
    const { LineWriter } = await import(${JSON.stringify(module)})
    const { writeSync } = await import('node:fs')
    writeSync(1, 'first\\n')
    const out = LineWriter.standardOutput()
    out.write('second')
    await out.flush(5000)
    out.write('third')
    out.flushSync()`
  execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', out, 'inherit'],
  })
  fs.closeSync(out)
  assert.equal(fs.readFileSync(file, 'utf8'), 'first\nsecond\nthird\n')
})

test('lines that meet a write error are counted as lost and later ones still go out', async () => {
  const writer = LineWriter.file('/dev/full', 'log.decisionFile')
  assert.ok(writer instanceof LineWriter)
  writer.write('one')
  writer.write('two')
  assert.equal(await writer.flush(10_000), true)
  assert.equal(writer.lost, 2)
  writer.close()
  assert.equal(writer.write('late'), false)
})

test('reopens a rotated file and keeps the old one when that fails', async () => {
  const { writer, file } = fileWriter('rotated.log')
  writer.write('one')
  await writer.flush(10_000)
  fs.renameSync(file, `${file}.1`)
  assert.equal(writer.reopen('log.decisionFile'), undefined)
  writer.write('two')
  await writer.flush(10_000)
  assert.equal(fs.readFileSync(`${file}.1`, 'utf8'), 'one\n')
  assert.equal(fs.readFileSync(file, 'utf8'), 'two\n')

  fs.renameSync(file, `${file}.2`)
  fs.mkdirSync(file)
  assert.match(writer.reopen('log.decisionFile')?.what ?? '', /it is a directory/)
  writer.write('three')
  await writer.flush(10_000)
  assert.equal(fs.readFileSync(`${file}.2`, 'utf8'), 'two\nthree\n')
  writer.close()
})

for (const [name, target, what] of [
  ['a directory', directory, /it is a directory/],
  ['a missing directory', path.join(directory, 'no/such.log'), /directory does not exist/],
] as const) {
  test(`${name} as decision log is a problem that names key and file`, () => {
    const problem = LineWriter.file(target, 'log.decisionFile')
    assert.ok(!(problem instanceof LineWriter))
    assert.equal(problem.where, 'log.decisionFile')
    assert.match(problem.what, what)
    assert.ok(problem.what.includes(target))
  })
}

test('a line holds no character that a terminal would obey, and is still the same JSON', async () => {
  const { writer, file } = fileWriter('terminal.log')
  const hostile = 'a\u007f\u009b2J\u202e\u2028\u2066b'
  writer.write(JSON.stringify({ hostile }))
  assert.equal(await writer.flush(10_000), true)
  writer.close()
  const line = fs.readFileSync(file, 'utf8')
  assert.match(line, /^[ -~]+\n$/)
  assert.deepEqual(JSON.parse(line), { hostile })
})
