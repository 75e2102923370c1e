// Reads of TLS clients into memory that is used again: once `lend` was called, what the listeners of
// `data` are given is lent until they return. By itself node:tls reads into new memory each time, for
// which V8 marks the heap at every 64 MiB (bodies of 1 MB, 2026-11: a fifth of the CPU). For sockets
// that node opens there is `onread`; those that a server accepts have the same inside, and no option for
// it (nodejs/node#63956). Hence the reach inside, which nobody can do before it was seen to work.
import { createHash } from 'node:crypto'
import net from 'node:net'
import { Readable } from 'node:stream'
import tls from 'node:tls'
import { type KeptCopy, LEAST_SHARED_BYTES, type Memory, ownCopy } from '../http/kept-bytes.ts'
import type { ReadShares } from './read-shares.ts'
import { Rests } from './rests.ts'
import { withOwnConnection } from './self-handshake.ts'

/** A TLS record, which is what comes at once, has at most 16 KiB; what is not used takes no memory. */
const READ_BYTES = 64 * 1024

/** What node does before anybody has what was read, about. */
const MS_PER_BYTE = 3e-6
const MS_PER_READ = 0.005
/** Many records of less than this, which have three times as much around it. */
const NEXT_TO_NOTHING_BYTES = 8
const MANY = 64
/**
 * A principal that was read for so long in one turn, for ten times its part, sends on many connections at once:
 * the system has told of all of them, and each would still be read in this turn...
 */
const SURGE_MS = 5
/** ...unless it is stopped, which takes about an eighth of this; there may be thousands. */
const SURGE_MS_PER_CONNECTION = 0.008
/** Of one that was stopped before anybody knew whether there is something to read. */
const EXPECTED_MS = 0.05
/** Of a stream that nobody takes from. It counts bytes only, and each piece takes much more memory than one. */
const MOST_KEPT_PIECES = 64
/** Measured with pieces of a byte, 2026-11. */
const PIECE_BYTES = 640

interface Handle {
  /** What the stream wants. */
  readonly reading: boolean
  useUserBuffer?(buffer: Buffer): void
  readStart(): number
  readStop(): number
}

interface Inside {
  [key: symbol]: unknown
  readonly _handle?: Handle | null
}

const lentKey = Symbol('lent')

/** A client, and what reading it took in the turn that it was last read in. */
class Lent {
  readonly principal: string | undefined
  /** What its stream keeps. */
  keptPieces = 0
  /** The stream has asked for more, but keeps enough. */
  askedForMore = false
  /** It waits to be read on. */
  stopped = false
  /** When it was last read. */
  turn = -1
  tookMs = 0
  #bytes = 0
  #reads = 0

  constructor(principal: string | undefined) {
    this.principal = principal
  }

  begin(): void {
    this.tookMs = 0
    this.#bytes = 0
    this.#reads = 0
  }

  add(bytes: number, tookMs: number): void {
    this.tookMs += tookMs
    this.#bytes += bytes
    this.#reads++
  }

  get broughtNothing(): boolean {
    return this.#reads >= MANY && this.#bytes < this.#reads * NEXT_TO_NOTHING_BYTES
  }
}

export class LentReads {
  /** One for all connections of a thread: a read is handed over before the next one begins. */
  readonly #memory = Buffer.allocUnsafeSlow(READ_BYTES)
  readonly #bufferKey: symbol
  readonly #callbackKey: symbol
  /** For what comes while nobody takes it: the stream keeps it, and lends it later. */
  readonly #copies: Memory
  readonly #kept = new WeakMap<ArrayBufferLike, KeptCopy>()
  readonly #callback: (this: tls.TLSSocket, length: number) => boolean
  readonly #readStream: (this: tls.TLSSocket, size?: number) => Buffer | null
  readonly #fault: (error: unknown) => void
  /** Whose bytes are in the memory, while its listeners have them. */
  #borrower: tls.TLSSocket | undefined
  readonly #shares: ReadShares
  /** Who was read last, in which turn, and when that was over. */
  #last: Lent | undefined
  #turn = 0
  #endedMs: number | undefined
  /** Nobody else was read since a client gave way. */
  #alone = false
  readonly #rests = new Rests()
  /** All that are lent to, by principal. */
  readonly #sockets = new Map<string, Set<tls.TLSSocket>>()
  /** How long each was read in `#surgeTurn`, without the requests that were begun: how many is bounded elsewhere. */
  readonly #readMs = new Map<string, number>()
  /** Whose connections were all stopped in it. */
  readonly #surged = new Set<string>()
  #surgeTurn = 0

