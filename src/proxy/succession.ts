// How one generation follows another in a data thread: what takes long, the data of a policy, is made
// ready over many turns of the event loop while the old generation decides, and then the new one is
// in force by one assignment. The newest wins; a revocation does not wait for the data of a policy.
import type { Snapshot } from '../threads.ts'
import type { Generation } from './generation.ts'

/** Copied in about a quarter of a millisecond, with the page faults of fresh memory (2 vCPU, 2026). */
export const SLICE_BYTES = 256 * 1024

export interface SuccessionOptions {
  /** @throws what keeps a snapshot from being brought to life */
  readonly create: (snapshot: Snapshot, before: readonly Generation[]) => Generation
  /** Puts a generation into force; `whole` when it is all of its snapshot. */
  readonly publish: (generation: Generation, whole: boolean) => void
  readonly fault: (error: unknown) => void
  readonly later: (step: () => void) => void
}

export class Succession {
  readonly #options: SuccessionOptions
  #current: Generation
  #coming: Generation | undefined

  constructor(first: Generation, options: SuccessionOptions) {
    this.#current = first
    this.#options = options
  }

  /**
   * The control thread has checked everything that could fail here. Should it fail all the same, the
   * old generation stays: a thread that died of it would only be replaced by one that dies of it.
   */
  follow(snapshot: Snapshot): void {
    this.#attempt(() => {
      const { create } = this.#options
      const before = this.#coming === undefined ? [] : [this.#coming]
      const coming = create(snapshot, [...before, this.#current])
      this.#coming = coming
      if (coming.prepare(SLICE_BYTES)) return this.#publish(coming, true)
      // Only what takes away. Whom new bundles let in, the old policy may not have been made for.
      const sameBundles =
        snapshot.trust.bundleGeneration === this.#current.snapshot.trust.bundleGeneration
      if (sameBundles && coming.verifier !== this.#current.verifier) {
        const meanwhile = decidingLike(this.#current.snapshot, snapshot)
        this.#publish(create(meanwhile, [coming, this.#current]), false)
      }
      this.#continue(coming)
    })
  }

  #continue(coming: Generation): void {
    this.#options.later(() =>
      this.#attempt(() => {
        if (coming !== this.#coming) return
        if (!coming.prepare(SLICE_BYTES)) return this.#continue(coming)
        this.#publish(coming, true)
      }),
    )
  }

  #publish(generation: Generation, whole: boolean): void {
    const before = this.#current
    this.#current = generation
    if (whole) this.#coming = undefined
    try {
      this.#options.publish(generation, whole)
    } catch (error) {
      this.#current = before
      throw error
    }
  }

  #attempt(step: () => void): void {
    try {
      step()
    } catch (error) {
      this.#coming = undefined
      this.#options.fault(error)
    }
  }
}

/** The snapshot with the rules and the number of the one before. */
function decidingLike(before: Snapshot, { policy, policyPending, ...rest }: Snapshot): Snapshot {
  const { generation, allow } = before
  return {
    ...rest,
    generation,
    allow,
    ...(before.policy && { policy: before.policy }),
    ...(before.policyPending === undefined ? {} : { policyPending: before.policyPending }),
  }
}
