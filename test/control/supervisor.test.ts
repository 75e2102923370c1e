import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Supervisor, type SupervisorEvents } from '../../src/control/supervisor.ts'
import { cellOf } from '../../src/metrics.ts'
import type { Snapshot } from '../../src/threads.ts'
import { temporaryDirectory } from '../support/pki.ts'

const dataThreadUrl = new URL('./fake-data-thread.ts', import.meta.url)
const CONNECTIONS = cellOf('connections_total', {})
const OPEN = cellOf('connections_open', {})

function snapshot(generation: number, orders = '', port = 0): Snapshot {
  return {
    generation,
    identity: { facts: { subject: orders } },
    settings: { inbound: { listen: { kind: 'tcp', host: '127.0.0.1', port } } },
  } as unknown as Snapshot
}

/** @param code where the program of the threads is, which may change */
function supervised(
  t: TestContext,
  threads: number,
  stallMs = 60_000,
  code: { url: URL } = { url: dataThreadUrl },
) {
  const seen = {
    restarts: [] as { thread: number; reason: string; detail: string }[],
    records: 0,
    fatal: [] as string[],
  }
  const events: SupervisorEvents = {
    records: (records) => void (seen.records += records.length),
    applied: () => {},
    restarting: (thread, reason, detail) => void seen.restarts.push({ thread, reason, detail }),
    fatal: (message) => void seen.fatal.push(message),
  }
  const supervisor = new Supervisor({
    get dataThreadUrl() {
      return code.url
    },
    threads,
    stallMs,
    events,
    monotonicMs: () => performance.now(),
  })
  t.after(() => supervisor.stop())
  return { supervisor, seen }
}

async function started(supervisor: Supervisor, first = snapshot(1)): Promise<number> {
  const outcome = await supervisor.start(first)
  assert.equal(outcome.kind, 'ready')
  return outcome.kind === 'ready' ? outcome.port : 0
}

/** What the thread answers to an order; undefined when the connection failed. */
async function order(port: number, word: string): Promise<string | undefined> {
  const socket = connect(port, '127.0.0.1').setEncoding('utf8')
  let answer = ''
  socket.on('data', (part: string) => (answer += part))
  socket.write(word)
  try {
    await once(socket, 'close')
    return answer || undefined
  } catch {
    return undefined
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(10)
}

async function threadsAnswering(port: number): Promise<Set<number>> {
  const answers = await Promise.all(Array.from({ length: 24 }, () => order(port, 'who')))
  return new Set(answers.flatMap((one) => (one === undefined ? [] : JSON.parse(one).thread)))
}

const counted = (supervisor: Supervisor, cell: number) =>
  [...supervisor.cells(), supervisor.retired].reduce((sum, cells) => sum + cells.read(cell), 0)

test('gives all threads the port that the kernel chose for the first', async (t) => {
  const { supervisor } = supervised(t, 2)
  const port = await started(supervisor)
  assert.equal(supervisor.serving(), 2)
  await until(async () => (await threadsAnswering(port)).size === 2)
})

test('hands a published snapshot to every thread and tells when all have applied it', async (t) => {
  const { supervisor } = supervised(t, 2)
  await started(supervisor)
  assert.equal(supervisor.appliedGeneration(), 1)
  supervisor.publish(snapshot(7))
  await until(() => supervisor.appliedGeneration() === 7)
})

test('says why the first thread could not listen and leaves nothing running', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.after(() => taken.close())
  const { port } = taken.address() as { port: number }
  const { supervisor, seen } = supervised(t, 2)
  const outcome = await supervisor.start(snapshot(1, '', port))
  assert.equal(outcome.kind === 'failed' && outcome.code, 'EADDRINUSE')
  assert.equal(supervisor.serving(), 0)
  assert.deepEqual(seen.restarts, [])
})

test('releases the port of the first thread when the second cannot start', async (t) => {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  await once(probe, 'close')
  const { supervisor } = supervised(t, 2)
  const outcome = await supervisor.start(snapshot(1, 'fail in thread 1', port))
  assert.equal(outcome.kind === 'failed' && outcome.message, 'told to fail')
  const again = createServer().listen(port, '127.0.0.1')
  await once(again, 'listening')
  again.close()
})

test('reports a thread whose code throws at start', async (t) => {
  const { supervisor } = supervised(t, 1)
  const outcome = await supervisor.start(snapshot(1, 'crash at start'))
  assert.match(outcome.kind === 'failed' ? outcome.message : '', /the start went wrong/)
})

