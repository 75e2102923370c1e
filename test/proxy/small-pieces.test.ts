import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { it } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Copies } from '../../src/proxy/copies.ts'
import { waitingBytesOf } from '../../src/proxy/small-pieces.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

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
  collect()
  const before = { memory: process.memoryUsage().heapUsed, counted: waitingBytesOf(writer) }
  for (let i = 0; i < MANY; i++) copies.write(writer, '', PIECE, 0, PIECE.length, '')
  collect()
  const taken = process.memoryUsage().heapUsed - before.memory
  const counted = waitingBytesOf(writer) - before.counted
  assert.ok(taken < counted && counted < 2 * taken, `${taken} are taken, ${counted} are counted`)
  reader.resume()
  await eventually('all is read', async () => waitingBytesOf(writer) === 0)
})
