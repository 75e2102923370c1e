// A data thread without a proxy: listens, keeps the protocol, and obeys orders that a test sends
// over its port, one word a connection.
import { execFileSync } from 'node:child_process'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { parentPort } from 'node:worker_threads'
import { Cells, cellOf, HEARTBEAT_CELL } from '../../src/metrics.ts'
import type { DataThreadStart, FromDataThread, ToDataThread } from '../../src/threads.ts'

const started = Promise.withResolvers<DataThreadStart>()
const mayListen = Promise.withResolvers<{ readonly reusePort: boolean }>()
parentPort?.on('message', (message: ToDataThread) => {
  if (message.kind === 'take_in') started.resolve(message.start)
  else if (message.kind === 'listen') mayListen.resolve(message)
})
const start = await started.promise
const cells = new Cells(start.cells)
const REQUESTS = cellOf('connections_total', {})
const OPEN = cellOf('connections_open', {})
const listen = start.snapshot.settings.inbound.listen
let generation = start.snapshot.generation
let taken = 0

const say = (message: FromDataThread) => parentPort?.postMessage(message)

// `subject` of the identity is where a test leaves orders for the start.
const orders = start.snapshot.identity.facts.subject
if (orders === 'crash at start') throw new Error('the start went wrong')

setInterval(() => cells.set(HEARTBEAT_CELL, Date.now()), 20)

const server = createServer((socket) => {
  cells.add(REQUESTS)
  cells.add(OPEN)
  socket.on('close', () => cells.add(OPEN, -1))
  socket.on('error', () => {})
  socket.once('data', (order) => {
    const [word, file = ''] = String(order).split(':')
    switch (word) {
      case 'stall':
        for (;;) if (start.thread < 0) break
        return
      case 'hang':
        // Not to be interrupted, unlike JavaScript; the file says that it has come so far.
        execFileSync('sh', ['-c', 'touch "$0" && exec sleep 8', file])
        return
      case 'crash':
        throw new Error('told to crash')
      case 'records':
        say({
          kind: 'records',
          records: [{ kind: 'access' } as never, { kind: 'access' } as never],
          bytes: 2,
        })
        return void whenTaken(socket.end.bind(socket, 'taken'))
      case 'decide and crash': {
        // Of ten decisions two are left out and three handed over: five go down with the thread.
        cells.add(cellOf('decisions_total', { outcome: 'allow', rule: 'policy' }), 8)
        cells.add(cellOf('decisions_total', { outcome: 'deny', rule: 'allow_rules' }), 2)
        cells.add(cellOf('decision_log_events_total', { result: 'sampled_out' }))
        cells.add(cellOf('decision_log_events_total', { result: 'queue_full' }))
        const record = { kind: 'decision' } as never
        say({ kind: 'records', records: [record, record, record], bytes: 3 })
        void whenTaken(() => {
          throw new Error('told to crash')
        })
        return
      }
      case 'stay':
        return socket.write('staying')
      default:
        return socket.end(JSON.stringify({ thread: start.thread, generation }))
    }
  })
})

async function whenTaken(then: () => void): Promise<void> {
  while (taken < 2) await delay(5)
  then()
}

parentPort?.on('message', (message: ToDataThread) => {
  if (message.kind === 'snapshot') {
    generation = message.snapshot.generation
    say({ kind: 'applied', generation })
  } else if (message.kind === 'records_taken') {
    taken += message.bytes
  } else if (message.kind === 'drain') {
    server.close()
    if (orders === 'drain badly') return
    void (async () => {
      const untilMs = performance.now() + message.timeoutMs
      while (cells.read(OPEN) > 0 && performance.now() < untilMs) await delay(5)
      say({ kind: 'drained', left: cells.read(OPEN) })
    })()
  }
})

server.on('error', (error: NodeJS.ErrnoException) => {
  say({ kind: 'failed', message: error.message, ...(error.code && { code: error.code }) })
  setImmediate(() => process.exit())
})
if (listen.kind === 'tcp' && orders !== 'never ready') {
  if (orders === `fail in thread ${start.thread}`) {
    say({ kind: 'failed', message: 'told to fail', code: 'EADDRINUSE' })
  } else {
    const { reusePort } = await mayListen.promise
    server.listen({ host: listen.host, port: listen.port, reusePort }, () => {
      const address = server.address()
      if (address !== null && typeof address === 'object')
        say({ kind: 'ready', port: address.port })
    })
  }
}
