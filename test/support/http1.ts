// HTTP/1.1 as bytes, read by a small parser that shares nothing with the one under test: a client
// on a TLS connection, and a workload that is told about each complete request.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import type { Cleanup } from './cleanup.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'
import { type RawWorkload, startRawWorkload } from './workload.ts'

export interface Message {
  /** The first line. */
  readonly line: string
  /** Of an answer; 0 for a request. */
  readonly status: number
  /** As received, name and value. */
  readonly fields: readonly (readonly [string, string])[]
  readonly body: Buffer
  readonly trailers: readonly (readonly [string, string])[]
  /** Values of all fields of that name, without regard to case. */
  values(name: string): string[]
}

/** Cuts a stream of bytes into messages. */
export class MessageReader {
  #bytes: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
  }

  /** What is left over. */
  get rest(): Buffer {
    return this.#bytes
  }

  /**
   * Takes the next complete message.
   * @param method of the request that is answered; undefined: the messages are requests
   * @param ended no more bytes will come
   */
  next(method?: string, ended = false): Message | undefined {
    const bytes = this.#bytes
    const headEnd = bytes.indexOf('\r\n\r\n')
    if (headEnd === -1) return undefined
    const [line = '', ...lines] = bytes.toString('latin1', 0, headEnd).split('\r\n')
    const fields = fieldsOf(lines)
    const status = line.startsWith('HTTP/1.') ? Number(line.slice(9, 12)) : 0
    const bodyStart = headEnd + 4
    let body: Buffer | undefined
    let end = bodyStart
    let trailers: Message['fields'] = []
    const length = firstOf(fields, 'content-length')
    const bodiless = method === 'HEAD' || status === 204 || status === 304
    if ((status >= 100 && status < 200) || bodiless) body = Buffer.alloc(0)
    else if (firstOf(fields, 'transfer-encoding') === 'chunked') {
      const chunks = chunksOf(bytes, bodyStart)
      if (chunks === undefined) return undefined
      ;({ body, end, trailers } = chunks)
    } else if (length !== undefined) {
      end = bodyStart + Number(length)
      if (bytes.length < end) return undefined
      body = bytes.subarray(bodyStart, end)
    } else if (status === 0) body = Buffer.alloc(0)
    else if (ended) {
      body = bytes.subarray(bodyStart)
      end = bytes.length
    } else return undefined
    this.#bytes = bytes.subarray(end)
    const values = (name: string): string[] =>
      fields.filter(([one]) => one.toLowerCase() === name).map(([, value]) => value)
    return { line, status, fields, body, trailers, values }
  }
}

function chunksOf(
  bytes: Buffer,
  from: number,
): { body: Buffer; end: number; trailers: Message['fields'] } | undefined {
  const parts: Buffer[] = []
  for (let at = from; ; ) {
    const lineEnd = bytes.indexOf('\r\n', at)
    if (lineEnd === -1) return undefined
    const size = Number.parseInt(bytes.toString('latin1', at, lineEnd), 16)
    assert.ok(size >= 0, `not a chunk size: ${bytes.toString('latin1', at, lineEnd)}`)
    if (size === 0) {
      const empty = bytes.indexOf('\r\n\r\n', lineEnd)
      if (empty === -1) return undefined
      const text = bytes.toString('latin1', lineEnd + 2, Math.max(empty, lineEnd + 2))
      const lines = text === '' ? [] : text.split('\r\n')
      return { body: Buffer.concat(parts), end: empty + 4, trailers: fieldsOf(lines) }
    }
    if (bytes.length < lineEnd + 2 + size + 2) return undefined
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = lineEnd + 2 + size
    assert.equal(bytes.toString('latin1', at, at + 2), '\r\n', 'a chunk ends in CRLF')
    at += 2
  }
}

function fieldsOf(lines: readonly string[]): [string, string][] {
  return lines.map((line) => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 1).trim()]
  })
}

function firstOf(fields: Message['fields'], name: string): string | undefined {
  return fields.find(([one]) => one.toLowerCase() === name)?.[1]
}

