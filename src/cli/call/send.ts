// One HTTPS request with a client certificate, and what came of it: the response, or in words why
// there is none. The server's chain is always checked; who it is, by its name or its SPIFFE ID.
import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import type { Problem } from '../../errors.ts'
import { readCertificate } from '../../identity/certificate.ts'
import { parseSpiffeId } from '../../identity/spiffe-id.ts'
import { explain, WrongServer } from './explain.ts'

export interface CallRequest {
  readonly url: URL
  readonly method: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body?: string
  /** PEM, leaf first. */
  readonly certificateChain: string
  readonly privateKey: string
  readonly trustBundle: string
  /** The only SPIFFE ID that the server may have; absent: the host name, or any SPIFFE ID. */
  readonly serverId?: string
  /** For the whole call. */
  readonly timeoutMs: number
}

export type CallOutcome =
  | { readonly kind: 'response'; readonly response: IncomingMessage }
  | { readonly kind: 'failed'; readonly problem: Problem }

/** Resolves at the response head; the body is still to be read from `response`. */
export function send(call: CallRequest): Promise<CallOutcome> {
  const { url, serverId } = call
  // OpenSSL knows no SPIFFE ID, so Node's own check of the name is replaced, never left out.
  const checkServerIdentity = (_host: string, { raw }: { raw: Buffer }): Error | undefined => {
    const objection = serverObjection(new X509Certificate(raw), url, serverId)
    return objection === undefined ? undefined : new WrongServer(objection)
  }
  return new Promise((resolve) => {
    const outgoing = request(url, {
      method: call.method,
      cert: call.certificateChain,
      key: call.privateKey,
      ca: call.trustBundle,
      checkServerIdentity: checkServerIdentity as never,
      agent: false,
      signal: AbortSignal.timeout(call.timeoutMs),
    })
    for (const name of new Set(call.headers.map(([name]) => name))) outgoing.removeHeader(name)
    for (const [name, value] of call.headers) outgoing.appendHeader(name, value)
    let secure = false
    outgoing.on('socket', (socket) => {
      socket.on('secureConnect', () => {
        secure = 'authorized' in socket && socket.authorized === true
      })
    })
    outgoing.on('response', (response) => resolve({ kind: 'response', response }))
    outgoing.on('error', (error) => {
      resolve({ kind: 'failed', problem: explain(error, url, secure, call.timeoutMs) })
    })
    outgoing.end(call.body)
  })
}

/** Undefined where the certificate may speak for the server that was asked for. */
function serverObjection(
  certificate: X509Certificate,
  { hostname }: URL,
  serverId: string | undefined,
): string | undefined {
  const reading = readCertificate(certificate)
  if (reading.kind === 'unreadable') return `its certificate is ${reading.what}`
  const names = [...reading.uris, ...reading.dnsNames].join(', ') || 'no name'
  if (serverId !== undefined) {
    return reading.uris.length === 1 && reading.uris[0] === serverId
      ? undefined
      : `its certificate is for ${names}, not for ${serverId}`
  }
  const host = hostname.replace(/^\[|\]$/g, '')
  const known =
    certificate.checkHost(host) !== undefined ||
    certificate.checkIP(host) !== undefined ||
    (reading.uris.length === 1 && parseSpiffeId(reading.uris[0] ?? '') !== undefined)
  return known ? undefined : `its certificate is for ${names}, not for ${host}`
}
