// TLS with ourselves, in memory, with the options that the listener will have. A handshake is the proof
// that an identity serves: what OpenSSL takes into a context can still fail at the first client, such as
// a key whose signatures nobody can use.
import { duplexPair } from 'node:stream'
import tls from 'node:tls'
import type { Problem } from '../errors.ts'
import type { IdentityMaterial, TrustBundleMaterial } from '../identity/material.ts'
import { ALPN_PROTOCOLS, contextOptions, SERVER_OPTIONS } from './tls-options.ts'

/** Undefined when it came to its end with our certificate on both sides. */
export async function selfHandshakeProblem(
  identity: IdentityMaterial,
  bundles: readonly TrustBundleMaterial[],
): Promise<Problem | undefined> {
  try {
    await withOwnConnection(contextOptions(identity, bundles), async () => {})
    return undefined
  } catch (error) {
    // OpenSSL's reason; its message names addresses and source files.
    const { reason, message } = error as Error & { readonly reason?: string }
    return {
      where: identity.facts.file,
      what: `a TLS handshake with this certificate and key fails: ${reason ?? message}`,
      remedy: 'issue a certificate with an ECDSA P-256, Ed25519 or RSA key of at least 2048 bits',
    }
  }
}

/** Runs `use` on both ends of a connection; rejects where there is none, or where it breaks or hangs. */
export async function withOwnConnection(
  options: tls.SecureContextOptions,
  use: (server: tls.TLSSocket, client: tls.TLSSocket) => Promise<void>,
): Promise<void> {
  const [near, far] = duplexPair()
  const ALPNProtocols = [...ALPN_PROTOCOLS]
  const server = tls.createServer({ ...SERVER_OPTIONS, ...options, ALPNProtocols })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  // What breaks off below ends the server's side too: that must not be an unhandled rejection.
  promise.catch(() => {})
  const timer = setTimeout(() => reject(new Error('it does not end')), LIMIT_MS)
  let client: tls.TLSSocket | undefined
  try {
    server.on('tlsClientError', reject)
    server.on('secureConnection', (socket) => {
      socket.on('error', reject)
      // The end of the handshake for both: in TLS 1.3 the client is done before its certificate is read.
      const shown = socket.getPeerX509Certificate()
      if (shown === undefined || client === undefined) {
        reject(new Error('our certificate was not shown'))
      } else use(socket, client).then(resolve, reject)
    })
    server.emit('connection', near)
    client = tls.connect({
      // All of them: what is left out comes from Node's defaults, and so from the environment.
      ...options,
      socket: far,
      ALPNProtocols,
      // Whether others believe our certificate is for them to say.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
    })
    client.on('error', reject)
    await promise
  } finally {
    clearTimeout(timer)
    client?.destroy()
    near.destroy()
    far.destroy()
  }
}

/** Milliseconds are usual. */
const LIMIT_MS = 5_000
