// The workload of tunnels: sends back what comes. A connection that begins with an HTTP request for a
// WebSocket gets its 101 first; frames are bytes to it, as they are to a proxy.
import { createHash } from 'node:crypto'
import net from 'node:net'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

export function echoServer(): net.Server {
  return net.createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    socket.once('data', (first) => {
      const head = first.toString('latin1')
      const key = /\r\nsec-websocket-key: *(\S+)\r\n/i.exec(head)?.[1]
      socket.write(head.startsWith('GET ') && key !== undefined ? switching(key) : first)
      socket.on('data', (chunk) => socket.write(chunk))
    })
  })
}

function switching(key: string): string {
  const accept = createHash('sha1')
    .update(key + GUID)
    .digest('base64')
  return `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`
}
