// What is written behind bytes that the system has not taken, and may wait for long: in memory of its own, since a
// piece of node's pool lives as long as one byte in it. Pieces of a few bytes take many times themselves. Promises
// that they are counted as what they take.
import type { Writable } from 'node:stream'

const SMALL_BYTES = 1024
/** Before so much waits they are few. */
const FEW_BYTES = 512
/** Of memory, for each beside its bytes (measured 2026-12). */
const PIECE_BYTES = 400

const waiting = new WeakMap<Writable, number>()

/** Memory for a piece that is to be written, with `writePiece`. */
export function pieceFor(stream: Writable, length: number): Buffer {
  return stream.writableLength === 0 ? Buffer.allocUnsafe(length) : Buffer.allocUnsafeSlow(length)
}

/** @returns as `stream.write` */
export function writePiece(stream: Writable, bytes: Buffer): boolean {
  if (bytes.length >= SMALL_BYTES || stream.writableLength < FEW_BYTES) return stream.write(bytes)
  waiting.set(stream, (waiting.get(stream) ?? 0) + 1)
  // An error ends the stream: nobody asks any more.
  return stream.write(bytes, () => waiting.set(stream, (waiting.get(stream) ?? 1) - 1))
}

/** Of memory: what was written and the system has not taken. */
export function waitingBytesOf(stream: Writable): number {
  return stream.writableLength + PIECE_BYTES * (waiting.get(stream) ?? 0)
}
