// Copies of lent bytes, on their way out or kept for a while, in memory that is used again once nobody
// refers to it. Left to the garbage collector it is dear: V8 marks the whole heap for each 64 MiB of
// such, and what malloc takes from the system anew is cleared page by page (1 MB both ways, 2026-11:
// 18 % and 9 % of the CPU with what comes from clients; see lent-reads.ts).
import type { Writable } from 'node:stream'
import type { KeptCopy, Memory } from '../http/kept-bytes.ts'
import { pieceFor, writePiece } from './small-pieces.ts'

/** Less is not used again once it is written: memory for it is as cheap from node; see small-pieces.ts. */
const LEAST_BYTES = 4 * 1024
/** Of what is kept. */
const SMALLEST_BYTES = 256
/** Besides a power of two: what goes around the bytes of one read, a head or the framing of a chunk. */
const ROOM_BYTES = 2 * 1024
/** What one read brings, and `ROOM_BYTES`. */
const MOST_BYTES = 130 * 1024
/** What was in use at once beyond that is an exception, and left to the garbage collector. */
const MOST_IDLE_BYTES = 4 * 1024 * 1024

/** Makes copies of bytes that are lent. */
export class Copies implements Memory {
  /** By the power of two that a copy has room for. */
  readonly #idle: Copy[][] = []
  #idleBytes = 0

  /**
   * Writes `before`, the bytes `start..end` and `after` in one piece; both texts are latin1.
   * @returns as `stream.write`
   */
  write(
    stream: Writable,
    before: string,
    buffer: Buffer,
    start: number,
    end: number,
    after: string,
  ): boolean {
    const length = before.length + end - start + after.length
    // An empty write makes node:tls read, in the middle of whatever is being done.
    if (length === 0) return !stream.writableNeedDrain
    if (length < LEAST_BYTES || length > MOST_BYTES) {
      const bytes = pieceFor(stream, length)
      fill(bytes, before, buffer, start, end, after)
      return writePiece(stream, bytes)
    }
    const copy = this.#reused(length)
    fill(copy.memory, before, buffer, start, end, after)
    return stream.write(copy.memory.subarray(0, length), copy.written)
  }

  /** Memory for `length` bytes, and often for some more. */
  take(length: number): KeptCopy {
    if (length <= MOST_BYTES) return this.#reused(length)
    return { memory: Buffer.allocUnsafeSlow(2 ** powerFor(length + 1)), release }
  }

  /** From `LEAST_BYTES` on at most twice as large: a slow reader keeps it for long. */
  #reused(length: number): Copy {
    const small = length <= LEAST_BYTES / 2
    const power = small
      ? powerFor(Math.max(length, SMALLEST_BYTES))
      : powerFor(Math.max(length - ROOM_BYTES, LEAST_BYTES))
    const copy = this.#idle[power]?.pop()
    if (copy === undefined) return new Copy(2 ** power + (small ? 0 : ROOM_BYTES), this.#released)
    this.#idleBytes -= copy.memory.length
    copy.lend()
    return copy
  }

  /** What is used now is more likely to be used next than what there is most of. */
  readonly #released = (copy: Copy): void => {
    const { length } = copy.memory
    while (this.#idleBytes + length > MOST_IDLE_BYTES) {
      this.#idleBytes -= largest(this.#idle).pop()?.memory.length ?? 0
    }
    const power = 31 - Math.clz32(length)
    ;(this.#idle[power] ??= []).push(copy)
    this.#idleBytes += length
  }
}

function largest(idle: readonly Copy[][]): Copy[] {
  const bytes = (some: readonly Copy[]): number => some.length * (some[0]?.memory.length ?? 0)
  return idle.reduce((most, some) => (bytes(some) > bytes(most) ? some : most), [])
}

class Copy implements KeptCopy {
  readonly memory: Buffer
  /** What `stream.write` calls when it is done with the bytes. */
  readonly written: (error?: Error | null) => void
  readonly #released: (copy: Copy) => void
  #inUse = true

  constructor(size: number, released: (copy: Copy) => void) {
    this.memory = Buffer.allocUnsafeSlow(size)
    this.#released = released
    // After an error nobody says what still refers to the bytes: those are never used again.
    this.written = (error) => {
      if (error === undefined || error === null) this.release()
    }
  }

  lend(): void {
    this.#inUse = true
  }

  /** Only once, whoever calls: two users of the same memory would read each other's bytes. */
  release(): void {
    if (!this.#inUse) return
    this.#inUse = false
    this.#released(this)
  }
}

/** Of two, for a number that is not smaller. */
const powerFor = (length: number): number => 32 - Math.clz32(length - 1)

/** Of what is too large to be used again. */
function release(): void {}

function fill(
  out: Buffer,
  before: string,
  buffer: Buffer,
  start: number,
  end: number,
  after: string,
): void {
  let at = before === '' ? 0 : out.write(before, 'latin1')
  at += buffer.copy(out, at, start, end)
  if (after !== '') out.write(after, at, 'latin1')
}
