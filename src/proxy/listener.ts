// Accepts client connections and takes them through their handshake: counts them, bounds what
// unauthenticated ones may cost, and hands over those whose peer was verified.
import { randomUUID } from 'node:crypto'
import net from 'node:net'
import tls from 'node:tls'
import type { Address } from '../config/config.ts'
import type { Peer } from '../identity/anonymous-peer.ts'
import { surplusBytesOf } from '../identity/certificate-weight.ts'
import type { VerifiedPeer } from '../identity/peer.ts'
import {
  cellOf,
  cellsByLabel,
  HANDSHAKE_FAILURES,
  metricEntry,
  REVOCATION_GAPS,
} from '../metrics.ts'
import { ConnectionInputs } from '../policy/input.ts'
import { requestIdOf } from './admission.ts'
import { ClientConnection, type ClientStart } from './connection.ts'
import { recordFault } from './fault.ts'
import {
  admitPeer,
  admitPlaintext,
  type HandshakeFailure,
  type RefusedHandshake,
  reasonOfTlsError,
  sentCertificates,
  sizeOf,
} from './handshake.ts'
import {
  type Applicant,
  type GuardLimits,
  type HandshakeEnd,
  HandshakeGuard,
  NO_ADDRESS,
  type Refusal,
  type Slot,
} from './handshake-guard.ts'
import { Http2Connection } from './http2/connection.ts'
import { refuseOverHttp2 } from './http2/refusal.ts'
import { IdentityAges } from './identity-ages.ts'
import { KeyChanges } from './key-changes.ts'
import { ProxyGate } from './proxy-gate.ts'
import type { ProxyEnd } from './proxy-protocol.ts'
import { rawSocketOf } from './raw-socket.ts'
import { relieve } from './relief.ts'
import { encodeHandshakeRefusal } from './respond.ts'
import { sweep } from './sweep.ts'
import { type Protocol, Tally } from './tally.ts'
import { TcpConnection } from './tcp-connection.ts'
import type { ThreadContext } from './thread-context.ts'
import { ALPN_PROTOCOLS, contextOptions, renewContext, SERVER_OPTIONS } from './tls-options.ts'

/** With the answer that says why. */
interface ToldId {
  readonly requestId: string
}
type ToldRefusal = RefusedHandshake & Partial<ToldId>

/** What the listener does about an arrival; one object for all of them. */
interface ArrivalEvents {
  mayBegin(arrival: Arrival, slot: Slot): void
  refused(arrival: Arrival, reason: Refusal): void
  /** Its client sends what is an attack on TLS itself. */
  flooded(arrival: Arrival, socket: net.Socket): void
  closed(arrival: Arrival): void
}

/**
 * A client connection before anyone was verified on it, and what has to be undone at its end. It lasts
 * as long as its socket does, hence no closures: idle connections are many.
 */
class Arrival implements Applicant {
  readonly socket: net.Socket
  readonly address: string
  readonly port: number
  readonly acceptedMs: number
  /** While its handshake is in progress. */
  slot: Slot | undefined
  /** Which of our identities its handshake shows; see `IdentityAges`. */
  epoch = 0
  /** The handshake has ended, one way or the other. */
  over = false
  readonly #events: ArrivalEvents

  constructor(
    socket: net.Socket,
    address: string,
    port: number,
    acceptedMs: number,
    events: ArrivalEvents,
  ) {
    this.socket = socket
    this.address = address
    this.port = port
    this.acceptedMs = acceptedMs
    this.#events = events
  }

  start(slot: Slot): void {
    this.#events.mayBegin(this, slot)
  }

  refuse(reason: Refusal): void {
    this.#events.refused(this, reason)
  }

  flooded(socket: net.Socket): void {
    this.#events.flooded(this, socket)
  }

  closed(): void {
    this.#events.closed(this)
  }
}

