// Decides when an address may begin its next TLS handshake, before anything of it is read. A refused
// handshake is the dearest thing an unauthenticated client can make us do: 1.5 ms as a rule, and a
// quarter of a second for a chain of ninety P-521 certificates (measured on Node 26, 2026-11), with
// no way in Node to cap depth or length of a chain. So what an address can spend is bounded: an
// address that has not completed a handshake begins one at a time, failures draw on a token bucket,
// and whoever empties it is refused at accept for a while.

export interface GuardLimits {
  /** Handshakes in progress over all addresses. */
  readonly handshakes: number
  /** Handshakes in progress of one address that has completed one before. */
  readonly handshakesPerAddress: number
  /** Failures in a burst before the penalty box; one is forgiven each second. */
  readonly handshakeFailuresPerAddress: number
}

export interface HandshakeEnd {
  /** `free`: the client left without having cost a signature, as a TCP probe does. */
  readonly kind: 'success' | 'failure' | 'free'
  /** What the client sent meanwhile. */
  readonly bytes: number
}

/** A handshake that was let through; give it back with `end`, once. */
export interface Slot {
  readonly address: AddressState
  readonly beganMs: number
  counted: boolean
  ended: boolean
}

interface AddressState {
  readonly name: string
  inProgress: number
  waiting: number
  /** True after a success, false again after a dear failure. */
  proven: boolean
  tokens: number
  tokensAtMs: number
  penalties: number
  penaltyUntilMs: number
  lastSeenMs: number
}

interface Waiter {
  readonly address: AddressState
  readonly sinceMs: number
  readonly start: (slot: Slot) => void
  readonly refuse: () => void
}

/** What a client sends in a normal handshake is 2 to 6 KiB; beyond this it is charged as an attack. */
const DEAR_HANDSHAKE_BYTES = 16 * 1024
/** A handshake that is slower than this no longer holds back others of its address. */
const SLOW_HANDSHAKE_MS = 1_000
const SHORTEST_PENALTY_MS = 1_000
const LONGEST_PENALTY_MS = 60_000
const FORGET_PENALTIES_AFTER_MS = 300_000
const LONGEST_QUEUE = 4_096
const MOST_ADDRESSES = 10_000

export class HandshakeGuard {
  readonly #limits: GuardLimits
  readonly #nowMs: () => number
  readonly #addresses = new Map<string, AddressState>()
  readonly #slots = new Set<Slot>()
  #waiters: Waiter[] = []

  constructor(limits: GuardLimits, nowMs: () => number) {
    this.#limits = limits
    this.#nowMs = nowMs
  }

  get inProgress(): number {
    return this.#slots.size
  }

  get addresses(): number {
    return this.#addresses.size
  }

  get waiting(): number {
    return this.#waiters.length
  }

  /**
   * Asks for a handshake of `address`. Calls `start` now or later, or `refuse` when the address is
   * in the penalty box (`address_limited` is returned at once) or the queue is full (`overload`).
   * @returns the reason when it was refused at once
   */
  ask(
    address: string,
    start: (slot: Slot) => void,
    refuse: () => void,
  ): 'address_limited' | 'overload' | undefined {
    const nowMs = this.#nowMs()
    const state = this.#stateOf(address, nowMs)
    if (state.penaltyUntilMs > nowMs) return 'address_limited'
    if (this.#mayBegin(state)) {
      start(this.#begin(state, nowMs))
      return undefined
    }
    if (this.#waiters.length >= LONGEST_QUEUE) return 'overload'
    state.waiting++
    this.#waiters.push({ address: state, sinceMs: nowMs, start, refuse })
    return undefined
  }

  end(slot: Slot, how: HandshakeEnd): void {
    if (slot.ended) return
    slot.ended = true
    this.#slots.delete(slot)
    this.#uncount(slot)
    const nowMs = this.#nowMs()
    const state = slot.address
    if (how.kind !== 'free') {
      const dear = how.bytes > DEAR_HANDSHAKE_BYTES
      if (dear) this.#charge(state, nowMs, Number.POSITIVE_INFINITY)
      else if (how.kind === 'failure') this.#charge(state, nowMs, 1)
      else state.proven = true
    }
    this.#admitWaiters()
  }

  /** Takes back a waiter whose client has gone; nothing is charged. */
  forget(start: (slot: Slot) => void): void {
    this.#dropWaiters((waiter) => waiter.start === start, false)
  }

  /** To be called a few times a second: time passes for slow handshakes, waiters and old addresses. */
  tick(handshakeTimeoutMs: number): void {
    const nowMs = this.#nowMs()
    for (const slot of this.#slots) {
      if (nowMs - slot.beganMs >= SLOW_HANDSHAKE_MS) this.#uncount(slot)
    }
    this.#dropWaiters((waiter) => nowMs - waiter.sinceMs >= handshakeTimeoutMs, true)
    this.#admitWaiters()
    for (const [name, state] of this.#addresses) {
      const idle = state.inProgress === 0 && state.waiting === 0
      if (idle && nowMs - state.lastSeenMs >= FORGET_PENALTIES_AFTER_MS)
        this.#addresses.delete(name)
    }
  }

  #mayBegin(state: AddressState): boolean {
    const cap = state.proven ? this.#limits.handshakesPerAddress : 1
    return state.inProgress < cap && this.#slots.size < this.#limits.handshakes
  }

  #begin(state: AddressState, nowMs: number): Slot {
    const slot: Slot = { address: state, beganMs: nowMs, counted: true, ended: false }
    state.inProgress++
    this.#slots.add(slot)
    return slot
  }

