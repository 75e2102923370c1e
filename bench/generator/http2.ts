// HTTP/2 load: a header block that repeats what the connection's table has, as every client's does,
// made once; answers counted by their bytes and last frames. A tenth of the work of node:http2.
import type tls from 'node:tls'
import {
  DEFAULT_WINDOW,
  FLAG,
  FRAME,
  FRAME_HEADER_BYTES,
  MAX_WINDOW,
  PREFACE,
  pingAckFrame,
  readFrameHeader,
  SETTING,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
  writeFrameHeader,
} from '../../src/http/h2/frames.ts'
import type { Work } from '../load.ts'
import { type Client, type ClientEvents, connect, destroy } from './connection.ts'

type Http2Work = Extract<Work, { kind: 'h2' }>

const WINDOW = 2 ** 30

interface OpenStream {
  readonly dueMs: number
  bytesLeft: number
  status: boolean
}

export class Http2Client implements Client {
  readonly atOnce: number
  readonly #events: ClientEvents
  readonly #socket: tls.TLSSocket
  readonly #answerBytes: number
  readonly #first: Buffer
  readonly #next: Buffer
  readonly #streams = new Map<number, OpenStream>()
  #nextStream = 1
  #part: Buffer | undefined
  #received = 0
  #out: Buffer[] | undefined

  constructor(work: Http2Work, options: tls.ConnectionOptions, events: ClientEvents) {
    this.#events = events
    this.atOnce = work.streams
    this.#answerBytes = work.answerBytes
    this.#first = requestFrames(work, true)
    this.#next = requestFrames(work, false)
    this.#socket = connect(
      options,
      () => {
        this.#begin()
        events.ready(this)
      },
      (buffer, length) => this.#read(buffer, length),
      (message) => events.failed(message),
    )
  }

  send(dueMs: number): void {
    const stream = this.#nextStream
    this.#nextStream += 2
    this.#streams.set(stream, { dueMs, bytesLeft: this.#answerBytes, status: false })
    const frames = Buffer.from(stream === 1 ? this.#first : this.#next)
    for (let at = 0; at < frames.length; ) {
      frames.writeUInt32BE(stream, at + 5)
      at += FRAME_HEADER_BYTES + frames.readUIntBE(at, 3)
    }
    this.#write(frames)
  }

  destroy(): void {
    destroy(this.#socket)
  }

  #begin(): void {
    this.#socket.write(
      Buffer.concat([
        Buffer.from(PREFACE, 'latin1'),
        settingsFrame([
          [SETTING.enablePush, 0],
          [SETTING.initialWindowSize, MAX_WINDOW],
        ]),
        windowUpdateFrame(0, WINDOW - DEFAULT_WINDOW),
      ]),
    )
  }

  /** What one read leads to leaves in one write. */
  #write(bytes: Buffer): void {
    if (this.#out === undefined) this.#socket.write(bytes)
    else this.#out.push(bytes)
  }

  #read(buffer: Buffer, length: number): void {
    const read = buffer.subarray(0, length)
    const bytes = this.#part === undefined ? read : Buffer.concat([this.#part, read])
    this.#out = []
    let at = 0
    while (bytes.length - at >= FRAME_HEADER_BYTES) {
      const frame = readFrameHeader(bytes, at)
      const payload = at + FRAME_HEADER_BYTES
      const end = payload + frame.length
      if (bytes.length < end) break
      at = end
      this.#frame(bytes, payload, end, frame.type, frame.flags, frame.stream)
    }
    this.#part = at < bytes.length ? Buffer.from(bytes.subarray(at)) : undefined
    const out = this.#out
    this.#out = undefined
    if (out.length > 0) this.#socket.write(out.length === 1 ? out[0]! : Buffer.concat(out))
  }

  #frame(bytes: Buffer, start: number, end: number, type: number, flags: number, id: number): void {
    switch (type) {
      case FRAME.data: {
        this.#received += end - start
        if (this.#received > WINDOW / 2) {
          this.#write(windowUpdateFrame(0, this.#received))
          this.#received = 0
        }
        const stream = this.#streams.get(id)
        if (stream !== undefined) stream.bytesLeft -= end - start
        break
      }
      case FRAME.headers: {
        const stream = this.#streams.get(id)
        if (stream !== undefined) stream.status ||= startsWith200(bytes, start, end)
        break
      }
      case FRAME.settings:
        if ((flags & FLAG.ack) === 0) this.#write(settingsAckFrame())
        return
      case FRAME.ping:
        if ((flags & FLAG.ack) === 0) this.#write(pingAckFrame(bytes.subarray(start, end)))
        return
      case FRAME.resetStream:
      case FRAME.goAway:
        return this.#events.failed(
          `${type === FRAME.goAway ? 'GOAWAY' : 'RST_STREAM'} ${bytes.subarray(start, end).toString('hex')}`,
        )
      default:
        return
    }
    if ((flags & FLAG.endStream) !== 0) this.#ended(id)
  }

  #ended(id: number): void {
    const stream = this.#streams.get(id)
    if (stream === undefined) return
    this.#streams.delete(id)
    if (!stream.status || stream.bytesLeft !== 0) {
      return this.#events.failed(
        stream.status ? `${stream.bytesLeft} bytes missing of an answer` : 'an answer is no 200',
      )
    }
    this.#events.answered(this, performance.now() - stream.dueMs)
  }
}

/** `:status: 200` is entry 8 of the static table; a change of the table's size may come before it. */
function startsWith200(bytes: Buffer, start: number, end: number): boolean {
  let at = start
  while (at < end && (bytes[at]! & 0xe0) === 0x20) at += (bytes[at]! & 0x1f) === 0x1f ? 3 : 1
  return bytes[at] === 0x88
}

/** Different for every request, so that no client puts them into a table. */
const NEVER_REPEATED: ReadonlySet<string> = new Set(['x-request-id', 'traceparent'])
const FIRST_DYNAMIC_INDEX = 62

/** @param first fills the table; later blocks refer to it */
function requestFrames({ fields, body }: Http2Work, first: boolean): Buffer {
  const kept = fields.filter((name, i) => i % 2 === 0 && !NEVER_REPEATED.has(name)).length
  const parts: Buffer[] = []
  let inserted = 0
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i]!, fields[i + 1]!]
    if (NEVER_REPEATED.has(name)) parts.push(literal(0x00, name, value))
    else if (first) parts.push(literal(0x40, name, value))
    // The newest entry comes first.
    else parts.push(Buffer.from([0x80 | (FIRST_DYNAMIC_INDEX + kept - 1 - inserted++)]))
  }
  const block = Buffer.concat(parts)
  const headers = Buffer.alloc(FRAME_HEADER_BYTES)
  const flags = FLAG.endHeaders | (body === '' ? FLAG.endStream : 0)
  writeFrameHeader(headers, block.length, FRAME.headers, flags, 0)
  if (body === '') return Buffer.concat([headers, block])
  const data = Buffer.alloc(FRAME_HEADER_BYTES)
  writeFrameHeader(data, body.length, FRAME.data, FLAG.endStream, 0)
  return Buffer.concat([headers, block, data, Buffer.from(body, 'latin1')])
}

/** RFC 7541 section 6.2 with a new name; names and values of fewer than 127 bytes. */
function literal(kind: 0x00 | 0x40, name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.from([kind, name.length]),
    Buffer.from(name, 'latin1'),
    Buffer.from([value.length]),
    Buffer.from(value, 'latin1'),
  ])
}