const ACCEPTED = cellOf('connections_total', {})
const RESUMED = cellOf('tls_resumed_total', {})
const SUCCEEDED = cellOf('handshakes_total', { result: 'success', reason: 'none' })
const FAILED = Object.fromEntries(
  HANDSHAKE_FAILURES.map((reason) => [
    reason,
    cellOf('handshakes_total', { result: 'failure', reason }),
  ]),
) as Record<HandshakeFailure, number>
const SOFT_FAILURES = cellsByLabel('revocation_soft_failures_total', 'reason', REVOCATION_GAPS)
const DURATION = cellOf('handshake_duration_seconds', {})
const DURATION_BUCKETS = metricEntry('handshake_duration_seconds').buckets ?? []
/** A refused client gets so long to read why, and may send so much meanwhile: nobody vouches for it. */
const REFUSAL_LINGER_MS = 1_000
const REFUSAL_LINGER_BYTES = 64 * 1024
/** Of those that read why; the longest of them leaves for the next. */
const MOST_REFUSED = 128
/** That their certificates take of memory: whose take more are not told. */
const MOST_REFUSED_SURPLUS_BYTES = 64 * 1024
/** During a drain; a client that is slower than this has not sent a request either. */
const DRAIN_HANDSHAKE_MS = 1_000
/** In overload; who has not begun its handshake by then is refused, before it costs anything. */
const OVERLOAD_WAIT_MS = 1_000
/** Connections hear of a tick for so long at a time; the clock is looked at after so many of them. */
const SLICE_MS = 5
const BETWEEN_LOOKS = 8
/** In overload this part of the handshakes may be in progress: one costs what dozens of requests do. */
const OVERLOAD_HANDSHAKES = 1 / 16

/** While several principals are about. A handshake has some steps of about half a millisecond. */
const TURNS_PER_HANDSHAKE = 4
/** Of one that is not over: as many certificates as are taken, and the rest. OpenSSL keeps up to 128 KiB of a message. */
const MOST_HANDSHAKE_BYTES = 72 * 1024
/** About what a full one takes of the thread. */
const HANDSHAKE_MS = 1

const arrivalKey = Symbol('arrival')
const connectionKey = Symbol('connection')
/** A client that was let in, whatever it speaks. */
type OpenConnection = ClientConnection | Http2Connection | TcpConnection
type ArrivedSocket = net.Socket & { [arrivalKey]?: Arrival }
type OwnedSocket = net.Socket & { [connectionKey]?: ClientConnection }
type Http2Socket = net.Socket & { [connectionKey]?: Http2Connection }
type OpenSocket = net.Socket & { [connectionKey]?: OpenConnection }

