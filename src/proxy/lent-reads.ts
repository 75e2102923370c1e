// Reads of TLS clients into memory that is used again: once `lend` was called, what the listeners of
// `data` are given is lent until they return. By itself node:tls reads into new memory each time, for
// which V8 marks the heap at every 64 MiB (bodies of 1 MB, 2026-11: a fifth of the CPU). For sockets
// that node opens there is `onread`; those that a server accepts have the same inside, and no option for
// it (nodejs/node#63956). Hence the reach inside, which nobody can do before it was seen to work.
import { createHash } from 'node:crypto'
import net from 'node:net'
import { Readable } from 'node:stream'
import type tls from 'node:tls'
import { Rests } from './rests.ts'
import { withOwnConnection } from './self-handshake.ts'

/** A TLS record, which is what comes at once, has at most 16 KiB; what is not used takes no memory. */
const READ_BYTES = 64 * 1024

/** A client is looked at when it has been read so often in a row... */
const LOOK_EVERY = 64
/** ...and after so long in one turn of the event loop others come first. */
const LONG_MS = 4
/** Who has been read so much in one turn is one of so many for whom there is time in it. */
const MUCH_BYTES = READ_BYTES
const MOST_MUCH = 8
/** Records of less than this have three times as much around it. */
const NEXT_TO_NOTHING_BYTES = 8

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

export class LentReads {
  /** One for all connections of a thread: a read is handed over before the next one begins. */
  readonly #memory = Buffer.allocUnsafeSlow(READ_BYTES)
  readonly #bufferKey: symbol
  readonly #callbackKey: symbol
  readonly #callback: (this: tls.TLSSocket, length: number) => boolean
  readonly #fault: (error: unknown) => void
  /** Whose bytes are in the memory, while its listeners have them. */
  #borrower: tls.TLSSocket | undefined
  /** Who was read last, how often in a row, and since when in which turn. */
  #last: tls.TLSSocket | undefined
  #inARow = 0
  #turn = 0
  #sinceMs = 0
  /** What was read of it since it was looked at. */
  #bytes = 0
  /** What was read of it in a row, up to `MUCH_BYTES`. */
  #rowBytes = 0
  /** The turn in which somebody was last read that much, and how often that was in it. */
  #muchTurn = 0
  #much = 0
  /** Nobody else was read since a client gave way. */
  #alone = false
  readonly #rests = new Rests()

