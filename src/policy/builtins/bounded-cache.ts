// A map of limited size that forgets what was used longest ago: keys may come from clients.

export class BoundedCache<V> {
  readonly #limit: number
  readonly #values = new Map<string, V>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** The value for a key, made when it is not there. What `make` throws is not remembered. */
  get(key: string, make: () => V): V {
    const known = this.#values.get(key)
    if (known !== undefined) {
      this.#values.delete(key)
      this.#values.set(key, known)
      return known
    }
    const made = make()
    if (this.#values.size >= this.#limit) {
      for (const oldest of this.#values.keys()) {
        this.#values.delete(oldest)
        break
      }
    }
    this.#values.set(key, made)
    return made
  }
}
