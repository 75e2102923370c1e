// The kubelet's probes: plain text, since it presents no certificate, and therefore only GET on the
// declared paths, a few at a time, without a client's header or body, and never counted as traffic.
import type { Address, Config, Forward } from '../config/config.ts'
import type { Problem } from '../errors.ts'

// As in observe/server.ts: the import statement would evaluate undici as well.
const http = process.getBuiltinModule('node:http')

const PROBE_TIMEOUT_MS = 10_000
/** A kubelet sends a handful a second at most. */
const MOST_AT_ONCE = 16
const MOST_PER_SECOND = 50
/** What a probe reads is the status; the body is for people. */
const MOST_BODY_BYTES = 64 * 1024

export interface ProbeServer {
  readonly address: Address
  close(): Promise<void>
}

export function startProbes(
  probes: NonNullable<Config['probes']>,
  forward: Forward,
): Promise<ProbeServer | Problem> {
  const paths = new Set(probes.paths)
  let atOnce = 0
  let second = 0
  let inSecond = 0
  const server = http.createServer(
    {
      maxHeaderSize: 8 * 1024,
      headersTimeout: 5_000,
      requestTimeout: 5_000,
      // Node looks for overdue connections every 30 s otherwise: long enough to keep a kubelet out.
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      // All of the target: a query would be a client's say in what the workload does.
      const path = request.url ?? ''
      const answer = (status: number, text: string): void => {
        response.writeHead(status, { 'content-type': 'text/plain' }).end(`${text}\n`)
      }
      request.resume()
      if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'only GET')
      if (!paths.has(path)) return answer(404, 'not a declared probe path')
      const now = Math.floor(Date.now() / 1000)
      inSecond = now === second ? inSecond + 1 : 1
      second = now
      if (atOnce >= MOST_AT_ONCE || inSecond > MOST_PER_SECOND)
        return answer(429, 'too many probes')
      atOnce++
      response.once('close', () => atOnce--)
      const { address } = forward
      const target =
        address.kind === 'unix'
          ? { socketPath: address.path }
          : { host: address.host, port: address.port }
      const probe = http.request(
        {
          ...target,
          method: request.method,
          path,
          agent: false,
          timeout: PROBE_TIMEOUT_MS,
          headers: { host: 'localhost', 'user-agent': 'postern-probe' },
        },
        (upstream) => {
          response.writeHead(upstream.statusCode ?? 502, {
            'content-type': upstream.headers['content-type'] ?? 'text/plain',
          })
          let bytes = 0
          upstream.on('data', (chunk: Buffer) => {
            bytes += chunk.length
            if (bytes > MOST_BODY_BYTES) probe.destroy()
            else response.write(chunk)
          })
          upstream.on('end', () => response.end())
          upstream.on('close', () => response.end())
        },
      )
      probe.on('timeout', () => probe.destroy(new Error('timeout')))
      probe.on('error', () => {
        if (!response.headersSent) answer(502, 'the workload does not answer')
        else response.end()
      })
      response.once('close', () => probe.destroy())
      probe.end()
    },
  )
  server.maxConnections = 64
  return new Promise((resolve) => {
    const { listen } = probes
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve({
        where: 'probes.listen',
        what: `cannot be listened on: ${error.message}`,
        remedy: 'choose a free port',
      }),
    )
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
            server.closeAllConnections()
            server.close(() => done())
          }),
      })
    })
  })
}
