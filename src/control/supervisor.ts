// Starts the data threads, hands them every snapshot, and replaces the ones that stall or die.
// Promises that nothing half-starts, that counters never go back when a thread is replaced, and
// that a thread which keeps dying is reported instead of restarted for ever.
import type { Problem } from '../errors.ts'
import { Cells, cellOf, type MetricName, metricEntry, SERIES } from '../metrics.ts'
import type { HandshakeQuestion, LogRecord, SentInput, Snapshot } from '../threads.ts'
import { DataThread, type StartOutcome } from './data-thread.ts'

export type RestartReason = 'stalled' | 'exited'

export interface SupervisorEvents {
  /** Credit goes back to the thread when this returns, or when its promise is kept. */
  records(records: readonly LogRecord<SentInput>[], thread: number): void | Promise<void>
  applied(generation: number, thread: number): void
  /** A thread was given up; its replacement starts after `delayMs`. */
  restarting(thread: number, reason: RestartReason, detail: string, delayMs: number): void
  /** A thread died again and again: nothing restarts it any more, the process should end. */
  fatal(message: string): void
}

export interface SupervisorOptions {
  readonly dataThreadUrl: URL
  readonly threads: number
  /** The first of them, which has begun to load its code. */
  readonly prepared?: DataThread
  /** Longest silence of a heartbeat before the thread is replaced. */
  readonly stallMs: number
  readonly events: SupervisorEvents
  /** Milliseconds from any start: a wall clock that jumps would make deaths old or new. */
  readonly monotonicMs: () => number
}

export class Supervisor {
  /** The counters of threads that are gone; gauges end with their thread. */
  readonly retired = Cells.allocate()

