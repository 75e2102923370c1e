// After a change of trust: every open connection that it concerns is held against it, a slice at a
// time, so that requests go on meanwhile. Connections that carry requests are not left to wait for
// their turn: each request asks for itself.
import type { Peer } from '../identity/anonymous-peer.ts'
import type { PeerVerifier } from '../identity/verifier.ts'
import type { Clock } from './clock.ts'

export interface SweptConnection {
  readonly peer: Peer
  /** Holds the peer against the trust in force, and ends the connection if it does not stand. */
  verifyAgain(nowMs: number): void
  /** Runs a step; a fault in it is the end of this connection alone. */
  guarded(step: (connection: this) => void): void
}

/**
 * `news`: the verifier that came with the change, which knows whom it concerns. A newer one may be in
 * force before the end; it begins a sweep of its own.
 */
export function sweep(
  connections: readonly SweptConnection[],
  news: Pick<PeerVerifier, 'concerns'>,
  clock: Clock,
  from = 0,
): void {
  const beganMs = clock.monotonicMs()
  const nowMs = clock.nowMs()
  for (let i = from; i < connections.length; i++) {
    connections[i]?.guarded((connection) => {
      const { peer } = connection
      // What trust says is nothing to a client that nobody vouches for.
      if (peer.kind === 'peer' && news.concerns(peer, nowMs)) connection.verifyAgain(nowMs)
    })
    if (clock.monotonicMs() - beganMs < SLICE_MS) continue
    setImmediate(() => sweep(connections, news, clock, i + 1))
    return
  }
}

const SLICE_MS = 5
