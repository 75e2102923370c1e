// Tells an HTTP/2 client why its certificate was refused: every request of it gets the same answer,
// and no request is looked at. The listener ends the connection after a moment.
import { randomUUID } from 'node:crypto'
import http2 from 'node:http2'
import type { TLSSocket } from 'node:tls'
import { fieldValue } from '../../http/fields.ts'
import type { HandshakeFailure } from '../handshake.ts'
import { codeOfHandshakeFailure } from '../respond.ts'
import { sendOwnAnswer } from './own-answer.ts'

const MOST_STREAMS = 4

export function refuseOverHttp2(socket: TLSSocket, reason: HandshakeFailure): void {
  const session = http2.performServerHandshake(socket, {
    settings: { maxConcurrentStreams: MOST_STREAMS, initialWindowSize: 0 },
    maxSessionMemory: 1,
  })
  session.on('error', () => {})
  session.on('stream', (stream, _headers, _flags, list) => {
    stream.on('error', () => {})
    const type = fieldValue(list, 'content-type')
    const fields = type === undefined ? [] : ['content-type', type]
    const code = codeOfHandshakeFailure(reason)
    sendOwnAnswer(stream, { method: 'GET', fields }, { code, id: randomUUID() })
    session.close()
  })
}
