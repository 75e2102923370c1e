// A fault of ours in the handling of one connection must not take the thread and everybody's
// connections with it: it is recorded and ends that connection alone.
import type { ThreadContext } from './thread-context.ts'

export function recordFault(context: ThreadContext, error: unknown): void {
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error)
  context.records.push({ kind: 'fault', timeMs: context.clock.nowMs(), detail })
}
