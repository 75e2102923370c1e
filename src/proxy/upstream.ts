// Connections to the workload: opened when needed, kept and reused while both sides agree. One
// exchange owns a connection at a time; whatever arrives while nobody owns it destroys it, so that a
// surplus answer can never be taken for the answer to somebody else's request.
import net from 'node:net'
import type { Address } from '../config/config.ts'
import { Copies } from './copies.ts'
import type { Line } from './fair-line.ts'
import { UpstreamShares } from './upstream-shares.ts'

/** The owner of a connection: an exchange, or a tunnel. */
export interface UpstreamUser {
  /** Bytes `start..end` of `buffer`, which is reused right after: copy what is kept. */
  upstreamData(buffer: Buffer, start: number, end: number): void
  /** The workload will send no more. */
  upstreamEnd(): void
  upstreamDrain(): void
  /** The connection is gone; `connected` tells a refused connection from a reset one. */
  upstreamFailed(error: NodeJS.ErrnoException | undefined, connected: boolean): void
  /** The connection was not established in time. */
  upstreamConnectTimeout(): void
  /** It threw itself; the connection is gone. */
  upstreamFault(): void
  /** No connection came free in time. */
  upstreamBusy(): void
  /** A connection is there; it may still be connecting, but can be written to. */
  upstreamReady(connection: UpstreamConnection): void
  /** Bytes that are still to come, whatever comes: what else is sent cannot begin before. */
  readonly upstreamLeft?: number
}

export interface UpstreamOptions {
  readonly address: Address
  readonly maxConnections: number
  readonly connectTimeoutMs: number
  readonly nowMs: () => number
  /** Called with +1 and -1. */
  readonly opened: (change: 1 | -1) => void
  /** A user threw while it was told something. */
  readonly fault: (error: unknown) => void
  /** A connection could not be opened; what the system says about it. */
  readonly unreachable?: (detail: string) => void
}

const READ_BYTES = 64 * 1024
/**
 * For the middle of a large answer: a fifth less CPU. Not for its end: with a read that is not filled,
 * libuv does not look in the same turn whether more has come, and a surplus answer would be seen late.
 */
const LARGE_READ_BYTES = 2 * READ_BYTES
/** Below the idle time after which common servers close (Node's is 5 s): they rarely race us. */
const IDLE_MS = 4_000

/** Two views of the same memory. */
interface ReadMemory {
  readonly usual: Buffer
  readonly large: Buffer
}

function readMemory(): ReadMemory {
  const large = Buffer.allocUnsafeSlow(LARGE_READ_BYTES)
  return { large, usual: large.subarray(0, READ_BYTES) }
}

export class UpstreamPool {
  readonly #options: UpstreamOptions
  readonly #idle: UpstreamConnection[] = []
  readonly #all = new Set<UpstreamConnection>()
  readonly #shares = new UpstreamShares<UpstreamUser>()
  readonly copies = new Copies()
  /**
   * One read buffer for all connections: reads are handed over synchronously and whoever keeps
   * bytes copies them, to a socket by `copies`. It saves an allocation of 64 KiB a read (5 % of CPU
   * at 100-byte answers, 20 % at 16 KiB, measured 2026-11).
   */
  readonly #readMemory: ReadMemory = readMemory()

  constructor(options: UpstreamOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#all.size
  }

  /** Those that wait for a connection. */
  get queue(): Line {
    return this.#shares.line
  }

  /**
   * Gives `user` a connection through `upstreamReady`, at once or when one comes free.
   * @param client whom the connection counts for, where there are not enough for everybody
   */
  acquire(user: UpstreamUser, fresh = false, client = ''): void {
    if (this.#shares.mayTake(client, this.#free, this.#options.maxConnections)) {
      this.#give(user, fresh, client)
    } else this.#shares.wait({ user, client, sinceMs: this.#options.nowMs() })
  }

  /** Takes a waiting user out again; it must not own a connection yet. */
  forget(user: UpstreamUser): void {
    this.#shares.forget(user)
  }

  /** How many more may have an owner. */
  get #free(): number {
    return this.#options.maxConnections - (this.#all.size - this.#idle.length)
  }

  #give(user: UpstreamUser, fresh: boolean, client: string): void {
    for (
      let one = fresh ? undefined : this.#idle.pop();
      one !== undefined;
      one = this.#idle.pop()
    ) {
      if (!one.usable) one.destroy()
      else return this.#handOver(one, user, client)
    }
    // What is idle is the only thing that can be in the way of a fresh one.
    if (this.#all.size >= this.#options.maxConnections) this.#idle.shift()?.destroy()
    this.#shares.took(client)
    this.#open(user, client)
  }

  #handOver(connection: UpstreamConnection, user: UpstreamUser, client: string): void {
    this.#shares.took(client)
    connection.client = client
    connection.own(user)
    connection.ready()
  }

  /** Time passes: slow connects, waiting users and idle connections. */
  tick(): void {
    const nowMs = this.#options.nowMs()
    for (const one of this.#all) {
      if (one.connecting && nowMs - one.openedMs >= this.#options.connectTimeoutMs)
        one.connectTimedOut()
      else if (one.user === undefined && nowMs - one.idleSinceMs >= IDLE_MS) one.destroy()
    }
    const { connectTimeoutMs } = this.#options
    this.#shares.expire(nowMs - connectTimeoutMs, (user) => this.#tellBusy(user))
  }

  close(): void {
    for (const one of this.#all) one.destroy()
  }

  #tellBusy(user: UpstreamUser): void {
    try {
      user.upstreamBusy()
    } catch (error) {
      this.#options.fault(error)
      user.upstreamFault()
    }
  }

  #open(user: UpstreamUser, client: string): void {
    const connection = new UpstreamConnection(this.#options, this.#readMemory, this.copies, user, {
      released: (one) => {
        this.#giveBack(one)
        one.idleSinceMs = this.#options.nowMs()
        this.#idle.push(one)
        this.#next()
      },
      closed: (one) => {
        this.#all.delete(one)
        this.#giveBack(one)
        const place = this.#idle.indexOf(one)
        if (place !== -1) this.#idle.splice(place, 1)
        this.#options.opened(-1)
        this.#next()
      },
    })
    connection.client = client
    this.#all.add(connection)
    this.#options.opened(1)
    connection.ready()
  }

  #giveBack(connection: UpstreamConnection): void {
    if (connection.client !== undefined) this.#shares.gaveBack(connection.client)
    connection.client = undefined
  }

  #next(): void {
    while (this.#shares.line.waiting > 0) {
      const next = this.#shares.next(this.#free, this.#options.maxConnections)
      if (next === undefined) return
      this.#give(next.user, false, next.client)
    }
  }
}

