// The frames that one HTTP/2 connection sends in one turn of the event loop, written into one buffer
// and handed to the socket in one piece. Promises their order, and says when enough is waiting.
import type { Writable } from 'node:stream'
import type { Fields } from '../../http/fields.ts'
import { FLAG, FRAME, FRAME_HEADER_BYTES, writeFrameHeader } from '../../http/h2/frames.ts'
import { EMPTY_TABLE, mostBlockBytes, writeHeaderBlock } from '../../http/h2/hpack.ts'
import { pieceFor, waitingBytesOf, writePiece } from '../small-pieces.ts'
import type { Turn } from '../turn.ts'

const BATCH_BYTES = 32 * 1024
/** A batch with less in it is copied, and its memory used again. */
const COPIED_BYTES = 8 * 1024
/** Of what the socket has not taken: DATA waits then. */
const FULL_BYTES = 128 * 1024
const MOST_SPARE = 64

/** Of this thread: connections have a batch only while they are about to send. */
const spare: Buffer[] = []

export class Outbox {
  readonly #socket: Writable
  readonly #turn: Turn
  #batch: Buffer | undefined
  #at = 0
  #held = false
  #ended = false
  /** Where in the batch the frame begins that was written last, if it may carry END_STREAM. */
  #lastAt = -1
  #lastStream = 0
  /** The peer has changed the size of its table, and waits for us to say so too. */
  tableChanged = false

  constructor(socket: Writable, turn: Turn) {
    this.#socket = socket
    this.#turn = turn
  }

  /** What was written and the system has not taken. */
  get waitingBytes(): number {
    return this.#at + waitingBytesOf(this.#socket)
  }

  /** DATA has to wait for the socket's `drain`. */
  get full(): boolean {
    return this.#socket.writableNeedDrain || this.#socket.writableLength >= FULL_BYTES
  }

  /** A frame that is complete. */
  push(frame: Buffer): void {
    const { batch, at } = this.#room(frame.length)
    frame.copy(batch, at)
    this.#at = at + frame.length
  }

  /** DATA from bytes that are lent. */
  data(stream: number, bytes: Buffer, start: number, end: number, endStream: boolean): void {
    const length = end - start
    const { batch, at } = this.#room(FRAME_HEADER_BYTES + length)
    writeFrameHeader(batch, length, FRAME.data, endStream ? FLAG.endStream : 0, stream, at)
    if (length > 0) bytes.copy(batch, at + FRAME_HEADER_BYTES, start, end)
    this.#at = at + FRAME_HEADER_BYTES + length
    this.#lastAt = at
    this.#lastStream = stream
  }

  /** HEADERS, with CONTINUATION frames where the block is larger than a frame. */
  headers(stream: number, fields: Fields, endStream: boolean, maxFrameBytes: number): void {
    const most = mostBlockBytes(fields) + 1
    const frames = Math.ceil(most / maxFrameBytes)
    const { batch, at } = this.#room(most + frames * FRAME_HEADER_BYTES)
    const start = at + frames * FRAME_HEADER_BYTES
    let end = start
    if (this.tableChanged) {
      // RFC 7541 section 4.2: at the start of the next block, though we put nothing into the table.
      batch[end++] = EMPTY_TABLE[0]!
      this.tableChanged = false
    }
    end = writeHeaderBlock(batch, end, fields)
    const flags = endStream ? FLAG.endStream : 0
    if (frames === 1) {
      writeFrameHeader(batch, end - start, FRAME.headers, flags | FLAG.endHeaders, stream, at)
      this.#at = end
    } else this.#split(stream, flags, at, start, end, maxFrameBytes)
    this.#lastAt = at
    this.#lastStream = stream
  }

  /**
   * Makes the frame that was written last the last of its stream.
   * @returns false where it has left already, or is of another stream
   */
  endLast(stream: number): boolean {
    const batch = this.#batch
    if (batch === undefined || this.#lastAt === -1 || this.#lastStream !== stream) return false
    const flags = this.#lastAt + FLAGS_AT
    batch[flags] = batch[flags]! | FLAG.endStream
    return true
  }

  flush(): void {
    this.#held = false
    const batch = this.#batch
    if (batch === undefined) return
    const length = this.#at
    this.#batch = undefined
    this.#at = 0
    this.#lastAt = -1
    if (this.#ended) return
    if (length > COPIED_BYTES) return void this.#socket.write(batch.subarray(0, length))
    const piece = pieceFor(this.#socket, length)
    batch.copy(piece, 0, 0, length)
    writePiece(this.#socket, piece)
    if (spare.length < MOST_SPARE && batch.length === BATCH_BYTES) spare.push(batch)
  }

  /** Sends what there is, and nothing after it. */
  end(): void {
    this.flush()
    this.#ended = true
    this.#socket.end()
  }

  #split(stream: number, flags: number, at: number, start: number, end: number, most: number) {
    const { length } = this.#batch!
    let to = at
    let from = start
    do {
      const piece = Math.min(most, end - from)
      const first = from === start
      const last = from + piece === end
      // Behind where it is read, or at it: the headers of all frames had their room.
      this.#batch!.copyWithin(to + FRAME_HEADER_BYTES, from, from + piece)
      writeFrameHeader(
        this.#batch!,
        piece,
        first ? FRAME.headers : FRAME.continuation,
        (first ? flags : 0) | (last ? FLAG.endHeaders : 0),
        stream,
        to,
      )
      to += FRAME_HEADER_BYTES + piece
      from += piece
    } while (from < end)
    this.#at = Math.min(to, length)
  }

  #room(bytes: number): { batch: Buffer; at: number } {
    if (!this.#held) {
      this.#held = true
      this.#turn.collect(this)
    }
    this.#lastAt = -1
    if (this.#batch !== undefined && this.#batch.length - this.#at < bytes) {
      this.flush()
      this.#held = true
    }
    this.#batch ??=
      bytes > BATCH_BYTES
        ? Buffer.allocUnsafeSlow(bytes)
        : (spare.pop() ?? Buffer.allocUnsafeSlow(BATCH_BYTES))
    return { batch: this.#batch, at: this.#at }
  }
}

const FLAGS_AT = 4
