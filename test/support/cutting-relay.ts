// Stands between one client and the sidecar, and breaks the connection at a byte of the test's choice:
// in the handshake, in a head, in a body, in an answer.
import net, { type AddressInfo } from 'node:net'
import type { Cleanup } from './cleanup.ts'

export interface Cut {
  /** After so many bytes from the client, or from the sidecar; undefined: never. */
  readonly at: number | undefined
  readonly of: 'client' | 'sidecar'
  /** `end`: the client ends its side and goes on reading. */
  readonly how: 'reset' | 'end' | 'close'
}

export interface CuttingRelay {
  readonly port: number
  /** What has passed. */
  readonly bytes: { client: number; sidecar: number }
  readonly closed: Promise<void>
  /** Sends the sidecar what is no TLS, as if the client did; it is up to the sidecar what follows. */
  spoil(): void
}

export async function startCuttingRelay(t: Cleanup, port: number, cut: Cut): Promise<CuttingRelay> {
  const bytes = { client: 0, sidecar: 0 }
  const closed = Promise.withResolvers<void>()
  let spoil = (): void => {}
  const relay = net.createServer({ allowHalfOpen: true }, (client) => {
    relay.close()
    const sidecar = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true })
    let isCut = false
    let isSpoilt = false
    spoil = () => {
      isCut = isSpoilt = true
      sidecar.write(Buffer.alloc(RECORD_BYTES))
    }
    const breakOff = (): void => {
      isCut = true
      if (cut.how === 'reset') sidecar.resetAndDestroy()
      else if (cut.how === 'close') sidecar.destroy()
      else sidecar.end()
    }
    const pass = (from: 'client' | 'sidecar', to: net.Socket, chunk: Buffer): void => {
      if (isCut && from === 'client') return
      const here = cut.of === from && !isCut ? cut.at : undefined
      const room = here === undefined ? chunk.length : Math.min(here - bytes[from], chunk.length)
      const passed = chunk.subarray(0, room)
      bytes[from] += room
      if (room > 0) to.write(passed)
      if (bytes[from] !== here) return
      breakOff()
      // Whoever has ended its own side still hears the other.
      if (cut.how === 'end' && from === 'sidecar') to.write(chunk.subarray(room))
    }
    for (const one of [client, sidecar]) one.on('error', () => {})
    client.on('data', (chunk: Buffer) => pass('client', sidecar, chunk))
    sidecar.on('data', (chunk: Buffer) => pass('sidecar', client, chunk))
    client.on('end', () => {
      if (!isSpoilt) sidecar.end()
    })
    sidecar.on('end', () => client.end())
    client.on('close', () => {
      if (!isSpoilt) sidecar.destroy()
    })
    sidecar.on('close', () => {
      client.destroy()
      closed.resolve()
    })
    t.after(() => sidecar.destroy())
  })
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve))
  t.after(() => relay.close())
  const { port: relayPort } = relay.address() as AddressInfo
  return { port: relayPort, bytes, closed: closed.promise, spoil: () => spoil() }
}

/** More than what is left of any record that has begun. */
const RECORD_BYTES = 20_000
