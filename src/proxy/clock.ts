// Time, passed in so that tests can move it.

export interface Clock {
  /** Milliseconds since 1970, as certificates count. */
  nowMs(): number
  /** Milliseconds from an arbitrary start, for durations. */
  monotonicMs(): number
}

export const SYSTEM_CLOCK: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
}
