// Makes the sealed snapshot of one generation. Promises that numbers only go up when there is a
// reason: nothing changed, same snapshot; a new trust generation only for changed trust or CRLs.
import type { Config } from '../config/config.ts'
import { mergeCrls } from '../identity/crl.ts'
import type { TrustMaterial } from '../identity/material.ts'
import type { Snapshot } from '../threads.ts'
import type { Loaded } from './loader.ts'
import type { SlotPieces } from './policy-slots.ts'

/** A snapshot with what it was made of. */
export interface Generation {
  readonly config: Config
  readonly loaded: Loaded
  readonly slots: SlotPieces
  readonly snapshot: Snapshot
}

/** The generation after `previous`, or `previous` itself when everything in force is the same. */
export function nextGeneration(
  config: Config,
  loaded: Loaded,
  nowMs: number,
  previous?: Generation,
  slots: SlotPieces = loaded.policy === undefined ? {} : { active: loaded.policy },
): Generation {
  const trust = nextTrust(config, loaded, previous)
  if (
    previous !== undefined &&
    config === previous.config &&
    trust === previous.snapshot.trust &&
    loaded.identity === previous.loaded.identity &&
    loaded.policy === previous.loaded.policy &&
    sameSlots(slots, previous.slots)
  ) {
    return previous
  }
  const { inbound, log, policy } = config
  const snapshot: Snapshot = {
    generation: (previous?.snapshot.generation ?? 0) + 1,
    createdAtMs: nowMs,
    identity: loaded.identity.material,
    trust,
    allow: config.allow,
    ...(slots.active && { policy: slots.active.material }),
    ...(slots.previous && { previousPolicy: slots.previous.material }),
    ...(policy && !slots.active && { policyPending: true as const }),
    settings: {
      inbound,
      log: { access: log.access, decisions: log.decisions },
      ...(slots.candidate && policy?.candidate && { candidateSample: policy.candidate.sample }),
    },
  }
  return { config, loaded, slots, snapshot: sealed(snapshot) }
}

const SLOTS = ['active', 'previous', 'candidate', 'heldBack'] as const

const sameSlots = (one: SlotPieces, other: SlotPieces): boolean =>
  SLOTS.every((slot) => one[slot] === other[slot])

function nextTrust(
  config: Config,
  { trust, crls, denied }: Loaded,
  previous?: Generation,
): TrustMaterial {
  const sameBundles = previous !== undefined && sameItems(trust, previous.loaded.trust)
  if (sameBundles && sameItems(crls, previous.loaded.crls) && denied === previous.loaded.denied) {
    return previous.snapshot.trust
  }
  return {
    generation: (previous?.snapshot.trust.generation ?? 0) + 1,
    bundleGeneration: (previous?.snapshot.trust.bundleGeneration ?? 0) + (sameBundles ? 0 : 1),
    bundles: trust.map(({ material }) => material),
    crls: mergeCrls(crls.flatMap(({ material }) => material)),
    revocation: { ...config.trust.revocation, required: config.trust.crls.length > 0 },
    denied: denied?.material ?? [],
    clockSkewMs: config.trust.clockSkewMs,
  }
}

const sameItems = (one: readonly unknown[], other: readonly unknown[]): boolean =>
  one.length === other.length && one.every((item, at) => item === other[at])

/** Frozen all the way down; bytes and modules cannot be, and are nobody's to write to. */
function sealed<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  const isPlain = Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype
  if (!isPlain) return value
  for (const item of Object.values(value)) sealed(item)
  return Object.freeze(value)
}