  /**
   * Sends bytes to ourselves over TLS with the options of the listener.
   * @param copies for what comes while nobody takes it
   * @param fault hears of what must never happen
   * @returns why nothing can be lent, where they do not arrive
   */
  static async prove(
    options: tls.SecureContextOptions,
    shares: ReadShares,
    copies: Memory,
    fault: (error: unknown) => void,
  ): Promise<LentReads | string> {
    try {
      const reads = new LentReads(shares, copies, fault)
      await withOwnConnection(options, (server, client) => reads.#prove(server, client))
      return reads
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  private constructor(shares: ReadShares, copies: Memory, fault: (error: unknown) => void) {
    this.#shares = shares
    this.#copies = copies
    this.#fault = fault
    const reads = this
    this.#callback = function (length) {
      return reads.#read(this, length)
    }
    this.#readStream = function (this: tls.TLSSocket, size) {
      // By itself it would go on to give away what it has.
      if (this.destroyed) return null
      const bytes: Buffer | null = readStream.call(this, size)
      if (bytes !== null) reads.#taken(this, bytes)
      return bytes
    }
    // Under which symbols a socket keeps its `onread` is known by what they lead to.
    const onread = { buffer: this.#memory, callback: () => true }
    const probe = new net.Socket({ onread })
    this.#bufferKey = keyOf(onread.buffer, probe)
    this.#callbackKey = keyOf(onread.callback, probe)
  }

  /**
   * To be called once, after the handshake.
   * @param principal whose share of a turn it is read in; undefined: in nobody's
   */
  lend(socket: tls.TLSSocket, principal?: string): void {
    const inside = socket as unknown as Inside
    const handle = inside._handle
    if (typeof handle?.useUserBuffer !== 'function') return
    inside[this.#bufferKey] = this.#memory
    inside[this.#callbackKey] = this.#callback
    inside[lentKey] = new Lent(principal)
    handle.useUserBuffer(this.#memory)
    // A net.Socket with `onread` stops to read with each pause, and reads on with each `resume` however
    // much waits. Others go by what waits in the stream: it is bounded, and short pauses cost nothing.
    socket.pause = pauseStream
    socket.resume = resumeStream
    socket.read = this.#readStream
    socket._read = readOnWithRoom
    if (principal === undefined) return
    const sockets = this.#sockets.get(principal)
    if (sockets === undefined) this.#sockets.set(principal, new Set([socket]))
    else sockets.add(socket)
  }

  /** It is closed. @param principal that `lend` was told */
  forget(socket: tls.TLSSocket, principal: string): void {
    const sockets = this.#sockets.get(principal)
    sockets?.delete(socket)
    if (sockets?.size === 0) this.#sockets.delete(principal)
  }

  /** Whether the bytes are where they were read, and were not kept by the stream for a while. */
  lends(bytes: Buffer): boolean {
    return bytes.buffer === this.#memory.buffer
  }

  #read(socket: tls.TLSSocket, length: number): boolean {
    // A read within a read has put its bytes over those that are being looked at. Only an empty write
    // makes node do that, which nobody does; neither connection may live on if it ever happens.
    if (this.#borrower !== undefined) {
      this.#borrower.destroy()
      socket.destroy()
      this.#fault(new Error('a read began before the one before it was looked at'))
      return false
    }
    const lent = lentOf(socket)
    if (lent.principal === undefined) return this.#handOver(socket, lent, length)
    // While a principal is alone, what single reads take is estimated: the clock is not free.
    const beganMs = this.#shares.shared ? performance.now() : undefined
    const { requestsBegun } = this.#shares
    const wantsMore = this.#handOver(socket, lent, length)
    const tookMs = this.#account(socket, lent, lent.principal, length, beganMs)
    if (this.#shares.shared) {
      const onlyRead = requestsBegun === this.#shares.requestsBegun
      this.#endSurge(lent.principal, onlyRead ? tookMs : estimateMs(length))
    }
    return wantsMore
  }

  #handOver(socket: tls.TLSSocket, lent: Lent, length: number): boolean {
    const bytes = this.#memory.subarray(0, length)
    // Nobody takes it now, or something waits that came before: then the stream keeps it.
    if (socket.readableFlowing !== true || socket.readableLength > 0) {
      lent.keptPieces++
      return socket.push(this.#copyOf(bytes)) && lent.keptPieces < MOST_KEPT_PIECES
    }
    this.#borrower = socket
    try {
      socket.emit('data', bytes)
    } finally {
      this.#borrower = undefined
    }
    return true
  }

  #copyOf(bytes: Buffer): Buffer {
    if (bytes.length < LEAST_SHARED_BYTES) return ownCopy(bytes)
    const copy = this.#copies.take(bytes.length)
    this.#kept.set(copy.memory.buffer, copy)
    return copy.memory.subarray(0, bytes.copy(copy.memory))
  }

  /** The stream has given it to the listeners of `data`, which have returned. */
  #taken(socket: tls.TLSSocket, bytes: Buffer): void {
    const lent = lentOf(socket)
    lent.keptPieces = socket.readableLength === 0 ? 0 : lent.keptPieces - 1
    if (lent.askedForMore && socket.readableLength === 0) {
      lent.askedForMore = false
      if (!socket.destroyed) readOn.call(socket, 0)
    }
    const copy = this.#kept.get(bytes.buffer)
    if (copy === undefined) return
    this.#kept.delete(bytes.buffer)
    copy.release()
  }

  #account(
    socket: tls.TLSSocket,
    lent: Lent,
    principal: string,
    length: number,
    beganMs: number | undefined,
  ): number {
    const turn = this.#shares.turn
    const inARow = lent === this.#last && turn === this.#turn
    if (!inARow) {
      if (lent !== this.#last) this.#alone = false
      this.#last = lent
      this.#turn = turn
      lent.turn = turn
      lent.begin()
    }
    const tookMs = this.#tookMs(length, inARow, beganMs)
    lent.add(length, tookMs)
    if (this.#shares.took(principal, tookMs)) this.#giveWay(socket, lent, principal)
    return tookMs
  }

  /** Whoever has had many times its part is not read on any other connection either. */
  #endSurge(principal: string, tookMs: number): void {
    const { turn } = this.#shares
    if (turn !== this.#surgeTurn) {
      this.#surgeTurn = turn
      this.#readMs.clear()
      this.#surged.clear()
    }
    const readMs = (this.#readMs.get(principal) ?? 0) + tookMs
    this.#readMs.set(principal, readMs)
    if (readMs < SURGE_MS || this.#surged.has(principal)) return
    const sockets = this.#sockets.get(principal)
    if (sockets === undefined || readMs < sockets.size * SURGE_MS_PER_CONNECTION) return
    this.#surged.add(principal)
    for (const socket of sockets) {
      const lent = lentOf(socket)
      // What it had sent was read, and the system tells of it once in a turn.
      const goOn = lent.turn === turn ? undefined : this.#stop(socket, lent)
      if (goOn === undefined) continue
      this.#shares.wait(principal, {
        get expectedMs() {
          return socket.destroyed ? 0 : Math.max(EXPECTED_MS, lent.tookMs)
        },
        goOn,
      })
    }
  }

  /** What node does between two reads in a row is for the second. */
  #tookMs(length: number, inARow: boolean, beganMs: number | undefined): number {
    const beforeMs = inARow ? this.#endedMs : beganMs
    this.#endedMs = inARow || beganMs !== undefined ? performance.now() : undefined
    if (beforeMs === undefined || this.#endedMs === undefined) return estimateMs(length)
    return this.#endedMs - beforeMs + (inARow ? 0 : estimateMs(length))
  }

  /**
   * Whether the stream wants to be read stays its own affair.
   * @returns what lets it be read on; undefined where it is not read
   */
  #stop(socket: tls.TLSSocket, lent: Lent): (() => void) | undefined {
    const { _handle: handle } = socket as unknown as Inside
    if (lent.stopped || !handle?.reading) return undefined
    handle.readStop()
    lent.stopped = true
    return () => {
      lent.stopped = false
      if (!socket.destroyed && handle.reading) handle.readStart()
    }
  }

  #giveWay(socket: tls.TLSSocket, lent: Lent, principal: string): void {
    const goOn = this.#stop(socket, lent)
    if (goOn === undefined) return
    const wasAlone = this.#alone
    this.#alone = true
    this.#shares.wait(principal, {
      get expectedMs() {
        return socket.destroyed ? 0 : lent.tookMs
      },
      goOn: () => {
        if (wasAlone || !lent.broughtNothing) return goOn()
        const nowMs = performance.now()
        setTimeout(goOn, this.#rests.after(lent.tookMs, nowMs))
      },
    })
  }

  /** Several records: read as they come, then as the stream has kept them, then as they come again. */
  async #prove(server: tls.TLSSocket, client: tls.TLSSocket): Promise<void> {
    this.lend(server)
    const arrived = createHash('sha256')
    let [lent, kept] = [0, 0]
    server.on('data', (bytes: Buffer) => {
      arrived.update(bytes)
      if (this.lends(bytes)) lent++
      else kept++
      if (kept > 0 && lent > 1) return
      server.pause()
      setImmediate(() => server.resume())
    })
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    server.once('end', resolve)
    const sent = Buffer.alloc(PROOF_BYTES, 'bytes that arrive as they were sent, ')
    client.end(sent)
    await ended
    if (!arrived.digest().equals(createHash('sha256').update(sent).digest())) {
      throw new Error('other bytes have arrived than were sent')
    }
    if (lent === 0) throw new Error('node reads into memory of its own all the same')
    if (kept === 0) throw new Error('what came in a pause was not kept')
  }
}

