// How many requests a turn of the event loop begins. All that have come could begin at once, and what
// each of them consists of would live until the workload has answered those before it: V8 copies what
// lives for so long, twice, and marks the heap the sooner (a fifth of the CPU of a request on one of a
// thousand connections, 2026-11). The others wait as the bytes that they came in, clients in turn.
// Promises that a turn stays short however many come, that nobody waits while the thread has nothing
// else to do, and that who sends little does not wait for who sends much.
import { SharedPieces } from './bytes-aside.ts'
import { FairLine } from './fair-line.ts'
import type { ReadShares } from './read-shares.ts'
import type { Turn } from './turn.ts'

/** One request that waits for its turn. */
export interface Arrival {
  /** Calls `began` if it still is one. */
  begin(): void
}

/** More add nothing to what a turn saves by doing things together. */
const MOST = 64
/** A policy that takes long: others are to have the thread, too. At least one request begins. */
const MOST_MS = 2
/**
 * While several principals are about: each costs as much again until it is answered, and more. With a quarter of
 * this a request over HTTP/2 took half as much CPU again (2026-11): what is done together costs less.
 */
const MOST_SHARED = 16
const MOST_SHARED_MS = 0.5

export class Intake {
  /** For the bytes of those that wait. */
  readonly pieces = new SharedPieces()
  /** Those that wait, clients in turn. */
  readonly line = new FairLine<Arrival>()
  readonly #turn: Turn
  readonly #nowMs: () => number
  readonly #shares: Pick<ReadShares, 'shared' | 'requestsBegun'>
  readonly #fault: (error: unknown) => void
  /** In this turn. */
  #begun = 0
  #firstMs = 0
  #open = false

  /** @param fault hears of what must never happen: a request that throws as it begins */
  constructor(
    turn: Turn,
    shares: Pick<ReadShares, 'shared' | 'requestsBegun'>,
    nowMs: () => number,
    fault: (error: unknown) => void,
  ) {
    this.#turn = turn
    this.#nowMs = nowMs
    this.#shares = shares
    this.#fault = fault
  }

  /** Whether a request that has just come may begin. Others `wait`. */
  get hasRoom(): boolean {
    return this.line.waiting === 0 && (this.#begun === 0 || this.#turnHasRoom)
  }

  /** A request has begun. */
  began(): void {
    this.line.served++
    this.#shares.requestsBegun++
    if (this.#begun++ > 0) return
    this.#firstMs = this.#nowMs()
    this.#openTurn()
  }

  wait(client: string, arrival: Arrival): void {
    this.line.wait(client, arrival)
    this.#openTurn()
  }

  get #turnHasRoom(): boolean {
    const { shared } = this.#shares
    if (this.#begun >= (shared ? MOST_SHARED : MOST)) return false
    return this.#nowMs() - this.#firstMs < (shared ? MOST_SHARED_MS : MOST_MS)
  }

  #openTurn(): void {
    if (this.#open) return
    this.#open = true
    this.#turn.beforeEnd(this.#turnEnds)
  }

  /** One that fails, or is none any more, is no reason for others to wait. */
  #begin(next: Arrival): void {
    const served = this.line.served
    try {
      next.begin()
    } catch (error) {
      this.#fault(error)
    }
    // It has left the line in any case.
    if (this.line.served === served) this.line.served++
  }

  /** What begins now leaves behind the answers of this turn, and is answered in the next. */
  readonly #turnEnds = (): void => {
    if (this.#begun === 0) this.#firstMs = this.#nowMs()
    while (this.#turnHasRoom) {
      const next = this.line.next()
      if (next === undefined) break
      this.#begin(next)
    }
    this.#begun = 0
    this.#open = false
    if (this.line.waiting > 0) this.#openTurn()
  }
}
