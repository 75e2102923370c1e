// Bytes both ways between a client and the workload, after an upgrade or a connection that policy
// permitted. Each direction ends on its own (half-close); a slow reader stops the other side. Of a
// WebSocket the frames are told apart, so that the client can be told why it has to go.
import type { Duplex } from 'node:stream'
import { CLOSE_CODE, closeFrame, WebSocketFrames } from '../http/websocket-frames.ts'
import { type Cells, cellOf, cellsByLabel, TUNNEL_ENDS, TUNNEL_KINDS } from '../metrics.ts'
import type { WorkloadEnd, WorkloadEndUser } from './workload-end.ts'

export type TunnelKind = (typeof TUNNEL_KINDS)[number]
export type TunnelEnd = (typeof TUNNEL_ENDS)[number]
/** Why a WebSocket whose peer has done nothing wrong is asked to go. */
export type LeaveReason = 'idle' | 'lifetime' | 'drain'

/** A stream of HTTP/2, where it is no socket. */
export interface TunnelStream {
  readonly writable: boolean
  readonly writableNeedDrain: boolean
  write(bytes: Buffer): boolean
  end(): void
  pause(): void
  resume(): void
}

export interface TunnelClient {
  readonly socket: Duplex | TunnelStream
  /** @param buffer is lent. @returns false when enough waits to be sent; `clientDrain` follows */
  pass(buffer: Buffer, start: number, end: number): boolean
  nowMs(): number
  /** Both directions have ended, or one of them broke. */
  tunnelDone(broken: boolean): void
}

/** For the client to answer a close frame that it has been sent, and for the workload to end. */
const CLOSE_MS = 5_000
/** For the frame that is under way to end, and for the client to read it. */
const FRAME_MS = 30_000
/** Both sides have ended, and the workload has taken nothing of what is left for so long. */
const LAST_BYTES_MS = 30_000

export class Tunnel implements WorkloadEndUser {
  progressMs: number
  fromClientBytes = 0
  toClientBytes = 0
  readonly #kind: TunnelKind
  readonly #client: TunnelClient
  readonly #upstream: WorkloadEnd
  readonly #cells: Cells
  readonly #frames: WebSocketFrames | undefined
  #clientEnded = false
  #upstreamEnded = false
  #leaving: LeaveReason | undefined
  #leaveByMs = Number.POSITIVE_INFINITY
  #awaitsEnd = false
  /** The client has been sent a close frame of ours; no frame may follow it. */
  #told = false
  #over = false

  constructor(kind: TunnelKind, client: TunnelClient, upstream: WorkloadEnd, cells: Cells) {
    this.#kind = kind
    this.#client = client
    this.#upstream = upstream
    this.#cells = cells
    this.#frames = kind === 'websocket' ? new WebSocketFrames() : undefined
    this.progressMs = client.nowMs()
    cells.add(OPEN[kind])
  }

  /** Called once, when the client's side knows of the tunnel. */
  begin(): void {
    this.#upstream.begin(this)
    // Last: what the client has said meanwhile, or its end, may come at once.
    this.#client.socket.resume()
  }

  /** @param bytes are lent */
  clientData(bytes: Buffer): void {
    this.progressMs = this.#client.nowMs()
    this.fromClientBytes += bytes.length
    if (!this.#upstream.write(bytes)) this.#client.socket.pause()
  }

  clientDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#upstream.resume()
  }

  clientEnd(): void {
    this.#clientEnded = true
    this.#upstream.end()
  }

  /** Towards the workload. */
  get waitingBytes(): number {
    return this.#upstream.waitingBytes
  }

  // Ending.

  get leaving(): LeaveReason | undefined {
    return this.#leaving
  }

  /** A client that was asked to leave has had its time. */
  overdue(nowMs: number): boolean {
    return nowMs >= this.#leaveByMs
  }

