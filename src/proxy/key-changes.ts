// Whether a client changes the keys of its TLS 1.3 connections more often than anybody has a reason to
// (KeyUpdate, RFC 8446 section 4.6.3). Each costs OpenSSL 6 to 20 us, which has no limit for them and
// reads on while they come; other libraries end such a connection (BoringSSL and rustls at 32 without
// data in between, GnuTLS at 8 a second). Who means well changes keys after millions of records.
import { Budget } from './budget.ts'

const BURST = 64
const PER_SECOND = 8
const FORGET_AFTER_MS = 60_000

export class KeyChanges {
  readonly #budgets = new Map<string, Budget>()
  #sinceMs = 0

  /** Records a change. @returns false when it is one too many */
  allow(client: string, nowMs: number): boolean {
    let budget = this.#budgets.get(client)
    if (budget === undefined) {
      budget = new Budget(BURST, PER_SECOND, nowMs)
      this.#budgets.set(client, budget)
    }
    return budget.take(nowMs)
  }

  /** To be called now and then. */
  tick(nowMs: number): void {
    if (nowMs - this.#sinceMs < FORGET_AFTER_MS) return
    this.#sinceMs = nowMs
    this.#budgets.clear()
  }
}
