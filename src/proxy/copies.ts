// Copies of lent bytes on their way out, in memory that is used again once node has let go of it. Left
// to the garbage collector it is dear: V8 marks the whole heap for each 64 MiB of such, and what malloc
// takes from the system anew is cleared page by page (1 MB both ways, 2026-11: 18 % and 9 % of the CPU
// with what comes from clients, of which node makes new memory in any case).
import type { Writable } from 'node:stream'

/** Below this, node's own pool of small buffers is as cheap. */
const LEAST_BYTES = 4 * 1024
/** Besides a power of two: what goes around the bytes of one read, a head or the framing of a chunk. */
const ROOM_BYTES = 2 * 1024
/** What one read brings, and `ROOM_BYTES`. */
const MOST_BYTES = 130 * 1024
/** Of each size. What is on its way at once beyond that is an exception, and not kept. */
const MOST_IDLE = 32

/** Writes copies of bytes that are lent. */
export class Copies {
  /** By the power of two that a copy has room for. */
  readonly #idle: Copy[][] = []

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
    if (length < LEAST_BYTES || length > MOST_BYTES) {
      const bytes = Buffer.allocUnsafe(length)
      fill(bytes, before, buffer, start, end, after)
      return stream.write(bytes)
    }
    const copy = this.#take(length)
    fill(copy.bytes, before, buffer, start, end, after)
    return stream.write(copy.bytes.subarray(0, length), copy.written)
  }

  /** At most twice as large: a slow reader keeps it for long. */
  #take(length: number): Copy {
    const power = 32 - Math.clz32(Math.max(length - ROOM_BYTES, LEAST_BYTES) - 1)
    const idle = (this.#idle[power] ??= [])
    return idle.pop() ?? new Copy(2 ** power + ROOM_BYTES, idle)
  }
}

class Copy {
  readonly bytes: Buffer
  /** What `stream.write` calls when it is done with the bytes. */
  readonly written: (error?: Error | null) => void

  constructor(size: number, idle: Copy[]) {
    this.bytes = Buffer.allocUnsafeSlow(size)
    // After an error nobody says what still refers to the bytes: those are never used again.
    this.written = (error) => {
      if ((error === undefined || error === null) && idle.length < MOST_IDLE) idle.push(this)
    }
  }
}

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
