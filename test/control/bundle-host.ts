// A bundle server of the test's own, over real TLS, that can be told to misbehave.
import { once } from 'node:events'
import type http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { BundleServiceConfig } from '../../src/config/config.ts'
import type { Cleanup } from '../support/cleanup.ts'
import { testAuthority } from '../support/pki.ts'

export type Answer = (request: http.IncomingMessage, response: http.ServerResponse) => void

export interface BundleHost {
  readonly url: string
  /** PEM of the authority that its certificate comes from. */
  readonly ca: string
  readonly requests: http.IncomingHttpHeaders[]
  /** Names in those that clients showed. */
  readonly clientCertificates: string[]
  answer: Answer
  /** Serves these bytes, with their ETag and 304. */
  serve(bytes: Buffer, etag: string): void
  close(): Promise<void>
}

export async function bundleHost(
  t: Cleanup,
  options: {
    readonly port?: number
    readonly authority?: Awaited<ReturnType<typeof testAuthority>>
  } = {},
): Promise<BundleHost> {
  const authority = options.authority ?? (await testAuthority())
  const leaf = await authority.intermediate.issue({ dns: ['localhost'] })
  const server = https.createServer({
    cert: leaf.chainPem,
    key: leaf.privateKeyPem,
    ca: authority.root.certificatePem,
    requestCert: true,
    rejectUnauthorized: false,
  })
  const host = {
    url: '',
    ca: authority.root.certificatePem,
    requests: [] as http.IncomingHttpHeaders[],
    clientCertificates: [] as string[],
    answer: ((_, response) => response.writeHead(500).end()) as Answer,
    serve(bytes: Buffer, etag: string) {
      host.answer = (request, response) => {
        if (request.headers['if-none-match'] === etag) response.writeHead(304).end()
        else response.writeHead(200, { etag }).end(bytes)
      }
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  server.on('request', (request, response) => {
    host.requests.push(request.headers)
    const certificate = (request.socket as import('node:tls').TLSSocket).getPeerCertificate()
    if (certificate?.subjectaltname) host.clientCertificates.push(certificate.subjectaltname)
    host.answer(request, response)
  })
  server.listen(options.port ?? 0, '127.0.0.1')
  await once(server, 'listening')
  t.after(host.close)
  host.url = `https://localhost:${(server.address() as AddressInfo).port}/bundles/policy.tar.gz`
  return host
}

export const SERVICE: BundleServiceConfig = {
  pollMinMs: 5,
  pollMaxMs: 10,
  longPollMs: 0,
  unsafePlainText: false,
}
