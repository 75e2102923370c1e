// Whether this data thread is past its capacity, and whose requests it then refuses. What waits is
// served within one turn of the event loop, so that turns are as long as requests wait; long ones for
// a while are overload (CoDel, RFC 8289), a single one of a garbage collection or a reload is not.
// Promises that who sends most is refused first, and one request of each in a turn never is.
import type { OverloadRecord } from '../threads.ts'

export interface OverloadOptions {
  /** How long requests may wait for the thread; 0: whatever comes, nothing is refused. */
  readonly limitMs: () => number
  readonly nowMs: () => number
  readonly readLoop: () => LoopReading
  /** Runs a step at the end of this turn of the loop, and lets another begin. */
  readonly later: (step: () => void) => void
  /** It has begun, or is over. */
  readonly changed: (state: Pick<OverloadRecord, 'active' | 'lagMs' | 'shed'>) => void
}

/** Since the thread began. */
export interface LoopReading {
  readonly turns: number
  /** Not counting what the loop waited for something to do. */
  readonly busyMs: number
}

/** So long, and at least so many ticks in a row, turns are too long before it counts. */
const LONG_MS = 500
const LONG_TICKS = 3
/** So long nothing was refused before it is over. */
const CALM_MS = 1_000
/** A thread that has done less than this of the time is not what handshakes wait for. */
const BUSY = 0.5
/** What a turn changes the share by at the most: down as far as is needed, up as there is room. */
const MOST_CUT = 0.5
const MOST_RAISE = 0.1
/** Share of the time that telling who was refused may take... */
const TELLING = 0.05
/** ...unless they would wait for longer than about this. */
const LONGEST_WAIT_MS = 2_000
/** Refused requests that are logged in a second. */
const LINES = 10

export class Overload {
  /** Read for every request; everything else is for when it is true. */
  active = false
  readonly #options: OverloadOptions
  #reading: LoopReading
  #longTicks = 0
  #longSinceMs = 0
  /** Something was refused, kept waiting or late since the last tick. */
  #pressed = false
  #pressedMs = 0
  #handshakesWait = false
  #tickedMs: number
  #shed = 0
  #lines = 0
  #linesSinceMs = 0
  /** What one principal may have of the requests of one turn. */
  #share = Number.POSITIVE_INFINITY
  readonly #admitted = new Map<string, number>()
  #turnBeganMs: number | undefined
  /** Answers to refused requests, the oldest first. */
  readonly #untold: (() => void)[] = []
  #toldMs = 0

  constructor(options: OverloadOptions) {
    this.#options = options
    this.#reading = options.readLoop()
    this.#tickedMs = options.nowMs()
  }

  /** Whether the request at hand is refused; then `tell` is owed its answer. */
  sheds(principal: string): boolean {
    if (!this.active) return false
    this.#openTurn()
    const admitted = (this.#admitted.get(principal) ?? 0) + 1
    if (admitted > this.#share) {
      this.#pressed = true
      this.#shed++
      return true
    }
    this.#admitted.set(principal, admitted)
    return false
  }

  /**
   * Answers a refused request when it is its turn. A client that asks again as soon as it has heard
   * would otherwise take the time of those that are admitted: it waits, and costs nothing meanwhile.
   */
  tell(answer: () => void): void {
    this.#untold.push(answer)
  }

  /**
   * Handshakes wait for others to end: it is not over yet, unless those wait for their clients. Who has
   * no certificate could otherwise keep it up for ever.
   */
  press(): void {
    this.#handshakesWait = true
  }

  /** Whether one more refused request gets a line in the log. */
  logs(): boolean {
    return ++this.#lines <= LINES
  }

  /** To be called some ten times a second. */
  tick(): void {
    const { nowMs, readLoop, limitMs } = this.#options
    const now = nowMs()
    const limit = limitMs()
    this.#tellSome()
    const before = this.#reading
    this.#reading = readLoop()
    const turns = this.#reading.turns - before.turns
    const busyMs = this.#reading.busyMs - before.busyMs
    const lagMs = turns > 0 ? busyMs / turns : 0
    const busy = busyMs >= BUSY * (now - this.#tickedMs)
    const held = this.#handshakesWait && busy
    this.#tickedMs = now
    this.#handshakesWait = false
    if (now - this.#linesSinceMs >= 1_000) {
      this.#lines = 0
      this.#linesSinceMs = now
    }
    if (this.active) {
      if (this.#pressed || held || lagMs > limit) this.#pressedMs = now
      this.#pressed = false
      if (limit === 0 || now - this.#pressedMs >= CALM_MS) this.#change(false, now, lagMs)
      return
    }
    if (limit === 0 || lagMs <= limit) {
      this.#longTicks = 0
      return
    }
    if (this.#longTicks++ === 0) this.#longSinceMs = now
    if (this.#longTicks >= LONG_TICKS && now - this.#longSinceMs >= LONG_MS) {
      this.#change(true, now, lagMs)
    }
  }

  #change(active: boolean, now: number, lagMs: number): void {
    this.active = active
    this.#longTicks = 0
    this.#pressedMs = now
    this.#share = Number.POSITIVE_INFINITY
    this.#options.changed({ active, lagMs, shed: this.#shed })
    this.#shed = 0
  }

  #openTurn(): void {
    if (this.#turnBeganMs !== undefined) return
    this.#turnBeganMs = this.#options.nowMs()
    this.#options.later(this.#turnEnded)
  }

  readonly #turnEnded = (): void => {
    const { nowMs, later } = this.#options
    const quiet = this.#admitted.size === 0
    if (!quiet) this.#adjust(nowMs() - (this.#turnBeganMs ?? 0))
    this.#admitted.clear()
    this.#tellSome()
    // The turn after one with requests is measured from its very beginning; others may be waiting
    // for something to do.
    this.#turnBeganMs = quiet ? undefined : nowMs()
    if (!quiet) later(this.#turnEnded)
  }

  /** A turn is as long as what was admitted takes: the share follows from how long it was. */
  #adjust(turnMs: number): void {
    const limitMs = this.#options.limitMs()
    const used = turnMs / limitMs
    if (used <= 1) {
      this.#share *= 1 + MOST_RAISE * (1 - used)
      return
    }
    this.#pressed = true
    const most = Math.max(...this.#admitted.values())
    this.#share = Math.max(1, Math.min(this.#share, most) * Math.max(MOST_CUT, 1 / used))
  }

  #tellSome(): void {
    const { nowMs } = this.#options
    const beganMs = nowMs()
    const elapsedMs = beganMs - this.#toldMs
    this.#toldMs = beganMs
    const waiting = this.#untold.length
    const least = waiting * Math.min(1, elapsedMs / LONGEST_WAIT_MS)
    let told = 0
    while (told < waiting && (told < least || nowMs() - beganMs < elapsedMs * TELLING)) {
      this.#untold[told++]?.()
    }
    this.#untold.splice(0, told)
  }
}

/** Of the thread that asks. */
export const readLoop = (): LoopReading => ({
  turns: performance.nodeTiming.uvMetricsInfo.loopCount,
  busyMs: performance.eventLoopUtilization().active,
})
