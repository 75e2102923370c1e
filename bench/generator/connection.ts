// A client connection of the load generator: TLS 1.3 with a client certificate, as little work a
// read as node:tls allows. What is sent over it is its user's business.
import type { OnReadOpts } from 'node:net'
import tls from 'node:tls'
import type { ClientCredentials } from '../stage.ts'

/** What drives clients. */
export interface ClientEvents {
  /** The connection is there, and may be sent on. */
  ready(client: Client): void
  /** One request is complete. */
  answered(client: Client, durationMs: number): void
  /** It was told 503. */
  refused(client: Client, durationMs: number): void
  failed(message: string): void
}

/** One connection as the load drives it. */
export interface Client {
  /** Requests that it takes at once. */
  readonly atOnce: number
  /** @param dueMs when the request was to leave, on the clock of `performance` */
  send(dueMs: number): void
  destroy(): void
}

/** The same for every proxy, whatever it would prefer. */
const SUITE = {
  minVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256',
  ecdhCurve: 'X25519',
} as const

export function connectionOptions(
  port: number,
  protocol: 'h2' | 'http/1.1' | undefined,
  { certificateChain, privateKey, trustBundle }: ClientCredentials,
): tls.ConnectionOptions {
  return {
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ...(protocol === undefined ? {} : { ALPNProtocols: [protocol] }),
    ...SUITE,
    secureContext: tls.createSecureContext({
      cert: certificateChain,
      key: privateKey,
      ca: trustBundle,
      ...SUITE,
    }),
  }
}

const READ_BYTES = 64 * 1024

/** @param read is lent the bytes until it returns */
export function connect(
  options: tls.ConnectionOptions,
  secured: () => void,
  read: (buffer: Buffer, length: number) => void,
  failed: (message: string) => void,
): tls.TLSSocket {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  const onread: OnReadOpts = {
    buffer,
    callback: (length) => {
      read(buffer, length)
      return true
    },
  }
  // tls.connect hands it on to net.Socket, which the types do not know.
  const socket = tls.connect({ ...options, onread } as tls.ConnectionOptions)
  socket.setNoDelay(true)
  socket.once('secureConnect', secured)
  socket.on('error', (error) => failed(`connection: ${error.message}`))
  socket.on('close', () => failed('the proxy closed a connection'))
  return socket
}

export function destroy(socket: tls.TLSSocket): void {
  socket
    .removeAllListeners('close')
    .removeAllListeners('error')
    .on('error', () => {})
  socket.destroy()
}