export interface Http1Client {
  readonly socket: tls.TLSSocket
  send(bytes: string | Buffer): void
  /** One byte in each TLS record. */
  sendByteWise(bytes: string): Promise<void>
  /** The next answer, an interim one too; fails when the connection ends before. */
  answer(method?: string): Promise<Message>
  /** The server has ended the connection. Gives what came and was not taken. */
  readonly ended: Promise<string>
  readonly bytesRead: () => number
}

/** A TLS connection with a client certificate, half-open like any TCP connection. */
export async function openClient(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  options: tls.ConnectionOptions = {},
): Promise<Http1Client> {
  const socket = tls.connect({
    ...sidecar.clientOptions(certificate),
    allowHalfOpen: true,
    ...options,
  } as tls.ConnectionOptions)
  t.after(() => socket.destroy())
  // The first session ticket says that the server has read the end of the handshake.
  await Promise.all([once(socket, 'secureConnect'), once(socket, 'session')])
  const reader = new MessageReader()
  let bytesRead = 0
  let over = false
  let wake = (): void => {}
  const ended = new Promise<string>((resolve) => {
    const end = (): void => {
      over = true
      wake()
      resolve(reader.rest.toString('latin1'))
    }
    socket.once('end', end).once('close', end)
  })
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    bytesRead += chunk.length
    reader.push(chunk)
    wake()
  })
  return {
    socket,
    send: (bytes) => void socket.write(bytes as string, 'latin1'),
    sendByteWise: async (bytes) => {
      for (const one of bytes) {
        await new Promise((resolve) => socket.write(one, 'latin1', resolve))
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
    answer: async (method = 'GET') => {
      let late = false
      const deadline = setTimeout(() => {
        late = true
        wake()
      }, 15_000)
      try {
        for (;;) {
          const message = reader.next(method, over)
          if (message !== undefined) return message
          if (late) assert.fail(`the answer is late, ${reader.rest.length} bytes of it are there`)
          if (over) assert.fail(`no answer, only ${JSON.stringify(reader.rest.toString('latin1'))}`)
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
      } finally {
        clearTimeout(deadline)
      }
    },
    ended,
    bytesRead: () => bytesRead,
  }
}

/**
 * A client that can end its connection with a TCP reset. A relay does it: node:tls cannot, and
 * resetting the socket below a TLSSocket aborts the process ("double free", Node 26.10).
 */
export async function openResettableClient(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
): Promise<Http1Client & { reset(): void }> {
  const onward = net.connect({ host: '127.0.0.1', port: sidecar.port, allowHalfOpen: true })
  const relay = net.createServer({ allowHalfOpen: true }, (socket) => {
    for (const one of [socket, onward]) one.on('error', () => {})
    onward.on('close', () => socket.destroy())
    socket.on('close', () => onward.destroy())
    socket.pipe(onward).pipe(socket)
    relay.close()
  })
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve))
  t.after(() => onward.destroy())
  const { port } = relay.address() as net.AddressInfo
  const client = await openClient(t, sidecar, certificate, { port } as tls.ConnectionOptions)
  return { ...client, reset: () => void onward.resetAndDestroy() }
}

/** `answer` is called with each complete request, its number on the connection and the connection's. */
export function startScriptedWorkload(
  t: Cleanup,
  answer: (
    socket: net.Socket,
    request: Message,
    place: { readonly request: number; readonly connection: number },
  ) => void,
): Promise<RawWorkload> {
  return startRawWorkload(t, (socket, connection) => {
    const reader = new MessageReader()
    let requests = 0
    socket.on('data', (chunk: Buffer) => {
      reader.push(chunk)
      for (let one = reader.next(); one !== undefined; one = reader.next()) {
        answer(socket, one, { request: ++requests, connection })
      }
    })
    socket.on('end', () => socket.end())
  })
}

/** An answer with a length. */
export function ok(body: string, fields = ''): string {
  return `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n${fields}\r\n${body}`
}

export function get(path: string, fields = ''): string {
  return `GET ${path} HTTP/1.1\r\nhost: localhost\r\n${fields}\r\n`
}

export function post(path: string, body: string, fields = ''): string {
  return `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${body.length}\r\n${fields}\r\n${body}`
}

/** The same with a chunk for each part. */
export function chunked(path: string, parts: readonly string[], trailers = ''): string {
  const chunks = parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')
  return `POST ${path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n${chunks}0\r\n${trailers}\r\n`
}
