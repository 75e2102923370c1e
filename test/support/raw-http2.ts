// An HTTP/2 client that writes frames of a test's own making, over TLS or in memory, and keeps what comes back frame
// by frame: what no library would send, and what no library would show.
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import {
  dataFrameHeader,
  FLAG,
  FRAME,
  headersFrames,
  PREFACE,
  pingAckFrame,
  readFrameHeader,
  resetStreamFrame,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
  writeFrameHeader,
} from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock, HpackDecoder } from '../../src/http/h2/hpack.ts'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
  /** Of HEADERS: name, value, name, value. */
  readonly fields: readonly string[]
}

/** What came on one stream. */
export interface StreamAnswer {
  readonly status: number
  readonly fields: readonly string[]
  readonly body: Buffer
  readonly trailers: readonly string[]
  /** Of the RST_STREAM; undefined where there was none. */
  readonly reset: number | undefined
  readonly ended: boolean
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const out = Buffer.alloc(9 + payload.length)
  writeFrameHeader(out, payload.length, type, flags, stream)
  out.set(payload, 9)
  return out
}

export const requestFields = (fields: Readonly<Record<string, string>> = {}): string[] =>
  Object.entries({
    ':method': 'GET',
    ':scheme': 'https',
    ':authority': 'localhost',
    ':path': '/api/orders',
    ...fields,
  }).flat()

/** HEADERS with END_STREAM unless told otherwise. */
export const head = (stream: number, fields: readonly string[], endStream = true): Buffer =>
  headersFrames(encodeHeaderBlock(fields), stream, endStream, 16_384)

export const data = (stream: number, bytes: Buffer | string, endStream = false): Buffer => {
  const body = Buffer.from(bytes as string)
  return Buffer.concat([dataFrameHeader(body.length, stream, endStream), body])
}

export class RawHttp2 {
  readonly socket: Duplex
  readonly frames: Frame[] = []
  /** True once the server has ended the connection. */
  over = false
  answersPings = true
  readonly #decoder = new HpackDecoder()
  #rest: Buffer = Buffer.alloc(0)
  #block: { first: Frame; parts: Buffer[] } | undefined

  /** @param credit gives back the windows of what is received; false: the first window is the last */
  constructor(socket: Duplex, credit: boolean) {
    this.socket = socket
    socket.on('error', () => {})
    socket.on('end', () => this.#end())
    socket.on('close', () => this.#end())
    socket.on('data', (chunk: Buffer) => this.#read(chunk, credit))
  }

  send(...bytes: readonly Buffer[]): void {
    if (!this.over) this.socket.write(Buffer.concat(bytes))
  }

  answer(stream: number): StreamAnswer {
    const mine = this.frames.filter((one) => one.stream === stream)
    const heads = mine.filter(
      ({ type, fields }) => type === FRAME.headers && Number(fields[1]) >= 200,
    )
    const trailers = mine.filter(
      ({ type, fields }) => type === FRAME.headers && fields[0] !== ':status',
    )
    const bodies = mine.filter(({ type }) => type === FRAME.data)
    const reset = mine.find(({ type }) => type === FRAME.resetStream)
    return {
      status: Number(heads[0]?.fields[1] ?? 0),
      fields: heads[0]?.fields ?? [],
      body: Buffer.concat(bodies.map(({ payload }) => payload)),
      trailers: trailers[0]?.fields ?? [],
      reset: reset?.payload.readUInt32BE(0),
      ended: mine.some(
        ({ type, flags }) =>
          (type === FRAME.data || type === FRAME.headers) && (flags & FLAG.endStream) !== 0,
      ),
    }
  }

  /** Waits until the stream, or the connection, has ended. */
  async answered(stream: number): Promise<StreamAnswer> {
    await eventually(`stream ${stream} has ended`, () => {
      const { ended, reset } = this.answer(stream)
      return ended || reset !== undefined || this.over
    })
    return this.answer(stream)
  }

  /** Error code of the GOAWAY, the last if there are several. */
  get goAway(): number | undefined {
    const last = this.frames.findLast(({ type }) => type === FRAME.goAway)
    return last?.payload.readUInt32BE(4)
  }

  async closed(): Promise<void> {
    await eventually('the server ends the connection', () => this.over)
  }

  #end(): void {
    this.over = true
    this.socket.destroy()
  }

  #read(chunk: Buffer, credit: boolean): void {
    this.#rest = Buffer.concat([this.#rest, chunk])
    while (this.#rest.length >= 9) {
      const header = readFrameHeader(this.#rest, 0)
      if (this.#rest.length < 9 + header.length) return
      const payload = this.#rest.subarray(9, 9 + header.length)
      this.#rest = this.#rest.subarray(9 + header.length)
      this.#take({ ...header, payload: Buffer.from(payload), fields: [] }, credit)
    }
  }

  #take(one: Frame, credit: boolean): void {
    if (one.type === FRAME.headers) this.#block = { first: one, parts: [one.payload] }
    else if (one.type === FRAME.continuation) this.#block?.parts.push(one.payload)
    else this.frames.push(one)
    if (this.#block !== undefined && (one.flags & FLAG.endHeaders) !== 0) {
      const { first, parts } = this.#block
      this.#block = undefined
      const limits = { listBytes: 1 << 20, count: 1_000 }
      const decoded = this.#decoder.decode(Buffer.concat(parts), limits)
      if (decoded.kind === 'bad_block') throw new Error(`cannot decode: ${decoded.what}`)
      this.frames.push({ ...first, fields: decoded.fields })
    }
    const ack = (one.flags & FLAG.ack) !== 0
    if (one.type === FRAME.settings && !ack) this.send(settingsAckFrame())
    if (one.type === FRAME.ping && !ack && this.answersPings) this.send(pingAckFrame(one.payload))
    if (credit && one.type === FRAME.data && one.payload.length > 0) {
      this.send(windowUpdateFrame(0, one.payload.length))
      if ((one.flags & FLAG.endStream) === 0)
        this.send(windowUpdateFrame(one.stream, one.payload.length))
    }
  }
}

/** A connection whose preface is sent, with these settings. */
export async function openRawHttp2(
  t: Cleanup,
  sidecar: TestSidecar,
  client: IssuedCertificate | undefined,
  options: {
    readonly settings?: readonly (readonly [number, number])[]
    readonly credit?: boolean
    readonly tls?: tls.ConnectionOptions
  } = {},
): Promise<RawHttp2> {
  const socket = tls.connect({
    ...sidecar.clientOptions(client),
    ALPNProtocols: ['h2'],
    ...options.tls,
  } as tls.ConnectionOptions)
  t.after(() => socket.destroy())
  await once(socket, 'secureConnect')
  return begin(new RawHttp2(socket, options.credit ?? true), options.settings)
}

/** Sends the preface, with these settings. */
export async function begin(
  raw: RawHttp2,
  settings: readonly (readonly [number, number])[] = [],
): Promise<RawHttp2> {
  raw.send(Buffer.from(PREFACE, 'latin1'), settingsFrame(settings))
  await eventually('the server sends its settings', () => raw.frames.length > 0 || raw.over)
  return raw
}

export { resetStreamFrame, settingsFrame, windowUpdateFrame }
