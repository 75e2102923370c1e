// The workload's end of a WebSocket that is a stream of an HTTP/2 connection (RFC 8441): its bytes are
// those of DATA frames, END_STREAM is the end of a side, and RST_STREAM a reset.
import { H2_ERROR } from '../../http/h2/frames.ts'
import type { ReceiveWindow } from '../h2/receive-window.ts'
import type { Flow, FlowUser } from '../h2/sending.ts'
import type { WorkloadEnd, WorkloadEndUser } from '../workload-end.ts'
import type { H2cSession, SessionStream } from './session.ts'

export class StreamEnd implements WorkloadEnd, SessionStream, FlowUser {
  readonly client: string
  readonly #session: H2cSession
  readonly #id: number
  readonly #flow: Flow
  readonly #window: ReceiveWindow
  #user: WorkloadEndUser | undefined
  #paused = false
  #sentEnd = false
  #receivedEnd = false
  #over = false
  #expiry: NodeJS.Timeout | undefined

  /** Takes over the stream of `call`, whose extended CONNECT was answered with a 2xx. */
  constructor(
    session: H2cSession,
    call: SessionStream,
    id: number,
    flow: Flow,
    window: ReceiveWindow,
  ) {
    this.client = call.client
    this.#session = session
    this.#id = id
    this.#flow = flow
    this.#window = window
    flow.user = this
  }

  begin(user: WorkloadEndUser): void {
    this.#user = user
  }

  write(bytes: Buffer): boolean {
    return this.#over || this.#flow.write(bytes, 0, bytes.length)
  }

  get waitingBytes(): number {
    return this.#flow.waitingBytes
  }

  end(): void {
    if (!this.#over) this.#flow.end([])
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#credit()
  }

  expire(afterMs: number): void {
    this.#user = undefined
    if (this.#over) return
    const { waitingBytes } = this.#flow
    const look = (): void => {
      if (this.#flow.waitingBytes === waitingBytes) this.reset()
      else this.expire(afterMs)
    }
    this.#expiry = setTimeout(look, afterMs).unref()
  }

  reset(): void {
    if (this.#over) return
    this.#end()
    this.#session.reset(this.#id, H2_ERROR.cancel)
  }

  destroy(): void {
    this.reset()
  }

  // What the session says.

  grow(change: number): boolean {
    return this.#flow.grow(change)
  }

  frame(length: number): void {
    if (!this.#window.take(length)) this.misbehaved(H2_ERROR.flowControl)
    else this.#credit()
  }

  data(buffer: Buffer, start: number, end: number): void {
    if (this.#receivedEnd) return this.misbehaved(H2_ERROR.streamClosed)
    this.#user?.upstreamData(buffer, start, end)
    this.#credit()
  }

  ended(): void {
    this.#receivedEnd = true
    this.#user?.upstreamEnd()
    this.#endIfComplete()
  }

  /** Nothing but DATA may follow (RFC 9113 section 8.5). */
  headers(): void {
    this.misbehaved(H2_ERROR.protocol)
  }

  wasReset(): void {
    this.#gone()
  }

  sessionClosed(): void {
    this.#gone()
  }

  misbehaved(code: number): void {
    if (this.#over) return
    this.#session.reset(this.#id, code)
    this.#gone()
  }

  faulted(): void {
    if (this.#over) return
    this.#session.reset(this.#id, H2_ERROR.internal)
    this.#end()
    this.#user?.upstreamFault()
  }

  flowDrained(): void {
    try {
      this.#user?.upstreamDrain()
    } catch (error) {
      this.#session.faulted(this, error)
    }
  }

  flowEnded(): void {
    this.#sentEnd = true
    try {
      this.#endIfComplete()
    } catch (error) {
      this.#session.faulted(this, error)
    }
  }

  #endIfComplete(): void {
    if (!this.#sentEnd || !this.#receivedEnd || this.#over) return
    this.#session.left(this.#id)
    this.#gone()
  }

  #gone(): void {
    if (this.#over) return
    this.#end()
    this.#user?.upstreamFailed()
  }

  #end(): void {
    this.#over = true
    this.#flow.stop()
    clearTimeout(this.#expiry)
  }

  /** Gives the workload its window back once half of it is used, unless the client has no room. */
  #credit(): void {
    if (this.#paused || this.#over) return
    const due = this.#window.due()
    if (due > 0) this.#session.credit(this.#id, due)
  }
}
