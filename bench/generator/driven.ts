// What is told of a drive.
import type { Driven } from '../load.ts'

export function drivenIn(elapsedMs: number, durationsMs: Float64Array): Driven {
  const sorted = durationsMs.toSorted()
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
  return { elapsedMs, p50Ms: at(0.5), p99Ms: at(0.99) }
}
