// An HTTP/2 client with a client certificate, and workloads that speak HTTP/2 without TLS.
import http2, { type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { Cleanup } from './cleanup.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

export interface Http2Reply {
  readonly status: number
  readonly headers: http2.IncomingHttpHeaders
  readonly trailers: http2.IncomingHttpHeaders
  readonly body: Buffer
  /** Of the RST_STREAM that ended it; 0 for an ordinary end. */
  readonly resetCode: number
}

export async function openSession(
  t: Cleanup,
  sidecar: TestSidecar,
  client: IssuedCertificate | undefined,
  options: http2.SecureClientSessionOptions = {},
): Promise<ClientHttp2Session> {
  const { ALPNProtocols: _, ...tls } = sidecar.clientOptions(client)
  const session = http2.connect(`https://localhost:${sidecar.port}`, {
    maxSessionMemory: 1_000,
    ...(tls as http2.SecureClientSessionOptions),
    ...options,
  })
  session.on('error', () => {})
  t.after(() => session.destroy())
  await new Promise<void>((resolve, reject) => {
    session.once('connect', () => resolve())
    session.once('error', reject)
  })
  return session
}

/** One request to its end; `send` writes its body, and must end it. */
export function ask(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders = {},
  send?: Buffer | string | ((stream: http2.ClientHttp2Stream) => void),
): Promise<Http2Reply> {
  const stream = session.request(
    { ':path': '/api/orders', ...headers },
    { endStream: send === undefined },
  )
  if (typeof send === 'function') send(stream)
  else if (send !== undefined) stream.end(send)
  return replyOf(stream)
}

export function replyOf(stream: http2.ClientHttp2Stream): Promise<Http2Reply> {
  return new Promise((resolve) => {
    let head: http2.IncomingHttpHeaders = {}
    let trailers: http2.IncomingHttpHeaders = {}
    const chunks: Buffer[] = []
    stream.on('response', (headers) => {
      head = headers
    })
    stream.on('trailers', (headers) => {
      trailers = headers
    })
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('error', () => {})
    stream.on('close', () =>
      resolve({
        status: Number(head[':status'] ?? 0),
        headers: head,
        trailers,
        body: Buffer.concat(chunks),
        resetCode: stream.rstCode ?? 0,
      }),
    )
  })
}

export interface H2cWorkload {
  readonly url: string
  readonly port: number
  readonly streams: { readonly headers: http2.IncomingHttpHeaders }[]
}

/** Answers each stream with `answer`; the default echoes the body. */
export async function startH2cWorkload(
  t: Cleanup,
  answer: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void = echo,
  options: http2.ServerOptions = {},
): Promise<H2cWorkload> {
  const streams: { headers: http2.IncomingHttpHeaders }[] = []
  const sessions = new Set<http2.ServerHttp2Session>()
  const server = http2.createServer(options)
  server.on('session', (session) => {
    sessions.add(session)
    session.on('close', () => sessions.delete(session))
  })
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    stream.on('error', () => {})
    streams.push({ headers })
    answer(stream, headers)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const session of sessions) session.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `h2c://127.0.0.1:${port}`, port, streams }
}

function echo(stream: http2.ServerHttp2Stream): void {
  stream.respond({ ':status': 200 })
  stream.pipe(stream)
}