  readonly #options: SupervisorOptions
  readonly #seats: Seat[]
  /** Terminated but not ended yet: they still count. */
  readonly #dying = new Set<DataThread>()
  #snapshot: Snapshot | undefined
  #watch: NodeJS.Timeout | undefined
  #state: 'new' | 'starting' | 'running' | 'draining' | 'stopped' = 'new'
  #failed = false

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#seats = Array.from({ length: options.threads }, (_, thread) => ({
      thread,
      cells: Cells.allocate(),
      deaths: [],
      ...(thread === 0 && options.prepared && { prepared: options.prepared }),
    }))
  }

  /** Lets the threads load their code while the first snapshot is still being made. */
  prepare(): void {
    for (const seat of this.#seats) seat.prepared ??= this.#load(seat)
  }

  /** Asked of a thread that is prepared and waits for its start; undefined where there is none. */
  shakeHands(question: Omit<HandshakeQuestion, 'id'>): Promise<Problem | undefined> | undefined {
    return this.#seats[0]?.prepared?.shakeHands(question)
  }

  /** Gives the first thread the snapshot that it will start with, if it is not stopped before. */
  takeIn(snapshot: Snapshot): void {
    this.#seats[0]?.prepared?.takeIn(snapshot)
  }

  /** Resolves when every thread listens. When one cannot, all are stopped and nothing is bound. */
  async start(snapshot: Snapshot): Promise<StartOutcome> {
    this.#state = 'starting'
    this.#snapshot = snapshot
    const tickMs = Math.min(250, this.#options.stallMs / 8)
    this.#watch = setInterval(() => this.#tick(tickMs), tickMs)

    const [firstSeat, ...otherSeats] = this.#seats as [Seat, ...Seat[]]
    const first = await this.#seat(firstSeat).started
    if (first.kind === 'failed') return await this.#giveUp(first)
    // With port 0 the kernel chose for the first thread; all others have to share that port.
    this.#snapshot = onPort(this.#snapshot, first.port)
    if (this.#state !== 'starting') return await this.#giveUp(STOPPED)
    const others = await Promise.all(otherSeats.map((seat) => this.#seat(seat).started))
    const failed = others.find((outcome) => outcome.kind === 'failed')
    if (failed !== undefined) return await this.#giveUp(failed)
    if (this.#state !== 'starting') return await this.#giveUp(STOPPED)
    this.#state = 'running'
    for (const seat of this.#seats) {
      if (seat.current === undefined) this.#replace(seat, 'exited', 'ended right after its start')
    }
    return first
  }

  publish(snapshot: Snapshot): void {
    const port = portOf(this.#snapshot)
    this.#snapshot = port === undefined ? snapshot : onPort(snapshot, port)
    for (const { current } of this.#seats) current?.post({ kind: 'snapshot', snapshot })
  }

  /**
   * Ends listening at once, and every connection when its request is answered. Resolves when the
   * last is gone, or soon after `timeoutMs` with those left.
   */
  async drain(timeoutMs: number): Promise<{ readonly left: number }> {
    if (this.#state === 'running' || this.#state === 'starting') this.#state = 'draining'
    const threads = this.#seats.flatMap(({ current }) => current ?? [])
    for (const thread of threads) thread.post({ kind: 'drain', timeoutMs })
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, timeoutMs + DRAIN_ANSWER_MS)
    const left = await Promise.all(
      threads.map((thread) =>
        Promise.race([thread.drained, late.promise.then(() => thread.connectionsOpen())]),
      ),
    )
    clearTimeout(timer)
    return { left: left.reduce((sum, one) => sum + one, 0) }
  }

  /** Ends all threads, with whatever they have open. @returns how many do not end */
  async stop(): Promise<{ readonly stuck: number }> {
    this.#state = 'stopped'
    clearInterval(this.#watch)
    for (const seat of this.#seats) clearTimeout(seat.retry)
    const threads = [
      ...this.#seats.flatMap(({ current, prepared }) => [current ?? [], prepared ?? []].flat()),
      ...this.#dying,
    ]
    const ended = await Promise.all(
      threads.map(async (thread) => {
        const end = await thread.terminate()
        if (end) await thread.gone
        return end
      }),
    )
    return { stuck: ended.filter((end) => !end).length }
  }

  /** One for each thread, at the place of its number; then those that are being ended. */
  cells(): readonly Cells[] {
    return [
      ...this.#seats.map((seat) => seat.cells),
      ...[...this.#dying].map((thread) => thread.cells),
    ]
  }

  /** The oldest generation that a serving thread decides by; 0 when none serves. */
  appliedGeneration(): number {
    const serving = this.#seats.flatMap(({ current }) => (current?.serving ? current : []))
    return serving.length === 0 ? 0 : Math.min(...serving.map((thread) => thread.generation))
  }

  /** How many threads are listening. */
  serving(): number {
    return this.#seats.filter(({ current }) => current?.serving).length
  }

  #seat(seat: Seat): DataThread {
    const snapshot = this.#snapshot as Snapshot
    const thread = seat.prepared ?? this.#load(seat)
    delete seat.prepared
    const { events } = this.#options
    // Even a single thread shares its port, so that its replacement can bind while it still
    // hangs. SO_REUSEPORT lets in no other user's process; `run` probes the port beforehand.
    thread.start(snapshot, snapshot.settings.inbound.listen.kind === 'tcp', {
      applied: (generation) => events.applied(generation, seat.thread),
      records: (records) => events.records(records, seat.thread),
    })
    seat.current = thread
    seat.cells = thread.cells
    void thread.gone.then((detail) => this.#gone(seat, thread, detail))
    return thread
  }

  #load(seat: Seat): DataThread {
    return new DataThread(this.#options.dataThreadUrl, seat.thread)
  }

  #gone(seat: Seat, thread: DataThread, detail: string): void {
    fold(thread.cells, this.retired)
    this.retired.add(THREAD_LOST, lostDecisions(thread))
    this.#dying.delete(thread)
    if (seat.cells === thread.cells) seat.cells = Cells.allocate()
    if (seat.current !== thread) return
    delete seat.current
    if (this.#state === 'running') this.#replace(seat, 'exited', detail)
  }

  #tick(tickMs: number): void {
    for (const seat of this.#seats) {
      const thread = seat.current
      if (thread === undefined) continue
      thread.observe(tickMs)
      const limitMs = thread.serving
        ? this.#options.stallMs
        : Math.max(START_MS, this.#options.stallMs)
      if (thread.silentMs < limitMs) continue
      if (this.#state !== 'running') {
        // Starting or draining: the end of the thread is the answer that its caller waits for.
        void thread.terminate()
        continue
      }
      delete seat.current
      seat.cells = Cells.allocate()
      this.#dying.add(thread)
      void thread.terminate()
      const what = thread.generation > 0 ? 'gave no sign of life' : 'did not start'
      this.#replace(seat, 'stalled', `${what} for ${Math.round(thread.silentMs)} ms`)
    }
  }

  #replace(seat: Seat, reason: RestartReason, detail: string): void {
    if (this.#failed) return
    const now = this.#options.monotonicMs()
    seat.deaths = [...seat.deaths.filter((one) => now - one.atMs < 60_000), { atMs: now, reason }]
    // A stall is somebody's slow input and ends with it; a crash loop is our own and does not.
    if (seat.deaths.filter((one) => one.reason === 'exited').length > MAX_EXITS_PER_MINUTE) {
      this.#failed = true
      this.#options.events.fatal(`data thread ${seat.thread} keeps ending: ${detail}`)
      return
    }
    const earlier = seat.deaths.length - 1
    const delayMs = earlier === 0 ? 0 : Math.min(5000, 50 * 2 ** earlier)
    this.#options.events.restarting(seat.thread, reason, detail, delayMs)
    seat.retry = setTimeout(() => {
      if (this.#state === 'running') this.#seatAgain(seat)
    }, delayMs)
  }

  /** Where the system lets there be no thread, the process goes on with the others, and tries again. */
  #seatAgain(seat: Seat): void {
    try {
      this.#seat(seat)
    } catch (error) {
      this.#replace(seat, 'exited', `could not be created: ${(error as Error).message}`)
    }
  }

  async #giveUp(outcome: StartOutcome): Promise<StartOutcome> {
    await this.stop()
    return outcome
  }
}

/** The place of one thread: whoever sits there now, and what became of those before. */
interface Seat {
  readonly thread: number
  current?: DataThread
  /** Has its code loaded, or is about to, and waits for a snapshot. */
  prepared?: DataThread
  cells: Cells
  deaths: readonly { readonly atMs: number; readonly reason: RestartReason }[]
  retry?: NodeJS.Timeout
}

function fold(from: Cells, into: Cells): void {
  for (const { metric, cell, cells } of SERIES) {
    if (metricEntry(metric).type === 'gauge') continue
    for (let at = cell; at < cell + cells; at++) into.add(at, from.read(at))
  }
}

/** Decided, and neither left out nor handed over: they went down with their thread. */
function lostDecisions({ cells, decisionsTaken }: DataThread): number {
  const count = (name: MetricName, result?: string): number =>
    SERIES.filter(({ metric }) => metric === name)
      .filter(({ labels }) => result === undefined || labels['result'] === result)
      .reduce((sum, { cell }) => sum + cells.read(cell), 0)
  const leftOut =
    count('decision_log_events_total', 'sampled_out') +
    count('decision_log_events_total', 'queue_full')
  return Math.max(0, count('decisions_total') - leftOut - decisionsTaken)
}

const THREAD_LOST = cellOf('decision_log_events_total', { result: 'thread_lost' })

function portOf(snapshot: Snapshot | undefined): number | undefined {
  const listen = snapshot?.settings.inbound.listen
  return listen?.kind === 'tcp' ? listen.port : undefined
}

function onPort(snapshot: Snapshot, port: number): Snapshot {
  const { listen } = snapshot.settings.inbound
  if (listen.kind !== 'tcp' || listen.port === port) return snapshot
  const inbound = { ...snapshot.settings.inbound, listen: { ...listen, port } }
  return Object.freeze({ ...snapshot, settings: { ...snapshot.settings, inbound } })
}

/** Loading the code of a thread takes a tenth of a second; on a starved machine, seconds. */
const START_MS = 30_000
/** A thread that has drained says so; this long after the deadline it is not waited for. */
const DRAIN_ANSWER_MS = 1000
const STOPPED: StartOutcome = { kind: 'failed', message: 'stopped while starting' }
const MAX_EXITS_PER_MINUTE = 5
