// The HTTP/1.1 workload of the scenarios without request bodies. Reads no more of a request than its
// end and a letter of its path, answers with bytes made once, keeps every connection.
import net from 'node:net'

const LINE_FEED = 10
/** Of `GET /api/orders/10KB`; there is a zero in the other path. */
const K = { at: 18, code: 0x4b }

export function plainServer(): net.Server {
  const small = plainAnswer(100)
  const large = plainAnswer(10 * 1024)
  return net.createServer({ noDelay: true }, (socket) => {
    let isLarge = false
    let begun = false
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => {
      if (!begun) isLarge = chunk[K.at] === K.code
      // A head ends in an empty line; a proxy that sends it in pieces does not cut that in two.
      const end = chunk.length - 1
      begun = chunk[end] !== LINE_FEED || chunk[end - 2] !== LINE_FEED
      if (!begun) socket.write(isLarge ? large : small)
    })
  })
}

export function plainAnswer(bytes: number): Buffer {
  const head = `HTTP/1.1 200 OK\r\nserver: workload\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\ncontent-type: application/json\r\ncontent-length: ${bytes}\r\n\r\n`
  return Buffer.from(head + 'x'.repeat(bytes), 'latin1')
}
