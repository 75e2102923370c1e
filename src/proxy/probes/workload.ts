// Asks the workload on behalf of a probe, with connections of its own: what it is asked is made here,
// and of the answer only as much is kept as a probe or its reader needs.
import net from 'node:net'
import type { Forward } from '../../config/config.ts'
import { type Fields, fieldValue } from '../../http/fields.ts'
import { CHUNKED, NO_BODY } from '../../http/framing.ts'
import type { AnswerHead, Call, CallRequest, Repeatable, UpgradeUser } from '../call.ts'
import { H2cPool } from '../h2c/pool.ts'
import { Http1Call } from '../http1-call.ts'
import { Turn } from '../turn.ts'
import { UpstreamPool } from '../upstream.ts'

/** As long as a kubelet waits at the most in usual settings. */
const PROBE_TIMEOUT_MS = 10_000
const CONNECT_TIMEOUT_MS = 5_000
const MOST_CONNECTIONS = 64
const MOST_BODY_BYTES = 64 * 1024
const HEAD_LIMITS = { headBytes: 32 * 1024, headerCount: 100 }
const TICK_MS = 250

export interface ProbeQuestion {
  readonly method: string
  readonly target: string
  /** Beside `host`. */
  readonly fields: Fields
  readonly body?: Buffer
}

export interface ProbeAnswer {
  readonly status: number
  readonly contentType: string | undefined
  /** Cut off where it is too long, or where the workload broke off. */
  readonly body: Buffer
  /** Those of the head, and of the trailers behind them. */
  readonly fields: Fields
}

export class ProbedWorkload {
  readonly #forward: Forward
  readonly #turn = new Turn()
  readonly #http1: UpstreamPool
  readonly #h2c: H2cPool
  readonly #timer: NodeJS.Timeout

  /** @param fault is told what is thrown in here, and should not have been */
  constructor(forward: Forward, fault: (error: unknown) => void) {
    this.#forward = forward
    const options = {
      address: forward.address,
      maxConnections: MOST_CONNECTIONS,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      nowMs: () => performance.now(),
      opened: () => {},
      fault,
      limits: () => ({ listBytes: HEAD_LIMITS.headBytes, count: HEAD_LIMITS.headerCount }),
      turn: this.#turn,
    }
    this.#http1 = new UpstreamPool(options)
    this.#h2c = new H2cPool(options)
    this.#timer = setInterval(() => {
      this.#http1.tick()
      this.#h2c.tick()
    }, TICK_MS).unref()
  }

  /** @returns undefined when there is no answer */
  ask(question: ProbeQuestion, http2 = this.#forward.scheme === 'h2c'): Asked {
    const { method, target, fields, body } = question
    const request: CallRequest = {
      method,
      target,
      authority: 'localhost',
      scheme: 'http',
      fields: ['host', 'localhost', 'user-agent', 'postern-probe', ...fields],
      body: body === undefined ? NO_BODY : CHUNKED,
      expectContinue: false,
    }
    const open = (user: UpgradeUser): Call =>
      http2
        ? this.#h2c.call(user, request)
        : new Http1Call(user, request, this.#http1, HEAD_LIMITS, this.#turn, true, '')
    return new Asked(open, body)
  }

  /** Whether a connection can be opened; it is closed again without a byte. */
  accepts(): Promise<boolean> {
    const { address } = this.#forward
    return new Promise((resolve) => {
      const socket = net.connect(
        address.kind === 'unix'
          ? { path: address.path }
          : { host: address.host, port: address.port },
      )
      const end = (accepted: boolean): void => {
        resolve(accepted)
        socket.destroy()
      }
      socket.setTimeout(CONNECT_TIMEOUT_MS, () => end(false))
      socket.once('connect', () => end(true)).on('error', () => end(false))
    })
  }

  close(): void {
    clearInterval(this.#timer)
    this.#http1.close()
    this.#h2c.close()
  }
}

/** One question, until it is answered or given up. */
export class Asked implements UpgradeUser {
  /** Undefined: there is no answer. */
  readonly answer: Promise<ProbeAnswer | undefined>
  readonly #open: (user: UpgradeUser) => Call
  readonly #body: Buffer | undefined
  readonly #timer: NodeJS.Timeout
  #resolve: (answer: ProbeAnswer | undefined) => void = () => {}
  #call: Call | undefined
  #repeated = false
  #head: AnswerHead | undefined
  readonly #chunks: Buffer[] = []
  #bytes = 0

  constructor(open: (user: UpgradeUser) => Call, body: Buffer | undefined) {
    this.#open = open
    this.#body = body
    this.answer = new Promise((resolve) => {
      this.#resolve = resolve
    })
    this.#timer = setTimeout(() => this.giveUp(), PROBE_TIMEOUT_MS)
    this.#begin()
  }

  /** Nobody waits any longer; what has come of the answer is the answer. */
  giveUp(): void {
    this.#call?.abandon()
    this.#end([])
  }

  callHead(head: AnswerHead): void {
    this.#head = head
  }

  callData(buffer: Buffer, start: number, end: number): void {
    const stop = Math.min(end, start + MOST_BODY_BYTES - this.#bytes)
    this.#chunks.push(Buffer.from(buffer.subarray(start, stop)))
    this.#bytes += stop - start
    if (stop < end) this.giveUp()
  }

  callEnd(trailers: Fields): void {
    this.#end(trailers)
  }

  callFailed(_code: unknown, repeatable: Repeatable): void {
    if (repeatable === 'never' || this.#repeated) return this.#end([])
    // A connection that the workload closed just then says nothing about the workload.
    this.#repeated = true
    this.#begin()
  }

  callInterim(): void {}
  callDrain(): void {}
  callUpgraded(): void {}

  #begin(): void {
    const call = this.#open(this)
    this.#call = call
    if (this.#body !== undefined) {
      call.write(this.#body)
      call.end([])
    }
    call.begin()
  }

  #end(trailers: Fields): void {
    clearTimeout(this.#timer)
    const head = this.#head
    this.#resolve(
      head && {
        status: head.status,
        contentType: fieldValue(head.fields, 'content-type'),
        body: Buffer.concat(this.#chunks),
        fields: [...head.fields, ...trailers],
      },
    )
  }
}
