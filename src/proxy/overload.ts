// Whether this data thread is past its capacity, and whose requests it then refuses. A request waits
// for the turn of the event loop before its own, then in line to be begun, and then in the one for a
// connection to the workload, which carries one request a turn: turns stay short however many wait.
// Long waits for a while are overload (CoDel, RFC 8289), a single one of a garbage collection or a
// reload is not; nor is a line that a slow workload makes.
// Promises that who sends most is refused first, and that one request in a turn of who has none in the
// line never is.
import type { OverloadRecord } from '../threads.ts'
import type { Line } from './fair-line.ts'

export interface OverloadOptions {
  /**
   * How long requests may wait for the thread, a turn and the lines together; 0: whatever comes,
   * nothing is refused.
   */
  readonly limitMs: () => number
  readonly nowMs: () => number
  readonly readLoop: () => LoopReading
  /** In which requests wait: to be begun, and for a connection to the workload. */
  readonly lines: readonly Line[]
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
/** One that had more time left than this is not what requests wait for, but the workload. */
const SATURATED = 0.9
/** Over so long it is measured how many requests leave the line. */
const RATE_MS = 500
/** What is told of a line that nothing leaves. */
const MOST_LAG_MS = 10_000
/** The line has room for this part of the limit, however long a turn is: that is what the share is for. */
const LEAST_ROOM = 1 / 4
/** What a turn changes the share by at the most: down as far as is needed, up as there is room. */
const MOST_CUT = 0.5
const MOST_RAISE = 0.1
/** Share of the time that telling who was refused may take: to read what they ask next takes more... */
const TELLING = 0.01
/** ...unless the thread has time left, of which it may be this part... */
const TELLING_OF_IDLE = 0.5
/** ...or they would wait for longer than about this. */
const LONGEST_WAIT_MS = 5_000
/** What is told lest it waits takes from the time for telling, but no more than this. */
const LONGEST_DEBT_MS = 10
/** More than so many wait for no longer than a turn: each takes memory. */
const MOST_UNTOLD = 10_000
/** Refused requests that are logged in a second. */
const LINES = 10

/** An answer that a refused request is owed. */
export interface Owed {
  readonly answer: () => void
}

export class Overload {
  /** Read for every request; everything else is for when it is true. */
  active = false
  readonly #options: OverloadOptions
  #reading: LoopReading
  readonly #queues: readonly MeasuredLine[]
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
  readonly #untold = new Set<Owed>()
  #toldMs: number
  /** So many are to be told by now lest they wait for too long. */
  #toTell = 0
  /** Time that is left for telling; below 0 where it took more. */
  #tellingMs = 0
  /** Share of the time in which it had nothing to do, of late. */
  #idle = 0

  constructor(options: OverloadOptions) {
    this.#options = options
    this.#reading = options.readLoop()
    this.#queues = options.lines.map((line) => new MeasuredLine(line))
    this.#tickedMs = options.nowMs()
    this.#toldMs = this.#tickedMs
  }

