// More load than a proxy can take, for a time: on connections that ask again as soon as they have heard,
// or so often a second as the connections that are free allow.
import type { Pressed, Pressing } from '../load.ts'
import type { Client } from './connection.ts'
import { drivenIn } from './driven.ts'

export class Press {
  readonly #startedMs = performance.now()
  #countedFromMs = 0
  #offeredBefore = 0
  #durationsMs: number[] = []
  #refusedMs: number[] = []
  readonly #ratePerSecond: number | undefined
  readonly #vacant: Client[]
  #offered = 0

  constructor(
    clients: readonly Client[],
    { settlingSeconds, seconds, ratePerSecond }: Pressing,
    over: (pressed: Pressed) => void,
  ) {
    this.#ratePerSecond = ratePerSecond
    this.#vacant = [...clients]
    const timer = ratePerSecond === undefined ? undefined : setInterval(() => this.#send(), 1)
    if (timer === undefined) for (const client of this.#vacant.splice(0)) this.#ask(client)
    setTimeout(() => this.#settled(), settlingSeconds * 1_000)
    setTimeout(
      () => {
        clearInterval(timer)
        over(this.#pressed())
      },
      (settlingSeconds + seconds) * 1_000,
    )
  }

  answered(client: Client, durationMs: number): void {
    this.#durationsMs.push(durationMs)
    this.#free(client)
  }

  refused(client: Client, durationMs: number): void {
    this.#refusedMs.push(durationMs)
    this.#free(client)
  }

  #settled(): void {
    this.#countedFromMs = performance.now()
    this.#offeredBefore = this.#offered
    this.#durationsMs = []
    this.#refusedMs = []
  }

  #free(client: Client): void {
    if (this.#ratePerSecond === undefined) this.#ask(client)
    else this.#vacant.push(client)
  }

  #ask(client: Client): void {
    this.#offered++
    client.send(performance.now())
  }

  #send(): void {
    const rate = this.#ratePerSecond ?? 0
    const due = Math.floor(((performance.now() - this.#startedMs) / 1_000) * rate)
    for (; this.#offered < due; this.#offered++) this.#vacant.shift()?.send(performance.now())
  }

  #pressed(): Pressed {
    const elapsedMs = performance.now() - this.#countedFromMs
    return {
      ...drivenIn(elapsedMs, Float64Array.from(this.#durationsMs)),
      answered: this.#durationsMs.length,
      refused: this.#refusedMs.length,
      refusedP50Ms: drivenIn(elapsedMs, Float64Array.from(this.#refusedMs)).p50Ms,
      offered: this.#offered - this.#offeredBefore,
    }
  }
}
