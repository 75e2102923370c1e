// What connections hold, requests in progress and what a side does not take of bodies and answers, is bounded
// for each of them, and here for all together: there may be thousands. Past the limit those of the principal
// that holds most are closed, the largest first; who holds little does not notice.

export interface Holder {
  readonly peer: { readonly principal: string }
  /** At once: what it has not read of its answers, it would not read now. */
  drop(reason: 'memory'): void
}

export interface Relief {
  readonly closed: number
  /** Whose first connection was closed. */
  readonly principal: string
}

/** So much of the limit is left: with all of it, the next tick would find it passed again. */
const LEFT = 3 / 4

interface Share {
  readonly principal: string
  readonly holders: { readonly holder: Holder; readonly bytes: number }[]
  bytes: number
}

/**
 * @param heldBytesOf what one holds of memory
 * @param heldBytes what all of them hold
 * @returns what was done, if there was a need
 */
export function relieve<Some extends Holder>(
  holders: Iterable<Some>,
  heldBytesOf: (holder: Some) => number,
  heldBytes: number,
  limitBytes: number,
): Relief | undefined {
  if (heldBytes <= limitBytes) return undefined
  const shares = sharesOf(holders, heldBytesOf)
  let closed = 0
  let first: string | undefined
  for (let left = heldBytes; left > limitBytes * LEFT; ) {
    const most = shares.reduce((a, b) => (b.bytes > a.bytes ? b : a), NOBODY)
    const largest = most.holders.pop()
    if (largest === undefined) break
    largest.holder.drop('memory')
    most.bytes -= largest.bytes
    left -= largest.bytes
    closed++
    first ??= most.principal
  }
  return first === undefined ? undefined : { closed, principal: first }
}

/** In each, the largest comes last. */
function sharesOf<Some extends Holder>(
  holders: Iterable<Some>,
  heldBytesOf: (holder: Some) => number,
): Share[] {
  const shares = new Map<string, Share>()
  for (const holder of holders) {
    const { principal } = holder.peer
    const bytes = heldBytesOf(holder)
    const share = shares.get(principal) ?? { principal, holders: [], bytes: 0 }
    shares.set(principal, share)
    share.holders.push({ holder, bytes })
    share.bytes += bytes
  }
  for (const { holders } of shares.values()) holders.sort((a, b) => a.bytes - b.bytes)
  return [...shares.values()]
}

const NOBODY: Share = { principal: '', holders: [], bytes: 0 }
