// One data thread as the control thread sees it: a worker, its cells, and what it said last.
// Promises that each of `started`, `drained` and `gone` settles, however the thread ends.
import { Worker } from 'node:worker_threads'
import type { Problem } from '../errors.ts'
import { Cells, cellOf, HEARTBEAT_CELL } from '../metrics.ts'
import type {
  FromDataThread,
  HandshakeQuestion,
  LogRecord,
  SentInput,
  Snapshot,
  ToDataThread,
} from '../threads.ts'

export type StartOutcome =
  | { readonly kind: 'ready'; readonly port: number }
  | { readonly kind: 'failed'; readonly message: string; readonly code?: string }

export interface DataThreadEvents {
  applied(generation: number): void
  /** The thread may send as many records more when the promise is kept. */
  records(records: readonly LogRecord<SentInput>[]): void | Promise<void>
}

/** Ending takes milliseconds, unless it never comes. */
const END_MS = 3_000
/** Against 48 by default: 5 to 10 MiB less resident under load, at no cost in CPU that shows. */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 8 }

export class DataThread {
  readonly cells = Cells.allocate()
  /** Listening, or unable to. */
  readonly started: Promise<StartOutcome>
  /** Connections left open when the thread had drained; what its gauge said if it ended instead. */
  readonly drained: Promise<number>
  /** Ended, and why: nothing is added to `cells` any more. */
  readonly gone: Promise<string>
  /** Of the snapshot that the thread applied last; 0 before it is ready. */
  generation = 0
  serving = false
  /** Records of decisions that came from it. */
  decisionsTaken = 0
  /** How long the heartbeat has stood still, as of the last `observe`. */
  silentMs = 0

  readonly #thread: number
  readonly #worker: Worker
  #events: DataThreadEvents | undefined
  #startsWith = 0
  #taken: Snapshot | undefined
  readonly #handshakes = new Map<number, (problem: Problem | undefined) => void>()
  #handshakesAsked = 0
  #heartbeat = 0
  #lastWords = ''

  /** Begins to load the code of the thread, which takes as long as loading the materials. */
  constructor(url: URL, thread: number) {
    this.#thread = thread
    this.#worker = new Worker(url, { name: `data-${thread}`, resourceLimits: RESOURCE_LIMITS })

    const started = Promise.withResolvers<StartOutcome>()
    const drained = Promise.withResolvers<number>()
    const gone = Promise.withResolvers<string>()
    this.started = started.promise
    this.drained = drained.promise
    this.gone = gone.promise

    this.#worker.on('message', (message: FromDataThread) => {
      switch (message.kind) {
        case 'ready':
          this.serving = true
          this.#applied(this.#startsWith)
          return started.resolve(message)
        case 'failed':
          this.#lastWords = message.message
          return started.resolve(message)
        case 'applied':
          return this.#applied(message.generation)
        case 'hands_shaken':
          this.#handshakes.get(message.id)?.(message.problem)
          return void this.#handshakes.delete(message.id)
        case 'records':
          return void this.#take(message.records, message.bytes)
        case 'drained':
          return drained.resolve(message.left)
      }
    })
    this.#worker.on('error', (error) => {
      this.#lastWords = error instanceof Error ? (error.stack ?? error.message) : String(error)
    })
    this.#worker.on('exit', (exitCode) => {
      this.serving = false
      const detail = this.#lastWords || `ended with exit code ${exitCode}`
      started.resolve({ kind: 'failed', message: detail })
      drained.resolve(this.connectionsOpen())
      gone.resolve(detail)
    })
  }

  /** Has it prove that clients can shake hands with this identity, while it waits for its start. */
  shakeHands(question: Omit<HandshakeQuestion, 'id'>): Promise<Problem | undefined> {
    const id = ++this.#handshakesAsked
    const answer = Promise.withResolvers<Problem | undefined>()
    this.#handshakes.set(id, answer.resolve)
    this.post({ kind: 'shake_hands', question: { ...question, id } })
    return Promise.race([answer.promise, this.gone.then(noAnswer)])
  }

  /** Lets it make everything of the snapshot that it needs to start with it. */
  takeIn(snapshot: Snapshot): void {
    this.#taken = snapshot
    const start = { thread: this.#thread, snapshot, cells: this.cells.memory }
    this.post({ kind: 'take_in', start })
  }

  start(snapshot: Snapshot, reusePort: boolean, events: DataThreadEvents): void {
    this.#events = events
    this.#startsWith = snapshot.generation
    if (this.#taken !== snapshot) this.takeIn(snapshot)
    this.#taken = undefined
    this.post({ kind: 'listen', reusePort })
  }

  post(message: ToDataThread): void {
    this.#worker.postMessage(message)
  }

  /**
   * Called at every tick of the supervisor. Silence is counted in ticks and not read off a clock:
   * a clock that jumps, or a process that was frozen as a whole, is no stall.
   */
  observe(tickMs: number): void {
    const heartbeat = this.cells.read(HEARTBEAT_CELL)
    this.silentMs = heartbeat === this.#heartbeat ? this.silentMs + tickMs : 0
    this.#heartbeat = heartbeat
  }

  connectionsOpen(): number {
    return this.cells.read(CONNECTIONS_OPEN)
  }

  /**
   * @returns false for a thread that does not end: Node.js 26 was once seen to wait for handles that
   *   were gone (Environment::CleanupHandles), and whoever waits for the thread waits for ever
   */
  async terminate(): Promise<boolean> {
    this.serving = false
    const late = Promise.withResolvers<false>()
    const timer = setTimeout(late.resolve, END_MS, false)
    const ended = await Promise.race([this.#worker.terminate().then(() => true), late.promise])
    clearTimeout(timer)
    return ended
  }

  #applied(generation: number): void {
    // `ready` follows the snapshot of the start; a later one may have been applied already.
    if (generation <= this.generation) return
    this.generation = generation
    this.#events?.applied(generation)
  }

  async #take(records: readonly LogRecord<SentInput>[], bytes: number): Promise<void> {
    for (const { kind } of records) if (kind === 'decision') this.decisionsTaken++
    await this.#events?.records(records)
    this.post({ kind: 'records_taken', bytes })
  }
}

const CONNECTIONS_OPEN = cellOf('connections_open', {})

const noAnswer = (detail: string): Problem => ({
  where: 'postern',
  what: `a data thread ended before it had tried the certificate: ${detail}`,
  remedy: 'please report it',
})
