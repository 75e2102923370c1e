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

export class FairLine<T> implements Line {
  /** Counted by whoever owns the line: not all have to wait. */
  served = 0
  /** Nobody's is empty; whoever was served goes to the end. */
  readonly #queues = new Map<string, Fifo<T>>()
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
    if (queue === undefined) this.#queues.set(client, new Fifo(one))
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
      if (!queue.remove(isIt)) continue
      this.#waiting--
      if (queue.length === 0) this.#queues.delete(client)
      return
    }
  }

  /** Takes out of each client's those of which it is true, up to the first of which it is not. */
  leave(isDue: (one: T) => boolean): T[] {
    const gone: T[] = []
    for (const [client, queue] of this.#queues) {
      for (let one = queue.first; one !== undefined && isDue(one); one = queue.first) {
        gone.push(one)
        queue.shift()
      }
      if (queue.length === 0) this.#queues.delete(client)
    }
    this.#waiting -= gone.length
    return gone
  }
}

/** An array whose first is taken without moving the others: tens of thousands may wait. */
class Fifo<T> {
  #items: (T | undefined)[]
  #taken = 0

  constructor(first: T) {
    this.#items = [first]
  }

  get length(): number {
    return this.#items.length - this.#taken
  }

  get first(): T | undefined {
    return this.#items[this.#taken]
  }

  push(one: T): void {
    this.#items.push(one)
  }

  shift(): T | undefined {
    const one = this.first
    if (one === undefined) return undefined
    this.#items[this.#taken++] = undefined
    if (this.#taken >= LEAST_TIDIED && 2 * this.#taken >= this.#items.length) this.#tidy()
    return one
  }

  remove(isIt: (one: T) => boolean): boolean {
    const place = this.#items.findIndex((one) => one !== undefined && isIt(one))
    if (place === -1) return false
    this.#items.splice(place, 1)
    return true
  }

  #tidy(): void {
    this.#items = this.#items.slice(this.#taken)
    this.#taken = 0
  }
}

const LEAST_TIDIED = 32

const anybody = (): boolean => true
