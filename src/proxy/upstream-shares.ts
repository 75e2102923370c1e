// Whose turn it is when connections to the workload are scarce. Those that wait are served client by
// client in turn, and the last eighth of the connections is for clients that hold few: one whose
// requests or tunnels last does not keep the workload from all others.
import type { UpstreamUser } from './upstream.ts'

export interface Waiting {
  readonly user: UpstreamUser
  readonly client: string
  readonly sinceMs: number
}

/** What others may know of those that wait. */
export type UpstreamQueue = Pick<UpstreamShares, 'waiting' | 'clients' | 'served' | 'waitingOf'>

const RESERVED_PART = 1 / 8

export class UpstreamShares {
  readonly #held = new Map<string, number>()
  /** Nobody's is empty; whoever was served goes to the end. */
  readonly #queues = new Map<string, Waiting[]>()
  #waiting = 0
  #served = 0

  get waiting(): number {
    return this.#waiting
  }

  /** Clients of those that wait. */
  get clients(): number {
    return this.#queues.size
  }

  /** How often a connection was taken. */
  get served(): number {
    return this.#served
  }

  waitingOf(client: string): number {
    return this.#queues.get(client)?.length ?? 0
  }

  took(client: string): void {
    this.#served++
    this.#held.set(client, (this.#held.get(client) ?? 0) + 1)
  }

  gaveBack(client: string): void {
    const left = (this.#held.get(client) ?? 1) - 1
    if (left > 0) this.#held.set(client, left)
    else this.#held.delete(client)
  }

  /** @param free connections that nobody holds, out of `all` that there may be */
  mayTake(client: string, free: number, all: number): boolean {
    const reserved = Math.floor(all * RESERVED_PART)
    return free > reserved || (free > 0 && (this.#held.get(client) ?? 0) < reserved)
  }

  wait(one: Waiting): void {
    const queue = this.#queues.get(one.client)
    if (queue === undefined) this.#queues.set(one.client, [one])
    else queue.push(one)
    this.#waiting++
  }

  /** Takes the next out of its queue; undefined when nobody waits that may have one. */
  next(free: number, all: number): Waiting | undefined {
    for (const [client, queue] of this.#queues) {
      if (!this.mayTake(client, free, all)) continue
      const one = queue.shift()
      this.#queues.delete(client)
      if (queue.length > 0) this.#queues.set(client, queue)
      this.#waiting--
      return one
    }
    return undefined
  }

  forget(user: UpstreamUser): void {
    for (const [client, queue] of this.#queues) {
      const place = queue.findIndex((one) => one.user === user)
      if (place === -1) continue
      queue.splice(place, 1)
      this.#waiting--
      if (queue.length === 0) this.#queues.delete(client)
      return
    }
  }

  /** Takes out those that have waited since before `sinceMs`. */
  expired(sinceMs: number): Waiting[] {
    const gone: Waiting[] = []
    for (const [client, queue] of this.#queues) {
      while (queue[0] !== undefined && queue[0].sinceMs <= sinceMs) gone.push(queue.shift()!)
      if (queue.length === 0) this.#queues.delete(client)
    }
    this.#waiting -= gone.length
    return gone
  }
}
