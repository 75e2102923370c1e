// The one gRPC call that the probes listener knows: grpc.health.v1.Health/Check, for services that are
// declared. What the workload is sent is written here, never what the client sent.
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { fieldValue } from '../../http/fields.ts'
import { isGrpc, statusFields } from '../http2/grpc.ts'
import type { ProbeLimiter } from './limiter.ts'
import type { ProbeAnswer, ProbedWorkload } from './workload.ts'

const CHECK = '/grpc.health.v1.Health/Check'
/** A kubelet's grpc probe names a service in one message; see google.golang.org/grpc/codes. */
const MOST_REQUEST_BYTES = 256
const MOST_ANSWER_BYTES = 1_024
const REQUEST_TIMEOUT_MS = 5_000
const STATUS = { notFound: 5, exhausted: 8, unimplemented: 12, unavailable: 14, malformed: 13 }
const MESSAGE_PREFIX_BYTES = 5
/** Field 1, length-delimited: `HealthCheckRequest.service`. */
const SERVICE_TAG = 0x0a

export class GrpcHealth {
  readonly #services: ReadonlySet<string>
  readonly #workload: ProbedWorkload
  readonly #limiter: ProbeLimiter
  readonly #sessions = new Set<ServerHttp2Session>()

  /** @param services `*` is the server as a whole */
  constructor(services: readonly string[], workload: ProbedWorkload, limiter: ProbeLimiter) {
    this.#services = new Set(services.map((name) => (name === '*' ? '' : name)))
    this.#workload = workload
    this.#limiter = limiter
  }

  /** Takes over a connection whose first bytes, still to be read, are those of HTTP/2. */
  serve(socket: Socket, address: string): void {
    // Left half open, the session would not notice that its client has gone.
    socket.allowHalfOpen = false
    const session = http2.performServerHandshake(socket, {
      settings: { maxConcurrentStreams: 4, initialWindowSize: 4_096, maxHeaderListSize: 8 * 1024 },
      maxHeaderListPairs: 32,
      maxSessionMemory: 1,
      maxSessionInvalidFrames: 8,
      streamResetBurst: 16,
      streamResetRate: 4,
    })
    this.#sessions.add(session)
    session.on('close', () => this.#sessions.delete(session))
    session.on('error', () => {})
    session.setTimeout(2 * REQUEST_TIMEOUT_MS, () => session.destroy())
    session.on('stream', (stream, _headers, _flags, list) => {
      stream.on('error', () => {})
      this.#stream(stream, list, address)
    })
  }

  close(): void {
    for (const session of this.#sessions) session.destroy()
  }

  #stream(stream: ServerHttp2Stream, list: readonly string[], address: string): void {
    if (!isGrpc([...list])) {
      stream.respond({ ':status': 404 }, { endStream: true })
      return endUnread(stream)
    }
    const known = fieldValue(list, ':method') === 'POST' && fieldValue(list, ':path') === CHECK
    if (!known) return refuse(stream, STATUS.unimplemented, 'only grpc.health.v1.Health/Check')
    const chunks: Buffer[] = []
    let bytes = 0
    stream.setTimeout(REQUEST_TIMEOUT_MS, () => stream.destroy())
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= MOST_REQUEST_BYTES) chunks.push(chunk)
      else if (!stream.headersSent) refuse(stream, STATUS.malformed, 'too long')
    })
    stream.on('end', () => {
      if (stream.destroyed || stream.headersSent) return
      stream.setTimeout(0)
      void this.#check(stream, Buffer.concat(chunks), address)
    })
  }

  async #check(stream: ServerHttp2Stream, message: Buffer, address: string): Promise<void> {
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
    stream.once('close', () => asked.giveUp())
    const answer = await asked.answer
    this.#limiter.ended(address)
    if (!stream.destroyed) passOn(stream, answer)
  }
}

function passOn(stream: ServerHttp2Stream, answer: ProbeAnswer | undefined): void {
  const status = Number(answer && fieldValue(answer.fields, 'grpc-status'))
  if (answer?.status !== 200 || !(status >= 0 && status <= 16)) {
    return refuse(stream, STATUS.unavailable, 'the workload does not answer')
  }
  if (status !== 0) return refuse(stream, status, 'the workload says so')
  if (answer.body.length > MOST_ANSWER_BYTES) return refuse(stream, STATUS.malformed, 'too long')
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
  stream.end(answer.body)
}

function refuse(stream: ServerHttp2Stream, status: number, message: string): void {
  if (stream.destroyed || stream.headersSent) return
  const list = [':status', '200', 'content-type', 'application/grpc']
  stream.respond([...list, ...statusFields(status, message)], { endStream: true })
  endUnread(stream)
}

/**
 * The answer is complete: whatever of the request is still to come is of no use (RFC 9113 section
 * 8.1), and the stream must not stay open for it.
 */
function endUnread(stream: ServerHttp2Stream): void {
  const end = (): void => {
    if (stream.destroyed) return
    // END_STREAM may still wait behind other frames, and RST_STREAM would go out in its place.
    if (stream.state.localClose === 1) stream.close(NO_ERROR)
    else setTimeout(end, AGAIN_MS)
  }
  if (stream.writableFinished) setImmediate(end)
  else stream.once('finish', () => setImmediate(end))
}

const NO_ERROR = 0
const AGAIN_MS = 20

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