const {
  pause: pauseStream,
  resume: resumeStream,
  read: readStream,
} = Readable.prototype as unknown as Pick<tls.TLSSocket, 'pause' | 'resume' | 'read'>

/** Of a socket whose reads are lent. */
const lentOf = (socket: tls.TLSSocket): Lent => (socket as unknown as Inside)[lentKey] as Lent

const estimateMs = (length: number): number => MS_PER_READ + length * MS_PER_BYTE

const { _read: readOn } = tls.TLSSocket.prototype

/** Of memory: what has come from a client while nobody took it. */
export function keptBytesOf(socket: net.Socket): number {
  const lent = (socket as unknown as Inside)[lentKey] as Lent | undefined
  return socket.readableLength + PIECE_BYTES * (lent?.keptPieces ?? 0)
}

/** The stream asks for more as long as it keeps few bytes. */
function readOnWithRoom(this: tls.TLSSocket, size: number): void {
  const lent = lentOf(this)
  if (lent.keptPieces < MOST_KEPT_PIECES) readOn.call(this, size)
  else lent.askedForMore = true
}

function keyOf(value: unknown, socket: net.Socket): symbol {
  const inside = socket as unknown as Inside
  const [key, ...others] = Object.getOwnPropertySymbols(socket).filter(
    (symbol) => inside[symbol] === value,
  )
  if (key === undefined || others.length > 0) throw new Error('node keeps what it reads elsewhere')
  return key
}

const PROOF_BYTES = 60_000
