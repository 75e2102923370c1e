// Remembers verdicts by what the policy was shown, for policies that always say the same about the
// same. Bounded in number and size, since clients choose what is shown.
import type { Denial, Permit } from './permit.ts'

const MOST_IN_GENERATION = 1_024
const LONGEST_KEY = 2_048
const LONGEST_RESULT = 1_024

/** They may answer anew at each call. What depends on time is noticed, see `hasReadTime` of the host. */
const NEVER_THE_SAME: readonly string[] = [
  'http.send',
  'io.jwt.encode_sign',
  'io.jwt.encode_sign_raw',
  'net.lookup_ip_addr',
  'opa.runtime',
  'rand.intn',
  'uuid.rfc4122',
]

/** @param builtins names of those that a policy calls */
export function canRemember(builtins: readonly string[]): boolean {
  return !builtins.some((name) => NEVER_THE_SAME.includes(name))
}

/** Two generations of entries, of which the older is dropped when the younger is full. */
export class Memo {
  #young = new Map<string, Permit | Denial>()
  #old = new Map<string, Permit | Denial>()

  find(key: string): Permit | Denial | undefined {
    if (key.length > LONGEST_KEY) return undefined
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.#put(key, old)
    return old
  }

  remember(key: string, verdict: Permit | Denial): void {
    const { result = '' } = verdict.evaluation
    if (key.length > LONGEST_KEY || result.length > LONGEST_RESULT) return
    this.#put(key, verdict)
  }

  #put(key: string, verdict: Permit | Denial): void {
    if (this.#young.size >= MOST_IN_GENERATION) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, verdict)
  }
}
