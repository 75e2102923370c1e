// The kubelet's probes: plain text, since it presents no certificate, and therefore only what is
// declared: GET on paths, a connection to the workload, gRPC health. A few at a time, without a
// client's header or body, and never counted as traffic.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Address, Forward, ProbesConfig } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import { GrpcHealth } from './probes/grpc-health.ts'
import { ProbeLimiter } from './probes/limiter.ts'
import { ProbedWorkload } from './probes/workload.ts'

// As in observe/server.ts: the import statement would evaluate undici as well.
const http = process.getBuiltinModule('node:http')

const MOST_CONNECTIONS = 256
/** A workload may say what Node would not send. */
const MEDIA_TYPE = /^[\x21-\x7e][\x20-\x7e]{0,200}$/
const FIRST_BYTES_MS = 5_000
/** No method begins like the preface of HTTP/2 (RFC 9113 section 3.4). */
const PREFACE = Buffer.from('PRI ')

export interface ProbeServer {
  readonly address: Address
  close(): Promise<void>
}

/** @param fault is told what is thrown here, and should not have been */
export function startProbes(
  probes: ProbesConfig,
  forward: Forward,
  fault: (error: unknown) => void,
): Promise<ProbeServer | Problem> {
  const workload = new ProbedWorkload(forward, fault)
  const limiter = new ProbeLimiter(() => performance.now())
  const health = new GrpcHealth(probes.grpcServices, workload, limiter, fault)
  const paths = new HttpProbes(probes, workload, limiter)
  const server = http.createServer(
    {
      maxHeaderSize: 8 * 1024,
      headersTimeout: FIRST_BYTES_MS,
      requestTimeout: FIRST_BYTES_MS,
      keepAliveTimeout: FIRST_BYTES_MS,
      // Node looks for overdue connections every 30 s otherwise: long enough to keep a kubelet out.
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => void paths.answer(request, response).catch(fault),
  )
  server.maxConnections = MOST_CONNECTIONS
  const [speakHttp1] = server.listeners('connection') as ((socket: Socket) => void)[]
  server.removeAllListeners('connection').on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    socket.on('error', () => {})
    if (!limiter.opened(address)) return void socket.destroy()
    socket.once('close', () => limiter.closed(address))
    const one = (): void => void speakHttp1?.call(server, socket)
    if (probes.grpcServices.length === 0) one()
    else recognise(socket, one, () => health.serve(socket, address))
  })
  return new Promise((resolve) => {
    const { listen } = probes
    server.once('error', (error: NodeJS.ErrnoException) => {
      workload.close()
      resolve({
        where: 'probes.listen',
        what: `cannot be listened on: ${error.message}`,
        remedy: 'choose a free port',
      })
    })
    const where =
      listen.kind === 'unix' ? { path: listen.path } : { host: listen.host, port: listen.port }
    server.listen(where, () => {
      const bound = server.address()
      const address =
        listen.kind === 'tcp' && bound !== null && typeof bound === 'object'
          ? { ...listen, port: bound.port }
          : listen
      resolve({
        address,
        close: () =>
          new Promise((done) => {
            health.close()
            workload.close()
            server.closeAllConnections()
            server.close(() => done())
          }),
      })
    })
  })
}

class HttpProbes {
  readonly #paths: ReadonlySet<string>
  readonly #tcpPaths: ReadonlySet<string>
  readonly #workload: ProbedWorkload
  readonly #limiter: ProbeLimiter

  constructor(probes: ProbesConfig, workload: ProbedWorkload, limiter: ProbeLimiter) {
    this.#paths = new Set(probes.paths)
    this.#tcpPaths = new Set(probes.tcpPaths)
    this.#workload = workload
    this.#limiter = limiter
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url: target = '' } = request
    request.resume()
    if (method !== 'GET' && method !== 'HEAD') return say(response, 405, 'only GET')
    // All of the target: a query would be a client's say in what the workload does.
    const connects = this.#tcpPaths.has(target)
    if (!connects && !this.#paths.has(target)) return say(response, 404, 'not a declared path')
    const address = request.socket.remoteAddress ?? ''
    if (!this.#limiter.begun(address)) return say(response, 429, 'too many probes')
    try {
      await (connects ? this.#connect(response) : this.#ask(method, target, response))
    } finally {
      this.#limiter.ended(address)
    }
  }

  async #connect(response: ServerResponse): Promise<void> {
    const accepted = await this.#workload.accepts()
    say(response, accepted ? 200 : 503, accepted ? 'accepts connections' : 'does not accept')
  }

  async #ask(method: string, target: string, response: ServerResponse): Promise<void> {
    const asked = this.#workload.ask({ method, target, fields: [] })
    response.once('close', () => asked.giveUp())
    const answer = await asked.answer
    if (answer === undefined) return say(response, 502, 'the workload does not answer')
    const { status, contentType = '', body } = answer
    const type = MEDIA_TYPE.test(contentType) ? contentType : 'text/plain'
    response.writeHead(status, { 'content-type': type }).end(body)
  }
}

function say(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain' }).end(`${text}\n`)
}

/** HTTP/1.1 and HTTP/2 on one port: the first bytes tell, and are read again by whoever takes over. */
function recognise(socket: Socket, http1: () => void, http2: () => void): void {
  let first: Buffer = Buffer.alloc(0)
  const read = (): void => {
    const chunk = socket.read() as Buffer | null
    if (chunk !== null) first = Buffer.concat([first, chunk])
    const length = Math.min(first.length, PREFACE.length)
    const like = first.subarray(0, length).equals(PREFACE.subarray(0, length))
    // Its end, when it comes before that, is the business of Node's server.
    if (like && length < PREFACE.length && !socket.readableEnded) return
    socket.off('readable', read)
    socket.setTimeout(0)
    socket.off('timeout', tooSlow)
    socket.unshift(first)
    if (like && length > 0) http2()
    else http1()
  }
  const tooSlow = (): void => void socket.destroy()
  socket.on('timeout', tooSlow).setTimeout(FIRST_BYTES_MS)
  socket.on('readable', read)
}
