// Waiting for a condition; never for a time.
import assert from 'node:assert/strict'

/** Calls `probe` until it gives something true, and returns that; fails after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  probe: () => T | Promise<T>,
  timeoutMs = 15_000,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const value = await probe()
    if (value !== false && value !== undefined && value !== null) return value
    if (performance.now() > deadline) assert.fail(`still not so after ${timeoutMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
