// A client connection whose bytes are not looked at: policy is asked once, with what is known of the
// peer and the two ends; then bytes go both ways until somebody ends it, or the peer stops being
// acceptable.
import type { TLSSocket } from 'node:tls'
import { type ErrorCode, errorEntry } from '../errors.ts'
import type { PeerRejection, VerifiedPeer } from '../identity/peer.ts'
import { type Admitted, admitConnection, codeOfRejection, currentPeer } from './admission.ts'
import { type CloseReason, type ConnectionStart, tunnelEndOf } from './connection.ts'
import { recordFault } from './fault.ts'
import { keptBytesOf } from './lent-reads.ts'
import { writeProxyHeader } from './proxy-protocol.ts'
import { destroyWithReset } from './raw-socket.ts'
import { waitingBytesOf } from './small-pieces.ts'
import type { Tally } from './tally.ts'
import type { ThreadContext } from './thread-context.ts'
import { Tunnel, type TunnelClient } from './tunnel.ts'
import type { UpstreamConnection, UpstreamUser } from './upstream.ts'
import { ConnectionEnd } from './workload-end.ts'

export class TcpConnection implements TunnelClient, UpstreamUser {
  readonly socket: TLSSocket
  readonly remoteAddress: string
  readonly remotePort: number
  peer: VerifiedPeer
  readonly #start: ConnectionStart
  readonly #context: ThreadContext
  readonly #tally: Tally
  readonly #bornMs: number
  readonly #startedMs: number
  #requestId = ''
  #decisionId: string | undefined
  #tunnel: Tunnel | undefined
  #outcome: { readonly outcome: 'allow' | 'deny' | 'error' | 'peer_invalid'; code?: ErrorCode } = {
    outcome: 'allow',
  }
  #closeReason: CloseReason = 'client'
  #closed = false

  constructor(start: ConnectionStart, context: ThreadContext, tally: Tally) {
    this.#start = start
    this.socket = start.socket
    this.peer = start.peer
    this.remoteAddress = start.remoteAddress
    this.remotePort = start.remotePort
    this.#context = context
    this.#tally = tally
    this.#bornMs = context.tickMs
    this.#startedMs = context.clock.monotonicMs()
  }

  /** Asks the policy, and connects when it permits. Called once. */
  begin(): void {
    const { generation, clock } = this.#context
    // Trust may have changed since the handshake, and a sweep has a pace of its own.
    this.verifyAgain(clock.nowMs())
    if (this.#isCut) return
    const origin = { peer: this.peer, inputs: this.#start.inputs }
    const admission = admitConnection(origin, this.#context, generation)
    this.#requestId = admission.requestId
    this.#decisionId = admission.decisionId
    if (admission.kind === 'admitted') return this.#connect(admission)
    const outcome = admission.denial?.evaluation.outcome === 'deny' ? 'deny' : 'error'
    this.#outcome = { outcome, code: admission.code }
    this.#destroy('rejected')
  }

  /** Runs one step; a fault in it ends this connection and no other. */
  guarded(step: (connection: TcpConnection) => void): void {
    try {
      step(this)
    } catch (error) {
      recordFault(this.#context, error)
      this.#destroy('error')
    }
  }

  onClose(): void {
    if (this.#closed) return
    this.#closed = true
    const tunnel = this.#tunnel
    tunnel?.abandon(tunnelEndOf(this.#closeReason))
    this.#context.pool.forget(this)
    this.#tally.connection(this, {
      requestId: this.#requestId,
      ...(this.#decisionId === undefined ? {} : { decisionId: this.#decisionId }),
      startedMs: this.#startedMs,
      requestBytes: tunnel?.fromClientBytes ?? 0,
      responseBytes: tunnel?.toClientBytes ?? 0,
      detail: detailOf(this.#closeReason),
      ...this.#outcome,
    })
    this.#tally.closed(this.#closeReason)
  }

  // The thread: time, trust, drain.

  tick(nowMs: number): void {
    const { timeouts } = this.#context.generation.snapshot.settings.inbound
    const silentMs = nowMs - (this.#tunnel?.progressMs ?? this.#bornMs)
    if (silentMs >= timeouts.tunnelIdleMs) this.#destroy('idle')
    const { connectionLifetimeMs } = timeouts
    if (connectionLifetimeMs > 0 && nowMs - this.#bornMs >= connectionLifetimeMs) {
      this.#destroy('lifetime')
    }
  }

  /** Holds the peer against the trust in force now, and cuts the connection if it does not stand. */
  verifyAgain(nowMs: number): void {
    if (this.#closed || this.#isCut) return
    const peer: VerifiedPeer | PeerRejection = currentPeer(
      this.peer,
      this.#context.generation,
      nowMs,
    )
    if (peer.kind === 'peer') {
      this.peer = peer
      return
    }
    const code = codeOfRejection(peer)
    this.#tally.cut(this, code, peer.detail)
    this.#outcome = { outcome: 'peer_invalid', code }
    this.#destroy('peer_invalid')
  }

  get #isCut(): boolean {
    return this.#outcome.outcome === 'peer_invalid'
  }

  /** The drain deadline has passed. */
  abort(): void {
    this.#destroy('drain')
  }

  get heldBytes(): number {
    const toWorkload = this.#tunnel?.waitingBytes ?? 0
    return waitingBytesOf(this.socket) + keptBytesOf(this.socket) + toWorkload
  }

  /** Nothing more is read or written, not even what is held back. */
  drop(reason: CloseReason): void {
    this.#closeReason = reason
    this.socket.destroy()
  }

  // The client's side of the tunnel.

  pass(buffer: Buffer, start: number, end: number): boolean {
    const { turn, pool, shares } = this.#context
    turn.hold(this.socket)
    const room = pool.copies.write(this.socket, '', buffer, start, end, '')
    if (shares.isLight(this.peer.principal)) turn.release(this.socket)
    return room
  }

  nowMs(): number {
    return this.#context.tickMs
  }

  tunnelDone(broken: boolean): void {
    // A reset of one side is passed on to the other.
    if (broken) this.#fail('upstream_reset', destroyWithReset)
    else this.socket.end()
  }

  // The workload's connection, until the tunnel owns it.

  /** It may still be connecting; then nothing is read of the client before it has. */
  upstreamReady(connection: UpstreamConnection): void {
    const open = (): void => this.guarded(() => this.#open(connection))
    if (connection.connecting) connection.socket.once('connect', open)
    else open()
  }

  upstreamFailed(_error: NodeJS.ErrnoException | undefined, connected: boolean): void {
    this.#fail(connected ? 'upstream_reset' : 'upstream_refused')
  }

  upstreamConnectTimeout(): void {
    this.#fail('upstream_connect_timeout')
  }

  upstreamBusy(): void {
    this.#fail('upstream_busy')
  }

  upstreamFault(): void {
    this.#fail('internal')
  }

  upstreamEnd(): void {
    this.#fail('upstream_reset')
  }

  upstreamData(): void {}
  upstreamDrain(): void {}

  /** Only with a permit in hand. */
  #connect(_admitted: Admitted): void {
    this.#context.pool.acquire(this, true, this.peer.principal)
  }

  #open(connection: UpstreamConnection): void {
    const { socket } = this
    if (socket.destroyed) return connection.destroy()
    const { proxyProtocol } = this.#context.generation.snapshot.settings.inbound
    if (proxyProtocol.send) connection.socket.write(this.#proxyHeader())
    const end = new ConnectionEnd(connection, this.#context.turn)
    const tunnel = new Tunnel('tcp', this, end, this.#context.cells)
    this.#tunnel = tunnel
    tunnel.begin()
    socket.on('data', (chunk: Buffer) => this.guarded(() => tunnel.clientData(chunk)))
    socket.on('drain', () => this.guarded(() => tunnel.clientDrain()))
    // A client that had nothing to say may have ended its side before anybody listened.
    if (socket.readableEnded) tunnel.clientEnd()
    else socket.on('end', () => this.guarded(() => tunnel.clientEnd()))
  }

  #proxyHeader(): Buffer {
    const { socket, peer } = this
    return writeProxyHeader({
      source: { address: this.remoteAddress, port: this.remotePort },
      destination: { address: socket.localAddress ?? '', port: socket.localPort ?? 0 },
      principal: peer.principal,
      commonName: peer.commonName,
      serverName: typeof socket.servername === 'string' ? socket.servername : '',
      tlsVersion: socket.getProtocol() ?? '',
      cipher: socket.getCipher().standardName,
    })
  }

  #fail(code: ErrorCode, end = destroy): void {
    // It has ended already, for a reason of its own.
    if (this.socket.destroyed) return
    this.#outcome = { outcome: 'allow', code }
    this.#destroy(errorEntry(code).fault === 'upstream' ? 'upstream' : 'error', end)
  }

  #destroy(reason: CloseReason, end = destroy): void {
    if (this.socket.destroyed) return
    this.#closeReason = reason
    // What came before the end is still held back.
    this.#context.turn.release(this.socket)
    end(this.socket)
  }
}

const destroy = (socket: TLSSocket): void => void socket.destroy()

/** Why it was ended by us, where it did nothing wrong. */
function detailOf(reason: CloseReason): string | undefined {
  return reason === 'idle' || reason === 'lifetime' || reason === 'drain' ? reason : undefined
}
