// Every TLS option of the inbound listener, set explicitly: Node's defaults can be changed from the
// environment, and setSecureContext() forgets whatever it is not told again. Which peers OpenSSL lets
// through is only the first gate; identity/ verifies the chain once more, with CRLs and trust domains.
import { constants, X509Certificate } from 'node:crypto'
import tls from 'node:tls'
import type { Problem } from '../errors.ts'
import type { IdentityMaterial, TrustBundleMaterial } from '../identity/material.ts'

/** AEAD suites with forward secrecy only; the TLS 1.3 ones first. */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':')

/** The post-quantum hybrid first (RFC 9794 terms; draft-ietf-tls-ecdhe-mlkem); +0 to 8 % a handshake. */
const GROUPS = 'X25519MLKEM768:X25519:P-256:P-384:P-521'

const SIGNATURE_ALGORITHMS = [
  'ecdsa_secp256r1_sha256',
  'ecdsa_secp384r1_sha384',
  'ecdsa_secp521r1_sha512',
  'ed25519',
  'rsa_pss_rsae_sha256',
  'rsa_pss_rsae_sha384',
  'rsa_pss_rsae_sha512',
  'rsa_pss_pss_sha256',
  'rsa_pss_pss_sha384',
  'rsa_pss_pss_sha512',
  'rsa_pkcs1_sha256',
  'rsa_pkcs1_sha384',
  'rsa_pkcs1_sha512',
].join(':')

/** A session is resumable this long; Node's own default is two hours. */
const SESSION_TIMEOUT_S = 300

/**
 * The options of the secure context. A new context has new random ticket keys, so building one for
 * each generation is what keeps a session from being resumed across a change of trust, revocation
 * or policy. Never add `ticketKeys` here.
 */
export function contextOptions(
  identity: IdentityMaterial,
  bundles: readonly TrustBundleMaterial[],
): tls.SecureContextOptions {
  const ca = bundles.flatMap((bundle) => bundle.certificates.map(pemOf))
  // `ca: ''`, null and undefined mean "any public web CA" to Node: never let that happen.
  if (ca.length === 0) throw new Error('refusing to serve without a trust bundle')
  return {
    key: identity.privateKeyPem,
    cert: identity.certificateChainPem,
    ca,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.3',
    ciphers: CIPHERS,
    honorCipherOrder: true,
    ecdhCurve: GROUPS,
    sigalgs: SIGNATURE_ALGORITHMS,
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_COMPRESSION,
    sessionTimeout: SESSION_TIMEOUT_S,
    sessionIdContext: 'postern',
  }
}

/**
 * Brings a context into force for new handshakes, and lets OpenSSL end a path at an intermediate of a
 * bundle, as identity does. The option for that is among those that `setSecureContext` does not pass on
 * (Node 26.10, 2026-11), hence the reach inside; where it fails, such a client is refused.
 */
export function renewContext(server: tls.Server, options: tls.SecureContextOptions): void {
  // Everything again: what is left out goes back to Node's defaults.
  server.setSecureContext(options)
  const { _sharedCreds: shared } = server as unknown as { _sharedCreds?: SharedContext }
  shared?.context?.setAllowPartialTrustChain?.()
}

interface SharedContext {
  readonly context?: { setAllowPartialTrustChain?(): void }
}

/** What we speak, best first; a client that says nothing speaks HTTP/1.1. */
export const ALPN_PROTOCOLS = ['h2', 'http/1.1', 'http/1.0'] as const

/**
 * What only the constructor of a tls.Server takes. `requestCert` must be exactly `true` (1 or "yes"
 * disable mutual TLS without a word). `rejectUnauthorized` is false so that a refused certificate
 * can be read and its dates logged: Node destroys the socket before anyone could, otherwise. The
 * price is that `admitPeer` alone decides, and it demands `authorized === true`, a certificate, and
 * identity's own verification.
 */
export const SERVER_OPTIONS = {
  requestCert: true,
  rejectUnauthorized: false,
  noDelay: true,
} as const satisfies tls.TlsOptions

/** What OpenSSL would say to this pair; undefined when it takes it (a weak key is refused only here). */
export function contextProblem(
  identity: IdentityMaterial,
  bundles: readonly TrustBundleMaterial[],
): Problem | undefined {
  try {
    tls.createSecureContext(contextOptions(identity, bundles))
    return undefined
  } catch (error) {
    return {
      where: identity.facts.file,
      what: `OpenSSL does not accept this certificate and key: ${(error as Error).message}`,
      remedy: 'issue a certificate with an ECDSA P-256, Ed25519 or RSA key of at least 2048 bits',
    }
  }
}

function pemOf(der: Uint8Array): string {
  return new X509Certificate(der).toString()
}
