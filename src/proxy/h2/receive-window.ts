// What a peer may send before it is given more (RFC 9113 section 6.9), for a connection or a stream.

export class ReceiveWindow {
  readonly #size: number
  #used = 0

  constructor(size: number) {
    this.#size = size
  }

  /** @returns false where that is more than the peer was given */
  take(bytes: number): boolean {
    this.#used += bytes
    return this.#used <= this.#size
  }

  /** @returns what to give back now: nothing before half of it is used */
  due(): number {
    if (this.#used < this.#size / 2) return 0
    const used = this.#used
    this.#used = 0
    return used
  }
}
