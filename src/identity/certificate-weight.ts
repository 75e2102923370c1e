// What certificates that a client has sent take of memory, for as long as its connection lasts: OpenSSL keeps all
// of them, those too that are no part of its path, and node can neither bound nor drop them. Small parts take
// many times their bytes (Node 26, 2026-12: 97 KB of small certificates 3 MB).
import type { X509Certificate } from 'node:crypto'

/** Of memory, for each certificate beside what it consists of: what OpenSSL and node know of one. */
const CERTIFICATE_BYTES = 6 * 1024
/** For its encoding, and for what it says. */
const TIMES = 2
/** For each element of its encoding. */
const ELEMENT_BYTES = 48
/** Included in what a connection takes. */
const USUAL_BYTES = 64 * 1024

/** @returns bytes of memory beyond those of a usual path; an estimate */
export function surplusBytesOf(certificates: readonly X509Certificate[]): number {
  let bytes = 0
  for (const { raw } of certificates) {
    bytes += CERTIFICATE_BYTES + TIMES * raw.length + ELEMENT_BYTES * elements(raw, 0, raw.length)
  }
  return Math.max(0, bytes - USUAL_BYTES)
}

/** Tags, lengths and contents (X.690 section 8.1), those in octet strings too; 0 where there are none. */
function elements(bytes: Buffer, start: number, end: number): number {
  let count = 0
  for (let at = start; at < end; count++) {
    const tag = bytes[at]!
    const first = bytes[at + 1] ?? INDEFINITE
    const lengthBytes = first < INDEFINITE ? 0 : first - INDEFINITE
    const from = at + 2 + lengthBytes
    if (first === INDEFINITE || lengthBytes > MOST_LENGTH_BYTES || from > end) return 0
    const length = lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes)
    at = from + length
    if (at > end) return 0
    if ((tag & CONSTRUCTED) !== 0 || tag === OCTET_STRING) count += elements(bytes, from, at)
  }
  return count
}

const INDEFINITE = 0x80
const MOST_LENGTH_BYTES = 3
const CONSTRUCTED = 0x20
const OCTET_STRING = 4
