// A workload that speaks HTTP/2 without TLS and writes frames of a test's own making: what no library
// would send to a client.
import net, { type AddressInfo } from 'node:net'
import {
  FLAG,
  FRAME,
  PREFACE,
  pingAckFrame,
  readFrameHeader,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../src/http/h2/frames.ts'
import { HpackDecoder } from '../../src/http/h2/hpack.ts'
import type { Cleanup } from './cleanup.ts'

/** One request on its connection. */
export interface RawStream {
  readonly socket: net.Socket
  readonly id: number
  readonly path: string
  /** name, value, name, value... */
  readonly fields: readonly string[]
  readonly body: Buffer
  /** The request is complete. */
  readonly ended: boolean
  /** The code of the RST_STREAM that the sidecar sent. */
  readonly reset: number | undefined
  send(...frames: readonly Buffer[]): void
  /** Nothing follows on this connection, whoever asks. */
  sendLast(bytes: Buffer, then: () => void): void
  /** Whatever else is sent on this connection waits until the last byte has left. */
  sendByteWise(bytes: Buffer): Promise<void>
}

export interface RawH2cWorkload {
  readonly url: string
  readonly sockets: net.Socket[]
  /** Of the GOAWAY frames that came, on whatever connection. */
  readonly goAways: number[]
}

export interface RawH2cOptions {
  readonly settings?: readonly (readonly [number, number])[]
  /** Until then a connection is accepted, and nothing is sent or read. */
  readonly ready?: Promise<void>
  /** Called with each connection before anything is sent; true: it is served by hand. */
  readonly accept?: (socket: net.Socket, connection: number) => boolean
  /** Whether what is received on a stream is given back to its window. */
  readonly credit?: (stream: RawStream) => boolean
  /** Whether it is given back to the connection's; what is not, is when the stream is reset. */
  readonly creditConnection?: (stream: RawStream) => boolean
}

/** @param answer is called with each request as soon as its head is there */
export async function startRawH2cWorkload(
  t: Cleanup,
  answer: (stream: RawStream) => void,
  options: RawH2cOptions = {},
): Promise<RawH2cWorkload> {
  const sockets: net.Socket[] = []
  const goAways: number[] = []
  const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    const connection = sockets.push(socket) - 1
    socket.on('end', () => socket.end())
    if (options.accept?.(socket, connection) === true) return void socket.resume()
    const serve = (): void => {
      socket.write(settingsFrame(options.settings ?? []))
      readFrames(socket, answer, goAways, options)
    }
    if (options.ready === undefined) serve()
    else void options.ready.then(serve)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `h2c://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets, goAways }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

function readFrames(
  socket: net.Socket,
  answer: (stream: RawStream) => void,
  goAways: number[],
  { credit = () => true, creditConnection = () => true }: RawH2cOptions,
): void {
  const decoder = new HpackDecoder()
  const streams = new Map<number, Mutable<RawStream>>()
  let silent = false
  let held: Buffer[] | undefined
  const send = (...frames: readonly Buffer[]): void => {
    if (held !== undefined) held.push(...frames)
    else if (socket.writable && !silent) socket.write(Buffer.concat(frames))
  }
  const sendByteWise = async (bytes: Buffer): Promise<void> => {
    held ??= []
    for (const byte of bytes) {
      await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve))
      await new Promise((resolve) => setImmediate(resolve))
    }
    const waiting = held
    held = undefined
    send(...waiting)
  }
  const sendLast = (bytes: Buffer, then: () => void): void => {
    silent = true
    socket.write(bytes, then)
  }
  let rest: Buffer = Buffer.alloc(0)
  let preface = PREFACE.length
  let block: { readonly id: number; readonly ended: boolean; readonly parts: Buffer[] } | undefined
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    const skipped = Math.min(preface, rest.length)
    preface -= skipped
    rest = rest.subarray(skipped)
    while (preface === 0 && rest.length >= 9) {
      const { length, type, flags, stream: id } = readFrameHeader(rest, 0)
      if (rest.length < 9 + length) return
      const payload = rest.subarray(9, 9 + length)
      rest = rest.subarray(9 + length)
      const ended = (flags & FLAG.endStream) !== 0
      const stream = streams.get(id)
      if (type === FRAME.headers) block = { id, ended, parts: [payload] }
      else if (type === FRAME.continuation) block?.parts.push(payload)
      else if (type === FRAME.settings && (flags & FLAG.ack) === 0) send(settingsAckFrame())
      else if (type === FRAME.ping && (flags & FLAG.ack) === 0) send(pingAckFrame(payload))
      else if (type === FRAME.goAway) goAways.push(payload.readUInt32BE(4))
      else if (type === FRAME.resetStream && stream !== undefined) {
        stream.reset = payload.readUInt32BE(0)
        if (!creditConnection(stream)) send(windowUpdateFrame(0, stream.body.length))
      } else if (type === FRAME.data && stream !== undefined) {
        stream.body = Buffer.concat([stream.body, payload])
        stream.ended = ended
        if (length > 0 && creditConnection(stream)) send(windowUpdateFrame(0, length))
        if (length > 0 && !ended && credit(stream)) send(windowUpdateFrame(id, length))
      }
      if (block === undefined || (flags & FLAG.endHeaders) === 0) continue
      const decoded = decoder.decode(Buffer.concat(block.parts), LIMITS)
      if (decoded.kind === 'bad_block') throw new Error(`cannot decode: ${decoded.what}`)
      const { id: opened, ended: complete } = block
      block = undefined
      const known = streams.get(opened)
      if (known !== undefined) {
        known.ended = complete
        continue
      }
      const { fields } = decoded
      const path = fields[fields.indexOf(':path') + 1] ?? ''
      const body = Buffer.alloc(0)
      const fresh = { socket, id: opened, path, fields, body, ended: complete, reset: undefined }
      const one: Mutable<RawStream> = { ...fresh, send, sendLast, sendByteWise }
      streams.set(opened, one)
      answer(one)
    }
  })
}

const LIMITS = { listBytes: 1 << 20, count: 1_000 }