  /**
   * Sends bytes to ourselves over TLS with the options of the listener.
   * @param fault hears of what must never happen
   * @returns why nothing can be lent, where they do not arrive
   */
  static async prove(
    options: tls.SecureContextOptions,
    fault: (error: unknown) => void,
  ): Promise<LentReads | string> {
    try {
      const reads = new LentReads(fault)
      await withOwnConnection(options, (server, client) => reads.#prove(server, client))
      return reads
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  private constructor(fault: (error: unknown) => void) {
    this.#fault = fault
    const reads = this
    this.#callback = function (length) {
      return reads.#read(this, length)
    }
    // Under which symbols a socket keeps its `onread` is known by what they lead to.
    const onread = { buffer: this.#memory, callback: () => true }
    const probe = new net.Socket({ onread })
    this.#bufferKey = keyOf(onread.buffer, probe)
    this.#callbackKey = keyOf(onread.callback, probe)
  }

  /** To be called once, after the handshake. */
  lend(socket: tls.TLSSocket): void {
    const inside = socket as unknown as Inside
    const handle = inside._handle
    if (typeof handle?.useUserBuffer !== 'function') return
    inside[this.#bufferKey] = this.#memory
    inside[this.#callbackKey] = this.#callback
    handle.useUserBuffer(this.#memory)
    // A net.Socket with `onread` stops to read with each pause, and reads on with each `resume` however
    // much waits. Others go by what waits in the stream: it is bounded, and short pauses cost nothing.
    socket.pause = pauseStream
    socket.resume = resumeStream
    socket.read = readStream
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
    if (socket !== this.#last) {
      this.#last = socket
      this.#inARow = 0
      this.#turn = 0
      this.#bytes = length
      this.#rowBytes = length
      this.#alone = false
    } else {
      this.#bytes += length
      this.#rowBytes += length
      if (++this.#inARow % LOOK_EVERY === 0) this.#look(socket)
      if (this.#rowBytes >= MUCH_BYTES) this.#tookMuch(socket)
    }
    const bytes = this.#memory.subarray(0, length)
    // Nobody takes it now, or something waits that came before: then the stream keeps it. Not in node's
    // pool, of which each piece is kept whole for one byte in it.
    if (socket.readableFlowing !== true || socket.readableLength > 0) {
      const own = Buffer.allocUnsafeSlow(length)
      bytes.copy(own)
      return socket.push(own)
    }
    this.#borrower = socket
    try {
      socket.emit('data', bytes)
    } finally {
      this.#borrower = undefined
    }
    return true
  }

  /**
   * Node reads on while there is more, up to 2 MiB, which is half a second and more where records have a byte
   * each (Node 26, 2026-11). Now this client's turn ends with the 64 KiB at hand.
   */
  #look(socket: tls.TLSSocket): void {
    const turn = performance.nodeTiming.uvMetricsInfo.loopCount
    const nowMs = performance.now()
    const isTiny = this.#bytes < LOOK_EVERY * NEXT_TO_NOTHING_BYTES
    this.#bytes = 0
    if (turn !== this.#turn) {
      this.#turn = turn
      this.#sinceMs = nowMs
    } else if (nowMs - this.#sinceMs >= LONG_MS) {
      this.#giveWay(socket, isTiny && !this.#alone)
      this.#sinceMs = Number.POSITIVE_INFINITY
      this.#alone = true
    }
  }

  /**
   * Some dozen clients that send without end would make a turn of 2 MiB each, which is a tenth of a second
   * for decryption alone: beyond a number, each turn has 64 KiB of each.
   */
  #tookMuch(socket: tls.TLSSocket): void {
    const turn = performance.nodeTiming.uvMetricsInfo.loopCount
    this.#rowBytes = 0
    if (turn !== this.#muchTurn) {
      this.#muchTurn = turn
      this.#much = 0
    }
    if (++this.#much > MOST_MUCH) this.#giveWay(socket, false)
  }

  /** Whether the stream wants to be read stays its own affair. */
  #giveWay(socket: tls.TLSSocket, rests: boolean): void {
    const { _handle: handle } = socket as unknown as Inside
    if (!handle?.reading) return
    handle.readStop()
    const sinceMs = this.#sinceMs
    const goOn = (): void => {
      if (!socket.destroyed && handle.reading) handle.readStart()
    }
    // When this turn is over it is known how long it was.
    setImmediate(() => {
      if (!rests) return goOn()
      const nowMs = performance.now()
      setTimeout(goOn, this.#rests.after(nowMs - sinceMs, nowMs))
    })
  }

  /** Several records: read as they come, then as the stream has kept them, then as they come again. */
  async #prove(server: tls.TLSSocket, client: tls.TLSSocket): Promise<void> {
    this.lend(server)
    const arrived = createHash('sha256')
    let [lent, kept] = [0, 0]
    server.on('data', (bytes: Buffer) => {
      arrived.update(bytes)
      if (bytes.buffer === this.#memory.buffer) lent++
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

function keyOf(value: unknown, socket: net.Socket): symbol {
  const inside = socket as unknown as Inside
  const [key, ...others] = Object.getOwnPropertySymbols(socket).filter(
    (symbol) => inside[symbol] === value,
  )
  if (key === undefined || others.length > 0) throw new Error('node keeps what it reads elsewhere')
  return key
}

const PROOF_BYTES = 60_000