interface PoolSide {
  released(connection: UpstreamConnection): void
  closed(connection: UpstreamConnection): void
}

export class UpstreamConnection {
  readonly socket: net.Socket
  readonly openedMs: number
  /** For what it lends. */
  readonly copies: Copies
  user: UpstreamUser | undefined
  /** Whom it counts for, while it has an owner. */
  client: string | undefined
  /** True from the second request on: then the workload may have closed it under our feet. */
  reused = false
  connecting = true
  idleSinceMs = 0
  readonly #options: UpstreamOptions
  readonly #pool: PoolSide
  #closed = false

  constructor(
    options: UpstreamOptions,
    memory: ReadMemory,
    copies: Copies,
    user: UpstreamUser,
    pool: PoolSide,
  ) {
    this.#options = options
    this.copies = copies
    this.#pool = pool
    this.user = user
    this.openedMs = options.nowMs()
    const target =
      options.address.kind === 'unix'
        ? { path: options.address.path }
        : { host: options.address.host, port: options.address.port }
    this.socket = net.connect({
      ...target,
      allowHalfOpen: true,
      noDelay: true,
      onread: {
        buffer: () =>
          (this.user?.upstreamLeft ?? 0) > LARGE_READ_BYTES ? memory.large : memory.usual,
        callback: (length, bytes): boolean => {
          const owner = this.user
          // Bytes that nobody asked for: the workload is out of step with us, for good.
          if (owner === undefined) {
            this.destroy()
            return true
          }
          // As #tell, but without a closure for each read.
          try {
            owner.upstreamData(bytes as Buffer, 0, length)
          } catch (error) {
            this.#faulted(owner, error)
          }
          return true
        },
      },
    })
    this.socket.on('connect', () => {
      this.connecting = false
    })
    this.socket.on('end', () => {
      if (this.user === undefined) this.destroy()
      else this.#tell(this.user, (owner) => owner.upstreamEnd())
    })
    this.socket.on('drain', () => this.#tell(this.user, (owner) => owner.upstreamDrain()))
    this.socket.on('error', (error) => this.#fail(error))
    this.socket.on('close', () => this.#fail(undefined))
  }

  get usable(): boolean {
    return (
      !this.#closed && !this.socket.destroyed && !this.socket.readableEnded && this.socket.writable
    )
  }

  own(user: UpstreamUser): void {
    this.user = user
    this.reused = true
  }

  /** Tells the user that it may write. */
  ready(): void {
    this.#tell(this.user, (owner) => owner.upstreamReady(this))
  }

  /** Gives the connection back for the next request; only after a complete answer to a complete one. */
  release(): void {
    this.user = undefined
    // A request of which the workload has not taken everything yet would be in the way of the next.
    if (!this.usable || this.socket.writableLength > 0) {
      this.destroy()
      return
    }
    this.socket.resume()
    this.#pool.released(this)
  }

  /** Ends the connection without telling its user. */
  destroy(): void {
    this.user = undefined
    this.socket.destroy()
    this.#leave()
  }

  /** As `destroy`, but the workload sees that the bytes it got are not all. */
  reset(): void {
    const { socket } = this
    const { kind } = this.#options.address
    if (socket.destroyed || this.connecting || kind !== 'tcp') return this.destroy()
    this.user = undefined
    // While its end is on the way a handle cannot be reset, and Node.js 26.10 would never close it.
    if (socket.writableEnded && !socket.writableFinished && socket.writableLength === 0) {
      socket.once('finish', () => socket.resetAndDestroy())
    } else socket.resetAndDestroy()
    this.#leave()
  }

  connectTimedOut(): void {
    const owner = this.user
    this.destroy()
    this.#tell(owner, (one) => one.upstreamConnectTimeout())
  }

  #fail(error: NodeJS.ErrnoException | undefined): void {
    const owner = this.user
    const connected = !this.connecting
    if (!connected && error !== undefined) this.#options.unreachable?.(error.message)
    this.destroy()
    this.#tell(owner, (one) => one.upstreamFailed(error, connected))
  }

  /** A fault of the user ends this connection and its exchange, not the thread. */
  #tell(owner: UpstreamUser | undefined, what: (owner: UpstreamUser) => void): void {
    if (owner === undefined) return
    try {
      what(owner)
    } catch (error) {
      this.#faulted(owner, error)
    }
  }

  #faulted(owner: UpstreamUser, error: unknown): void {
    this.#options.fault(error)
    // An exchange may have handed the connection on to a tunnel, or to the next request.
    const { user } = this
    this.destroy()
    owner.upstreamFault()
    if (user !== undefined && user !== owner) user.upstreamFault()
  }

  #leave(): void {
    if (this.#closed) return
    this.#closed = true
    this.#pool.closed(this)
  }
}