  /**
   * Whether the request at hand is refused; then `tell` is owed its answer.
   * @param waited in line, which is then no reason to refuse it any more
   */
  sheds(principal: string, waited = false): boolean {
    if (!this.active) return false
    this.#openTurn()
    const admitted = (this.#admitted.get(principal) ?? 0) + 1
    if (admitted > this.#share || (!waited && this.#hasMostOfFullLine(principal))) {
      this.#pressed = true
      this.#shed++
      return true
    }
    this.#admitted.set(principal, admitted)
    return false
  }

  /** Whether a request that would have to wait in line is refused instead. */
  keepsOut(principal: string): boolean {
    return this.active && this.#hasMostOfFullLine(principal)
  }

  /**
   * Answers a refused request when it is its turn. A client that asks again as soon as it has heard
   * would otherwise take the time of those that are admitted: it waits, and costs nothing meanwhile.
   */
  tell(answer: () => void): Owed {
    const owed = { answer }
    this.#untold.add(owed)
    return owed
  }

  /** Whoever asked has gone. */
  withdraw(owed: Owed): void {
    this.#untold.delete(owed)
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
    const { nowMs, limitMs } = this.#options
    const now = nowMs()
    const limit = limitMs()
    this.#tellSome()
    const { lagMs, busy } = this.#measure(now, limit)
    const held = this.#handshakesWait && busy >= BUSY
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

  /** @returns how long requests wait for the thread, and how much of the time it was busy */
  #measure(now: number, limitMs: number): { readonly lagMs: number; readonly busy: number } {
    const { readLoop } = this.#options
    const elapsedMs = Math.max(1, now - this.#tickedMs)
    this.#tickedMs = now
    const before = this.#reading
    this.#reading = readLoop()
    const turns = this.#reading.turns - before.turns
    const busyMs = this.#reading.busyMs - before.busyMs
    const turnMs = turns > 0 ? busyMs / turns : 0
    const busy = busyMs / elapsedMs
    this.#idle = Math.max(0, 1 - busy)
    for (const line of this.#queues) line.measure(elapsedMs)
    if (busy < SATURATED) {
      for (const line of this.#queues) line.room = Number.POSITIVE_INFINITY
      return { lagMs: turnMs, busy }
    }
    const roomMs = Math.max(limitMs * LEAST_ROOM, limitMs - turnMs)
    for (const line of this.#queues) line.room = line.rate * roomMs
    return { lagMs: this.#queues.reduce((sum, { waitMs }) => sum + waitMs, turnMs), busy }
  }

  #hasMostOfFullLine(principal: string): boolean {
    return this.#queues.some((line) => line.isFullOf(principal))
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
    // Switched off by a reload: the next tick ends it.
    if (limitMs === 0) return
    const used = turnMs / limitMs
    if (used <= 1) {
      this.#share *= 1 + MOST_RAISE * (1 - used)
      return
    }
    this.#pressed = true
    let most = 0
    for (const admitted of this.#admitted.values()) most = Math.max(most, admitted)
    this.#share = Math.max(1, Math.min(this.#share, most) * Math.max(MOST_CUT, 1 / used))
  }

  #tellSome(): void {
    const { nowMs } = this.#options
    const beganMs = nowMs()
    const elapsedMs = beganMs - this.#toldMs
    this.#toldMs = beganMs
    const waiting = this.#untold.size
    // What a turn is too short for is left to those that follow.
    this.#toTell += waiting * Math.min(1, elapsedMs / LONGEST_WAIT_MS)
    const least = Math.max(Math.floor(this.#toTell), waiting - MOST_UNTOLD)
    this.#tellingMs += elapsedMs * Math.max(TELLING, this.#idle * TELLING_OF_IDLE)
    const untilMs = beganMs + this.#tellingMs
    let told = 0
    for (const owed of this.#untold) {
      if (told >= waiting || (told >= least && nowMs() >= untilMs)) break
      told++
      this.#untold.delete(owed)
      owed.answer()
    }
    this.#toTell = Math.max(0, this.#toTell - told)
    // Time that nobody needed is not kept, nor is a debt for long.
    const left = untilMs - nowMs()
    this.#tellingMs = Math.max(-LONGEST_DEBT_MS, this.#untold.size === 0 ? Math.min(0, left) : left)
  }
}

class MeasuredLine {
  readonly #line: Line
  #served: number
  /** Requests that leave it in a millisecond. */
  rate = 0
  /** Requests that may be in it: as many as leave it within the limit, and a turn. */
  room = Number.POSITIVE_INFINITY

  constructor(line: Line) {
    this.#line = line
    this.#served = line.served
  }

  measure(elapsedMs: number): void {
    const { served } = this.#line
    const rate = (served - this.#served) / elapsedMs
    this.#served = served
    this.rate += (rate - this.rate) * Math.min(1, elapsedMs / RATE_MS)
  }

  get waitMs(): number {
    const { waiting } = this.#line
    return waiting === 0 ? 0 : Math.min(MOST_LAG_MS, waiting / this.rate)
  }

  /** Others still find a place in it. */
  isFullOf(principal: string): boolean {
    const { waiting, clients } = this.#line
    if (waiting < this.room) return false
    const own = this.#line.waitingOf(principal)
    return own > 0 && own * clients >= waiting
  }
}

/** Of the thread that asks. */
export const readLoop = (): LoopReading => ({
  turns: performance.nodeTiming.uvMetricsInfo.loopCount,
  busyMs: performance.eventLoopUtilization().active,
})
