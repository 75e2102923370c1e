// Process: what passing on bytes costs on node:tls and node:net at least. Verifies client
// certificates, then ties each connection to one of its own to the workload.
// Arguments: port, workload's port, certificate, key, trust bundle.
import fs from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'

const [port, workload, certificate = '', privateKey = '', trustBundle = ''] = process.argv.slice(2)

const server = tls.createServer(
  {
    cert: fs.readFileSync(certificate),
    key: fs.readFileSync(privateKey),
    ca: fs.readFileSync(trustBundle),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    noDelay: true,
  },
  (socket) => {
    const upstream = net.connect({ host: '127.0.0.1', port: Number(workload), noDelay: true })
    socket.on('error', () => upstream.destroy())
    upstream.on('error', () => socket.destroy())
    socket.pipe(upstream).pipe(socket)
  },
)
server.listen(Number(port), '127.0.0.1', 1024)
