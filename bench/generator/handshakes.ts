// Handshake load: one connection after the other, each with one request. A resumed one uses the
// ticket of a full one before, again and again, as clients of a pool do within a ticket's life.
import { once } from 'node:events'
import tls from 'node:tls'
import type { Driven, Handshakes } from '../load.ts'
import { connectionOptions } from './connection.ts'
import { drivenIn } from './driven.ts'

export async function handshakes({
  port,
  count,
  resumed,
  head,
  ...credentials
}: Handshakes): Promise<Driven> {
  const options = connectionOptions(port, 'http/1.1', credentials)
  const session = resumed ? await ticket(options, head) : undefined
  const durationsMs = new Float64Array(count)
  const startedMs = performance.now()
  for (let i = 0; i < count; i++) {
    const beganMs = performance.now()
    const socket = await answered({ ...options, ...(session && { session }) }, head)
    durationsMs[i] = performance.now() - beganMs
    if (socket.isSessionReused() !== resumed) {
      throw new Error(resumed ? 'the proxy did not resume' : 'the proxy resumed')
    }
    await closed(socket)
  }
  return drivenIn(performance.now() - startedMs, durationsMs)
}

async function ticket(options: tls.ConnectionOptions, head: string): Promise<Buffer> {
  const socket = tls.connect(options)
  const issued = once(socket, 'session') as Promise<[Buffer]>
  socket.on('data', () => {}).write(head)
  const [session] = await issued
  await closed(socket)
  return session
}

async function answered(options: tls.ConnectionOptions, head: string): Promise<tls.TLSSocket> {
  const socket = tls.connect(options)
  socket.write(head)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  if (!answer.toString('latin1').startsWith('HTTP/1.1 200 ')) throw new Error(String(answer))
  return socket
}

async function closed(socket: tls.TLSSocket): Promise<void> {
  const gone = once(socket, 'close')
  socket.on('error', () => {}).destroy()
  await gone
}
