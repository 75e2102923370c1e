// What a test leaves behind and who clears it away.
import { after } from 'node:test'

export interface Cleanup {
  /** Runs at the end, last registered first. */
  after(cleanup: () => unknown): void
}

/** For what a whole suite shares; to be called inside `describe`. */
export function suiteCleanup(): Cleanup {
  const pending: (() => unknown)[] = []
  after(async () => {
    for (const one of pending.reverse()) await one()
  })
  return { after: (cleanup) => void pending.push(cleanup) }
}
