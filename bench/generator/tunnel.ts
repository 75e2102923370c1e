// Load for tunnels: a message goes out when the one before is back. A WebSocket's frames are bytes to
// every proxy here, so that bytes will do once it is open.
import type tls from 'node:tls'
import type { Work } from '../load.ts'
import { type Client, type ClientEvents, connect, destroy } from './connection.ts'

export class TunnelClient implements Client {
  readonly atOnce = 1
  readonly #events: ClientEvents
  readonly #message: Buffer
  readonly #socket: tls.TLSSocket
  #upgrading: boolean
  #head = ''
  #bytesLeft = 0
  #dueMs = 0

  constructor(
    { upgrade, bytes }: Extract<Work, { kind: 'tunnel' }>,
    options: tls.ConnectionOptions,
    events: ClientEvents,
  ) {
    this.#events = events
    this.#message = Buffer.alloc(bytes, 'x')
    this.#upgrading = upgrade !== undefined
    this.#socket = connect(
      options,
      () => {
        if (upgrade === undefined) events.ready(this)
        else this.#socket.write(upgrade)
      },
      (buffer, length) => this.#received(buffer, length),
      (message) => events.failed(message),
    )
  }

  send(dueMs: number): void {
    this.#dueMs = dueMs
    this.#bytesLeft = this.#message.length
    this.#socket.write(this.#message)
  }

  destroy(): void {
    destroy(this.#socket)
  }

  #received(buffer: Buffer, length: number): void {
    if (this.#upgrading) return this.#upgraded(buffer.toString('latin1', 0, length))
    this.#bytesLeft -= length
    if (this.#bytesLeft < 0) return this.#events.failed('more bytes than were sent')
    if (this.#bytesLeft === 0) this.#events.answered(this, performance.now() - this.#dueMs)
  }

  #upgraded(text: string): void {
    this.#head += text
    if (!this.#head.endsWith('\r\n\r\n')) return
    if (!this.#head.startsWith('HTTP/1.1 101 ')) {
      return this.#events.failed(`no WebSocket: ${JSON.stringify(this.#head.slice(0, 200))}`)
    }
    this.#upgrading = false
    this.#events.ready(this)
  }
}
