// Which policy decides: what policy.bundle brings, or what somebody rolled back to or promoted.
// Promises that such an order stays until policy.bundle brings something else than it did when the
// order was given, whatever is reloaded meanwhile. Nothing is kept over a restart: the files decide.
import type { Config } from '../config/config.ts'
import type { Loaded } from './loader.ts'
import type { PolicyPiece } from './policy-bundles.ts'

/** The policies of one generation; each is absent where its slot is empty. */
export interface SlotPieces {
  readonly active?: PolicyPiece
  /** Decided before, and is kept ready. */
  readonly previous?: PolicyPiece
  /** Is only compared. */
  readonly candidate?: PolicyPiece
  /** Lies in policy.bundle and does not decide, because somebody said so. */
  readonly heldBack?: PolicyPiece
}

export interface SlotChange {
  readonly action: 'rollback' | 'promote'
  readonly by: 'operator' | 'automatic'
  /** Of an automatic change, for the operator. */
  readonly reason?: string
  readonly atMs: number
  readonly from: PolicyPiece
  readonly to: PolicyPiece
}

export type SlotOutcome =
  | { readonly kind: 'changed'; readonly change: SlotChange }
  | { readonly kind: 'refused'; readonly code: SlotRefusal; readonly what: string }

export type SlotRefusal = 'nothing_to_roll_back_to' | 'nothing_to_promote'

export interface SlotOrder {
  readonly by: SlotChange['by']
  readonly reason?: string
  /** Epoch milliseconds. */
  readonly atMs: number
}

export class PolicySlots {
  #pieces: SlotPieces = {}
  /** What lies in policy.bundle. */
  #offered: PolicyPiece | undefined
  /** Decides instead, as long as the files offer what they offered when the order was given. */
  #pin: { readonly piece: PolicyPiece; readonly against: PolicyPiece } | undefined
  #candidate: PolicyPiece | undefined
  #settings = ''
  #lastChange: SlotChange | undefined
  /** Was rolled back last: nothing but an order brings it back. */
  #rolledBack: PolicyPiece | undefined

  get pieces(): SlotPieces {
    return this.#pieces
  }

  /** The last order that took effect and that no file has overruled since. */
  get lastChange(): SlotChange | undefined {
    return this.#lastChange
  }

  /** Whether the candidate may be promoted without being asked for. */
  get isCandidateTrusted(): boolean {
    const { candidate } = this.#pieces
    return candidate !== undefined && !isSame(candidate, this.#rolledBack)
  }

  /** Takes in what a load has brought. */
  settle(
    { policy }: Pick<Config, 'policy'>,
    loaded: Pick<Loaded, 'policy' | 'candidate'>,
  ): SlotPieces {
    const settings = settingsOf(policy)
    if (settings !== this.#settings) {
      // Made under other rules, by other keys perhaps: they can stand for nothing any more.
      this.#pieces = {}
      this.#pin = undefined
      this.#settings = settings
    }
    const { policy: offered, candidate } = loaded
    this.#offered = offered
    this.#candidate = candidate
    const pin = this.#pin
    if (pin !== undefined) {
      // What was promoted is loaded still, with data that may be newer.
      const piece = isSame(candidate, pin.piece) && candidate !== undefined ? candidate : pin.piece
      this.#pin =
        offered !== undefined && isSame(pin.against, offered)
          ? { piece, against: offered }
          : undefined
    }
    if (!isSame(this.#activeNow, this.#pieces.active)) this.#lastChange = undefined
    return this.#fill(this.#pieces.active)
  }

  /** Back to what decided before; what decides now is held back where it lies in policy.bundle. */
  rollback(order: SlotOrder): SlotOutcome {
    const { active, previous } = this.#pieces
    if (active === undefined || previous === undefined) {
      return {
        kind: 'refused',
        code: 'nothing_to_roll_back_to',
        what: 'no other policy was in force before this one since the start or the last rollback',
      }
    }
    this.#rolledBack = active
    this.#pieces = { active: previous }
    this.#decide(previous)
    this.#fill(previous)
    return this.#changed('rollback', active, previous, order)
  }

  /** The candidate into force, or what was held back; absent: the candidate if there is one. */
  promote(order: SlotOrder, slot?: 'candidate' | 'held_back'): SlotOutcome {
    const { active, candidate, heldBack } = this.#pieces
    const chosen =
      slot === 'candidate' ? candidate : slot === 'held_back' ? heldBack : (candidate ?? heldBack)
    if (chosen === undefined || active === undefined) {
      return {
        kind: 'refused',
        code: 'nothing_to_promote',
        what:
          slot === undefined
            ? 'there is neither a candidate that differs from the active policy nor one that was held back'
            : `the slot ${slot} is empty`,
      }
    }
    if (isSame(chosen, this.#rolledBack)) this.#rolledBack = undefined
    this.#decide(chosen)
    this.#fill(active)
    return this.#changed('promote', active, chosen, order)
  }

  get #activeNow(): PolicyPiece | undefined {
    return this.#pin?.piece ?? this.#offered
  }

  #decide(piece: PolicyPiece): void {
    const offered = this.#offered
    this.#pin =
      offered === undefined || isSame(piece, offered) ? undefined : { piece, against: offered }
  }

  /** @param before what decided until now */
  #fill(before: PolicyPiece | undefined): SlotPieces {
    const active = this.#activeNow
    const candidate = isSame(this.#candidate, active) ? undefined : this.#candidate
    const previous =
      before === undefined || active === undefined || isSame(before, active)
        ? this.#pieces.previous
        : before
    const heldBack = this.#pin?.against
    this.#pieces = {
      ...(active && { active }),
      ...(previous && active && { previous }),
      ...(candidate && active && { candidate }),
      ...(heldBack && { heldBack }),
    }
    return this.#pieces
  }

  #changed(
    action: SlotChange['action'],
    from: PolicyPiece,
    to: PolicyPiece,
    order: SlotOrder,
  ): SlotOutcome {
    this.#lastChange = { action, ...order, from, to }
    return { kind: 'changed', change: this.#lastChange }
  }
}

/**
 * Of the same policy.bundle. Further bundles bring data, every minute perhaps: that must neither end
 * a rollback nor take the place of what could be rolled back to.
 */
export const isSame = (one: PolicyPiece | undefined, other: PolicyPiece | undefined): boolean =>
  one?.parts[0]?.digest === other?.parts[0]?.digest

/** What a policy is made with, beside its bundles. */
function settingsOf(policy: Config['policy']): string {
  if (policy === undefined) return ''
  const { entrypoint, memoryBytes, fuel, input, signing } = policy
  return JSON.stringify([entrypoint, memoryBytes, fuel, input, signing])
}
