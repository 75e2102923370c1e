// Process: load over TLS 1.3 with a client certificate, in a closed loop or at a fixed rate.
// (wrk and h2load cannot present a client certificate.)
import type { LoadCommand, LoadReport, Opening, Work } from '../load.ts'
import { type Client, type ClientEvents, connectionOptions } from './connection.ts'
import { drivenIn } from './driven.ts'
import { handshakes } from './handshakes.ts'
import { Http1Client } from './http1.ts'
import { Http2Client } from './http2.ts'
import { Press } from './press.ts'
import { TunnelClient } from './tunnel.ts'

const HANDSHAKES_AT_ONCE = 8
const PROTOCOLS = { http1: 'http/1.1', h2: 'h2', tunnel: undefined } as const

class GeneratedLoad implements ClientEvents {
  readonly #report: (report: LoadReport) => void
  #clients: Client[] = []
  #ready = 0
  #opening: (() => void) | undefined
  #toSend = 0
  #durationsMs = new Float64Array(0)
  #answers = 0
  #startedMs = 0
  /** Undefined in a closed loop: whoever has an answer sends the next request. */
  #pace: Pace | undefined
  /** Takes every answer while it lasts. */
  #press: Press | undefined

  constructor(report: (report: LoadReport) => void) {
    this.#report = report
  }

  take(command: LoadCommand): void {
    switch (command.kind) {
      case 'open':
        return this.#open(command)
      case 'drive':
        return this.#drive(command.requests, command.ratePerSecond)
      case 'press':
        this.#press = new Press(this.#clients, command, (pressed) => {
          // The answers that are still to come are nobody's.
          this.#drop()
          this.#press = undefined
          this.#report({ kind: 'pressed', ...pressed })
        })
        return
      case 'handshakes':
        handshakes(command).then(
          (driven) => this.#report({ kind: 'driven', ...driven }),
          (error: Error) => this.#report({ kind: 'failed', message: error.message }),
        )
        return
      case 'close':
        return this.#close()
    }
  }

  ready(): void {
    this.#ready++
    this.#opening?.()
  }

  failed(message: string): void {
    if (this.#clients.length === 0) return
    this.#drop()
    this.#report({ kind: 'failed', message })
  }

  refused(client: Client, durationMs: number): void {
    if (this.#press === undefined) this.failed('unexpected answer: 503')
    else this.#press.refused(client, durationMs)
  }

  answered(client: Client, durationMs: number): void {
    if (this.#press !== undefined) return this.#press.answered(client, durationMs)
    this.#durationsMs[this.#answers++] = durationMs
    if (this.#answers === this.#durationsMs.length) return this.#driven()
    if (this.#pace !== undefined) return this.#pace.vacant(client)
    if (this.#toSend === 0) return
    this.#toSend--
    client.send(performance.now())
  }

  #open({ port, connections, work, ...credentials }: Opening): void {
    const protocol =
      work.kind === 'tunnel' && work.upgrade !== undefined ? 'http/1.1' : PROTOCOLS[work.kind]
    const options = connectionOptions(port, protocol, credentials)
    const make = clientMaker(work)
    this.#ready = 0
    const next = (): void => {
      if (this.#clients.length < connections) this.#clients.push(make(options, this))
      else if (this.#ready === connections) {
        this.#opening = undefined
        this.#report({ kind: 'opened' })
      }
    }
    this.#opening = next
    for (let i = 0; i < Math.min(HANDSHAKES_AT_ONCE, connections); i++) next()
  }

  #drive(requests: number, ratePerSecond: number | undefined): void {
    this.#durationsMs = new Float64Array(requests)
    this.#answers = 0
    this.#startedMs = performance.now()
    // Stream by stream, so that few requests use as many connections as there are.
    const most = Math.max(...this.#clients.map((client) => client.atOnce))
    const slots = Array.from({ length: most }, (_, i) =>
      this.#clients.filter((client) => client.atOnce > i),
    ).flat()
    if (ratePerSecond !== undefined) {
      this.#pace = new Pace(slots, requests, ratePerSecond)
      return
    }
    this.#pace = undefined
    const first = slots.slice(0, requests)
    this.#toSend = requests - first.length
    for (const client of first) client.send(performance.now())
  }

  #driven(): void {
    const elapsedMs = performance.now() - this.#startedMs
    this.#pace = undefined
    this.#report({ kind: 'driven', ...drivenIn(elapsedMs, this.#durationsMs) })
  }

  #close(): void {
    this.#drop()
    this.#report({ kind: 'closed' })
  }

  #drop(): void {
    for (const client of this.#clients.splice(0)) client.destroy()
  }
}

/**
 * An open loop: every millisecond as many requests as are due. One that finds no connection free
 * waits, and that counts as its own time, so that a slow proxy does not slow down the questions.
 */
class Pace {
  readonly #vacant: Client[]
  readonly #waitingMs: number[] = []

  constructor(slots: readonly Client[], requests: number, ratePerSecond: number) {
    this.#vacant = [...slots]
    const startedMs = performance.now()
    let sent = 0
    const timer = setInterval(() => {
      const nowMs = performance.now()
      const due = Math.min(requests, Math.floor(((nowMs - startedMs) / 1000) * ratePerSecond))
      for (; sent < due; sent++) {
        const client = this.#vacant.shift()
        if (client === undefined) this.#waitingMs.push(nowMs)
        else client.send(nowMs)
      }
      if (sent === requests) clearInterval(timer)
    }, 1)
  }

  vacant(client: Client): void {
    const dueMs = this.#waitingMs.shift()
    if (dueMs === undefined) this.#vacant.push(client)
    else client.send(dueMs)
  }
}

type Options = ReturnType<typeof connectionOptions>

function clientMaker(work: Work): (options: Options, events: ClientEvents) => Client {
  switch (work.kind) {
    case 'http1':
      return (options, events) => new Http1Client(work, options, events)
    case 'h2':
      return (options, events) => new Http2Client(work, options, events)
    case 'tunnel':
      return (options, events) => new TunnelClient(work, options, events)
  }
}

const load = new GeneratedLoad((report) => process.send?.(report))
process.on('message', (command: LoadCommand) => load.take(command))
process.on('disconnect', () => process.exit())