  #uncount(slot: Slot): void {
    if (!slot.counted) return
    slot.counted = false
    slot.address.inProgress--
  }

  #admitWaiters(): void {
    if (this.#waiters.length === 0 || this.#slots.size >= this.#limits.handshakes) return
    const nowMs = this.#nowMs()
    const starting: Waiter[] = []
    const left: Waiter[] = []
    const refused: Waiter[] = []
    const planned = new Map<AddressState, number>()
    for (const waiter of this.#waiters) {
      const state = waiter.address
      const cap = state.proven ? this.#limits.handshakesPerAddress : 1
      const taken = state.inProgress + (planned.get(state) ?? 0)
      if (state.penaltyUntilMs > nowMs) refused.push(waiter)
      else if (taken < cap && this.#slots.size + starting.length < this.#limits.handshakes) {
        planned.set(state, (planned.get(state) ?? 0) + 1)
        starting.push(waiter)
      } else left.push(waiter)
    }
    this.#waiters = left
    for (const waiter of refused) {
      waiter.address.waiting--
      waiter.refuse()
    }
    for (const waiter of starting) {
      waiter.address.waiting--
      waiter.start(this.#begin(waiter.address, nowMs))
    }
  }

  #dropWaiters(which: (waiter: Waiter) => boolean, tell: boolean): void {
    if (this.#waiters.length === 0) return
    const dropped = this.#waiters.filter(which)
    if (dropped.length === 0) return
    this.#waiters = this.#waiters.filter((waiter) => !dropped.includes(waiter))
    for (const waiter of dropped) {
      waiter.address.waiting--
      if (tell) waiter.refuse()
    }
  }

  #charge(state: AddressState, nowMs: number, amount: number): void {
    const most = this.#limits.handshakeFailuresPerAddress
    const refilled = Math.min(most, state.tokens + (nowMs - state.tokensAtMs) / 1000)
    state.tokens = refilled - amount
    state.tokensAtMs = nowMs
    if (state.tokens >= 0) return
    const dear = amount === Number.POSITIVE_INFINITY
    if (dear)
      state.penalties = Math.max(
        state.penalties,
        Math.log2(LONGEST_PENALTY_MS / SHORTEST_PENALTY_MS),
      )
    state.penaltyUntilMs =
      nowMs + Math.min(LONGEST_PENALTY_MS, SHORTEST_PENALTY_MS * 2 ** state.penalties)
    state.penalties++
    state.proven = false
    state.tokens = 0
  }

  #stateOf(name: string, nowMs: number): AddressState {
    let state = this.#addresses.get(name)
    if (state === undefined) {
      if (this.#addresses.size >= MOST_ADDRESSES) this.#forgetOldest()
      const tokens = this.#limits.handshakeFailuresPerAddress
      state = {
        name,
        inProgress: 0,
        waiting: 0,
        proven: false,
        tokens,
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
    for (const [name, state] of this.#addresses) {
      if (state.inProgress > 0 || state.waiting > 0) continue
      this.#addresses.delete(name)
      return
    }
  }
}