export class Listener {
  readonly connections = new Set<OpenConnection>()
  readonly #context: ThreadContext
  readonly #tally: Tally
  readonly #guard: HandshakeGuard
  #balancers: ProxyGate
  readonly #ages: IdentityAges
  readonly #acceptor: net.Server
  readonly #tls: tls.Server
  /** What certificates of clients take of memory, where that is more than usual. */
  readonly #surplusBytes = new Map<OpenConnection, number>()
  readonly #arrivals = new Map<net.Socket, Arrival>()
  /** Connections of balancers whose header has not come yet. */
  readonly #announcing = new Map<net.Socket, Arrival>()
  readonly #openByAddress = new Map<string, number>()
  readonly #openByPrincipal = new Map<string, number>()
  readonly #refused = new Map<tls.TLSSocket, number>()
  readonly #keyChanges = new KeyChanges()
  readonly #arrivalEvents: ArrivalEvents = {
    mayBegin: (arrival, slot) => this.#mayBegin(arrival, slot),
    refused: (arrival, reason) => this.#turnAway(arrival, reason),
    flooded: (arrival, socket) => this.#flooded(arrival, socket),
    closed: (arrival) => this.#left(arrival),
  }
  #open = 0
  /** Some connections have still to hear of the tick. */
  #inRound = false

  constructor(context: ThreadContext) {
    this.#context = context
    this.#tally = new Tally(context)
    this.#guard = new HandshakeGuard(
      currentLimits(context),
      () => context.clock.monotonicMs(),
      (step) => afterTurns(context.shares.shared ? TURNS_PER_HANDSHAKE : 1, step),
    )
    const { identity, trust, settings } = context.generation.snapshot
    const { forward, proxyProtocol } = settings.inbound
    this.#balancers = new ProxyGate(proxyProtocol.acceptFrom)
    this.#ages = new IdentityAges(context.cells, identity)
    this.#tls = tls.createServer({
      ...SERVER_OPTIONS,
      ...(forward.scheme === 'tcp' ? {} : { ALPNProtocols: [...ALPN_PROTOCOLS] }),
      // The first context, too: without options it takes what the environment may have made nonsense.
      ...contextOptions(identity, trust.bundles),
      // `tick` keeps the deadline: this one cannot be changed later, and it closes nothing. Below 0 there
      // is no timer (0 means two minutes), which each idle connection would keep.
      handshakeTimeout: -1,
    })
    renewContext(this.#tls, contextOptions(identity, trust.bundles))
    this.#tls.on('secureConnection', (socket) => this.#guarded(socket, () => this.#secured(socket)))
    this.#tls.on('tlsClientError', (error, socket) =>
      this.#guarded(socket, () => this.#handshakeBroke(error, socket)),
    )
    // Secrets are no concern of ours: that there are new ones is all that node tells of a KeyUpdate.
    this.#tls.on('keylog', (secret, socket) => {
      secret.fill(0)
      this.#guarded(socket, () => this.#keysChanged(socket))
    })
    // Nothing is read before the guard says so: waiting costs a descriptor and no CPU. Whoever ends
    // its side during the handshake has gone; half-open connections begin after it, in `secured`.
    this.#acceptor = net.createServer({ pauseOnConnect: true, noDelay: true })
    this.#acceptor.on('connection', (socket) => this.#guarded(socket, () => this.#accepted(socket)))
  }

  /** Starts to listen. @returns the bound port, 0 for a UNIX socket; rejects with the system's error */
  listen(address: Address, reusePort: boolean): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#acceptor.once('error', reject)
      const where =
        address.kind === 'unix'
          ? { path: address.path }
          : { host: address.host, port: address.port, reusePort }
      this.#acceptor.listen({ ...where, backlog: 1024 }, () => {
        this.#acceptor.removeListener('error', reject)
        // A failed accept (no descriptors left) is the client's loss; the listener stays.
        this.#acceptor.on('error', () => {})
        const bound = this.#acceptor.address()
        resolve(bound === null || typeof bound === 'string' ? 0 : bound.port)
      })
    })
  }

  /** Brings the context's generation into force for new handshakes, and checks open connections. */
  generationChanged(trustChanged: boolean): void {
    const { identity, trust, settings } = this.#context.generation.snapshot
    this.#balancers = new ProxyGate(settings.inbound.proxyProtocol.acceptFrom)
    renewContext(this.#tls, contextOptions(identity, trust.bundles))
    this.#ages.changed(identity)
    if (!trustChanged) return
    sweep([...this.connections], this.#context.generation.verifier, this.#context.clock)
  }

  tick(): void {
    const { tickMs, clock } = this.#context
    const { handshakeMs } = this.#context.generation.snapshot.settings.inbound.timeouts
    const limitMs = this.#context.draining ? Math.min(handshakeMs, DRAIN_HANDSHAKE_MS) : handshakeMs
    const { overload } = this.#context
    this.#guard.tick(overload.active ? Math.min(limitMs, OVERLOAD_WAIT_MS) : limitMs)
    if (this.#guard.waiting > 0) overload.press()
    this.#endOverdueHandshakes(limitMs)
    this.#keyChanges.tick(clock.monotonicMs())
    for (const [socket, sinceMs] of this.#refused) {
      if (tickMs - sinceMs >= REFUSAL_LINGER_MS) socket.destroy()
    }
    this.tickConnections()
  }

  /** Their deadlines, and what they hold. */
  tickConnections(): void {
    // Where a round takes longer than the time until the next, there is no other beside it.
    if (!this.#inRound) this.#tickSome(this.connections.values(), 0)
  }

  /** A slice of them, and the rest in the next turns: thousands may have come to their deadline at once. */
  #tickSome(connections: SetIterator<OpenConnection>, before: number): void {
    const { clock, tickMs } = this.#context
    const nowMs = clock.nowMs()
    const beganMs = clock.monotonicMs()
    let heldBytes = before
    let done = 0
    for (let one = connections.next(); one.done !== true; one = connections.next()) {
      const connection = one.value
      connection.guarded(() => {
        if (nowMs >= connection.peer.acceptableUntilMs) connection.verifyAgain(nowMs)
        connection.tick(tickMs)
        heldBytes += this.#heldBytesOf(connection)
      })
      if (++done % BETWEEN_LOOKS !== 0 || clock.monotonicMs() - beganMs < SLICE_MS) continue
      this.#inRound = true
      setImmediate(() => this.#tickSome(connections, heldBytes))
      return
    }
    this.#inRound = false
    this.#relieve(heldBytes)
  }

  #relieve(heldBytes: number): void {
    const { generation, records, clock } = this.#context
    const { heldBytes: limitBytes } = generation.snapshot.settings.inbound.limits
    const relief = relieve(this.connections, this.#heldBytesOf, heldBytes, limitBytes)
    if (relief === undefined) return
    records.push({ kind: 'relieved', timeMs: clock.nowMs(), heldBytes, ...relief })
  }

  readonly #heldBytesOf = (connection: OpenConnection): number =>
    connection.heldBytes + (this.#surplusBytes.get(connection) ?? 0)

  /** Whoever has connected already may still finish the handshake: its request is on the way. */
  stopAccepting(): void {
    this.#acceptor.close()
  }

  /** Nobody is connected, or about to be. */
  get idle(): boolean {
    const waiting = this.#arrivals.size + this.#announcing.size
    return this.connections.size === 0 && waiting === 0
  }

  // Accept.

  #accepted(socket: net.Socket): void {
    const arrival = this.#arrivalOn(socket)
    socket.on('error', onError)
    this.#context.cells.add(ACCEPTED)
    if (!this.#balancers.concerns(arrival.address)) return this.#arrived(arrival)
    if (this.#hasNoRoom) return this.#turnAway(arrival, 'overload')
    this.#announcing.set(socket, arrival)
    const gone = (): void => {
      this.#announcing.delete(socket)
      this.#failed(arrival, refusedAs('client_closed'))
    }
    socket.once('close', gone)
    this.#balancers.read(socket, (client) =>
      this.#guarded(socket, () => {
        if (arrival.over) return
        this.#announcing.delete(socket)
        socket.removeListener('close', gone)
        if (client !== 'malformed') return this.#arrived(this.#arrivalOn(socket, client))
        this.#failed(arrival, NO_HEADER)
        socket.destroy()
      }),
    )
  }

  /** @param client as a balancer names it */
  #arrivalOn(socket: net.Socket, client?: ProxyEnd): Arrival {
    const { listen } = this.#context.generation.snapshot.settings.inbound
    return new Arrival(
      socket,
      client?.address ?? (listen.kind === 'unix' ? NO_ADDRESS : plainAddress(socket.remoteAddress)),
      client?.port ?? socket.remotePort ?? 0,
      this.#context.clock.monotonicMs(),
      this.#arrivalEvents,
    )
  }

  get #hasNoRoom(): boolean {
    const { limits } = this.#context.generation.snapshot.settings.inbound
    return this.#open + this.#announcing.size >= limits.connections
  }

  #arrived(arrival: Arrival): void {
    const { socket } = arrival
    const { limits, listen } = this.#context.generation.snapshot.settings.inbound
    const ofAddress = this.#openByAddress.get(arrival.address) ?? 0
    if (listen.kind === 'tcp' && arrival.address === NO_ADDRESS) {
      return this.#turnAway(arrival, 'client_closed')
    }
    if (this.#hasNoRoom) return this.#turnAway(arrival, 'overload')
    if (listen.kind === 'tcp' && ofAddress >= limits.connectionsPerAddress) {
      return this.#turnAway(arrival, 'address_limited')
    }
    this.#open++
    count(this.#openByAddress, arrival.address, 1)
    this.#arrivals.set(socket, arrival)
    ;(socket as ArrivedSocket)[arrivalKey] = arrival
    socket.on('close', onArrivalClose)
    const refusal = this.#guard.ask(arrival.address, arrival)
    if (refusal !== undefined) this.#turnAway(arrival, refusal)
  }

  #mayBegin(arrival: Arrival, slot: Slot): void {
    const { socket } = arrival
    arrival.slot = slot
    arrival.epoch = this.#ages.epoch
    // It may have gone while it waited, with its `close` still to come: TLS on it would throw.
    if (socket.destroyed) this.#guard.end(slot, { kind: 'free' })
    else this.#guarded(socket, () => this.#begin(arrival))
  }

  /** One identity, from however many addresses, does not take the connections of all others. */
  #isFull({ principal }: VerifiedPeer): boolean {
    const { connectionsPerPeer } = this.#context.generation.snapshot.settings.inbound.limits
    return (this.#openByPrincipal.get(principal) ?? 0) >= connectionsPerPeer
  }

  #turnAway(arrival: Arrival, reason: keyof typeof WHY_TURNED_AWAY): void {
    this.#failed(arrival, refusedAs(reason))
    arrival.socket.destroy()
  }

  #left(arrival: Arrival): void {
    this.#open--
    this.#arrivals.delete(arrival.socket)
    count(this.#openByAddress, arrival.address, -1)
    if (arrival.over) return
    if (arrival.slot === undefined) this.#guard.forget(arrival.address, arrival)
    this.#failed(arrival, refusedAs('client_closed'))
  }

  /** TLS; or HTTP, where that is let in: no method begins with the byte that a ClientHello does. */
  #begin(arrival: Arrival): void {
    const { socket } = arrival
    const { unsafePlaintext } = this.#context.generation.snapshot.settings.inbound
    if (!unsafePlaintext) return void this.#tls.emit('connection', socket)
    socket.once('readable', () => {
      const first = socket.read() as Buffer | null
      // At its end, `close` follows.
      if (first === null || arrival.over) return
      socket.unshift(first)
      this.#guarded(socket, () => {
        if (isUpperCase(first[0])) this.#unencrypted(arrival)
        else this.#tls.emit('connection', socket)
      })
    })
  }

  #unencrypted(arrival: Arrival): void {
    const { socket } = arrival
    const verdict = admitPlaintext(this.#context.generation.snapshot.settings.inbound)
    if (verdict.kind === 'refused') {
      this.#failed(arrival, verdict)
      return void socket.destroy()
    }
    socket.allowHalfOpen = true
    this.#handshakeOver(arrival, { kind: 'success' })
    this.#opened(arrival, socket, verdict)
    socket.resume()
  }

  // The end of a handshake.

  #secured(socket: tls.TLSSocket): void {
    const arrival = this.#arrivalOf(socket)
    // Without its arrival a socket cannot be accounted for; that never happens, and must not pass.
    if (arrival === undefined || arrival.over) return void socket.destroy()
    socket.allowHalfOpen = true
    const { generation, clock } = this.#context
    const { inbound } = generation.snapshot.settings
    const sent = sentCertificates(socket)
    const surplusBytes = surplusBytesOf(sent)
    const verdict = admitPeer(socket, sent, generation.verifier, clock.nowMs(), inbound)
    if (verdict.kind === 'refused') {
      // Not what the socket has read: a request may have come with the end of the handshake.
      const told = this.#toldId(surplusBytes)
      this.#failed(arrival, { ...verdict, ...told }, sizeOf(sent))
      return this.#sendRefusal(socket, verdict.reason, told)
    }
    if (verdict.kind === 'peer' && this.#isFull(verdict)) {
      // A success to the guard: others behind the same address have done nothing.
      this.#handshakeOver(arrival, { kind: 'success' })
      const told = this.#toldId(surplusBytes)
      this.#tell(arrival, { ...refusedAs('peer_limited', verdict.principal), ...told })
      return this.#sendRefusal(socket, 'peer_limited', told)
    }
    this.#handshakeOver(arrival, { kind: 'success' })
    const { cells, shares } = this.#context
    cells.add(SUCCEEDED)
    if (socket.isSessionReused()) cells.add(RESUMED)
    if (verdict.kind === 'peer') {
      if (!socket.isSessionReused()) shares.charge(verdict.principal, HANDSHAKE_MS)
      const gap = generation.verifier.revocationGap(verdict, clock.nowMs())
      if (gap !== undefined) cells.add(SOFT_FAILURES[gap])
    }
    cells.observe(DURATION, DURATION_BUCKETS, (clock.monotonicMs() - arrival.acceptedMs) / 1000)
    this.#opened(arrival, socket, verdict, surplusBytes, arrival.epoch)
  }

  /**
   * @param surplusBytes that its certificates take of memory
   * @param epoch of our identity that the client was shown, if it was
   */
  #opened(
    arrival: Arrival,
    socket: net.Socket | tls.TLSSocket,
    peer: Peer,
    surplusBytes = 0,
    epoch?: number,
  ): void {
    const { generation } = this.#context
    const serverName = socket instanceof tls.TLSSocket ? socket.servername : undefined
    const inputs = new ConnectionInputs({
      peer,
      remoteAddress: arrival.address,
      remotePort: arrival.port,
      localAddress: socket.localAddress ?? '',
      localPort: socket.localPort ?? 0,
      serverName: typeof serverName === 'string' ? serverName : undefined,
      destinationPrincipal: generation.identity.uris[0] ?? '',
      certificatePem,
    })
    const start = {
      socket,
      peer,
      inputs,
      remoteAddress: arrival.address,
      remotePort: arrival.port,
    }
    const connection = this.#connectionOf(start)
    this.#tally.opened()
    this.connections.add(connection)
    const { principal } = peer
    if (peer.kind === 'peer') count(this.#openByPrincipal, principal, 1)
    if (epoch !== undefined) this.#ages.opened(epoch)
    if (surplusBytes > 0) this.#surplusBytes.set(connection, surplusBytes)
    socket.on('close', () => {
      this.connections.delete(connection)
      if (socket instanceof tls.TLSSocket) this.#context.lentReads?.forget(socket, principal)
      this.#surplusBytes.delete(connection)
      if (peer.kind === 'peer') count(this.#openByPrincipal, principal, -1)
      if (epoch !== undefined) this.#ages.closed(epoch)
      connection.guarded(() => connection.onClose())
    })
  }

  #connectionOf(start: ClientStart): OpenConnection {
    const { socket, peer } = start
    const isTls = socket instanceof tls.TLSSocket
    if (isTls) this.#context.lentReads?.lend(socket, peer.principal)
    if (this.#context.generation.snapshot.settings.inbound.forward.scheme === 'tcp') {
      socket.on('error', onError)
      // The configuration excludes it; this catches a fault of ours before it becomes a bypass.
      if (!isTls || peer.kind !== 'peer') throw new TypeError('TCP is for verified peers alone')
      const connection = new TcpConnection({ ...start, socket, peer }, this.#context, this.#tally)
      ;(socket as OpenSocket)[connectionKey] = connection
      setImmediate(() => connection.guarded((one) => one.begin()))
      return connection
    }
    if (isTls && socket.alpnProtocol === 'h2') {
      const connection = new Http2Connection(start, this.#context, this.#tally)
      ;(socket as Http2Socket)[connectionKey] = connection
      socket.on('data', onHttp2Data).on('drain', onHttp2Drain).on('error', onError)
      return connection
    }
    const connection = new ClientConnection(start, this.#context, this.#tally)
    ;(socket as OwnedSocket)[connectionKey] = connection
    // Shared functions instead of a closure for each event and connection: idle ones are many.
    socket.on('data', onData).on('drain', onDrain).on('end', onEnd).on('error', onError)
    return connection
  }

  // What is left of TLS after the handshake.

  /** In its handshake, where it has to, or after it. OpenSSL waits meanwhile: nothing may be written. */
  #keysChanged(socket: tls.TLSSocket): void {
    if (socket.destroyed) return
    const connection = (socket as OpenSocket)[connectionKey]
    if (connection === undefined ? !this.#refused.has(socket) : this.#mayChangeKeys(connection))
      return
    arrivalUnder(socket)?.flooded(socket)
  }

  #mayChangeKeys(connection: OpenConnection): boolean {
    return this.#keyChanges.allow(clientOf(connection), this.#context.clock.monotonicMs())
  }

  /**
   * Ends what else the client has open before it is read: each could cost as much. The client is its
   * principal at its address: elsewhere, the principal is other instances of a service.
   */
  #flooded({ address }: Arrival, socket: net.Socket): void {
    if (socket.destroyed) return
    this.#guard.punish(address)
    for (const arrival of [...this.#arrivals.values()]) {
      if (arrival.address === address) this.#turnAway(arrival, 'address_limited')
    }
    const flooding = (socket as OpenSocket)[connectionKey]
    if (flooding === undefined) return void socket.destroy()
    const client = clientOf(flooding)
    for (const connection of [...this.connections]) {
      if (clientOf(connection) === client) connection.drop('rejected')
    }
    this.#tally.rejected(flooding, requestIdOf([]), 'tls_flood', protocolOf(flooding))
  }

  #handshakeBroke(error: NodeJS.ErrnoException, socket: tls.TLSSocket): void {
    const arrival = this.#arrivalOf(socket)
    // Node leaves the socket of a timed-out handshake open; this is where it ends.
    socket.destroy()
    if (arrival === undefined || arrival.over) return
    const reason = reasonOfTlsError(error, arrival.socket.bytesRead > 0)
    this.#failed(arrival, { kind: 'refused', reason, detail: error.message })
  }

  /** And large ones. Of balancers' headers, too. Those that still wait for their slot are the guard's. */
  #endOverdueHandshakes(handshakeMs: number): void {
    const startedBefore = this.#context.clock.monotonicMs() - handshakeMs
    for (const arrival of [...this.#announcing.values(), ...this.#arrivals.values()]) {
      const waits = arrival.slot === undefined && !this.#announcing.has(arrival.socket)
      if (waits) continue
      const late = arrival.acceptedMs <= startedBefore
      if (!late && arrival.socket.bytesRead <= MOST_HANDSHAKE_BYTES) continue
      this.#failed(arrival, late ? notOverAfter(handshakeMs) : TOO_LARGE)
      arrival.socket.destroy()
    }
  }

  #failed(arrival: Arrival, refusal: ToldRefusal, bytes = arrival.socket.bytesRead): void {
    if (arrival.over) return
    const free = refusal.reason === 'client_closed' && arrival.socket.bytesRead === 0
    this.#handshakeOver(arrival, free ? { kind: 'free' } : { kind: 'failure', bytes })
    this.#tell(arrival, refusal)
  }

  #tell(arrival: Arrival, refusal: ToldRefusal): void {
    const { cells, records, clock } = this.#context
    cells.add(FAILED[refusal.reason])
    const { kind: _, ...why } = refusal
    records.push({
      kind: 'handshake',
      timeMs: clock.nowMs(),
      remoteAddress: arrival.address,
      remotePort: arrival.port,
      ...why,
    })
  }

  #handshakeOver(arrival: Arrival, how: HandshakeEnd): void {
    arrival.over = true
    this.#arrivals.delete(arrival.socket)
    const { slot } = arrival
    arrival.slot = undefined
    if (slot !== undefined) this.#guard.end(slot, how)
  }

  /**
   * The id of an answer that says why a client is refused. None where there is no answer: what a TCP client reads is
   * the workload's protocol, and of those that have sent a lot hundreds could come in the time to read.
   */
  #toldId(surplusBytes: number): ToldId | undefined {
    const { scheme } = this.#context.generation.snapshot.settings.inbound.forward
    const isTold = scheme !== 'tcp' && surplusBytes <= MOST_REFUSED_SURPLUS_BYTES
    return isTold ? { requestId: randomUUID() } : undefined
  }

  /** Says why in plain HTTP: TLS 1.3 has no alert for a certificate refused after the handshake. */
  #sendRefusal(socket: tls.TLSSocket, reason: HandshakeFailure, told: ToldId | undefined): void {
    socket.on('error', onError)
    const { scheme } = this.#context.generation.snapshot.settings.inbound.forward
    if (told === undefined && scheme !== 'tcp') return void socket.destroy()
    const [longest] = this.#refused.keys()
    if (longest !== undefined && this.#refused.size >= MOST_REFUSED) {
      this.#refused.delete(longest)
      longest.destroy()
    }
    this.#refused.set(socket, this.#context.tickMs)
    socket.on('close', () => this.#refused.delete(socket))
    if (told !== undefined && socket.alpnProtocol === 'h2') {
      return refuseOverHttp2(socket, reason, told.requestId, this.#context)
    }
    let left = REFUSAL_LINGER_BYTES
    socket.on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left < 0) socket.destroy()
    })
    if (told === undefined) socket.end()
    else socket.end(encodeHandshakeRefusal(reason, told.requestId))
  }

  /** Undefined once its handshake is over. */
  #arrivalOf(socket: tls.TLSSocket): Arrival | undefined {
    const raw = rawSocketOf(socket)
    return raw === undefined ? undefined : this.#arrivals.get(raw)
  }

  /** A fault of ours ends the one connection it happened on. */
  #guarded(socket: net.Socket, step: () => void): void {
    try {
      step()
    } catch (error) {
      recordFault(this.#context, error)
      socket.destroy()
    }
  }
}

