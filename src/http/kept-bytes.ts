// What is left of bytes that are lent, until more of them have come or it is their turn: in memory that
// others use afterwards. What a client keeps waiting lives through two scavenges of V8; left to it, that
// is free only when the heap was marked, for each 8 MiB again (a client that sends faster than it is
// served, 2026-11: twice to ten times a second, at the cost of all others).

/** Memory that its user gives back. */
export interface KeptCopy {
  readonly memory: Buffer
  /** Nobody refers to the memory any more. Left out, it is the garbage collector's. */
  release(): void
}

export interface Memory {
  /** For `length` bytes, and for a few times as many at the most. */
  take(length: number): KeptCopy
}

/** Less has memory of its own; see `ownCopy`. */
export const LEAST_SHARED_BYTES = 4 * 1024
/** Of larger memory, what is left moves to smaller. */
const MOST_TIMES = 4

/** The bytes that one reader keeps, in one piece. */
export class KeptBytes {
  readonly #memory: Memory
  #copy: KeptCopy | undefined

  constructor(memory: Memory) {
    this.#memory = memory
  }

  /**
   * @param bytes lent, or what is left of those that are kept
   * @returns the same, until something is kept again or `drop`
   */
  keep(bytes: Buffer): Buffer {
    const memory = this.#copy?.memory
    return memory !== undefined && isIn(bytes, memory) && memory.length < MOST_TIMES * bytes.length
      ? bytes
      : this.#move(bytes, NOTHING)
  }

  /** @param kept what is left, up to the last byte of them */
  append(kept: Buffer, more: Buffer): Buffer {
    const memory = this.#copy?.memory
    if (memory === undefined || !isIn(kept, memory)) return this.#move(kept, more)
    const start = kept.byteOffset - memory.byteOffset
    const end = start + kept.length + more.length
    if (end > memory.length) return this.#move(kept, more)
    more.copy(memory, start + kept.length)
    return memory.subarray(start, end)
  }

  /** Of memory; what is kept may be less. */
  get memoryBytes(): number {
    return this.#copy?.memory.length ?? 0
  }

  /** Nothing is left, and nobody looks at what was kept. */
  drop(): void {
    this.#copy?.release()
    this.#copy = undefined
  }

  #move(kept: Buffer, more: Buffer): Buffer {
    const length = kept.length + more.length
    const before = this.#copy
    this.#copy = length < LEAST_SHARED_BYTES ? ownMemory(length) : this.#memory.take(length)
    const { memory } = this.#copy
    more.copy(memory, kept.copy(memory))
    before?.release()
    return memory.subarray(0, length)
  }
}

const NOTHING = Buffer.alloc(0)

const isIn = (bytes: Buffer, memory: Buffer): boolean => bytes.buffer === memory.buffer

/** In memory of its own, for bytes that outlive a turn: a piece of node's pool lives as long as one byte in it, and has 64 KiB. */
export function ownCopy(bytes: Buffer, start = 0, end = bytes.length): Buffer {
  const own = Buffer.allocUnsafeSlow(end - start)
  bytes.copy(own, 0, start, end)
  return own
}

const ownMemory = (length: number): KeptCopy => ({
  memory: Buffer.allocUnsafeSlow(length),
  release: nothing,
})

/** Of memory that nobody uses again. */
function nothing(): void {}

/** For those that keep little, or not for long: the garbage collector's. */
export const UNSHARED: Memory = { take: ownMemory }
