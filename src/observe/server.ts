// The small HTTP servers of the control thread: a table of routes, plain answers, every limit set.
// Binding either works or returns a problem that says what to change.
import fs from 'node:fs'
import type { IncomingHttpHeaders, IncomingMessage, Server, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Address } from '../config/config.ts'
import type { Problem } from '../errors.ts'

// `import 'node:http'` evaluates its lazy exports and with them undici: 40 ms and 17 MiB instead of
// 5 ms and 4 MiB (Node 26.10).
const http = process.getBuiltinModule('node:http')

export interface Answer {
  readonly status: number
  /** A string goes out as it is, anything else as JSON. */
  readonly body: unknown
  /** Of a string; default `application/json`. */
  readonly contentType?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface Call {
  readonly headers: IncomingHttpHeaders
  readonly query: URLSearchParams
  /** What stands where the route's path has its trailing `*`. */
  readonly rest: string
}

export interface Route {
  readonly method: 'GET' | 'POST'
  /** Exact, or with a trailing `/*` for one more segment. GET answers HEAD too. */
  readonly path: string
  readonly answer: (call: Call) => Answer | Promise<Answer>
}

export interface ServerOptions {
  /** Configuration key of the address, for problems. */
  readonly where: string
  readonly address: Address
  readonly routes: readonly Route[]
  /** Permissions of a UNIX socket. */
  readonly socketMode: number
  /** Looks at a request before its route does; an answer ends it. */
  readonly guard?: (method: string, headers: IncomingHttpHeaders) => Answer | undefined
  /** A handler threw; the client gets 500. */
  readonly onFault?: (error: unknown) => void
}

export interface RunningServer {
  /** The bound address: the port is the real one where the configuration says 0. */
  readonly address: Address
  /** Stops listening and ends every connection. */
  close(): Promise<void>
}

export async function startServer(options: ServerOptions): Promise<RunningServer | Problem> {
  const { address, where } = options
  if (address.kind === 'unix') {
    const problem = await removeStaleSocket(address.path, where)
    if (problem) return problem
  }
  const server = http.createServer(
    {
      maxHeaderSize: 16 * 1024,
      headersTimeout: 5_000,
      requestTimeout: 10_000,
      connectionsCheckingInterval: 5_000,
      // Longer than any usual scrape interval, so that a scraper keeps its connection.
      keepAliveTimeout: 75_000,
    },
    oneAtATime((request, response) => void respond(options, request, response)),
  )
  server.maxConnections = MOST_CONNECTIONS
  shareConnections(server)
  // A connection that neither reads nor writes.
  server.setTimeout(80_000)
  return listen(server, options)
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** Scrapers and kubelets ask again when they have an answer: a thousand requests in one packet are an attack on memory. */
function oneAtATime(serve: Listener): Listener {
  const answering = new WeakSet<Socket>()
  return (request, response) => {
    const { socket } = request
    if (answering.has(socket)) return void socket.destroy()
    answering.add(socket)
    response.once('close', () => answering.delete(socket))
    serve(request, response)
  }
}

/**
 * The metrics may be open to the cluster: whoever holds connections must keep neither the kubelet nor the
 * scraper out. An address has a share of them, and where few are left those that are idle give way.
 */
function shareConnections(server: Server): void {
  const open = new Map<string, number>()
  let all = 0
  const [serve] = server.listeners('connection') as ((socket: Socket) => void)[]
  server.removeAllListeners('connection').on('connection', (socket: Socket) => {
    const address = socket.remoteAddress
    // Who may connect to a UNIX socket is said by its permissions.
    if (address !== undefined) {
      const count = (open.get(address) ?? 0) + 1
      if (count > MOST_OF_AN_ADDRESS) return void socket.destroy()
      open.set(address, count)
      socket.once('close', () => {
        const left = (open.get(address) ?? 0) - 1
        if (left > 0) open.set(address, left)
        else open.delete(address)
      })
    }
    all++
    socket.once('close', () => all--)
    if (all > MOST_CONNECTIONS - MOST_OF_AN_ADDRESS) server.closeIdleConnections()
    serve?.call(server, socket)
  })
}

const MOST_CONNECTIONS = 128
const MOST_OF_AN_ADDRESS = 32

/** Whether a start succeeded: problems have no `close`. */
export const isRunning = (result: RunningServer | Problem): result is RunningServer =>
  'close' in result

function listen(server: Server, options: ServerOptions): Promise<RunningServer | Problem> {
  const { address, where, socketMode, onFault } = options
  return new Promise((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(bindProblem(address, where, error)),
    )
    server.once('listening', () => {
      server.removeAllListeners('error')
      // Accept errors (no file descriptor left): the server goes on.
      server.on('error', (error) => onFault?.(error))
      if (address.kind === 'unix') fs.chmodSync(address.path, socketMode)
      const bound = server.address()
      resolve({
        address:
          address.kind === 'tcp' && bound !== null && typeof bound === 'object'
            ? { ...address, port: bound.port }
            : address,
        close: () =>
          new Promise((done) => {
            server.close(() => done())
            server.closeAllConnections()
          }),
      })
    })
    if (address.kind === 'unix') server.listen({ path: address.path })
    else server.listen({ host: address.host, port: address.port })
  })
}

async function respond(
  options: ServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const method = request.method ?? ''
  let answer: Answer
  let bytes: Buffer
  try {
    answer = options.guard?.(method, request.headers) ?? (await route(options, method, request))
    bytes = encoded(answer.body)
  } catch (error) {
    options.onFault?.(error)
    answer = { status: 500, body: { error: 'internal' } }
    bytes = encoded(answer.body)
  }
  const { status, contentType = 'application/json', headers } = answer
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': bytes.length,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
    // No route takes a body: what a client sends anyway is not read, so nothing may follow it.
    ...(hasBody(request) ? { connection: 'close' } : {}),
  })
  response.end(method === 'HEAD' ? undefined : bytes)
}