test('replaces a stalled thread while the others go on answering', async (t) => {
  const { supervisor, seen } = supervised(t, 2, 400)
  const port = await started(supervisor)
  void order(port, 'stall')
  let answered = 0
  await until(async () => {
    const reply = await Promise.race([order(port, 'who'), delay(20)])
    if (typeof reply === 'string' && seen.restarts.length === 0) answered++
    return seen.restarts.length > 0
  })
  assert.ok(answered > 0, 'nobody answered while one thread stalled')
  assert.equal(seen.restarts[0]?.reason, 'stalled')
  await until(async () => (await threadsAnswering(port)).size === 2)
})

test('replaces the only thread when it stalls, on the same port and with the newest snapshot', async (t) => {
  const { supervisor } = supervised(t, 1, 400)
  const port = await started(supervisor)
  void order(port, 'stall')
  supervisor.publish(snapshot(9))
  let reply: string | undefined
  await until(async () => {
    reply = await Promise.race([order(port, 'who'), delay(100, undefined)])
    return reply !== undefined
  })
  assert.deepEqual(JSON.parse(reply ?? ''), { thread: 0, generation: 9 })
})

test('keeps the counters of a thread that died, but not its gauges', async (t) => {
  const { supervisor, seen } = supervised(t, 1)
  const port = await started(supervisor)
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  await until(() => counted(supervisor, OPEN) === 1)
  await order(port, 'crash')
  await until(() => seen.restarts.length === 1 && supervisor.serving() === 1)
  socket.destroy()
  assert.match(seen.restarts[0]?.detail ?? '', /told to crash/)
  assert.equal(counted(supervisor, CONNECTIONS), 2)
  assert.equal(counted(supervisor, OPEN), 0)
})

test('reports a crash loop instead of restarting for ever', async (t) => {
  const { supervisor, seen } = supervised(t, 1)
  const port = await started(supervisor)
  await until(async () => {
    await order(port, 'crash')
    return seen.fatal.length > 0
  })
  assert.match(seen.fatal[0] ?? '', /keeps ending: .*told to crash/s)
  assert.equal(supervisor.serving(), 0)
})

test('tries again when the system lets there be no thread for a while', async (t) => {
  const code = { url: dataThreadUrl }
  const { supervisor, seen } = supervised(t, 1, 60_000, code)
  const port = await started(supervisor)
  // Worker throws for it, as it does where there are too many threads.
  code.url = new URL('http://127.0.0.1/nothing')
  await order(port, 'crash')
  await until(() => seen.restarts.length === 2)
  assert.match(seen.restarts[1]?.detail ?? '', /could not be created/)
  code.url = dataThreadUrl
  await until(() => supervisor.serving() === 1)
  assert.deepEqual(seen.fatal, [])
})

test('gives credit back to a thread when its records were taken', async (t) => {
  const { supervisor, seen } = supervised(t, 1)
  const port = await started(supervisor)
  assert.equal(await order(port, 'records'), 'taken')
  assert.equal(seen.records, 2)
})

async function staying(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  socket.write('stay')
  await once(socket, 'data')
  return socket
}

test('drains: waits for the last connection', async (t) => {
  const { supervisor } = supervised(t, 1)
  const port = await started(supervisor)
  const socket = await staying(port)
  const drained = supervisor.drain(60_000)
  await until(async () => (await order(port, 'who')) === undefined)
  socket.destroy()
  assert.deepEqual(await drained, { left: 0 })
})

test('drains: tells how many connections the deadline left open', async (t) => {
  const { supervisor } = supervised(t, 1)
  const socket = await staying(await started(supervisor))
  assert.deepEqual(await supervisor.drain(50), { left: 1 })
  socket.destroy()
})

test('drains: does not wait for a thread that never answers', async (t) => {
  const { supervisor } = supervised(t, 1)
  const socket = await staying(await started(supervisor, snapshot(1, 'drain badly')))
  assert.deepEqual(await supervisor.drain(0), { left: 1 })
  socket.destroy()
})

test('decisions that went down with their thread are counted', async (t) => {
  const { supervisor, seen } = supervised(t, 1)
  const port = await started(supervisor)
  await order(port, 'decide and crash')
  await until(() => seen.restarts.length === 1)
  const lost = cellOf('decision_log_events_total', { result: 'thread_lost' })
  assert.equal(supervisor.retired.read(lost), 5)
  assert.equal(seen.records, 3)
})

test('says that a thread does not end, instead of waiting for it', async (t) => {
  const { supervisor } = supervised(t, 1)
  const port = await started(supervisor)
  // It does not end for eight seconds: longer than anybody waits.
  const hangs = join(await temporaryDirectory(t), 'hangs')
  connect(port, '127.0.0.1')
    .on('error', () => {})
    .write(`hang:${hangs}`)
  await until(() => existsSync(hangs))
  assert.deepEqual(await supervisor.stop(), { stuck: 1 })
})
