// Why a call came to nothing, from the client's side: what an alert, a certificate of the server or an
// answer of Postern means, and what to do about it.
import { ERRORS, type ErrorCode, errorEntry, type Problem } from '../../errors.ts'

/** The server is not the one that was asked for. */
export class WrongServer extends Error {}

/** What a refusal that Postern itself answered means; undefined for any other answer. */
export function explainRefusal(body: string): string | undefined {
  const { error, id } = parsed(body)
  if (typeof error !== 'string' || !Object.hasOwn(ERRORS, error)) return undefined
  const code = error as ErrorCode
  const { sentence, fault } = errorEntry(code)
  const remedy = REFUSALS.get(code) ?? (fault === 'peer' ? 'the log of the server says more' : '')
  const where = typeof id === 'string' ? `its log has it under ${id.slice(0, 128)}` : ''
  return [`postern: ${code}: ${sentence}`, remedy, where].filter((line) => line !== '').join('\n  ')
}

function parsed(body: string): { readonly error?: unknown; readonly id?: unknown } {
  try {
    const value: unknown = JSON.parse(body)
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}

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
  const alert = /SSL alert number (\d+)/.exec(message)?.[1]
  if (alert !== undefined) {
    const name = /alert ([a-z0-9 ]+):.*SSL alert number/s.exec(message)?.[1] ?? 'unknown'
    return [
      `the server refused the handshake: ${name} (alert ${alert})`,
      ALERTS.get(Number(alert)) ?? 'the log of the server says more',
    ]
  }
  const objection = SERVER_CERTIFICATE.find(([codes]) => codes.test(code))
  if (objection !== undefined) {
    return [`the server's certificate was not accepted: ${message}`, objection[1]]
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

/** By the code of Node, the more exact ones first. */
const SERVER_CERTIFICATE: readonly (readonly [RegExp, string])[] = [
  [/^CERT_HAS_EXPIRED$/, 'it has expired: renew it, or compare the clocks of both machines'],
  [/^CERT_NOT_YET_VALID$/, 'it is not valid yet: compare the clocks of both machines'],
  [/^CERT_REVOKED$/, 'it has been revoked: issue it anew'],
  [
    /^(INVALID_PURPOSE|INVALID_CA)$/,
    'it is not for servers (extended key usage), or its issuer is no CA',
  ],
  [/^PATH_LENGTH_/, 'its chain is longer than one of its issuers allows'],
  [
    /^UNABLE_TO_(VERIFY_LEAF_SIGNATURE|GET_ISSUER)/,
    'it is issued by another CA than this development CA, or the server does not send its intermediates',
  ],
  [
    /^(SELF_SIGNED_|DEPTH_ZERO_)/,
    'it leads to a root that this development CA does not know: issue it with postern pki issue',
  ],
  [
    /^(UNABLE_TO_|CERT_|HOSTNAME_MISMATCH)/,
    'is it issued by this development CA, and still valid?',
  ],
]

/** RFC 8446 section 6.2, and RFC 5246 section 7.2.2. */
const ALERTS: ReadonlyMap<number, string> = new Map([
  [10, 'the two sides disagree about the protocol; is there a proxy in between?'],
  [
    40,
    'there is no cipher, group or signature algorithm that both accept; before TLS 1.3 also: it wants a certificate',
  ],
  [42, 'it does not accept this identity: its log says why'],
  [43, 'it does not accept this kind of certificate or key: issue it with --key-type ec-p256'],
  [44, 'the identity is on a CRL of the server: issue another one'],
  [45, 'this identity has expired there: compare the clocks of both machines'],
  [46, 'it does not accept this identity: its log says why'],
  [47, 'it read something that it does not allow, such as a very large certificate'],
  [48, 'it does not trust this development CA: add the ca.crt of the CA to its trust bundles'],
  [51, 'a signature did not fit: do certificate and key belong together?'],
  [70, 'it speaks other versions of TLS only'],
  [71, 'it wants stronger algorithms'],
  [80, 'a fault in the server: its log says more'],
  [86, 'it refuses to fall back to an older version of TLS'],
  [109, 'it wants an extension that was not sent'],
  [112, 'it has no certificate for this host name'],
  [116, 'it wants a client certificate, and got none that it takes'],
  [120, 'there is no application protocol (ALPN) that both speak'],
])

/** What the operator of the server can do; the sentence of the code says what it means. */
const REFUSALS: ReadonlyMap<ErrorCode, string> = new Map([
  ['peer_no_certificate', 'call with --as; is there a proxy in between that ends TLS?'],
  [
    'peer_untrusted',
    'add the ca.crt of this development CA to the trust bundle of its trust domain; `postern check --peer` explains',
  ],
  ['peer_expired', 'compare the clocks of both machines'],
  ['peer_revoked', 'use another identity, or publish a CRL without this serial number'],
  ['peer_deny_listed', 'use another identity, or remove the entry from the file in trust.revoked'],
  ['peer_revocation_unknown', 'sign the CRL anew: postern pki crl'],
  ['denied', '`postern explain` on the server, with the id, says which rule'],
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