const encoded = (body: unknown): Buffer =>
  Buffer.from(typeof body === 'string' ? body : `${JSON.stringify(body)}\n`)

function route(
  { routes }: ServerOptions,
  method: string,
  request: IncomingMessage,
): Answer | Promise<Answer> {
  const url = request.url ?? '/'
  const cut = url.indexOf('?')
  const path = cut < 0 ? url : url.slice(0, cut)
  const asked = method === 'HEAD' ? 'GET' : method
  const allowed = new Set<string>()
  for (const one of routes) {
    const rest = match(one.path, path)
    if (rest === undefined) continue
    if (one.method === asked) {
      const query = new URLSearchParams(cut < 0 ? '' : url.slice(cut + 1))
      return one.answer({ headers: request.headers, query, rest })
    }
    allowed.add(one.method)
    if (one.method === 'GET') allowed.add('HEAD')
  }
  if (allowed.size === 0) return { status: 404, body: { error: 'not_found' } }
  return {
    status: 405,
    body: { error: 'method_not_allowed' },
    headers: { allow: [...allowed].join(', ') },
  }
}

function match(pattern: string, path: string): string | undefined {
  if (!pattern.endsWith('/*')) return pattern === path ? '' : undefined
  const prefix = pattern.slice(0, -1)
  const rest = path.startsWith(prefix) ? path.slice(prefix.length) : ''
  return rest === '' || rest.includes('/') ? undefined : rest
}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined ||
  (headers['content-length'] !== undefined && headers['content-length'] !== '0')

/** A socket file outlives a killed process; only one that nobody answers is removed. */
export async function removeStaleSocket(path: string, where: string): Promise<Problem | undefined> {
  const facts = fs.lstatSync(path, { throwIfNoEntry: false })
  if (facts === undefined) return undefined
  if (!facts.isSocket()) {
    return {
      where,
      what: `${path} exists and is not a socket`,
      remedy: 'Name a path that does not exist, or remove the file',
    }
  }
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
  if (alive) return bindProblem({ kind: 'unix', path }, where, { code: 'EADDRINUSE' })
  fs.rmSync(path, { force: true })
  return undefined
}

function bindProblem(address: Address, where: string, error: { code?: string }): Problem {
  const text = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`
  // libuv turns ENOENT into EACCES when it binds a UNIX socket.
  const noDirectory =
    error.code === 'EACCES' && address.kind === 'unix' && !fs.existsSync(dirname(address.path))
  const code = noDirectory ? 'ENOENT' : (error.code ?? 'unknown error')
  const [what, remedy] = BIND_ERRORS.get(code) ?? [code, 'Choose another address']
  return { where, what: `cannot listen on ${text}: ${what}`, remedy }
}

const BIND_ERRORS = new Map<string, readonly [what: string, remedy: string]>([
  ['EADDRINUSE', ['the address is in use', 'Stop the other process or choose another address']],
  ['EACCES', ['permission denied', 'Choose a port above 1023 or a path this user may write to']],
  ['EADDRNOTAVAIL', ['this host does not have that address', 'Choose an address of this host']],
  ['ENOTFOUND', ['the host name does not resolve', 'Give an IP address']],
  ['ENOENT', ['its directory does not exist', 'Create the directory or choose another path']],
  ['EINVAL', ['the path is too long for a socket or malformed', 'Choose a shorter path']],
])
