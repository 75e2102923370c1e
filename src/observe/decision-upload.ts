// Sends events to a server that speaks OPA's decision-log API: gzipped JSON arrays below a size, now
// and then. Never waits and never grows: what does not fit the buffer is dropped, oldest first, and
// counted; what the server did not take is sent again, so that it may get an event twice.
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { Deliveries, DeliveryResult } from './decision-log.ts'
import { EventBuffer } from './event-buffer.ts'

export interface UploadOptions {
  /** From one round of uploads to the next: uniform between these two. */
  readonly minDelayMs: number
  readonly maxDelayMs: number
  /** What may wait, also while it is being sent. */
  readonly maxEvents: number
  readonly bufferBytes: number
  /** Of one compressed request body. */
  readonly chunkBytes: number
  /** 0: no limit. */
  readonly maxPerSecond: number
  /** Sends one body; the status of the answer, or a rejection where there was none. */
  readonly post: (body: Buffer, signal: AbortSignal) => Promise<number>
  readonly onNotice: (notice: UploadNotice) => void
}

export type UploadNotice =
  /** Said once when uploads begin to fail, and once when they work again. */
  | { readonly kind: 'failing'; readonly detail: string }
  | { readonly kind: 'working' }
  /** At most one a minute for each reason. */
  | { readonly kind: 'dropped'; readonly reason: DeliveryResult; readonly count: number }

/** As OPA waits after a failure: 100 ms, then longer by this factor, give or take a fifth. */
const FIRST_BACK_OFF_MS = 100
const BACK_OFF_FACTOR = 1.6
const BACK_OFF_JITTER = 0.2
/** Room that the estimate of a chunk's compressed size leaves for being wrong. */
const FILLING = 0.9
const NOTICE_MS = 60_000

const compress = promisify(gzip)

export class DecisionUpload {
  readonly #options: UploadOptions
  readonly #buffer: EventBuffer
  readonly #results: Record<DeliveryResult, number> = {
    written: 0,
    buffer_full: 0,
    rate_limited: 0,
    too_large: 0,
    failed: 0,
  }
  readonly #noticed = new Map<DeliveryResult, { atMs: number; count: number }>()
  readonly #bucket: TokenBucket
  readonly #abort = new AbortController()
  /** How many bytes of events make one full chunk, by what the last one came to. */
  #chunkTarget: number
  #timer: NodeJS.Timeout | undefined
  #round: Promise<void> | undefined
  #failures = 0
  #closing = false

  constructor(options: UploadOptions) {
    this.#options = options
    this.#buffer = new EventBuffer(options.maxEvents, options.bufferBytes)
    this.#bucket = new TokenBucket(options.maxPerSecond)
    this.#chunkTarget = options.chunkBytes
    this.#wait(this.#delayMs())
  }

  take(event: string): void {
    if (!this.#bucket.take()) return this.#drop('rate_limited', 1)
    const dropped = this.#buffer.add(event)
    if (dropped > 0) this.#drop('buffer_full', dropped)
    // Rather sooner than never; but a server that refuses is not asked more often for it.
    if (this.#failures === 0 && this.#round === undefined && this.#buffer.isHalfFull) this.#start()
  }

  deliveries(): Deliveries {
    return { sink: 'upload', pending: this.#buffer.count, results: { ...this.#results } }
  }

  /** Sends what is left, at most until `deadlineMs` from now; `true`: nothing is left. */
  async close(deadlineMs: number): Promise<boolean> {
    if (this.#closing) return this.#buffer.count === 0
    this.#closing = true
    clearTimeout(this.#timer)
    const deadline = setTimeout(() => this.#abort.abort(), deadlineMs)
    await this.#round
    while (this.#buffer.count > 0 && !this.#abort.signal.aborted) {
      await this.#sendAll()
      if (this.#buffer.count > 0) await pause(this.#delayMs(), this.#abort.signal)
    }
    clearTimeout(deadline)
    const left = this.#buffer.clear()
    if (left > 0) this.#drop('failed', left)
    return left === 0
  }

  #start(): void {
    clearTimeout(this.#timer)
    this.#round = this.#sendAll().finally(() => {
      this.#round = undefined
      if (!this.#closing) this.#wait(this.#delayMs())
    })
  }

  #wait(delayMs: number): void {
    this.#timer = setTimeout(() => this.#start(), delayMs)
    this.#timer.unref()
  }

  #delayMs(): number {
    const { minDelayMs, maxDelayMs } = this.#options
    if (this.#failures === 0) return minDelayMs + Math.random() * (maxDelayMs - minDelayMs)
    const backOffMs = FIRST_BACK_OFF_MS * BACK_OFF_FACTOR ** (this.#failures - 1)
    const jitter = 1 + BACK_OFF_JITTER * (2 * Math.random() - 1)
    return Math.min(backOffMs, Math.max(maxDelayMs, FIRST_BACK_OFF_MS)) * jitter
  }

  /** Until the buffer is empty or the server has refused once. */
  async #sendAll(): Promise<void> {
    const { signal } = this.#abort
    while (this.#buffer.count > 0 && !signal.aborted) {
      const body = await this.#nextChunk()
      if (body === undefined) continue
      const refusal = await this.#refusalOf(body)
      if (refusal !== undefined) {
        this.#buffer.putBack()
        if (this.#failures++ === 0) this.#options.onNotice({ kind: 'failing', detail: refusal })
        return
      }
      this.#results.written += this.#buffer.settle()
      if (this.#failures > 0) this.#options.onNotice({ kind: 'working' })
      this.#failures = 0
    }
  }

  async #refusalOf(body: Buffer): Promise<string | undefined> {
    try {
      const status = await this.#options.post(body, this.#abort.signal)
      return status >= 200 && status < 300 ? undefined : `the server answered ${status}`
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  /** Takes as many events as fit; `undefined`: the one taken does not fit alone, and is gone. */
  async #nextChunk(): Promise<Buffer | undefined> {
    const { chunkBytes } = this.#options
    let most = Number.POSITIVE_INFINITY
    for (;;) {
      const events = this.#buffer.lend(this.#chunkTarget, most)
      const text = `[${events.join(',')}]`
      const body = await compress(text)
      this.#chunkTarget = Math.max(1, (text.length * FILLING * chunkBytes) / body.length)
      if (body.length <= chunkBytes) return body
      if (events.length === 1) {
        this.#drop('too_large', this.#buffer.settle())
        return undefined
      }
      this.#buffer.putBack()
      most = Math.max(1, Math.floor((events.length * FILLING * chunkBytes) / body.length))
    }
  }

  #drop(reason: DeliveryResult, count: number): void {
    this.#results[reason] += count
    const nowMs = performance.now()
    const noticed = this.#noticed.get(reason) ?? { atMs: Number.NEGATIVE_INFINITY, count: 0 }
    this.#noticed.set(reason, noticed)
    noticed.count += count
    if (nowMs - noticed.atMs < NOTICE_MS) return
    this.#options.onNotice({ kind: 'dropped', reason, count: noticed.count })
    Object.assign(noticed, { atMs: nowMs, count: 0 })
  }
}

/** A second's worth may come at once. */
class TokenBucket {
  readonly #perSecond: number
  #tokens: number
  #atMs = performance.now()

  constructor(perSecond: number) {
    this.#perSecond = perSecond
    this.#tokens = perSecond
  }

  take(): boolean {
    if (this.#perSecond === 0) return true
    const nowMs = performance.now()
    const earned = ((nowMs - this.#atMs) / 1000) * this.#perSecond
    this.#tokens = Math.min(this.#perSecond, this.#tokens + earned)
    this.#atMs = nowMs
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