function afterTurns(turns: number, step: () => void): void {
  setImmediate(() => (turns > 1 ? afterTurns(turns - 1, step) : step()))
}

function onArrivalClose(this: ArrivedSocket): void {
  this[arrivalKey]?.closed()
}

function onData(this: OwnedSocket, chunk: Buffer): void {
  this[connectionKey]?.guarded((connection) => connection.onData(chunk))
}

function onDrain(this: OwnedSocket): void {
  this[connectionKey]?.guarded((connection) => connection.onDrain())
}

function onEnd(this: OwnedSocket): void {
  this[connectionKey]?.guarded((connection) => connection.onEnd())
}

function onHttp2Data(this: Http2Socket, chunk: Buffer): void {
  this[connectionKey]?.guarded((connection) => connection.onData(chunk))
}

function onHttp2Drain(this: Http2Socket): void {
  this[connectionKey]?.guarded((connection) => connection.onDrain())
}

const certificatePem = (peer: Peer): string =>
  peer.kind === 'peer' ? (peer.chain[0]?.toString() ?? '') : ''

const isUpperCase = (byte = 0): boolean => byte >= 0x41 && byte <= 0x5a

/**
 * An error of the system is followed by `close`, which is where a connection's end is handled. One of
 * TLS is not: node leaves the socket open, and keeps all that still comes on it.
 */
