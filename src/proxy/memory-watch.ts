// Has what clients hold looked at before the next tick where memory grows fast: a workload on the same host fills
// what a small container has left in less time than that. Promises to cost next to nothing.

/** Memory is free to ask for; what is held is not. */
const LOOK_EVERY_MS = 10

export class MemoryWatch {
  readonly #nowMs: () => number
  readonly #bytes: () => number
  readonly #mostGrowthBytes: () => number
  readonly #look: () => void
  #lastMs = 0
  #bytesBefore = 0

  /**
   * @param bytes of memory that buffers take
   * @param look is called when they have grown by more than `mostGrowthBytes` since it was called last
   */
  constructor(
    nowMs: () => number,
    bytes: () => number,
    mostGrowthBytes: () => number,
    look: () => void,
  ) {
    this.#nowMs = nowMs
    this.#bytes = bytes
    this.#mostGrowthBytes = mostGrowthBytes
    this.#look = look
  }

  /** To be called in each turn of the event loop in which anything is sent. */
  turn(): void {
    const nowMs = this.#nowMs()
    if (nowMs - this.#lastMs < LOOK_EVERY_MS) return
    this.#lastMs = nowMs
    const bytes = this.#bytes()
    // What was free meanwhile may be taken anew.
    this.#bytesBefore = Math.min(this.#bytesBefore, bytes)
    if (bytes - this.#bytesBefore <= this.#mostGrowthBytes()) return
    this.#bytesBefore = bytes
    this.#look()
  }
}
