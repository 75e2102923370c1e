// Process: HTTP/1.1 load over TLS 1.3 with a client certificate, as little work a request as node:tls
// allows: request bytes made once, answers counted by content-length, nothing allocated on the way.
// (wrk and h2load cannot present a client certificate.)
import type { OnReadOpts } from 'node:net'
import tls from 'node:tls'
import type { Driven, LoadCommand, LoadReport } from './load.ts'

const HANDSHAKES_AT_ONCE = 8

class Client {
  readonly #load: GeneratedLoad
  readonly #socket: tls.TLSSocket
  /** Of the answer that is coming in; -1 while its head is incomplete. */
  #bytesLeft = -1
  #part = ''
  /** Head and body of the last answer whose head came in one piece. */
  #wholeBytes = 0
  #sentMs = 0

  constructor(load: GeneratedLoad, options: tls.ConnectionOptions, secured: () => void) {
    this.#load = load
    const buffer = Buffer.allocUnsafeSlow(64 * 1024)
    const onread: OnReadOpts = {
      buffer,
      callback: (length) => {
        this.#received(buffer, length)
        return true
      },
    }
    // tls.connect hands it on to net.Socket, which the types do not know.
    this.#socket = tls.connect({ ...options, onread } as tls.ConnectionOptions)
    this.#socket.setNoDelay(true)
    this.#socket.once('secureConnect', secured)
    this.#socket.on('error', (error) => load.failed(`connection: ${error.message}`))
    this.#socket.on('close', () => load.failed('the proxy closed a connection'))
  }

  send(head: Buffer): void {
    this.#sentMs = performance.now()
    this.#socket.write(head)
  }

  destroy(): void {
    this.#socket
      .removeAllListeners('close')
      .removeAllListeners('error')
      .on('error', () => {})
    this.#socket.destroy()
  }

  #received(buffer: Buffer, length: number): void {
    if (this.#bytesLeft === -1) {
      // Nearly all answers are alike and come in one piece.
      if (length === this.#wholeBytes && buffer[9] === TWO && this.#part === '') {
        return this.#load.answered(this, performance.now() - this.#sentMs)
      }
      const headEnd = this.#part === '' ? buffer.indexOf('\r\n\r\n', 0, 'latin1') : -1
      if (headEnd === -1 || headEnd + 4 > length) return this.#receivedPart(buffer, length)
      this.#bytesLeft = headEnd + 4 + this.#bodyLength(buffer.toString('latin1', 0, headEnd + 2))
      this.#wholeBytes = this.#bytesLeft
    }
    this.#bytesLeft -= length
    if (this.#bytesLeft > 0) return
    if (this.#bytesLeft < 0) return this.#load.failed('more bytes than the answer should have')
    this.#bytesLeft = -1
    this.#load.answered(this, performance.now() - this.#sentMs)
  }

  /** A head in pieces: rare enough to be slow. */
  #receivedPart(buffer: Buffer, length: number): void {
    const text = this.#part + buffer.toString('latin1', 0, length)
    const headEnd = text.indexOf('\r\n\r\n')
    this.#part = headEnd === -1 ? text : ''
    if (headEnd === -1) return
    this.#bytesLeft = headEnd + 4 + this.#bodyLength(text.slice(0, headEnd + 2)) - text.length
    if (this.#bytesLeft > 0) return
    this.#bytesLeft = -1
    this.#load.answered(this, performance.now() - this.#sentMs)
  }

  #bodyLength(head: string): number {
    const length = CONTENT_LENGTH.exec(head)?.[1]
    if (!head.startsWith('HTTP/1.1 200 ') || length === undefined) {
      this.#load.failed(`unexpected answer: ${JSON.stringify(head.slice(0, 200))}`)
      return 0
    }
    return Number(length)
  }
}

/** The first digit of the status. */
const TWO = 0x32
const CONTENT_LENGTH = /\r\ncontent-length: *(\d+)\r\n/i

class GeneratedLoad {
  readonly #report: (report: LoadReport) => void
  #clients: Client[] = []
  #head = Buffer.alloc(0)
  #toSend = 0
  #durationsMs = new Float64Array(0)
  #answers = 0
  #startedMs = 0

  constructor(report: (report: LoadReport) => void) {
    this.#report = report
  }

  take(command: LoadCommand): void {
    switch (command.kind) {
      case 'open':
        return this.#open(command)
      case 'drive':
        return this.#drive(command.head, command.requests)
      case 'close':
        return this.#close()
    }
  }

  failed(message: string): void {
    if (this.#clients.length === 0) return
    this.#drop()
    this.#report({ kind: 'failed', message })
  }

  answered(client: Client, durationMs: number): void {
    this.#durationsMs[this.#answers++] = durationMs
    if (this.#toSend > 0) {
      this.#toSend--
      client.send(this.#head)
    } else if (this.#answers === this.#durationsMs.length) this.#driven()
  }

  #open({ port, connections, ...pem }: Extract<LoadCommand, { kind: 'open' }>): void {
    const options: tls.ConnectionOptions = {
      host: '127.0.0.1',
      port,
      servername: 'localhost',
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.3',
      // The same for every proxy, whatever it would prefer.
      ciphers: 'TLS_AES_128_GCM_SHA256',
      ecdhCurve: 'X25519',
      secureContext: tls.createSecureContext({
        cert: pem.certificateChain,
        key: pem.privateKey,
        ca: pem.trustBundle,
        minVersion: 'TLSv1.3',
        ciphers: 'TLS_AES_128_GCM_SHA256',
        ecdhCurve: 'X25519',
      }),
    }
    let secured = 0
    const next = (): void => {
      if (this.#clients.length === connections) return
      const client = new Client(this, options, () => {
        if (++secured === connections) this.#report({ kind: 'opened' })
        else next()
      })
      this.#clients.push(client)
    }
    for (let i = 0; i < HANDSHAKES_AT_ONCE; i++) next()
  }

  #drive(head: string, requests: number): void {
    this.#head = Buffer.from(head, 'latin1')
    this.#durationsMs = new Float64Array(requests)
    this.#answers = 0
    const atOnce = Math.min(requests, this.#clients.length)
    this.#toSend = requests - atOnce
    this.#startedMs = performance.now()
    for (const client of this.#clients.slice(0, atOnce)) client.send(this.#head)
  }

  #driven(): void {
    const elapsedMs = performance.now() - this.#startedMs
    const sorted = this.#durationsMs.sort()
    const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
    const driven: Driven = { elapsedMs, p50Ms: at(0.5), p99Ms: at(0.99) }
    this.#report({ kind: 'driven', ...driven })
  }

  #close(): void {
    this.#drop()
    this.#report({ kind: 'closed' })
  }

  #drop(): void {
    for (const client of this.#clients.splice(0)) client.destroy()
  }
}

const load = new GeneratedLoad((report) => process.send?.(report))
process.on('message', (command: LoadCommand) => load.take(command))
process.on('disconnect', () => process.exit())
