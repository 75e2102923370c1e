// WebSockets (RFC 6455) for tests: frames, a workload that echoes messages, and clients over HTTP/1.1
// and HTTP/2.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http2, { type ServerHttp2Stream } from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'
import { startH2cWorkload } from './http2.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

export const OPCODE = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

export interface Frame {
  readonly opcode: number
  readonly payload: Buffer
}

export function encodeFrame(opcode: number, payload: Buffer, masked: boolean): Buffer {
  const extended = payload.length > 0xffff ? 8 : payload.length > 125 ? 2 : 0
  const head = Buffer.alloc(2 + extended + (masked ? 4 : 0))
  const length = extended === 8 ? 127 : extended === 2 ? 126 : payload.length
  head[0] = 0x80 | opcode
  head[1] = (masked ? 0x80 : 0) | length
  if (extended === 2) head.writeUInt16BE(payload.length, 2)
  if (extended === 8) head.writeBigUInt64BE(BigInt(payload.length), 2)
  if (!masked) return Buffer.concat([head, payload])
  const key = randomBytes(4)
  key.copy(head, head.length - 4)
  return Buffer.concat([head, applyMask(payload, key)])
}

function applyMask(bytes: Buffer, key: Buffer): Buffer {
  const out = Buffer.from(bytes)
  for (let i = 0; i < out.length; i++) out[i]! ^= key[i & 3]!
  return out
}

/** One end of an open WebSocket; the frames that come are read strictly. */
export class WebSocketEnd {
  readonly stream: Duplex
  readonly frames: Frame[] = []
  /** The stream was ended by the other side, as opposed to torn down. */
  ended = false
  closed = false
  error: NodeJS.ErrnoException | undefined
  readonly #isClient: boolean
  readonly #onFrame: ((frame: Frame) => void) | undefined
  #chunks: Buffer[] = []
  #bytes = 0

