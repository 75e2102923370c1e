import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { Writable } from 'node:stream'
import { it } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Copies } from '../../src/proxy/copies.ts'
import { waitingBytesOf } from '../../src/proxy/small-pieces.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** What was given up is gone when it is measured. */
async function collect(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const MANY = 50_000
const PIECE = Buffer.from('123456')
/** More than the system takes of a connection that nobody reads. */
const LARGE = Buffer.alloc(16 * 1024 * 1024)

const t = suiteCleanup()

it('small pieces that nobody takes are counted as the memory that they take, until somebody does', async () => {
  const server = net.createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const writer = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  t.after(() => writer.destroy())
  const [reader] = (await once(server, 'connection')) as [net.Socket]
  t.after(() => reader.destroy())
  writer.write(LARGE)
  const copies = new Copies()
  await collect()
  const before = { memory: process.memoryUsage().heapUsed, counted: waitingBytesOf(writer) }
  for (let i = 0; i < MANY; i++) copies.write(writer, '', PIECE, 0, PIECE.length, '')
  await collect()
  const taken = process.memoryUsage().heapUsed - before.memory
  const counted = waitingBytesOf(writer) - before.counted
  assert.ok(taken < counted && counted < 2 * taken, `${taken} are taken, ${counted} are counted`)
  reader.resume()
  await eventually('all is read', async () => waitingBytesOf(writer) === 0)
})

for (const length of [100, 300, 2_000]) {
  it(`pieces of ${length} bytes that wait keep no memory of others`, async () => {
    const STREAMS = 200
    const copies = new Copies()
    const bytes = Buffer.alloc(length)
    const streams = Array.from({ length: STREAMS }, () => new Writable({ write: () => {} }))
    await collect()
    const before = process.memoryUsage().arrayBuffers
    for (let round = 0; round < 8; round++) {
      for (const stream of streams) {
        copies.write(stream, '', bytes, 0, length, '')
        // As answers to others do.
        for (let i = 0; i < 60; i++) Buffer.allocUnsafe(1_100)
      }
    }
    await collect()
    const taken = process.memoryUsage().arrayBuffers - before
    const counted = streams.reduce((sum, stream) => sum + waitingBytesOf(stream), 0)
    // The first piece of each was written at once, as most are.
    const most = counted + STREAMS * 1.1 * Buffer.poolSize
    assert.ok(taken < most, `${taken} are taken, ${counted} are counted`)
  })
}