function onError(this: net.Socket, error: NodeJS.ErrnoException): void {
  // OpenSSL refuses each, and reads on: node says so from the fourth on.
  if (error.code === 'ERR_TLS_SESSION_ATTACK') arrivalUnder(this)?.flooded(this)
  this.destroy()
}

const arrivalUnder = (socket: net.Socket): Arrival | undefined =>
  (rawSocketOf(socket) as ArrivedSocket | undefined)?.[arrivalKey]

const clientOf = ({ peer, remoteAddress }: OpenConnection): string =>
  `${peer.principal} ${remoteAddress}`

function protocolOf(connection: OpenConnection): Protocol {
  if (connection instanceof TcpConnection) return 'tcp'
  return connection instanceof Http2Connection ? 'http/2' : 'http/1.1'
}

/** The guard outlives generations, and reads the limits of the one in force. */
const currentLimits = (context: ThreadContext): GuardLimits => {
  const limits = () => context.generation.snapshot.settings.inbound.limits
  return {
    get handshakes() {
      const most = limits().handshakes
      return context.overload.active ? Math.max(1, most * OVERLOAD_HANDSHAKES) : most
    },
    get handshakesPerAddress() {
      return limits().handshakesPerAddress
    },
    get handshakeFailuresPerAddress() {
      return limits().handshakeFailuresPerAddress
    },
  }
}

