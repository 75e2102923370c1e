// The h2c workload: a unary gRPC method that returns its message. Frames are counted, header blocks
// not read, answers made of bytes prepared once: it costs a fifth of one on node:http2, so that the
// proxies are not kept waiting.
import net from 'node:net'
import {
  DEFAULT_WINDOW,
  dataFrameHeader,
  FLAG,
  FRAME,
  FRAME_HEADER_BYTES,
  headersFrames,
  MAX_FRAME_BYTES,
  PREFACE,
  pingAckFrame,
  readFrameHeader,
  SETTING,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'

const WINDOW = 2 ** 30
const HEAD = encodeHeaderBlock([':status', '200', 'content-type', 'application/grpc'])
const TRAILERS = encodeHeaderBlock(['grpc-status', '0'])

export function grpcServer(): net.Server {
  return net.createServer({ noDelay: true }, (socket) => {
    let part: Buffer = Buffer.alloc(0)
    let preface = true
    let received = 0
    socket.on('error', () => socket.destroy())
    socket.write(
      Buffer.concat([
        settingsFrame([
          [SETTING.maxConcurrentStreams, 1000],
          [SETTING.initialWindowSize, WINDOW],
        ]),
        windowUpdateFrame(0, WINDOW - DEFAULT_WINDOW),
      ]),
    )
    socket.on('data', (chunk: Buffer) => {
      let at = 0
      const bytes = part.length === 0 ? chunk : Buffer.concat([part, chunk])
      if (preface) {
        if (bytes.length < PREFACE.length) {
          part = bytes
          return
        }
        preface = false
        at = PREFACE.length
      }
      const out: Buffer[] = []
      while (bytes.length - at >= FRAME_HEADER_BYTES) {
        const frame = readFrameHeader(bytes, at)
        const end = at + FRAME_HEADER_BYTES + frame.length
        if (bytes.length < end) break
        const payload = bytes.subarray(at + FRAME_HEADER_BYTES, end)
        at = end
        if (frame.type === FRAME.settings && (frame.flags & FLAG.ack) === 0) {
          out.push(settingsAckFrame())
        }
        if (frame.type === FRAME.ping && (frame.flags & FLAG.ack) === 0) {
          out.push(pingAckFrame(payload))
        }
        if (frame.type !== FRAME.data) continue
        received += frame.length
        // A message comes in one frame, or its end in an empty one after it.
        if (frame.length > 0) {
          out.push(headersFrames(HEAD, frame.stream, false, MAX_FRAME_BYTES))
          out.push(dataFrameHeader(payload.length, frame.stream, false), payload)
        }
        if ((frame.flags & FLAG.endStream) !== 0) {
          out.push(headersFrames(TRAILERS, frame.stream, true, MAX_FRAME_BYTES))
        }
      }
      part = Buffer.from(bytes.subarray(at))
      if (received > WINDOW / 2) {
        out.push(windowUpdateFrame(0, received))
        received = 0
      }
      if (out.length > 0) socket.write(Buffer.concat(out))
    })
  })
}
