// Decides when an address may begin its next TLS handshake, before anything of it is read. A refused
// handshake is the dearest thing an unauthenticated client can make us do: 1.5 ms as a rule, and a
// quarter of a second for a chain of ninety P-521 certificates (measured on Node 26, 2026-11), with
// no way in Node to cap depth or length of a chain. So what can be spent is bounded twice: an address
// by a token bucket and a penalty box, and all addresses without a past together, one way and another.

export interface GuardLimits {
  /** Handshakes in progress over all addresses. */
  readonly handshakes: number
  /** Handshakes in progress of one address that has completed one before. */
  readonly handshakesPerAddress: number
  /** Failures in a burst before the penalty box; one is forgiven each second. */
  readonly handshakeFailuresPerAddress: number
}

/** Someone who wants to begin a handshake. One of the two is called, at most once. */
export interface Applicant {
  start(slot: Slot): void
  refuse(reason: Refusal): void
}

export type Refusal = 'address_limited' | 'overload'

export type HandshakeEnd =
  | { readonly kind: 'success' }
  /** The client left without having cost a signature, as a TCP probe does. */
  | { readonly kind: 'free' }
  /** `bytes`: what it sent that may have been certificates. */
  | { readonly kind: 'failure'; readonly bytes: number }

/** A handshake that was let through; give it back with `end`, once. */
export interface Slot {
  readonly address: AddressState
  readonly beganMs: number
  readonly unproven: boolean
  counted: boolean
  ended: boolean
}

interface AddressState {
  readonly name: string
  /** Since when each applicant waits, the longest first. */
  readonly waiting: Map<Applicant, number>
  inProgress: number
  begun: boolean
  /** True after a success, false again in the penalty box. */
  proven: boolean
  tokens: number
  tokensAtMs: number
  penalties: number
  penaltyUntilMs: number
  lastSeenMs: number
}

/** Clients of a UNIX socket have no address: only the overall limit is for them. */
export const NO_ADDRESS = ''

/** What a client sends in a normal handshake is 2 to 6 KiB: one token for each 4 KiB. */
const BYTES_PER_TOKEN = 4 * 1024
/** From here on a failure is an attack, and empties the bucket at once. */
const DEAR_BYTES = 16 * 1024
/** A handshake that is slower than this waits for its client and not for us: it holds nobody up. */
const SLOW_HANDSHAKE_MS = 1_000
const SHORTEST_PENALTY_MS = 1_000
const LONGEST_PENALTY_MS = 60_000
const FORGET_AFTER_MS = 300_000
/** Addresses without a success, together: four dear handshakes are one second at the worst... */
const UNPROVEN_AT_ONCE = 4
/** ...and of the few places of an overloaded thread they leave some to those that have proved themselves... */
const UNPROVEN_PART = 1 / 2
/** ...and the first dear one makes it one, then one after a pause: a fifth of the time at the most. */
const ALARM_MS = 300_000
const PAUSE_AFTER_DEAR_MS = 1_000
/** Each is about a millisecond: others have their turn in between, and their answers. */
const MOST_PER_TURN = 1
const LONGEST_QUEUE = 4_096
const LONGEST_QUEUE_OF_ADDRESS = 1_024
const MOST_ADDRESSES = 10_000

export class HandshakeGuard {
  readonly #limits: GuardLimits
  readonly #nowMs: () => number
  readonly #later: (step: () => void) => void
  readonly #addresses = new Map<string, AddressState>()
  readonly #slots = new Set<Slot>()
  /** Addresses with applicants waiting; whoever begins goes to the end. */
  readonly #queue = new Set<AddressState>()
  #waiting = 0
  #inProgress = 0
  #unproven = 0
  /** In this turn of the event loop. */
  #begun = 0
  #admitting = false
  #pauseUntilMs = 0
  #alarmUntilMs = 0

  /** @param later runs a step in the next turn of the event loop */
  constructor(limits: GuardLimits, nowMs: () => number, later: (step: () => void) => void) {
    this.#limits = limits
    this.#nowMs = nowMs
    this.#later = later
  }

