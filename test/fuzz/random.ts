// Chance that can be repeated: the same seed gives the same inputs, on every machine.

export interface Random {
  /** A whole number from 0 to below `limit`. */
  below(limit: number): number
  /** One of them; the list must not be empty. */
  pick<T>(list: readonly T[]): T
  /** True once in `n` times. */
  oneIn(n: number): boolean
}

/** Mulberry32: 32 bits of state are enough to choose mutations with. */
export function randomOf(seed: number): Random {
  let state = seed | 0
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
  return {
    below,
    pick: (list) => list[below(list.length)]!,
    oneIn: (n) => below(n) === 0,
  }
}
