// The HTTP/1.1 workload that takes a body, of a length or in chunks, and answers with as many bytes.
// The last letter of the path says how many; what comes is counted and not kept.
import net from 'node:net'
import { BODY_BYTES, type BodySize } from '../stage.ts'
import { plainAnswer } from './plain.ts'

const HEAD_END = '\r\n\r\n'
const LAST_CHUNK = Buffer.from('0\r\n\r\n', 'latin1')

export function bodiesServer(): net.Server {
  const answers = new Map(
    Object.entries(BODY_BYTES).map(([size, bytes]) => [size, plainAnswer(bytes)]),
  )
  return net.createServer({ noDelay: true }, (socket) => {
    let bytesLeft = -1
    let part = ''
    let answer: Buffer | undefined
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      let bytes = chunk.length
      if (bytesLeft === -1) {
        part += chunk.toString('latin1')
        const headEnd = part.indexOf(HEAD_END)
        if (headEnd === -1) return
        const head = part.slice(0, headEnd + 2)
        answer = answers.get(/^\w+ \S*\/(\w+) /.exec(head)?.[1] as BodySize)
        const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1]
        bytesLeft = length === undefined ? Number.POSITIVE_INFINITY : Number(length)
        bytes = part.length - headEnd - HEAD_END.length
        part = ''
      }
      bytesLeft -= bytes
      const lastChunk = chunk.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK)
      if (bytesLeft > 0 && !(bytesLeft === Number.POSITIVE_INFINITY && lastChunk)) return
      bytesLeft = -1
      if (answer !== undefined) socket.write(answer)
    })
  })
}
