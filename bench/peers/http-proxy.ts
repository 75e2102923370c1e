// Process: http-proxy on node:https, the usual way to write such a proxy in Node.
// Arguments: port, workload's port, certificate, key, trust bundle.
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'
import type { TLSSocket } from 'node:tls'

interface ProxyServer {
  web(request: http.IncomingMessage, response: http.ServerResponse): void
  on(
    event: 'proxyReq',
    listener: (to: http.ClientRequest, from: http.IncomingMessage) => void,
  ): this
  on(
    event: 'error',
    listener: (error: Error, from: http.IncomingMessage, response: http.ServerResponse) => void,
  ): this
}
const { createProxyServer } = createRequire(import.meta.url)('http-proxy') as {
  createProxyServer(options: object): ProxyServer
}

const [port, workload, certificate = '', privateKey = '', trustBundle = ''] = process.argv.slice(2)
const identity = Symbol('identity')
type OwnedSocket = TLSSocket & { [identity]?: string }

const proxy = createProxyServer({
  target: `http://127.0.0.1:${workload}`,
  agent: new http.Agent({ keepAlive: true, maxSockets: 256 }),
})
proxy.on('proxyReq', (to, from) => {
  to.setHeader('x-forwarded-client-cert', (from.socket as OwnedSocket)[identity] ?? '')
})
proxy.on('error', (_error, _request, response) => {
  response.writeHead(502).end()
})
const server = https.createServer(
  {
    cert: fs.readFileSync(certificate),
    key: fs.readFileSync(privateKey),
    ca: fs.readFileSync(trustBundle),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    noDelay: true,
    keepAliveTimeout: 3_600_000,
  },
  (request, response) => proxy.web(request, response),
)
// Once a connection: asking for the certificate at each request would cost 100 us.
server.on('secureConnection', (socket: OwnedSocket) => {
  const leaf = socket.getPeerX509Certificate()
  socket[identity] = `Hash=${leaf?.fingerprint256.replaceAll(':', '')};URI=${leaf?.subjectAltName}`
})
server.listen(Number(port), '127.0.0.1')
