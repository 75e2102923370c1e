// One HTTPS request with a client certificate, and what came of it: the response, or in words why
// there is none. The server's chain is always checked; who it is, by its name or its SPIFFE ID.
import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import type { Problem } from '../../errors.ts'
import { readCertificate } from '../../identity/certificate.ts'
import { parseSpiffeId } from '../../identity/spiffe-id.ts'

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

class WrongServer extends Error {}

/** `secure`: our side of the handshake had ended well, so that what followed is the server's no. */
export function explain(
  error: NodeJS.ErrnoException,
  url: URL,
  secure: boolean,
  timeoutMs: number,
): Problem {
  const [what, remedy] = inWords(error, url, secure, timeoutMs)
  return { where: url.origin, what, remedy }
}

function inWords(
  error: NodeJS.ErrnoException,
  url: URL,
  secure: boolean,
  timeoutMs: number,
): readonly [what: string, remedy: string] {
  const { code = '', message } = error
  if (error instanceof WrongServer) {
    return [
      `this is not the server that was asked for: ${message}`,
      'check the address, or say with --server-id who should answer',
    ]
  }
  if (error.name === 'AbortError' || error.name === 'TimeoutError') {
    return [
      `no answer within ${timeoutMs / 1000} s`,
      'check the address, or give a longer --timeout',
    ]
  }
  // OpenSSL's text is the only place that names the alert: the code may be EPROTO for all of them.
  const alert = /alert ([a-z ]+):.*SSL alert number/s.exec(message)?.[1]
  if (alert !== undefined) {
    return [
      `the server refused the handshake: ${alert}`,
      ALERT_REMEDIES.get(alert) ?? 'the log of the server says more',
    ]
  }
  if (UNTRUSTED.test(code)) {
    return [
      `the server's certificate was not accepted: ${message}`,
      'is it issued by this development CA, and still valid?',
    ]
  }
  if (/wrong version number|packet length too long/.test(message)) {
    return ['the server does not speak TLS on this port', 'check the port']
  }
  if (secure && (code === 'ECONNRESET' || code === 'EPIPE')) {
    return [
      'the server closed the connection before it answered, most likely because it refused the certificate',
      'does it trust this development CA, and has the identity not been revoked? Its log says more',
    ]
  }
  const known = NETWORK.get(code)
  if (known !== undefined) return known
  return [message, `see what ${code || error.name} means for ${url.host}`]
}

const UNTRUSTED =
  /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_|HOSTNAME_MISMATCH)/

const ALERT_REMEDIES: ReadonlyMap<string, string> = new Map([
  ['unknown ca', 'it does not trust this development CA: give it the ca.crt of the CA'],
  ['bad certificate', 'it does not accept this identity: its log says why'],
  ['certificate revoked', 'the identity is on a CRL of the server'],
  ['certificate expired', 'compare the clocks of both machines'],
])

const NETWORK: ReadonlyMap<string, readonly [string, string]> = new Map([
  [
    'ECONNREFUSED',
    ['connection refused: nothing listens there', 'start the server, check the port'],
  ],
  ['ECONNRESET', ['the server closed the connection during the handshake', 'its log says why']],
  ['ENOTFOUND', ['there is no such host', 'check the name']],
  ['EAI_AGAIN', ['the host name cannot be looked up', 'check the name and the network']],
  ['ETIMEDOUT', ['the host does not answer', 'check the address and the network']],
  ['EHOSTUNREACH', ['the host cannot be reached', 'check the address and the network']],
  ['ENETUNREACH', ['the network cannot be reached', 'check the address and the network']],
])