/** A dual-stack socket writes IPv4 addresses as IPv6; policies and logs know them as IPv4. */
function plainAddress(address: string | undefined): string {
  if (address === undefined) return NO_ADDRESS
  return address.startsWith('::ffff:') && net.isIPv4(address.slice(7)) ? address.slice(7) : address
}

const refusedAs = (reason: keyof typeof WHY_TURNED_AWAY, subject?: string): RefusedHandshake => ({
  kind: 'refused',
  reason,
  detail: WHY_TURNED_AWAY[reason],
  ...(subject !== undefined && { subject }),
})

function count(open: Map<string, number>, name: string, change: 1 | -1): void {
  const now = (open.get(name) ?? 0) + change
  if (now > 0) open.set(name, now)
  else open.delete(name)
}

const notOverAfter = (handshakeMs: number): RefusedHandshake => ({
  kind: 'refused',
  reason: 'timeout',
  detail: `the handshake was not over after ${handshakeMs} ms`,
})

const TOO_LARGE: RefusedHandshake = {
  kind: 'refused',
  reason: 'protocol',
  detail: `the handshake was not over after ${MOST_HANDSHAKE_BYTES / 1024} KiB`,
}

const NO_HEADER: RefusedHandshake = {
  kind: 'refused',
  reason: 'protocol',
  detail: 'no PROXY header of version 2, from an address of inbound.proxyProtocol.acceptFrom',
}

const WHY_TURNED_AWAY = {
  overload: 'too many connections or handshakes (inbound.limits)',
  client_closed: 'the client closed the connection',
  peer_limited: 'the principal has too many connections (inbound.limits.connectionsPerPeer)',
  address_limited: 'the address has too many connections, or too many of its handshakes failed',
} as const
