// Pieces of a few bytes behind others that the system has not taken: each takes many times its bytes of
// memory, until it is written. Promises that they are counted as what they take.
import type { Writable } from 'node:stream'

const SMALL_BYTES = 256
/** Before so much waits they are few. */
const FEW_BYTES = 512
/** Of memory, for each beside its bytes (measured 2026-12). */
const PIECE_BYTES = 400

const waiting = new WeakMap<Writable, number>()

/** Whether a piece of so many bytes is one, and to be written with `writeSmall`. */
export function isSmallBehindOthers(stream: Writable, length: number): boolean {
  return length < SMALL_BYTES && stream.writableLength >= FEW_BYTES
}

/** @returns as `stream.write` */
export function writeSmall(stream: Writable, bytes: Buffer): boolean {
  waiting.set(stream, (waiting.get(stream) ?? 0) + 1)
  // An error ends the stream: nobody asks any more.
  return stream.write(bytes, () => waiting.set(stream, (waiting.get(stream) ?? 1) - 1))
}

/** Of memory: what was written and the system has not taken. */
export function waitingBytesOf(stream: Writable): number {
  return stream.writableLength + PIECE_BYTES * (waiting.get(stream) ?? 0)
}
