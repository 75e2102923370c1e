// The part of a request body that is collected before policy is asked. Knows nothing of the protocol
// that brings it: whoever reads the body adds what comes, and gives everything back in the end.
import type { BodyNeed } from '../policy/body/need.ts'
import type { BodyAtHand } from '../policy/body/parsed-body.ts'

/** Whose body it is. */
export interface BodyOwner {
  readonly principal: string
  /** Answers its request with `body_memory_full`, and releases the body: others need the room. */
  giveUp(): void
}

interface Share {
  bytes: number
  /** What each takes, the oldest first. */
  readonly bodies: Map<BodyOwner, number>
}

/**
 * Memory for the bodies that one data thread collects, so that many slow ones cannot exhaust it. Where there is
 * none left, the principal that has most of it makes room for those that have less: one that sends its bodies
 * slowly would keep all others from being decided about.
 */
export class BodyBudget {
  readonly #shares = new Map<string, Share>()
  #usedBytes = 0

  get usedBytes(): number {
    return this.#usedBytes
  }

  /** @returns false, and takes nothing, where more than `totalBytes` would be in use */
  take(owner: BodyOwner, bytes: number, totalBytes: number): boolean {
    const wanted = (this.#shares.get(owner.principal)?.bytes ?? 0) + bytes
    while (this.#usedBytes + bytes > totalBytes) if (!this.#makeRoom(wanted)) return false
    this.#usedBytes += bytes
    const share = this.#shares.get(owner.principal) ?? { bytes: 0, bodies: new Map() }
    this.#shares.set(owner.principal, share)
    share.bytes += bytes
    share.bodies.set(owner, (share.bodies.get(owner) ?? 0) + bytes)
    return true
  }

  /** All that was taken for it. */
  giveBack(owner: BodyOwner): void {
    const share = this.#shares.get(owner.principal)
    const bytes = share?.bodies.get(owner)
    if (share === undefined || bytes === undefined) return
    share.bodies.delete(owner)
    share.bytes -= bytes
    this.#usedBytes -= bytes
    if (share.bodies.size === 0) this.#shares.delete(owner.principal)
  }

  /** @param wantedBytes that somebody would have: of those that have less nothing is taken */
  #makeRoom(wantedBytes: number): boolean {
    let most: Share | undefined
    for (const share of this.#shares.values()) if (share.bytes > (most?.bytes ?? 0)) most = share
    if (most === undefined || most.bytes <= wantedBytes) return false
    const [oldest] = most.bodies.keys()
    oldest?.giveUp()
    return oldest !== undefined && !most.bodies.has(oldest)
  }
}

/** `ready`: policy can be asked. `full`: the thread has no memory left for it. */
export type Collected = 'more' | 'ready' | 'full'

export class RequestBody {
  readonly #need: BodyNeed
  readonly #budget: BodyBudget
  readonly #totalBytes: number
  readonly #owner: BodyOwner
  #buffer: Buffer = Buffer.alloc(0)
  #length = 0
  #complete = false

  /** @param totalBytes that `budget` may lend at a time */
  constructor(need: BodyNeed, budget: BodyBudget, totalBytes: number, owner: BodyOwner) {
    this.#owner = owner
    this.#need = need
    this.#budget = budget
    this.#totalBytes = totalBytes
  }

  /** What came; never more than the longest one and what was read with its last byte. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  get atHand(): BodyAtHand {
    return { bytes: this.bytes, complete: this.#complete }
  }

  /** Takes the bytes, which are lent, whatever it returns but `full`. */
  add(bytes: Buffer, start: number, end: number): Collected {
    const length = this.#length + end - start
    if (length > this.#buffer.length && !this.#grow(length)) return 'full'
    bytes.copy(this.#buffer, this.#length, start, end)
    this.#length = length
    return length > this.#need.maxBytes || this.#need.enough(this.bytes) ? 'ready' : 'more'
  }

  /** The last byte has come. */
  end(): void {
    this.#complete = this.#length <= this.#need.maxBytes
  }

  /** To be called once, when the bytes have gone on or nobody wants them any more. */
  release(): void {
    this.#budget.giveBack(this.#owner)
    this.#buffer = Buffer.alloc(0)
    this.#length = 0
  }

  /** By doubling, and copied: a byte that came alone must not keep the chunk it came in. */
  #grow(length: number): boolean {
    const room = Math.max(length, Math.min(2 * this.#buffer.length, this.#need.maxBytes))
    const more = room - this.#buffer.length
    if (!this.#budget.take(this.#owner, more, this.#totalBytes)) return false
    const grown = Buffer.allocUnsafeSlow(room)
    this.#buffer.copy(grown, 0, 0, this.#length)
    this.#buffer = grown
    return true
  }
}
