// Tells an HTTP/2 client why its certificate was refused: in answer to its first request, whatever that
// asks for, and with a GOAWAY for those behind it. The listener ends the connection after a moment.
import type { TLSSocket } from 'node:tls'
import { recordFault } from '../fault.ts'
import type { HandshakeFailure } from '../handshake.ts'
import { codeOfHandshakeFailure } from '../respond.ts'
import type { ThreadContext } from '../thread-context.ts'
import { askedFor, sendOwnAnswer } from './own-answer.ts'
import { Http2Session } from './session.ts'

const MOST_STREAMS = 4
const LIST_LIMITS = { listBytes: 8 * 1024, count: 100 }
/** What it may send until it has read the answer: two windows of ours, for nobody vouches for it. */
const MOST_BYTES = 512 * 1024

export function refuseOverHttp2(
  socket: TLSSocket,
  reason: HandshakeFailure,
  id: string,
  context: ThreadContext,
): void {
  const code = codeOfHandshakeFailure(reason)
  const fault = (error: unknown): void => recordFault(context, error)
  const session = new Http2Session(
    socket,
    {
      maxStreams: MOST_STREAMS,
      maxListBytes: LIST_LIMITS.listBytes,
      listLimits: LIST_LIMITS,
      turn: context.turn,
      later: (goOn) => void setImmediate(goOn),
      nowMs: () => context.tickMs,
      fault,
    },
    {
      sessionRequest: (stream, list) => {
        sendOwnAnswer(stream, askedFor(list), { code, id })
        session.leave()
      },
      sessionTooLarge: () => {},
      sessionFailed: () => {},
      sessionOver: () => {},
    },
  )
  const guarded = (step: () => void): void => {
    try {
      step()
    } catch (error) {
      fault(error)
      socket.destroy()
    }
  }
  let left = MOST_BYTES
  socket
    .on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left < 0) socket.destroy()
      else guarded(() => session.read(chunk))
    })
    .on('drain', () => guarded(() => session.writable()))
    .on('close', () => guarded(() => session.closed()))
}