  constructor(stream: Duplex, isClient: boolean, early: Buffer, onFrame?: (frame: Frame) => void) {
    this.stream = stream
    this.#isClient = isClient
    this.#onFrame = onFrame
    if (early.length > 0) this.#push(early)
    stream.on('data', (chunk: Buffer) => this.#push(chunk))
    stream.on('end', () => {
      this.ended = true
    })
    stream.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error
    })
    stream.on('close', () => {
      this.closed = true
    })
  }

  send(payload: Buffer | string, opcode: number = OPCODE.binary): void {
    this.stream.write(encodeFrame(opcode, Buffer.from(payload as string), this.#isClient))
  }

  sendClose(code: number): void {
    this.send(Buffer.from([code >> 8, code & 0xff]), OPCODE.close)
  }

  /** By a TCP connection's reset, or that of an HTTP/2 stream. */
  reset(): void {
    if (this.stream instanceof net.Socket) this.stream.resetAndDestroy()
    else (this.stream as ServerHttp2Stream).close(http2.constants.NGHTTP2_CANCEL)
  }

  /** The other side has done that. */
  get wasReset(): boolean {
    if (this.stream instanceof net.Socket) return this.error?.code === 'ECONNRESET'
    return (
      this.closed && (this.stream as ServerHttp2Stream).rstCode === http2.constants.NGHTTP2_CANCEL
    )
  }

  /** Bytes of a frame that is not complete. */
  get rest(): number {
    return this.#bytes
  }

  get closeCode(): number | undefined {
    const frame = this.frames.find(({ opcode }) => opcode === OPCODE.close)
    return frame === undefined ? undefined : frame.payload.readUInt16BE(0)
  }

  #push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    for (let frame = this.#next(); frame !== undefined; frame = this.#next()) {
      this.frames.push(frame)
      this.#onFrame?.(frame)
    }
  }

  #next(): Frame | undefined {
    if (this.#bytes < 2) return undefined
    const head = this.#peek(14)
    const masked = (head[1]! & 0x80) !== 0
    assert.equal(masked, !this.#isClient, 'masked by clients, and by nobody else')
    const short = head[1]! & 0x7f
    const extended = short === 127 ? 8 : short === 126 ? 2 : 0
    const size = 2 + extended + (masked ? 4 : 0)
    if (head.length < size) return undefined
    const length =
      extended === 8
        ? Number(head.readBigUInt64BE(2))
        : extended === 2
          ? head.readUInt16BE(2)
          : short
    if (this.#bytes < size + length) return undefined
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all.subarray(size + length)]
    this.#bytes -= size + length
    const payload = all.subarray(size, size + length)
    return {
      opcode: head[0]! & 0x0f,
      payload: masked ? applyMask(payload, all.subarray(size - 4, size)) : payload,
    }
  }

  #peek(length: number): Buffer {
    const first = this.#chunks[0] ?? Buffer.alloc(0)
    return (first.length >= length ? first : Buffer.concat(this.#chunks)).subarray(0, length)
  }
}

export interface WebSocketWorkload {
  readonly url: string
  /** In the order of their opening. */
  readonly ends: WebSocketEnd[]
  readonly paths: string[]
}

/** Echoes messages, answers a close frame with the same and ends; `…/refuse`, and what is no WebSocket, is answered 404. */
export async function startWebSocketWorkload(t: Cleanup): Promise<WebSocketWorkload> {
  const ends: WebSocketEnd[] = []
  const paths: string[] = []
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    untilHeadEnd(socket, (head, early) => {
      paths.push(head.split(' ')[1] ?? '')
      const key = /^sec-websocket-key: (.*)$/im.exec(head)?.[1] ?? ''
      if (/^GET \S*\/refuse /.test(head) || key === '') {
        return void socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n')
      }
      assert.match(head, /^sec-websocket-version: 13$/im)
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptFor(key)}\r\n\r\n`,
      )
      ends.push(echoEnd(socket, early))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ends, paths }
}

/** The same over HTTP/2 (RFC 8441). Its ends are streams. */
export async function startH2cWebSocketWorkload(t: Cleanup): Promise<WebSocketWorkload> {
  const ends: WebSocketEnd[] = []
  const paths: string[] = []
  const { url } = await startH2cWorkload(
    t,
    (stream, headers) => {
      const path = String(headers[':path'])
      paths.push(path)
      if (path.endsWith('/refuse') || headers[':protocol'] !== 'websocket') {
        return void stream.respond({ ':status': 404 }, { endStream: true })
      }
      assert.equal(headers[':method'], 'CONNECT')
      assert.equal(headers['sec-websocket-version'], '13')
      assert.equal(headers['sec-websocket-key'], undefined)
      stream.respond({ ':status': 200 })
      ends.push(echoEnd(stream, Buffer.alloc(0)))
    },
    { settings: { enableConnectProtocol: true } },
  )
  return { url, ends, paths }
}

function echoEnd(stream: Duplex, early: Buffer): WebSocketEnd {
  const end = new WebSocketEnd(stream, false, early, ({ opcode, payload }) => {
    if (!stream.writable) return
    end.send(payload, opcode === OPCODE.ping ? OPCODE.pong : opcode)
    if (opcode === OPCODE.close) stream.end()
  })
  stream.on('end', () => stream.end())
  return end
}

/** A WebSocket over HTTP/1.1, or the status that it was refused with. */
export async function openWebSocket(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  path: string,
): Promise<WebSocketEnd | number> {
  const socket = tls.connect({
    ...sidecar.clientOptions(certificate),
    allowHalfOpen: true,
  } as tls.ConnectionOptions)
  t.after(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  const key = randomBytes(16).toString('base64')
  socket.write(webSocketRequest(path, key))
  return new Promise((resolve) =>
    untilHeadEnd(socket, (head, early) => {
      if (!head.startsWith('HTTP/1.1 101 ')) return resolve(Number(head.slice(9, 12)))
      assert.ok(head.includes(acceptFor(key)))
      resolve(new WebSocketEnd(socket, true, early))
    }),
  )
}

export function webSocketRequest(path: string, key = 'dGhlIHNhbXBsZSBub25jZQ=='): string {
  return `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`
}

/** The same as a stream of an HTTP/2 connection (RFC 8441). */
export async function openWebSocketStream(
  session: http2.ClientHttp2Session,
  path: string,
): Promise<WebSocketEnd | number> {
  await eventually(
    'extended CONNECT is offered',
    () => session.remoteSettings?.enableConnectProtocol,
  )
  const stream = session.request({
    ':method': 'CONNECT',
    ':protocol': 'websocket',
    ':scheme': 'https',
    ':path': path,
    'sec-websocket-version': '13',
  })
  stream.on('error', () => {})
  const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
  assert.equal(headers['sec-websocket-accept'], undefined)
  const status = Number(headers[':status'])
  return status === 200 ? new WebSocketEnd(stream, true, Buffer.alloc(0)) : status
}

function acceptFor(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}

function untilHeadEnd(socket: net.Socket, then: (head: string, early: Buffer) => void): void {
  let bytes: Buffer = Buffer.alloc(0)
  const take = (chunk: Buffer): void => {
    bytes = Buffer.concat([bytes, chunk])
    const end = bytes.indexOf('\r\n\r\n')
    if (end === -1) return
    socket.off('data', take)
    then(bytes.toString('latin1', 0, end), bytes.subarray(end + 4))
  }
  socket.on('data', take)
}
