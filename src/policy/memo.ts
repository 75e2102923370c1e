// Remembers results by the text of the input, for policies that always say the same about the same
// input. Bounded in number and size, since clients choose the texts.
import type { EvaluationOutcome } from './host.ts'

export type Remembered = Extract<EvaluationOutcome, { kind: 'result' }>

const MOST_IN_GENERATION = 1_024
const LONGEST_INPUT = 2_048
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
  #young = new Map<string, Remembered>()
  #old = new Map<string, Remembered>()

  find(input: string): Remembered | undefined {
    const young = this.#young.get(input)
    if (young !== undefined) return young
    const old = this.#old.get(input)
    if (old !== undefined) this.#put(input, old)
    return old
  }

  remember(input: string, remembered: Remembered): void {
    if (input.length > LONGEST_INPUT || remembered.text.length > LONGEST_RESULT) return
    this.#put(input, remembered)
  }

  #put(input: string, remembered: Remembered): void {
    if (this.#young.size >= MOST_IN_GENERATION) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(input, remembered)
  }
}
