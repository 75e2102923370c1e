// Whose turn it is when connections to the workload, or streams on them, are scarce. Those that wait
// are served client by client in turn, and the last eighth is for clients that hold few: one whose
// requests or tunnels last does not keep the workload from all others.
import { FairLine } from './fair-line.ts'

export interface Waiting<User> {
  readonly user: User
  readonly client: string
  readonly sinceMs: number
}

const RESERVED_PART = 1 / 8

export class UpstreamShares<User> {
  readonly #held = new Map<string, number>()
  /** Those that wait; `served` says how often one was taken. */
  readonly line = new FairLine<Waiting<User>>()
  readonly #places = new Map<User, { readonly client: string; readonly place: number }>()
  #expiring = false

  took(client: string): void {
    this.line.served++
    this.#held.set(client, (this.#held.get(client) ?? 0) + 1)
  }

  gaveBack(client: string): void {
    const left = (this.#held.get(client) ?? 1) - 1
    if (left > 0) this.#held.set(client, left)
    else this.#held.delete(client)
  }

  /** @param free those that nobody holds, out of `all` that there may be */
  mayTake(client: string, free: number, all: number): boolean {
    const reserved = Math.floor(all * RESERVED_PART)
    return free > reserved || (free > 0 && (this.#held.get(client) ?? 0) < reserved)
  }

  wait(one: Waiting<User>): void {
    const { user, client } = one
    this.#places.set(user, { client, place: this.line.wait(client, one) })
  }

  /** Takes the next out of its queue; undefined when nobody waits that may have one. */
  next(free: number, all: number): Waiting<User> | undefined {
    if (free <= 0) return undefined
    const next = this.line.next((client) => this.mayTake(client, free, all))
    if (next !== undefined) this.#places.delete(next.user)
    return next
  }

  /** Nothing happens where it does not wait. */
  forget(user: User): void {
    const waits = this.#places.get(user)
    if (waits === undefined) return
    this.#places.delete(user)
    this.line.forget(waits.client, waits.place)
  }

  /**
   * Takes out those that have waited since before `sinceMs`, and tells them: some in each turn of the
   * loop, because tens of thousands may have come together.
   */
  expire(sinceMs: number, tell: (user: User) => void): void {
    if (this.#expiring) return
    const gone = this.line.leave((one) => one.sinceMs <= sinceMs, MOST_TOLD)
    for (const { user } of gone) this.#places.delete(user)
    for (const { user } of gone) tell(user)
    if (gone.length < MOST_TOLD) return
    this.#expiring = true
    setImmediate(() => {
      this.#expiring = false
      this.expire(sinceMs, tell)
    })
  }
}

/** In one turn. */
const MOST_TOLD = 64
