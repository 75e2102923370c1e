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
    const failures: unknown[] = []
    // All of them: a process that nobody ends would keep the file from its end.
    for (const one of pending.reverse()) {
      try {
        await one()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  })
  return { after: (cleanup) => void pending.push(cleanup) }
}
