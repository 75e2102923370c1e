// HTTP/1.1 load: request bytes made once, answers counted by content-length, nothing allocated on the
// way.
import type tls from 'node:tls'
import type { Work } from '../load.ts'
import { type Client, type ClientEvents, connect, destroy } from './connection.ts'

export class Http1Client implements Client {
  readonly atOnce = 1
  readonly #events: ClientEvents
  readonly #request: Buffer
  readonly #socket: tls.TLSSocket
  /** Of the answer that is coming in; -1 while its head is incomplete. */
  #bytesLeft = -1
  #part = ''
  #refused = false
  /** Head and body of the last answer whose head came in one piece. */
  #wholeBytes = 0
  #dueMs = 0

  constructor(
    { head, bodyBytes }: Extract<Work, { kind: 'http1' }>,
    options: tls.ConnectionOptions,
    events: ClientEvents,
  ) {
    this.#events = events
    this.#request = Buffer.from(head + 'x'.repeat(bodyBytes), 'latin1')
    this.#socket = connect(
      options,
      () => events.ready(this),
      (buffer, length) => this.#received(buffer, length),
      (message) => events.failed(message),
    )
  }

  send(dueMs: number): void {
    this.#dueMs = dueMs
    this.#socket.write(this.#request)
  }

  destroy(): void {
    destroy(this.#socket)
  }

  #received(buffer: Buffer, length: number): void {
    if (this.#bytesLeft === -1) {
      // Nearly all answers are alike and come in one piece.
      if (length === this.#wholeBytes && buffer[9] === TWO && this.#part === '') {
        return this.#answered()
      }
      const headEnd = this.#part === '' ? buffer.indexOf('\r\n\r\n', 0, 'latin1') : -1
      if (headEnd === -1 || headEnd + 4 > length) return this.#receivedPart(buffer, length)
      this.#bytesLeft = headEnd + 4 + this.#bodyLength(buffer.toString('latin1', 0, headEnd + 2))
      this.#wholeBytes = this.#bytesLeft
    }
    this.#bytesLeft -= length
    if (this.#bytesLeft > 0) return
    if (this.#bytesLeft < 0) return this.#events.failed('more bytes than the answer should have')
    this.#answered()
  }

  /** A head in pieces: rare enough to be slow. */
  #receivedPart(buffer: Buffer, length: number): void {
    const text = this.#part + buffer.toString('latin1', 0, length)
    const headEnd = text.indexOf('\r\n\r\n')
    this.#part = headEnd === -1 ? text : ''
    if (headEnd === -1) return
    this.#bytesLeft = headEnd + 4 + this.#bodyLength(text.slice(0, headEnd + 2)) - text.length
    if (this.#bytesLeft > 0) return
    this.#answered()
  }

  #answered(): void {
    this.#bytesLeft = -1
    const durationMs = performance.now() - this.#dueMs
    if (!this.#refused) return this.#events.answered(this, durationMs)
    this.#refused = false
    this.#wholeBytes = 0
    this.#events.refused(this, durationMs)
  }

  #bodyLength(head: string): number {
    const length = CONTENT_LENGTH.exec(head)?.[1]
    this.#refused = head.startsWith('HTTP/1.1 503 ')
    if (!(this.#refused || head.startsWith('HTTP/1.1 200 ')) || length === undefined) {
      this.#events.failed(`unexpected answer: ${JSON.stringify(head.slice(0, 200))}`)
      return 0
    }
    return Number(length)
  }
}

/** The first digit of the status. */
const TWO = 0x32
const CONTENT_LENGTH = /\r\ncontent-length: *(\d+)\r\n/i
