// Whose turn it is when connections to the workload are scarce. Those that wait are served client by
// client in turn, and the last eighth of the connections is for clients that hold few: one whose
// requests or tunnels last does not keep the workload from all others.
import { FairLine } from './fair-line.ts'
import type { UpstreamUser } from './upstream.ts'

export interface Waiting {
  readonly user: UpstreamUser
  readonly client: string
  readonly sinceMs: number
}

const RESERVED_PART = 1 / 8

export class UpstreamShares {
  readonly #held = new Map<string, number>()
  /** Those that wait; `served` says how often a connection was taken. */
  readonly line = new FairLine<Waiting>()

  took(client: string): void {
    this.line.served++
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
    this.line.wait(one.client, one)
  }

  /** Takes the next out of its queue; undefined when nobody waits that may have one. */
  next(free: number, all: number): Waiting | undefined {
    return this.line.next((client) => this.mayTake(client, free, all))
  }

  forget(user: UpstreamUser): void {
    if (this.line.waiting > 0) this.line.forget((one) => one.user === user)
  }

  /** Takes out those that have waited since before `sinceMs`. */
  expired(sinceMs: number): Waiting[] {
    return this.line.leave((one) => one.sinceMs <= sinceMs)
  }
}
