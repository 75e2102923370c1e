// Our side of an HTTP/2 connection in memory, with a client of the test's own at the other end.
import { type Duplex, duplexPair } from 'node:stream'
import type { Fields } from '../../src/http/fields.ts'
import {
  Http2Session,
  type SessionEvents,
  type SessionOptions,
} from '../../src/proxy/http2/session.ts'
import type { Http2Stream, StreamUser } from '../../src/proxy/http2/stream.ts'
import { Turn } from '../../src/proxy/turn.ts'
import { begin, RawHttp2 } from './raw-http2.ts'

/** What was told of one stream. */
export class SeenStream implements StreamUser {
  readonly stream: Http2Stream
  readonly fields: Fields
  readonly chunks: Buffer[] = []
  trailers: Fields | undefined
  closed = 0
  drains = 0
  onDrain = (): void => {}

  constructor(stream: Http2Stream, fields: Fields) {
    this.stream = stream
    this.fields = fields
  }

  get body(): Buffer {
    return Buffer.concat(this.chunks)
  }

  streamData(bytes: Buffer): void {
    this.chunks.push(Buffer.from(bytes))
  }

  streamEnd(trailers: Fields): void {
    this.trailers = trailers
  }

  streamDrain(): void {
    this.drains++
    this.onDrain()
  }

  streamClosed(): void {
    this.closed++
  }
}

export interface ServedSession {
  readonly session: Http2Session
  readonly seen: Map<number, SeenStream>
  readonly failures: string[]
  readonly faults: unknown[]
  readonly over: () => boolean
  tooLarge: number
}

/** Serves on `socket`; `answer` is called for each request after its stream has its user. */
export function serveSession(
  socket: Duplex,
  answer: (seen: SeenStream, complete: boolean) => void = () => {},
  options: Partial<SessionOptions> & {
    /** How what comes is cut before it is read. */
    readonly cut?: (chunk: Buffer) => Iterable<Buffer>
  } = {},
): ServedSession {
  const { cut = (chunk: Buffer) => [chunk], ...rest } = options
  const seen = new Map<number, SeenStream>()
  let over = false
  const events: SessionEvents = {
    sessionRequest: (stream, fields, endStream) => {
      const one = new SeenStream(stream, fields)
      seen.set(stream.id, one)
      stream.user = one
      answer(one, endStream)
    },
    sessionTooLarge: () => {
      served.tooLarge++
    },
    sessionFailed: (code) => served.failures.push(code),
    sessionOver: () => {
      over = true
    },
  }
  const faults: unknown[] = []
  const session = new Http2Session(
    socket,
    {
      maxStreams: 100,
      maxListBytes: 16_384,
      listLimits: { listBytes: 16_384, count: 100 },
      turn: new Turn(),
      later: (goOn) => void setImmediate(goOn),
      nowMs: () => 0,
      fault: (error) => faults.push(error),
      ...rest,
    },
    events,
  )
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    for (const piece of cut(chunk)) session.read(piece)
  })
  socket.on('drain', () => session.writable())
  socket.on('end', () => socket.end())
  socket.on('close', () => session.closed())
  const served: ServedSession = {
    session,
    seen,
    failures: [],
    faults,
    over: () => over,
    tooLarge: 0,
  }
  return served
}

export async function inMemory(
  answer?: (seen: SeenStream, complete: boolean) => void,
  options: Parameters<typeof serveSession>[2] & {
    readonly settings?: readonly (readonly [number, number])[]
    readonly credit?: boolean
  } = {},
): Promise<ServedSession & { readonly raw: RawHttp2 }> {
  const [ours, theirs] = duplexPair()
  const { settings, credit, ...rest } = options
  const served = serveSession(ours, answer, rest)
  const raw = new RawHttp2(theirs, credit ?? true)
  await begin(raw, settings)
  return Object.assign(served, { raw })
}
