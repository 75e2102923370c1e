// A line in which clients take turns: who has many in it waits for those who have few. Promises that
// to come, to leave and to be next costs the same however many wait: tens of thousands may go at once.

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

  /** @returns its place, for `forget` */
  wait(client: string, one: T): number {
    this.#waiting++
    const queue = this.#queues.get(client)
    if (queue !== undefined) return queue.push(one)
    const own = new Fifo<T>()
    this.#queues.set(client, own)
    return own.push(one)
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

  /** Takes out one that still waits, wherever it is. */
  forget(client: string, place: number): void {
    const queue = this.#queues.get(client)
    if (queue?.remove(place) !== true) return
    this.#waiting--
    if (queue.length === 0) this.#queues.delete(client)
  }

  /** Takes out of each client's those of which it is true, up to the first of which it is not. */
  leave(isDue: (one: T) => boolean, most = Number.POSITIVE_INFINITY): T[] {
    const gone: T[] = []
    for (const [client, queue] of this.#queues) {
      for (let one = queue.first; one !== undefined && isDue(one); one = queue.first) {
        if (gone.length >= most) break
        gone.push(one)
        queue.shift()
      }
      if (queue.length === 0) this.#queues.delete(client)
    }
    this.#waiting -= gone.length
    return gone
  }
}

/** An array out of which any is taken without moving the others. */
class Fifo<T> {
  /** Undefined: has left. */
  #items: (T | undefined)[] = []
  /** Before it all have left. */
  #begin = 0
  /** The place of the first item, which grows with each that is tidied away. */
  #offset = 0
  #left = 0

  get length(): number {
    return this.#items.length - this.#begin - this.#left
  }

  get first(): T | undefined {
    const items = this.#items
    while (this.#begin < items.length && items[this.#begin] === undefined) {
      this.#begin++
      this.#left--
    }
    return items[this.#begin]
  }

  /** @returns its place */
  push(one: T): number {
    return this.#offset + this.#items.push(one) - 1
  }

  shift(): T | undefined {
    const one = this.first
    if (one === undefined) return undefined
    this.#items[this.#begin++] = undefined
    if (this.#begin >= LEAST_TIDIED && 2 * this.#begin >= this.#items.length) this.#tidy()
    return one
  }

  /** @returns false where it has left before */
  remove(place: number): boolean {
    const at = place - this.#offset
    if (at < this.#begin || this.#items[at] === undefined) return false
    this.#items[at] = undefined
    this.#left++
    return true
  }

  #tidy(): void {
    this.#items = this.#items.slice(this.#begin)
    this.#offset += this.#begin
    this.#begin = 0
  }
}

const LEAST_TIDIED = 32

const anybody = (): boolean => true
