// The load generator as the benchmark sees it: a process of its own that opens connections with a
// client certificate, drives requests over them in a closed loop, and tells how long each took.
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { end, LOAD_CPU, spawnOn } from './process.ts'

export type LoadCommand =
  | {
      readonly kind: 'open'
      readonly port: number
      readonly connections: number
      /** PEM. */
      readonly certificateChain: string
      readonly privateKey: string
      readonly trustBundle: string
    }
  /** `requests` in all, one at a time on each connection. `head` is sent as it is. */
  | { readonly kind: 'drive'; readonly head: string; readonly requests: number }
  | { readonly kind: 'close' }

export type LoadReport =
  | { readonly kind: 'opened' | 'closed' }
  | ({ readonly kind: 'driven' } & Driven)
  | { readonly kind: 'failed'; readonly message: string }

export interface Driven {
  readonly elapsedMs: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export class Load {
  readonly #child: ChildProcess

  constructor() {
    const generator = fileURLToPath(new URL('generator.ts', import.meta.url))
    this.#child = spawnOn(LOAD_CPU, process.execPath, [generator], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async open(command: Omit<Extract<LoadCommand, { kind: 'open' }>, 'kind'>): Promise<void> {
    await this.#ask({ kind: 'open', ...command })
  }

  async drive(head: string, requests: number): Promise<Driven> {
    const report = await this.#ask({ kind: 'drive', head, requests })
    if (report.kind !== 'driven') throw new Error('the load generator answered out of turn')
    return report
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    await this.#ask({ kind: 'close' })
  }

  async end(): Promise<void> {
    await end(this.#child)
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