  /**
   * Asks the client of a WebSocket to go (1001), between two frames. Its answer is passed on, so that
   * the workload sees an ordinary closing handshake.
   */
  leave(reason: LeaveReason): void {
    const frames = this.#frames
    if (frames === undefined || this.#leaving !== undefined || this.#over) return
    this.#leaving = reason
    // Where nothing has moved for long, the rest of a frame will not come either.
    this.#leaveByMs = this.#client.nowMs() + (reason === 'idle' ? 0 : FRAME_MS)
    if (frames.atBoundary) this.#tell(frames)
  }

  /**
   * The peer is not acceptable any more: the workload's side is reset, and a WebSocket is told why
   * (1008) where that could be read.
   * @returns whether the client has to be given time to read it
   */
  cut(): boolean {
    const { socket } = this.#client
    const frames = this.#over ? undefined : this.#frames
    this.abandon('peer_invalid')
    if (frames === undefined || !frames.atBoundary || frames.closing || this.#told) return false
    if (!socket.writable || socket.writableNeedDrain) return false
    socket.write(closeFrame(CLOSE_CODE.policyViolation))
    this.toClientBytes += CLOSE_FRAME_BYTES
    return true
  }

  /** The client is gone: before its time, the workload is told by a reset. */
  abandon(why: TunnelEnd = 'broken'): void {
    if (this.#over) return
    const complete = this.#clientEnded && this.#upstreamEnded
    this.#ended(complete ? 'complete' : why)
    // The workload may still be reading what the client sent before its end.
    if (complete) this.#upstream.expire(LAST_BYTES_MS)
    else this.#upstream.reset()
  }

  // The workload's side.

  upstreamData(buffer: Buffer, start: number, end: number): void {
    this.progressMs = this.#client.nowMs()
    if (this.#told || this.#over) return
    const frames = this.#frames
    const stop = frames?.take(buffer, start, end, this.#leaving !== undefined) ?? end
    this.toClientBytes += stop - start
    const room = this.#client.pass(buffer, start, stop)
    if (this.#leaving !== undefined && frames?.atBoundary === true) this.#tell(frames)
    else if (!room) this.#upstream.pause()
  }

  upstreamDrain(): void {
    this.progressMs = this.#client.nowMs()
    this.#client.socket.resume()
  }

  upstreamEnd(): void {
    this.#upstreamEnded = true
    if (!this.#over) this.#client.socket.end()
  }

  upstreamFailed(): void {
    // Both sides have ended and all bytes are delivered: then the socket closes by itself. A close
    // before that is a break.
    if (!this.#over) this.#finish(!(this.#clientEnded && this.#upstreamEnded))
  }

  upstreamFault(): void {
    if (!this.#over) this.#finish(true)
  }

  /** Where the workload has said it already, the client is about to go by itself. */
  #tell(frames: WebSocketFrames): void {
    if (this.#awaitsEnd) return
    this.#awaitsEnd = true
    this.#leaveByMs = this.#client.nowMs() + CLOSE_MS
    if (frames.closing) return
    this.#told = true
    this.#client.socket.write(closeFrame(CLOSE_CODE.goingAway))
    this.toClientBytes += CLOSE_FRAME_BYTES
    // Whatever the workload says from here on has no reader, but its end is waited for.
    this.#upstream.resume()
  }

  #finish(broken: boolean): void {
    // After a close frame of the workload, how its connection ends means nothing.
    this.#ended(broken && this.#frames?.closing !== true ? 'broken' : 'complete')
    this.#upstream.destroy()
    this.#client.tunnelDone(broken)
  }

  #ended(how: TunnelEnd): void {
    this.#over = true
    this.#cells.add(OPEN[this.#kind], -1)
    this.#cells.add(ENDED[this.#kind][this.#leaving ?? how])
  }
}

const CLOSE_FRAME_BYTES = 4
const OPEN = cellsByLabel('tunnels_open', 'kind', TUNNEL_KINDS)
const ENDED = {
  websocket: endsOf('websocket'),
  tcp: endsOf('tcp'),
}

function endsOf(kind: TunnelKind): Readonly<Record<TunnelEnd, number>> {
  return Object.fromEntries(
    TUNNEL_ENDS.map((reason) => [reason, cellOf('tunnels_ended_total', { kind, reason })]),
  ) as Record<TunnelEnd, number>
}
