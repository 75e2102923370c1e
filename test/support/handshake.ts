// One mutual TLS handshake between two issued identities, on loopback and with both ends checking.
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type SecureContextOptions, type TLSSocket } from 'node:tls'

export interface Handshake {
  /** Subject alternative name of the client, as the server saw it. */
  readonly client: string | undefined
  readonly server: string | undefined
}

/** Rejects with what either end has against the other. */
export async function handshake(
  server: SecureContextOptions,
  client: SecureContextOptions,
): Promise<Handshake> {
  // With `rejectUnauthorized` the server would close the connection and keep the reason to itself.
  const listener = createServer({ ...server, requestCert: true, rejectUnauthorized: false })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const refused = new Promise<never>((_, reject) => listener.once('tlsClientError', reject))
  const accepted = once(listener, 'secureConnection') as Promise<[TLSSocket]>
  const socket = connect({
    ...client,
    host: '127.0.0.1',
    port: (listener.address() as AddressInfo).port,
    // The names in question are SPIFFE IDs; the chain is what is checked here.
    checkServerIdentity: () => undefined,
  })
  const failed = new Promise<never>((_, reject) => socket.once('error', reject))
  try {
    const [peer] = await Promise.race([accepted, refused, failed])
    if (!peer.authorized) throw new Error(String(peer.authorizationError))
    return {
      client: peer.getPeerX509Certificate()?.subjectAltName,
      server: socket.getPeerX509Certificate()?.subjectAltName,
    }
  } finally {
    failed.catch(() => {})
    refused.catch(() => {})
    socket.destroy()
    listener.close()
  }
}
