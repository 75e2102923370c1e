// The socket below that of a TLS client. tls.Server does not say which it was given; `_parent` is how node:net
// itself tells.
import type { Socket } from 'node:net'

interface Inside {
  readonly _handle?: { reset?(): void } | null
  resetAndClosing?: boolean
}

export const rawSocketOf = (socket: Socket): Socket | undefined =>
  (socket as unknown as { _parent?: Socket })._parent

/**
 * Destroys it so that the client's system hears of a reset. Of a socket whose end has begun to be sent, or of the
 * UNIX socket of a client, it hears of the end alone. `resetAndDestroy` of the socket below would do the same,
 * and abort the process (a "double free", Node 26.10): this is how it asks `destroy`.
 */
export function destroyWithReset(socket: Socket): void {
  const raw = rawSocketOf(socket) as (Socket & Inside) | undefined
  if (!socket.writableEnded && typeof raw?._handle?.reset === 'function') raw.resetAndClosing = true
  socket.destroy()
}
