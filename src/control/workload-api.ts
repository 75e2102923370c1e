// Keeps in touch with a SPIFFE Workload API: holds what it delivered last, connects again with growing
// pauses whenever the stream ends, and says once for each kind of trouble what is wrong and what to do.
import type { Address } from '../config/config.ts'
import { formatWorkloadApi } from '../config/values.ts'
import type { Problem } from '../errors.ts'
import type { Delivery } from './workload-api-messages.ts'
import type { StreamEnd } from './workload-api-stream.ts'

export interface WorkloadApiEvents {
  delivered(delivery: Delivery): void
  /** Why there is nothing new; what was delivered before stays good. Not said again while it lasts. */
  trouble?(problem: Problem): void
}

export interface WorkloadApiOptions {
  readonly address: Address
  readonly events: WorkloadApiEvents
  /** The pause before the second attempt; it doubles up to `longestPauseMs`. */
  readonly firstPauseMs?: number
  readonly longestPauseMs?: number
  /** The stream may be silent for hours; so long until the agent is asked whether it is there. */
  readonly silenceMs?: number
}

export class WorkloadApi {
  readonly address: Address
  /** What was delivered last. */
  delivery: Delivery | undefined
  /** Why nothing is delivered at this moment; undefined while the stream is up. */
  trouble: Problem | undefined

  readonly #options: Required<WorkloadApiOptions>
  #close: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #pauseMs: number
  #stopped = false

  constructor(options: WorkloadApiOptions) {
    this.#options = {
      firstPauseMs: 200,
      longestPauseMs: 10_000,
      silenceMs: SILENCE_MS,
      ...options,
    }
    this.address = options.address
    this.#pauseMs = this.#options.firstPauseMs
  }

  start(): void {
    void this.#connect()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#close?.()
  }

  async #connect(): Promise<void> {
    const { openStream } = await import('./workload-api-stream.ts')
    if (this.#stopped) return
    const { events, silenceMs } = this.#options
    const delivered = (delivery: Delivery): void => {
      this.#pauseMs = this.#options.firstPauseMs
      this.trouble = undefined
      this.delivery = delivery
      events.delivered(delivery)
    }
    const ended = (end: StreamEnd): void => this.#ended(end)
    this.#close = openStream(this.address, { delivered, ended }, silenceMs)
  }

  #ended(end: StreamEnd): void {
    const problem = problemOf(this.address, end)
    const isNew = this.trouble?.remedy !== problem.remedy
    this.trouble = problem
    if (isNew) this.#options.events.trouble?.(problem)
    if (this.#stopped) return
    // Spread out, or all workloads of a node come at once when its agent is back.
    const pauseMs = this.#pauseMs * (0.8 + 0.4 * Math.random())
    this.#pauseMs = Math.min(this.#pauseMs * 2, this.#options.longestPauseMs)
    this.#timer = setTimeout(() => void this.#connect(), pauseMs)
  }
}

/** One attempt, for `postern check`. */
export function fetchDelivery(address: Address, deadlineMs: number): Promise<Delivery | Problem> {
  return new Promise((resolve) => {
    const settle = (result: Delivery | Problem): void => {
      clearTimeout(timer)
      api.stop()
      resolve(result)
    }
    const api = new WorkloadApi({ address, events: { delivered: settle, trouble: settle } })
    const timer = setTimeout(() => {
      settle(
        problemOf(address, { kind: 'unreachable', detail: `no answer within ${deadlineMs} ms` }),
      )
    }, deadlineMs)
    api.start()
  })
}

/** While nothing was delivered yet. */
export const notDelivered = (address: Address): Problem => ({
  where: WHERE,
  what: `${formatWorkloadApi(address)} has delivered no identity yet`,
  remedy: 'wait for the agent, or see what the log says about it',
})

/** Servers in Go end connections that ask more than every five minutes (gRPC's enforcement policy). */
const SILENCE_MS = 600_000

export const WHERE = 'identity.workloadApi'

const problemOf = (address: Address, { kind, detail }: StreamEnd): Problem => ({
  where: WHERE,
  what: `${formatWorkloadApi(address)} ${WHAT[kind]} (${detail})`,
  remedy: REMEDY[kind],
})

const WHAT = {
  unreachable: 'cannot be reached',
  denied: 'issues no identity to this workload',
  not_supported: 'does not know this request',
  invalid: 'gave an answer that cannot be read',
  ended: 'ended the stream',
} as const satisfies Record<StreamEnd['kind'], string>

const REMEDY = {
  unreachable: 'start the agent, mount its socket, or correct the address; it is tried again',
  denied:
    'register this workload (in SPIRE: an entry whose selectors fit this process and whose parent is this agent); it is tried again',
  not_supported: 'name the socket of a SPIFFE Workload API, not another one of the agent',
  invalid: 'see which version the agent is; it is tried again',
  ended: 'nothing, if the agent was restarted; it is tried again',
} as const satisfies Record<StreamEnd['kind'], string>
