// Bytes that are kept after they were lent. Not in node's pool, of which each piece is kept whole for
// one byte in it.

export function ownCopyOf(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(own)
  return own
}

export function joined(first: Buffer, second: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(first.length + second.length)
  second.copy(own, first.copy(own))
  return own
}

/**
 * Bytes that are not lent, in memory that is theirs: where they are, if they are a good part of it. One byte of
 * a large piece would keep the whole of it; to copy what is left with each little that is taken would be as bad.
 */
export function inOwnMemory(bytes: Buffer): Buffer {
  return bytes.buffer.byteLength < MOST_TIMES * bytes.length ? bytes : ownCopyOf(bytes)
}

const MOST_TIMES = 4
