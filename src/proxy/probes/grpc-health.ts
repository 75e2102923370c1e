// The one gRPC call that the probes listener knows: grpc.health.v1.Health/Check, for services that are
// declared. What the workload is sent is written here, never what the client sent.
import type { Socket } from 'node:net'
import { type Fields, fieldValue } from '../../http/fields.ts'
import { isMalformedRequest } from '../../http/h2/fields.ts'
import { H2_ERROR } from '../../http/h2/frames.ts'
import { isGrpc, statusFields } from '../http2/grpc.ts'
import { Http2Session } from '../http2/session.ts'
import type { Http2Stream, StreamUser } from '../http2/stream.ts'
import { Turn } from '../turn.ts'
import type { ProbeLimiter } from './limiter.ts'
import type { ProbeAnswer, ProbedWorkload } from './workload.ts'

const CHECK = '/grpc.health.v1.Health/Check'
/** A kubelet's grpc probe names a service in one message; see google.golang.org/grpc/codes. */
const MOST_REQUEST_BYTES = 256
const MOST_ANSWER_BYTES = 1_024
const REQUEST_TIMEOUT_MS = 5_000
const STATUS = { notFound: 5, exhausted: 8, unimplemented: 12, unavailable: 14, malformed: 13 }
const MESSAGE_PREFIX_BYTES = 5
const MOST_STREAMS = 4
const LIST_LIMITS = { listBytes: 8 * 1024, count: 32 }
const TOLERANCE = { resetBurst: 16, resetsPerSecond: 4, invalid: 8 }
/** Field 1, length-delimited: `HealthCheckRequest.service`. */
const SERVICE_TAG = 0x0a

export class GrpcHealth {
  readonly #services: ReadonlySet<string>
  readonly #workload: ProbedWorkload
  readonly #limiter: ProbeLimiter
  readonly #sockets = new Set<Socket>()
  readonly #turn = new Turn()
  readonly #fault: (error: unknown) => void

  /**
   * @param services `*` is the server as a whole
   * @param fault is told what is thrown here, and should not have been
   */
  constructor(
    services: readonly string[],
    workload: ProbedWorkload,
    limiter: ProbeLimiter,
    fault: (error: unknown) => void,
  ) {
    this.#services = new Set(services.map((name) => (name === '*' ? '' : name)))
    this.#workload = workload
    this.#limiter = limiter
    this.#fault = fault
  }

  /** Takes over a connection whose first bytes, still to be read, are those of HTTP/2. */
  serve(socket: Socket, address: string): void {
    // Left half open, nobody would notice that its client has gone.
    socket.allowHalfOpen = false
    this.#sockets.add(socket)
    const session = new Http2Session(
      socket,
      {
        maxStreams: MOST_STREAMS,
        maxListBytes: LIST_LIMITS.listBytes,
        listLimits: LIST_LIMITS,
        tolerance: TOLERANCE,
        turn: this.#turn,
        later: (goOn) => void setImmediate(goOn),
        nowMs: () => performance.now(),
        fault: this.#fault,
      },
      {
        sessionRequest: (stream, list, endStream) => {
          if (isMalformedRequest(list, endStream)) session.malformed(stream)
          else this.#stream(stream, list, endStream, address)
        },
        sessionTooLarge: () => {},
        sessionFailed: () => {},
        sessionOver: () => {},
      },
    )
    const guarded = (step: () => void): void => {
      try {
        step()
      } catch (error) {
        this.#fault(error)
        socket.destroy()
      }
    }
    socket.setTimeout(2 * REQUEST_TIMEOUT_MS, () => socket.destroy())
    socket
      .on('data', (chunk: Buffer) => guarded(() => session.read(chunk)))
      .on('drain', () => guarded(() => session.writable()))
      .on('close', () => {
        this.#sockets.delete(socket)
        guarded(() => session.closed())
      })
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  #stream(stream: Http2Stream, list: Fields, endStream: boolean, address: string): void {
    if (!isGrpc(list)) {
      stream.respond([':status', '404'])
      return stream.end()
    }
    const known = fieldValue(list, ':method') === 'POST' && fieldValue(list, ':path') === CHECK
    if (!known) return refuse(stream, STATUS.unimplemented, 'only grpc.health.v1.Health/Check')
    const collecting = new Question(stream, (message) => {
      void this.#check(stream, message, address).catch(this.#fault)
    })
    stream.user = collecting
    if (endStream) collecting.streamEnd()
  }

