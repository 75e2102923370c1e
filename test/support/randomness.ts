// Random choices that can be made again: a test prints its seed.
import { randomInt } from 'node:crypto'

/** Set POSTERN_SEED to repeat a run. */
export const SEED = Number(process.env['POSTERN_SEED'] ?? randomInt(2 ** 31))

/** mulberry32: small, and good enough to shuffle a test. */
export function randomness(seed: number) {
  let state = seed
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    below: (limit: number): number => Math.floor(next() * limit),
    chance: (of: number): boolean => next() < of,
    text: (length: number): string =>
      Math.floor(next() * 2 ** 52)
        .toString(36)
        .padEnd(8, 'x')
        .repeat(Math.ceil(length / 8))
        .slice(0, length),
  }
}
export type Randomness = ReturnType<typeof randomness>
