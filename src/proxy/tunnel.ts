// Bytes both ways between a client and the workload, after an upgrade that policy permitted. Each
// direction ends on its own (half-close); a slow reader stops the other side.
import type { Duplex } from 'node:stream'
import type { UpstreamConnection, UpstreamUser } from './upstream.ts'

export interface TunnelClient {
  readonly socket: Duplex
  nowMs(): number
  /** Both directions have ended, or one of them broke. */
  tunnelDone(broken: boolean): void
}

export class Tunnel implements UpstreamUser {
  progressMs: number
  fromClientBytes = 0
  toClientBytes = 0
  readonly #client: TunnelClient
  readonly #upstream: UpstreamConnection
  #clientEnded = false
  #upstreamEnded = false
  #over = false

  constructor(client: TunnelClient, upstream: UpstreamConnection, early: Buffer) {
    this.#client = client
    this.#upstream = upstream
    this.progressMs = client.nowMs()
    upstream.user = this
    upstream.socket.resume()
    client.socket.resume()
    if (early.length > 0) this.upstreamData(early, 0, early.length)
  }

  clientData(bytes: Buffer): void {
    this.progressMs = this.#client.nowMs()
    this.fromClientBytes += bytes.length
    if (!this.#upstream.socket.write(bytes)) this.#client.socket.pause()
  }

  clientDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#upstream.socket.resume()
  }

  clientEnd(): void {
    this.#clientEnded = true
    this.#upstream.socket.end()
  }

  /** The client is gone before its time: the workload is told by a reset. */
  abandon(): void {
    if (this.#over) return
    this.#over = true
    this.#upstream.reset()
  }

  upstreamData(buffer: Buffer, start: number, end: number): void {
    this.progressMs = this.#client.nowMs()
    this.toClientBytes += end - start
    // The pool's read buffer is reused: the socket gets a copy.
    if (!this.#client.socket.write(Buffer.from(buffer.subarray(start, end))))
      this.#upstream.socket.pause()
  }

  upstreamDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#client.socket.resume()
  }

  upstreamEnd(): void {
    this.#upstreamEnded = true
    this.#client.socket.end()
  }

  upstreamFailed(): void {
    // Both sides have ended and all bytes are delivered: then the socket closes by itself. A close
    // before that is a break.
    if (!this.#over) this.#finish(!(this.#clientEnded && this.#upstreamEnded))
  }

  upstreamFault(): void {
    this.#finish(true)
  }

  upstreamReady(): void {}
  upstreamConnectTimeout(): void {}
  upstreamBusy(): void {}

  #finish(broken: boolean): void {
    this.#over = true
    this.#upstream.destroy()
    this.#client.tunnelDone(broken)
  }
}
