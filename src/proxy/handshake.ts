// The end of a TLS handshake: which peer it was, or why it was refused. `authorized` alone proves
// nothing (a resumed session can carry it without a certificate), so it takes three things to become
// a VerifiedPeer: OpenSSL's word, a certificate, and identity's own verification of the chain.
import type { X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { AnonymousPeer, admitAnonymous, type UnsafeAdmission } from '../identity/anonymous-peer.ts'
import type { PeerRejection, VerifiedPeer } from '../identity/peer.ts'
import type { PeerVerifier } from '../identity/verifier.ts'
import type { HANDSHAKE_FAILURES } from '../metrics.ts'

export type HandshakeFailure = (typeof HANDSHAKE_FAILURES)[number]

export interface RefusedHandshake {
  readonly kind: 'refused'
  readonly reason: HandshakeFailure
  readonly detail: string
  readonly subject?: string
  readonly serial?: string
}

/** Paths are shorter, and what is not looked at would still be kept. */
const MOST_CERTIFICATES = 10
const MOST_CERTIFICATE_BYTES = 64 * 1024

/** @param sent by the client, its own certificate first */
export function admitPeer(
  socket: TLSSocket,
  sent: readonly X509Certificate[],
  verifier: PeerVerifier,
  nowMs: number,
  unsafe: UnsafeAdmission,
): VerifiedPeer | AnonymousPeer | RefusedHandshake {
  const [leaf] = sent
  // Only whoever presents none: a certificate that is not accepted is refused, whatever is optional.
  if (leaf === undefined) return admitUnnamed(NO_CERTIFICATE, unsafe)
  const tooMuch = surplusOf(sent)
  if (tooMuch !== undefined) {
    return { kind: 'refused', reason: 'untrusted', detail: tooMuch, ...nameOf(leaf) }
  }
  // Identity first: it knows the dates to name. OpenSSL must agree all the same.
  const peer: VerifiedPeer | PeerRejection = verifier.verify(
    sent,
    nowMs,
    socket.isSessionReused() ? 'resumed' : 'new',
  )
  if (peer.kind === 'rejection')
    return { kind: 'refused', reason: peer.reason, detail: peer.detail, ...nameOf(leaf) }
  if (socket.authorized !== true && !differsInTimeOnly(socket, verifier)) {
    const code = String(socket.authorizationError ?? 'unspecified')
    return {
      kind: 'refused',
      reason: REASON_OF_VERIFY_ERROR[code] ?? 'untrusted',
      detail: `OpenSSL: ${code}`,
      ...nameOf(leaf),
    }
  }
  return peer
}

function surplusOf(sent: readonly X509Certificate[]): string | undefined {
  if (sent.length > MOST_CERTIFICATES) {
    return `it sent ${sent.length} certificates, and ${MOST_CERTIFICATES} are the most`
  }
  const bytes = sizeOf(sent)
  if (bytes <= MOST_CERTIFICATE_BYTES) return undefined
  return `it sent ${bytes} bytes of certificates, and ${MOST_CERTIFICATE_BYTES} are the most`
}

/** A client that spoke HTTP in place of TLS. */
export const admitPlaintext = (unsafe: UnsafeAdmission): AnonymousPeer | RefusedHandshake =>
  admitUnnamed(PLAINTEXT, unsafe)

function admitUnnamed(
  peer: AnonymousPeer,
  unsafe: UnsafeAdmission,
): AnonymousPeer | RefusedHandshake {
  const verdict = admitAnonymous(peer, unsafe)
  if (verdict.kind === 'anonymous') return verdict
  return { kind: 'refused', reason: verdict.reason, detail: verdict.detail }
}

/**
 * OpenSSL knows no clock skew, and looks at the time after everything else. What it has to say about
 * the time alone does not count where identity has judged it with the skew that is configured.
 */
function differsInTimeOnly(socket: TLSSocket, { clockSkewMs }: PeerVerifier): boolean {
  const code = String(socket.authorizationError)
  return clockSkewMs > 0 && (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID')
}

/** For the log. A certificate without a subject has none here, whatever the type says. */
function nameOf(leaf: X509Certificate): { readonly subject: string; readonly serial: string } {
  const subject = (leaf.subject as string | undefined) ?? ''
  return { subject: subject.replaceAll('\n', ', '), serial: leaf.serialNumber.toLowerCase() }
}

/**
 * What the client sent, its own certificate first; none where it has none. Node links the certificates in the
 * order they came in, whether or not one issued the other.
 */
export function sentCertificates(socket: TLSSocket): X509Certificate[] {
  const sent: X509Certificate[] = []
  let next = socket.getPeerX509Certificate()
  while (next !== undefined) {
    sent.push(next)
    next = next.issuerCertificate
  }
  return sent
}

/** What a refused handshake has cost goes by it. */
export const sizeOf = (certificates: readonly X509Certificate[]): number =>
  certificates.reduce((bytes, { raw }) => bytes + raw.length, 0)

/** Why a handshake ended before its end, from what `tlsClientError` says. */
export function reasonOfTlsError(
  error: NodeJS.ErrnoException,
  sawBytes: boolean,
): HandshakeFailure {
  if (error.code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return 'timeout'
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return 'client_closed'
  return sawBytes ? 'protocol' : 'client_closed'
}

const NO_CERTIFICATE = new AnonymousPeer('certificate')
const PLAINTEXT = new AnonymousPeer('tls')

const REASON_OF_VERIFY_ERROR: Readonly<Record<string, HandshakeFailure>> = {
  CERT_HAS_EXPIRED: 'expired',
  CERT_NOT_YET_VALID: 'not_yet_valid',
  INVALID_PURPOSE: 'purpose',
  CERT_REVOKED: 'revoked',
}
