// What the connections of one data thread share.
import type { Cells } from '../metrics.ts'
import type { CandidateSample } from './candidate-sample.ts'
import type { Clock } from './clock.ts'
import type { Generation } from './generation.ts'
import type { H2cPool } from './h2c/pool.ts'
import type { Intake } from './intake.ts'
import type { LentReads } from './lent-reads.ts'
import type { Overload } from './overload.ts'
import type { ReadShares } from './read-shares.ts'
import type { RecordQueue } from './records.ts'
import type { BodyBudget } from './request-body.ts'
import type { Turn } from './turn.ts'
import type { UpstreamPool } from './upstream.ts'

export interface ThreadContext {
  /** The one assignment that publishes a new snapshot to this thread. */
  generation: Generation
  readonly pool: UpstreamPool
  /** Present where the workload speaks HTTP/2. */
  readonly h2c: H2cPool | undefined
  readonly cells: Cells
  readonly records: RecordQueue
  /** Absent: no candidate policy is ever asked. */
  readonly candidateSample?: CandidateSample
  /** Memory for the bodies that wait for a decision. */
  readonly bodies: BodyBudget
  readonly turn: Turn
  readonly shares: ReadShares
  readonly intake: Intake
  /** Absent until it is known that it works. */
  lentReads?: LentReads
  readonly overload: Overload
  readonly clock: Clock
  /** Time of the last tick, monotonic, less what the thread has stalled: near enough for deadlines, and free. */
  tickMs: number
  draining: boolean
  /** How long a drain may last. */
  drainTimeoutMs: number
}
