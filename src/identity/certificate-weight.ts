// What certificates that a client has sent take of memory, for as long as its connection lasts: OpenSSL keeps all
// of them, those too that are no part of its path, and node can neither bound nor drop them. Small parts take
// many times their bytes (Node 26, 2026-12: 9 KB for a certificate of 330 bytes, 550 for an attribute of a name).
import type { X509Certificate } from 'node:crypto'
import { TAG } from './der.ts'

/** Of memory, for each certificate beside what it consists of. */
const CERTIFICATE_BYTES = 4 * 1024
/** For its encoding, and for what it says. */
const TIMES = 2
/** For each element of its encoding; an object identifier has the structure around it. */
const ELEMENT_BYTES = 32
const IDENTIFIER_BYTES = 400
/** For each byte that is not read here, though OpenSSL may: of names in short attributes. */
const UNREAD_TIMES = 40
/** Included in what a connection takes: some five certificates. */
const USUAL_BYTES = 96 * 1024

/** @returns bytes of memory beyond those of a usual path; an estimate */
export function surplusBytesOf(certificates: readonly X509Certificate[]): number {
  let bytes = 0
  for (const { raw } of certificates) {
    bytes += CERTIFICATE_BYTES + TIMES * raw.length + memoryOf(raw, 0, raw.length, 0)
  }
  return Math.max(0, bytes - USUAL_BYTES)
}

/** Of the elements between `start` and `end` (X.690 section 8.1). OpenSSL takes more than DER, which is all that is read. */
function memoryOf(bytes: Buffer, start: number, end: number, depth: number): number {
  let memory = 0
  for (let at = start; at < end; ) {
    const tag = bytes[at]!
    const first = bytes[at + 1] ?? INDEFINITE
    const lengthBytes = first < INDEFINITE ? 0 : first - INDEFINITE
    const from = at + 2 + lengthBytes
    const isReadable =
      (tag & LONG_TAG) !== LONG_TAG && first !== INDEFINITE && lengthBytes <= MOST_LENGTH_BYTES
    const length =
      !isReadable || from > end
        ? 0
        : lengthBytes === 0
          ? first
          : bytes.readUIntBE(at + 2, lengthBytes)
    if (!isReadable || from + length > end || depth > MOST_DEPTH) {
      return memory + UNREAD_TIMES * (end - at)
    }
    at = from + length
    memory += tag === TAG.oid ? IDENTIFIER_BYTES : ELEMENT_BYTES
    // What an extension says is in an octet string. Others, as key identifiers, begin with this byte by chance.
    const isOpened = tag === TAG.octetString && bytes[from] === TAG.sequence
    if ((tag & CONSTRUCTED) !== 0 || isOpened) memory += memoryOf(bytes, from, at, depth + 1)
  }
  return memory
}

const LONG_TAG = 0x1f
const INDEFINITE = 0x80
const MOST_LENGTH_BYTES = 3
const CONSTRUCTED = 0x20
/** A certificate has nine. */
const MOST_DEPTH = 16