  /** Handshakes in progress, the slow ones too. */
  get inProgress(): number {
    return this.#slots.size
  }

  get addresses(): number {
    return this.#addresses.size
  }

  get waiting(): number {
    return this.#waiting
  }

  /** Calls the applicant's `start` now or later, or `refuse` later; a refusal of now is returned. */
  ask(address: string, applicant: Applicant): Refusal | undefined {
    const nowMs = this.#nowMs()
    const state = this.#stateOf(address, nowMs)
    if (state.penaltyUntilMs > nowMs) return 'address_limited'
    if (this.#mayBegin(state, nowMs)) {
      applicant.start(this.#begin(state, nowMs))
      return undefined
    }
    if (this.#waiting >= LONGEST_QUEUE) return 'overload'
    if (address !== NO_ADDRESS && state.waiting.size >= LONGEST_QUEUE_OF_ADDRESS)
      return 'address_limited'
    state.waiting.set(applicant, nowMs)
    this.#queue.add(state)
    this.#waiting++
    return undefined
  }

  end(slot: Slot, how: HandshakeEnd): void {
    if (slot.ended) return
    slot.ended = true
    this.#slots.delete(slot)
    this.#uncount(slot)
    const state = slot.address
    if (how.kind === 'success') {
      state.proven = true
      state.penalties = 0
    } else if (how.kind === 'failure') this.#charge(state, how.bytes)
    this.#admit()
  }

  /** Takes back an applicant whose client has gone; nothing is charged. */
  forget(address: string, applicant: Applicant): void {
    const state = this.#addresses.get(address)
    if (state !== undefined) this.#unqueue(state, applicant)
  }

  /**
   * A client of the address has cost more after its handshake than any handshake does. Others behind the
   * address wait with it, as they do for a dear handshake.
   */
  punish(address: string): void {
    if (address === NO_ADDRESS) return
    const nowMs = this.#nowMs()
    this.#putAway(this.#stateOf(address, nowMs), nowMs + LONGEST_PENALTY_MS)
  }

  /** To be called a few times a second: time passes for handshakes, applicants and addresses. */
  tick(handshakeTimeoutMs: number): void {
    const nowMs = this.#nowMs()
    for (const slot of this.#slots) {
      if (nowMs - slot.beganMs >= SLOW_HANDSHAKE_MS) this.#uncount(slot)
    }
    for (const state of this.#queue) {
      for (const [applicant, sinceMs] of state.waiting) {
        if (nowMs - sinceMs < handshakeTimeoutMs) break
        this.#unqueue(state, applicant)
        applicant.refuse('overload')
      }
    }
    this.#admit()
    for (const state of this.#addresses.values()) {
      if (isIdle(state) && nowMs - state.lastSeenMs >= FORGET_AFTER_MS)
        this.#addresses.delete(state.name)
    }
  }

  #mayBegin(state: AddressState, nowMs: number): boolean {
    if (this.#begun >= MOST_PER_TURN) return false
    if (this.#inProgress >= this.#limits.handshakes) return false
    if (state.name === NO_ADDRESS) return true
    if (state.proven) return state.inProgress < this.#limits.handshakesPerAddress
    if (state.inProgress > 0 || nowMs < this.#pauseUntilMs) return false
    if (nowMs < this.#alarmUntilMs) return this.#unproven < 1
    const part = Math.max(1, this.#limits.handshakes * UNPROVEN_PART)
    return this.#unproven < Math.min(UNPROVEN_AT_ONCE, part)
  }

  #begin(state: AddressState, nowMs: number): Slot {
    const unproven = !state.proven && state.name !== NO_ADDRESS
    const slot: Slot = { address: state, beganMs: nowMs, unproven, counted: true, ended: false }
    if (this.#begun++ === 0) this.#later(this.#turnEnded)
    state.begun = true
    state.inProgress++
    this.#inProgress++
    if (unproven) this.#unproven++
    this.#slots.add(slot)
    return slot
  }

  readonly #turnEnded = (): void => {
    this.#begun = 0
    this.#admit()
  }

  #uncount(slot: Slot): void {
    if (!slot.counted) return
    slot.counted = false
    slot.address.inProgress--
    this.#inProgress--
    if (slot.unproven) this.#unproven--
  }

  /** Starts everyone who may. What they do meanwhile may end handshakes, and so come back here. */
  #admit(): void {
    if (this.#admitting) return
    this.#admitting = true
    try {
      const nowMs = this.#nowMs()
      for (let next = this.#next(nowMs); next !== undefined; next = this.#next(nowMs)) {
        const [applicant] = next.waiting.keys()
        if (applicant === undefined) return
        this.#unqueue(next, applicant)
        if (this.#queue.delete(next)) this.#queue.add(next)
        applicant.start(this.#begin(next, nowMs))
      }
    } finally {
      this.#admitting = false
    }
  }

  /** Those who never had a turn come first: who fills the queue has had many. */
  #next(nowMs: number): AddressState | undefined {
    if (this.#begun >= MOST_PER_TURN) return undefined
    if (this.#inProgress >= this.#limits.handshakes) return undefined
    let other: AddressState | undefined
    for (const state of this.#queue) {
      if (!this.#mayBegin(state, nowMs)) continue
      if (!state.begun) return state
      other ??= state
    }
    return other
  }

  #unqueue(state: AddressState, applicant: Applicant): void {
    if (!state.waiting.delete(applicant)) return
    this.#waiting--
    if (state.waiting.size === 0) this.#queue.delete(state)
  }

  #charge(state: AddressState, bytes: number): void {
    if (state.name === NO_ADDRESS) return
    const nowMs = this.#nowMs()
    const dear = bytes >= DEAR_BYTES
    const most = this.#limits.handshakeFailuresPerAddress
    const refilled = Math.min(most, state.tokens + (nowMs - state.tokensAtMs) / 1000)
    state.tokens = dear ? -1 : refilled - Math.max(1, bytes / BYTES_PER_TOKEN)
    state.tokensAtMs = nowMs
    if (dear) {
      this.#pauseUntilMs = nowMs + PAUSE_AFTER_DEAR_MS
      this.#alarmUntilMs = nowMs + ALARM_MS
    }
    if (state.tokens >= 0) return
    const penaltyMs = dear ? LONGEST_PENALTY_MS : SHORTEST_PENALTY_MS * 2 ** state.penalties
    this.#putAway(state, nowMs + Math.min(LONGEST_PENALTY_MS, penaltyMs))
  }

  /** Into the penalty box. */
  #putAway(state: AddressState, untilMs: number): void {
    state.penaltyUntilMs = untilMs
    state.penalties++
    state.proven = false
    state.tokens = 0
    for (const applicant of [...state.waiting.keys()]) {
      this.#unqueue(state, applicant)
      applicant.refuse('address_limited')
    }
  }

  #stateOf(name: string, nowMs: number): AddressState {
    let state = this.#addresses.get(name)
    if (state === undefined) {
      if (this.#addresses.size >= MOST_ADDRESSES) this.#forgetOldest()
      state = {
        name,
        waiting: new Map(),
        inProgress: 0,
        begun: false,
        proven: false,
        tokens: this.#limits.handshakeFailuresPerAddress,
        tokensAtMs: nowMs,
        penalties: 0,
        penaltyUntilMs: 0,
        lastSeenMs: nowMs,
      }
      this.#addresses.set(name, state)
    }
    state.lastSeenMs = nowMs
    return state
  }

  /** The map keeps the order of first sight, which is near enough to the order of last. */
  #forgetOldest(): void {
    for (const state of this.#addresses.values()) {
      if (!isIdle(state)) continue
      this.#addresses.delete(state.name)
      return
    }
  }
}

const isIdle = (state: AddressState): boolean => state.inProgress === 0 && state.waiting.size === 0
