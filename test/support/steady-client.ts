// A client that is served all the time: one request after the other until it is stopped, on one
// connection or on a new one for each. Whatever a test does to others, this one must not notice.
import assert from 'node:assert/strict'
import https from 'node:https'
import { setTimeout as delay } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

export interface SteadyOptions {
  /** A connection for all requests; default: true. */
  readonly keepAlive?: boolean
  readonly path?: string
  /** Between two requests; default: none, so that it is a load as well. */
  readonly pauseMs?: number
  /** Of the loopback network, so that what others do behind theirs is not charged to it. */
  readonly localAddress?: string
}

export class SteadyClient {
  readonly sockets = new Set<TLSSocket>()
  readonly failures: string[] = []
  requests = 0
  readonly #options: https.RequestOptions
  readonly #agent: https.Agent
  readonly #keepAlive: boolean
  readonly #pauseMs: number
  readonly #ended: Promise<void>
  #stopped = false

  constructor(
    t: Cleanup,
    sidecar: TestSidecar,
    certificate: IssuedCertificate,
    { keepAlive = true, path = '/api/orders', pauseMs = 0, localAddress }: SteadyOptions = {},
  ) {
    this.#keepAlive = keepAlive
    this.#pauseMs = pauseMs
    this.#agent = new https.Agent({ keepAlive, maxSockets: 1, maxCachedSessions: 0 })
    this.#options = {
      ...(sidecar.clientOptions(certificate) as https.RequestOptions),
      path,
      headers: { host: 'localhost' },
      agent: this.#agent,
      ...(localAddress === undefined ? {} : { localAddress }),
    }
    this.#ended = this.#run().finally(() => this.#agent.destroy())
    t.after(() => this.stop())
  }

  stop(): Promise<void> {
    this.#stopped = true
    return this.#ended
  }

  /** It has been served `count` times more. */
  served(count = 1): Promise<unknown> {
    const from = this.requests
    return eventually('the bystander is served', () => {
      assert.deepEqual(this.failures, [])
      return this.requests >= from + count
    })
  }

  /** Stops it: every request was answered with 200, and on one connection where it has one. */
  async unharmed(): Promise<void> {
    await this.served(2)
    await this.stop()
    assert.deepEqual(this.failures, [])
    if (this.#keepAlive) assert.equal(this.sockets.size, 1)
  }

  async #run(): Promise<void> {
    // What has failed once is told by then; asking on would only fill the memory of the test.
    while (!this.#stopped && this.failures.length < MOST_FAILURES) {
      const outcome = await this.#request().catch((error: Error) => `${error}`)
      this.requests++
      if (outcome !== 200) this.failures.push(`request ${this.requests}: ${outcome}`)
      if (this.#pauseMs > 0) await delay(this.#pauseMs)
    }
  }

  #request(): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      const request = https.get(this.#options, (response) => {
        response.resume().on('error', reject)
        response.on('end', () => resolve(response.statusCode))
      })
      request.on('socket', (socket) => this.sockets.add(socket as TLSSocket)).on('error', reject)
    })
  }
}

const MOST_FAILURES = 10
