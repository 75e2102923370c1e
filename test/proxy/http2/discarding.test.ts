// What a client sends whose HTTP/2 connection is over.
import { once } from 'node:events'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { PREFACE, pingFrame, settingsFrame } from '../../../src/http/h2/frames.ts'
import { eventually } from '../../support/eventually.ts'
import { startListener } from '../listening.ts'

const PINGS = Buffer.concat(Array.from({ length: 1_000 }, () => pingFrame()))

describe('a client that sends without end after its flood was answered', () => {
  it('is closed for what it sends, whatever the time', async (t) => {
    const { context, client, authority } = await startListener(t)
    // No tick comes, so that no time passes for the connection.
    Object.defineProperty(context, 'tickMs', { get: () => 0, set: () => {} })
    const socket = tls.connect({
      ...client(await authority.svid('noisy')),
      ALPNProtocols: ['h2'],
    })
    socket.on('error', () => {}).resume()
    t.after(() => socket.destroy())
    await once(socket, 'secureConnect')
    socket.write(Buffer.concat([Buffer.from(PREFACE), settingsFrame([])]))
    const flood = (): void => {
      while (!socket.destroyed && socket.write(PINGS));
    }
    socket.on('drain', flood)
    flood()
    await eventually('it is closed', () => socket.destroyed)
  })
})
