// Process: what a connection costs on node:tls at least. Verifies client certificates, answers every
// chunk with the same bytes. Arguments: port, certificate, key, trust bundle.
import fs from 'node:fs'
import tls from 'node:tls'

const [port, certificate = '', privateKey = '', trustBundle = ''] = process.argv.slice(2)
const ANSWER = Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok', 'latin1')

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
    socket.on('data', () => socket.write(ANSWER))
    socket.on('error', () => socket.destroy())
  },
)
server.listen(Number(port), '127.0.0.1', 1024)
