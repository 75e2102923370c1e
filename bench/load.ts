// The load generator as the benchmark sees it: a process of its own that opens connections with a
// client certificate, drives requests over them, and tells how long each took.
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { end, LOAD_CPU, spawnOn } from './process.ts'
import type { ClientCredentials } from './stage.ts'

/** What one request is, and how its answer is known to be right. */
export type Work =
  /** `head` is sent as it is, then `bodyBytes` bytes; the answer is a 200 with content-length. */
  | { readonly kind: 'http1'; readonly head: string; readonly bodyBytes: number }
  /** `fields`, then `body` (latin1); the answer is a 200 whose body has `answerBytes`. */
  | {
      readonly kind: 'h2'
      readonly fields: readonly string[]
      readonly body: string
      readonly answerBytes: number
      readonly streams: number
    }
  /** `bytes` bytes that come back, on a bare connection or after a WebSocket handshake. */
  | { readonly kind: 'tunnel'; readonly upgrade?: string; readonly bytes: number }

export interface Opening extends ClientCredentials {
  readonly port: number
  readonly connections: number
  readonly work: Work
}

export interface Handshakes extends ClientCredentials {
  readonly port: number
  readonly count: number
  readonly resumed: boolean
  readonly head: string
}

export interface Pressing {
  readonly settlingSeconds: number
  readonly seconds: number
  readonly ratePerSecond?: number
}

export type LoadCommand =
  | ({ readonly kind: 'open' } & Opening)
  /**
   * `requests` in all. Without a rate one at a time on each connection, or on each of its streams;
   * with one, as many a second, however long the answers take.
   */
  | { readonly kind: 'drive'; readonly requests: number; readonly ratePerSecond?: number }
  /**
   * For so long, of which the first seconds do not count. With a rate as many a second; who finds no connection free gives up, as the requests
   * that wait would be ever more.
   */
  | ({ readonly kind: 'press' } & Pressing)
  | ({ readonly kind: 'handshakes' } & Handshakes)
  | { readonly kind: 'close' }

export type LoadReport =
  | { readonly kind: 'opened' | 'closed' }
  | ({ readonly kind: 'driven' } & Driven)
  | ({ readonly kind: 'pressed' } & Pressed)
  | { readonly kind: 'failed'; readonly message: string }

export interface Driven {
  readonly elapsedMs: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Of requests that were answered, others apart. */
export interface Pressed extends Driven {
  readonly answered: number
  /** With 503. */
  readonly refused: number
  readonly refusedP50Ms: number
  /** That were sent, or were due and found no connection. */
  readonly offered: number
}

export class Load {
  readonly #child: ChildProcess

  constructor(cpu = LOAD_CPU) {
    const generator = fileURLToPath(new URL('generator/main.ts', import.meta.url))
    this.#child = spawnOn(cpu, process.execPath, [generator], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async open(opening: Opening): Promise<void> {
    await this.#ask({ kind: 'open', ...opening })
  }

  async drive(requests: number, ratePerSecond?: number): Promise<Driven> {
    return this.#drivenBy({
      kind: 'drive',
      requests,
      ...(ratePerSecond === undefined ? {} : { ratePerSecond }),
    })
  }

  /** More than the proxy can do: that it refuses some is part of it. */
  async press(settlingSeconds: number, seconds: number, ratePerSecond?: number): Promise<Pressed> {
    const report = await this.#ask({
      kind: 'press',
      settlingSeconds,
      seconds,
      ...(ratePerSecond === undefined ? {} : { ratePerSecond }),
    })
    if (report.kind !== 'pressed') throw new Error('the load generator answered out of turn')
    return report
  }

  /** Full handshakes, or resumed ones, one after the other, each with one request and a close. */
  async handshakes(handshakes: Handshakes): Promise<Driven> {
    return this.#drivenBy({ kind: 'handshakes', ...handshakes })
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    await this.#ask({ kind: 'close' })
  }

  async end(): Promise<void> {
    await end(this.#child)
  }

  async #drivenBy(command: LoadCommand): Promise<Driven> {
    const report = await this.#ask(command)
    if (report.kind !== 'driven') throw new Error('the load generator answered out of turn')
    return report
  }

  #ask(command: LoadCommand): Promise<LoadReport> {
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error('the load generator ended'))
      this.#child.once('exit', ended)
      this.#child.once('message', (report: LoadReport) => {
        this.#child.removeListener('exit', ended)
        if (report.kind === 'failed') reject(new Error(report.message))
        else resolve(report)
      })
      this.#child.send(command)
    })
  }
}