  async #check(stream: Http2Stream, message: Buffer, address: string): Promise<void> {
    const service = serviceOf(message)
    if (service === undefined) return refuse(stream, STATUS.malformed, 'not a HealthCheckRequest')
    if (!this.#services.has(service)) return refuse(stream, STATUS.notFound, 'not declared')
    if (!this.#limiter.begun(address)) return refuse(stream, STATUS.exhausted, 'too many probes')
    const asked = this.#workload.ask(
      {
        method: 'POST',
        target: CHECK,
        fields: ['content-type', 'application/grpc'],
        body: requestFor(service),
      },
      true,
    )
    stream.user = new Abandoning(() => asked.giveUp())
    const answer = await asked.answer
    this.#limiter.ended(address)
    passOn(stream, answer)
  }
}

function passOn(stream: Http2Stream, answer: ProbeAnswer | undefined): void {
  const status = Number(answer && fieldValue(answer.fields, 'grpc-status'))
  if (answer?.status !== 200 || !(status >= 0 && status <= 16)) {
    return refuse(stream, STATUS.unavailable, 'the workload does not answer')
  }
  if (status !== 0) return refuse(stream, status, 'the workload says so')
  if (answer.body.length > MOST_ANSWER_BYTES) return refuse(stream, STATUS.malformed, 'too long')
  stream.respond([':status', '200', 'content-type', 'application/grpc'])
  stream.write(answer.body)
  stream.end(['grpc-status', '0'])
}

function refuse(stream: Http2Stream, status: number, message: string): void {
  const list = [':status', '200', 'content-type', 'application/grpc']
  stream.respond([...list, ...statusFields(status, message)])
  stream.end()
}

/** Collects the one message of a request. */
class Question implements StreamUser {
  readonly #stream: Http2Stream
  readonly #asked: (message: Buffer) => void
  readonly #timer: NodeJS.Timeout
  readonly #chunks: Buffer[] = []
  #bytes = 0

  constructor(stream: Http2Stream, asked: (message: Buffer) => void) {
    this.#stream = stream
    this.#asked = asked
    this.#timer = setTimeout(() => stream.reset(H2_ERROR.cancel), REQUEST_TIMEOUT_MS)
  }

  streamData(bytes: Buffer): void {
    this.#bytes += bytes.length
    if (this.#bytes <= MOST_REQUEST_BYTES) this.#chunks.push(Buffer.from(bytes))
    else if (!this.#stream.headersSent) refuse(this.#stream, STATUS.malformed, 'too long')
  }

  streamEnd(): void {
    clearTimeout(this.#timer)
    if (!this.#stream.headersSent) this.#asked(Buffer.concat(this.#chunks))
  }

  streamClosed(): void {
    clearTimeout(this.#timer)
  }

  streamDrain(): void {}
}

/** Whoever is asked meanwhile learns that nobody waits any more. */
class Abandoning implements StreamUser {
  readonly streamClosed: () => void

  constructor(giveUp: () => void) {
    this.streamClosed = giveUp
  }

  streamData(): void {}
  streamEnd(): void {}
  streamDrain(): void {}
}

/** @returns undefined where it is not one request that names at most one service */
export function serviceOf(message: Buffer): string | undefined {
  if (message.length < MESSAGE_PREFIX_BYTES || message[0] !== 0) return undefined
  const length = message.readUInt32BE(1)
  const body = message.subarray(MESSAGE_PREFIX_BYTES)
  if (body.length !== length) return undefined
  if (length === 0) return ''
  // One byte of length is enough for every service that can be declared.
  if (length < 2 || body[0] !== SERVICE_TAG || body[1]! > 0x7f || body[1] !== length - 2) {
    return undefined
  }
  return body.toString('utf8', 2)
}

export function requestFor(service: string): Buffer {
  const name = Buffer.from(service)
  const body = name.length === 0 ? name : Buffer.from([SERVICE_TAG, name.length, ...name])
  const prefix = Buffer.alloc(MESSAGE_PREFIX_BYTES)
  prefix.writeUInt32BE(body.length, 1)
  return Buffer.concat([prefix, body])
}
