// How long clients are read in one turn of the event loop: decryption, frames, heads and bodies are
// what they make the thread do before anything was decided about them. While several principals are
// about, each has a part of a millisecond of a turn, however many connections it has; what is over
// waits for the turns that follow, principals one after the other. Who took little of the last seconds
// is light: its answers need not wait for those of all others. Promises that who sends little waits
// for no more than a short turn, and that a principal that is alone has all of the thread.
import { FairLine } from './fair-line.ts'
import type { Turn } from './turn.ts'

/** Who is read on when it is its turn. */
export interface Reader {
  goOn(): void
  /** What it will take that `goOn` does not take itself. */
  readonly expectedMs: number
}

/** Of a turn, for each principal, while there are several... */
const SHARED_MS = 0.5
/** ...and for one alone: timers, probes and new connections are to have their turn, too. */
const ALONE_MS = 4
/** Others are about for so long after they were last read. */
const ABOUT_MS = 10_000
/** What was taken counts half as much after each of these. */
const HALF_LIFE_MS = 1_000
/** Less than this is forgotten. */
const LEAST_RECENT_MS = 0.01
/** Who takes less than this part of what principals take on average is light. Of equal ones, nobody is. */
const LIGHT_PART = 1 / 2

export class ReadShares {
  /** Of all principals, ever. */
  requestsBegun = 0
  readonly #turn: Turn
  readonly #tickMs: () => number
  readonly #nowMs: () => number
  readonly #line = new FairLine<{ readonly principal: string; readonly reader: Reader }>()
  /** In this turn. */
  readonly #tookMs = new Map<string, number>()
  /** In the last seconds, the less the longer ago. */
  readonly #recentMs = new Map<string, number>()
  #recentSumMs = 0
  #halvedMs = 0
  #open = false
  #turns = 0
  #latest: string | undefined
  /** Until when several principals are about. */
  #sharedUntilMs = Number.NEGATIVE_INFINITY

  /**
   * @param tickMs time of the last tick, which is free
   * @param nowMs time of now
   */
  constructor(turn: Turn, tickMs: () => number, nowMs: () => number) {
    this.#turn = turn
    this.#tickMs = tickMs
    this.#nowMs = nowMs
  }

  /** Whether several principals are about. */
  get shared(): boolean {
    return this.#sharedUntilMs > this.#tickMs()
  }

  /** Differs between two turns if somebody was read in the first. */
  get turn(): number {
    return this.#turns
  }

  /** @returns whether the principal has had its part of this turn */
  took(principal: string, tookMs: number): boolean {
    if (principal !== this.#latest) {
      if (this.#latest !== undefined) this.#sharedUntilMs = this.#tickMs() + ABOUT_MS
      this.#latest = principal
    }
    this.#openTurn()
    this.charge(principal, tookMs)
    const sumMs = (this.#tookMs.get(principal) ?? 0) + tookMs
    this.#tookMs.set(principal, sumMs)
    return sumMs >= (this.shared ? SHARED_MS : ALONE_MS)
  }

  /** What the thread did for it, which is not to be taken from this turn's part. */
  charge(principal: string, ms: number): void {
    if (this.#tickMs() - this.#halvedMs >= HALF_LIFE_MS) this.#halve()
    this.#recentMs.set(principal, (this.#recentMs.get(principal) ?? 0) + ms)
    this.#recentSumMs += ms
  }

  /** Whether it takes little, while others take much. */
  isLight(principal: string): boolean {
    if (!this.shared) return false
    const meanMs = this.#recentSumMs / this.#recentMs.size
    return (this.#recentMs.get(principal) ?? 0) < meanMs * LIGHT_PART
  }

  /** It goes on in one of the turns that follow. */
  wait(principal: string, reader: Reader): void {
    this.#line.wait(principal, { principal, reader })
    this.#openTurn()
  }

  #halve(): void {
    this.#halvedMs = this.#tickMs()
    this.#recentSumMs = 0
    for (const [principal, ms] of this.#recentMs) {
      if (ms / 2 < LEAST_RECENT_MS) this.#recentMs.delete(principal)
      else {
        this.#recentMs.set(principal, ms / 2)
        this.#recentSumMs += ms / 2
      }
    }
  }

  #openTurn(): void {
    if (this.#open) return
    this.#open = true
    this.#turn.beforeEnd(this.#turnEnds)
  }

  readonly #turnEnds = (): void => {
    this.#tookMs.clear()
    this.#open = false
    this.#turns++
    if (this.#line.waiting > 0) this.#goOn()
    if (this.#line.waiting > 0) this.#openTurn()
  }

  /** Those that wait now, or as many of them as a turn has time for. */
  #goOn(): void {
    let leftMs = this.shared ? SHARED_MS : Number.POSITIVE_INFINITY
    let beganMs = this.#nowMs()
    for (let most = this.#line.waiting; most > 0 && leftMs > 0; most--) {
      const next = this.#line.next()
      if (next === undefined) return
      const { principal, reader } = next
      const { expectedMs } = reader
      reader.goOn()
      const nowMs = this.#nowMs()
      this.took(principal, nowMs - beganMs)
      leftMs -= nowMs - beganMs + expectedMs
      beganMs = nowMs
    }
  }
}
