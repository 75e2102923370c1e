// Workloads behind the sidecar: a plain one that answers what it was asked, and a raw one that sends
// whatever bytes a test wants.
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import type { Cleanup } from './cleanup.ts'

export interface SeenRequest {
  readonly method: string
  readonly url: string
  /** name, value, name, value... as received. */
  readonly rawHeaders: readonly string[]
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
}

export interface Workload {
  readonly url: string
  readonly port: number
  readonly seen: SeenRequest[]
  /** Connections that are open now. */
  connections(): Promise<number>
}

const SEEN = new Map<string, readonly SeenRequest[]>()

/**
 * How many requests have come to a workload of `startWorkload`, by their ids: one that was asked once
 * more is one; undefined for any other workload.
 */
export function requestsSeenAt(url: string): number | undefined {
  const ids = SEEN.get(url)?.map(({ headers }) => headers['x-request-id'])
  return ids && new Set(ids).size
}

/** Answers 200 with the request as JSON, unless `answer` says otherwise; remembers every request. */
export async function startWorkload(
  t: Cleanup,
  answer?: (request: SeenRequest, response: http.ServerResponse) => void,
): Promise<Workload> {
  const seen: SeenRequest[] = []
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('error', () => response.destroy())
    request.on('end', () => {
      const one = {
        method: request.method ?? '',
        url: request.url ?? '',
        rawHeaders: request.rawHeaders,
        headers: request.headers,
        body: Buffer.concat(chunks),
      }
      seen.push(one)
      if (answer !== undefined) return answer(one, response)
      const { method, url, headers, body } = one
      const text = JSON.stringify({ method, url, headers, body: body.toString('latin1') })
      response.setHeader('content-type', 'application/json')
      response.setHeader('content-length', Buffer.byteLength(text))
      response.end(text)
    })
  })
  await listening(server)
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  SEEN.set(url, seen)
  return {
    url,
    port,
    seen,
    connections: () =>
      new Promise((resolve, reject) =>
        server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
      ),
  }
}

export interface RawWorkload {
  readonly url: string
  readonly port: number
  /** Everything received, a string (latin1) for each connection, in the order of their coming. */
  readonly received: string[]
  readonly sockets: net.Socket[]
}

/** Hands each connection to `serve`, which says what it likes. */
export async function startRawWorkload(
  t: Cleanup,
  serve: (socket: net.Socket, connection: number) => void,
): Promise<RawWorkload> {
  const received: string[] = []
  const sockets: net.Socket[] = []
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const connection = received.push('') - 1
    sockets.push(socket)
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      received[connection] += chunk.toString('latin1')
    })
    serve(socket, connection)
  })
  await listening(server)
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, port, received, sockets }
}

function listening(server: net.Server): Promise<void> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
}
