// How much of the probes listener one address may take: it is open to everybody who can reach the
// pod, and whoever floods it must not keep the kubelet's own probes from being answered.

/** A kubelet sends a handful a second for a pod. */
const PROBES_PER_SECOND = 10
const BURST = 20
const AT_ONCE = 8
const CONNECTIONS = 32
/** For all addresses together. */
const AT_ONCE_OF_ALL = 64
const MOST_ADDRESSES = 1_024

interface Share {
  tokens: number
  tokensAtMs: number
  connections: number
  atOnce: number
}

export class ProbeLimiter {
  readonly #nowMs: () => number
  /** The one that came last is at the end. */
  readonly #shares = new Map<string, Share>()
  #atOnce = 0

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  get addresses(): number {
    return this.#shares.size
  }

  /** @returns false when the connection is one too many; otherwise `closed` has to follow */
  opened(address: string): boolean {
    const share = this.#shareOf(address)
    if (share === undefined || share.connections >= CONNECTIONS) return false
    share.connections++
    return true
  }

  closed(address: string): void {
    const share = this.#shares.get(address)
    if (share !== undefined) share.connections--
  }

  /** @returns false when the probe is one too many; otherwise `ended` has to follow */
  begun(address: string): boolean {
    const share = this.#shareOf(address)
    if (share === undefined || share.tokens < 1) return false
    if (share.atOnce >= AT_ONCE || this.#atOnce >= AT_ONCE_OF_ALL) return false
    share.tokens--
    share.atOnce++
    this.#atOnce++
    return true
  }

  ended(address: string): void {
    const share = this.#shares.get(address)
    if (share !== undefined) share.atOnce--
    this.#atOnce--
  }

  #shareOf(address: string): Share | undefined {
    const nowMs = this.#nowMs()
    const known = this.#shares.get(address)
    if (known !== undefined) {
      const earned = (Math.max(0, nowMs - known.tokensAtMs) / 1000) * PROBES_PER_SECOND
      known.tokens = Math.min(BURST, known.tokens + earned)
      known.tokensAtMs = nowMs
      return known
    }
    if (this.#shares.size >= MOST_ADDRESSES && !this.#forgetOne()) return undefined
    const share = { tokens: BURST, tokensAtMs: nowMs, connections: 0, atOnce: 0 }
    this.#shares.set(address, share)
    return share
  }

  /** An address that has nothing open loses what it has used up, but there are not many of them. */
  #forgetOne(): boolean {
    for (const [address, share] of this.#shares) {
      if (share.connections > 0 || share.atOnce > 0) continue
      this.#shares.delete(address)
      return true
    }
    return false
  }
}
