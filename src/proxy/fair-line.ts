// A line in which clients take turns: who has many in it waits for those who have few.

/** What others may know of a line. */
export interface Line {
  readonly waiting: number
  /** Clients of those that wait. */
  readonly clients: number
  /** How many have got so far as to leave it, or did not have to wait. */
  readonly served: number
  waitingOf(client: string): number
}

export class FairLine<T> {
  /** Nobody's is empty; whoever was served goes to the end. */
  readonly #queues = new Map<string, T[]>()
  #waiting = 0

  get waiting(): number {
    return this.#waiting
  }

  get clients(): number {
    return this.#queues.size
  }

  waitingOf(client: string): number {
    return this.#queues.get(client)?.length ?? 0
  }

  wait(client: string, one: T): void {
    const queue = this.#queues.get(client)
    if (queue === undefined) this.#queues.set(client, [one])
    else queue.push(one)
    this.#waiting++
  }

  /** Takes out who is next of the clients that may be; undefined where there is nobody. */
  next(may: (client: string) => boolean = anybody): T | undefined {
    for (const [client, queue] of this.#queues) {
      if (!may(client)) continue
      const one = queue.shift()
      this.#waiting--
      // Who is alone is first again.
      if (this.#queues.size === 1 && queue.length > 0) return one
      this.#queues.delete(client)
      if (queue.length > 0) this.#queues.set(client, queue)
      return one
    }
    return undefined
  }

  /** Takes out one of which it is true, wherever it is. */
  forget(isIt: (one: T) => boolean): void {
    for (const [client, queue] of this.#queues) {
      const place = queue.findIndex(isIt)
      if (place === -1) continue
      queue.splice(place, 1)
      this.#waiting--
      if (queue.length === 0) this.#queues.delete(client)
      return
    }
  }

  /** Takes out of each client's those of which it is true, up to the first of which it is not. */
  leave(isDue: (one: T) => boolean): T[] {
    const gone: T[] = []
    for (const [client, queue] of this.#queues) {
      while (queue[0] !== undefined && isDue(queue[0])) gone.push(queue.shift()!)
      if (queue.length === 0) this.#queues.delete(client)
    }
    this.#waiting -= gone.length
    return gone
  }
}

const anybody = (): boolean => true
