// A data thread: owns its sockets, reads one generation at a time, and does nothing but TLS, HTTP,
// policy and forwarding. The control thread tells it what is in force and when to drain.
import { getHeapStatistics } from 'node:v8'
import { parentPort } from 'node:worker_threads'
import {
  Cells,
  cellOf,
  GENERATION_CELL,
  HEARTBEAT_CELL,
  LOOP_LAG_SECONDS_CELL,
} from '../metrics.ts'
import type {
  DataThreadStart,
  FromDataThread,
  HandshakeQuestion,
  Snapshot,
  ToDataThread,
} from '../threads.ts'
import { CandidateSample } from './candidate-sample.ts'
import { SYSTEM_CLOCK } from './clock.ts'
import { recordFault } from './fault.ts'
import { Generation } from './generation.ts'
import { H2cPool } from './h2c/pool.ts'
import { Intake } from './intake.ts'
import { LentReads } from './lent-reads.ts'
import { Listener } from './listener.ts'
import { MemoryWatch } from './memory-watch.ts'
import { Overload, readLoop } from './overload.ts'
import { ReadShares } from './read-shares.ts'
import { RecordQueue } from './records.ts'
import { BodyBudget } from './request-body.ts'
import { selfHandshakeProblem } from './self-handshake.ts'
import { SLICE_BYTES, Succession } from './succession.ts'
import type { ThreadContext } from './thread-context.ts'
import { contextOptions } from './tls-options.ts'
import { Turn } from './turn.ts'
import { UpstreamPool } from './upstream.ts'
import { warmUp } from './warm-up.ts'

/** Heartbeat, deadlines, record batches: everything that happens by time happens on this beat. */
const TICK_MS = 100
/**
 * What passes between two ticks for deadlines, at the most: in a stall nobody was late. What came meanwhile may
 * have been read before the tick that ends it, as if it had come before.
 */
const MOST_TICK_MS = 500

/** Of what clients may hold: growth by so much is looked at before the next tick. */
const WATCHED_GROWTH = 1 / 2
const UPSTREAM_OPEN = cellOf('upstream_connections_open', {})
const OVERLOADED = cellOf('overload_active', {})
const RECYCLES = cellOf('policy_instance_recycles_total', {})
const WASM_MEMORY = cellOf('policy_wasm_memory_bytes', {})

class DataThread {
  readonly #post: (message: FromDataThread) => void
  readonly #context: ThreadContext
  readonly #listener: Listener
  readonly #succession: Succession
  #drainUntilMs: number | undefined
  /** Connections that the drain deadline found open, while they are being ended. */
  #overdue: number | undefined
  #drained = false
  #tickDueMs: number
  #tickedMs: number

  constructor(start: DataThreadStart, post: (message: FromDataThread) => void) {
    this.#post = post
    const cells = new Cells(start.cells)
    const clock = SYSTEM_CLOCK
    const create = (snapshot: Snapshot, before: readonly Generation[]) =>
      new Generation(snapshot, before, clock, () => cells.add(RECYCLES))
    const generation = create(start.snapshot, [])
    generation.prepare(Number.POSITIVE_INFINITY)
    const { forward } = start.snapshot.settings.inbound
    const turn = new Turn()
    const inbound = () => context.generation.snapshot.settings.inbound
    const upstream = {
      address: forward.address,
      get maxConnections() {
        return inbound().limits.upstreamConnections
      },
      get connectTimeoutMs() {
        return inbound().timeouts.upstreamConnectMs
      },
      nowMs: () => context.tickMs,
      opened: (change: 1 | -1) => cells.add(UPSTREAM_OPEN, change),
      fault: (error: unknown) => recordFault(context, error),
      unreachable: (detail: string) =>
        context.records.push({ kind: 'unreachable', timeMs: clock.nowMs(), detail }),
      limits: () => {
        const { headBytes, headerCount } = inbound().limits
        return { listBytes: headBytes, count: headerCount }
      },
      turn,
    }
    const pool = new UpstreamPool(upstream)
    const h2c = forward.scheme === 'h2c' ? new H2cPool(upstream) : undefined
    const shares = new ReadShares(
      turn,
      () => context.tickMs,
      () => clock.monotonicMs(),
    )
    const intake = new Intake(
      turn,
      shares,
      () => clock.monotonicMs(),
      (error) => recordFault(context, error),
    )
    const context: ThreadContext = {
      generation,
      pool,
      h2c,
      cells,
      records: new RecordQueue(cells, post, () => inbound().limits.heldBytes),
      candidateSample: new CandidateSample(cells),
      bodies: new BodyBudget(),
      turn,
      shares,
      intake,
      overload: new Overload({
        limitMs: () => inbound().overload.eventLoopLagMs,
        nowMs: () => clock.monotonicMs(),
        readLoop,
        lines: [intake.line, (h2c ?? pool).queue],
        later: (step) => setImmediate(step),
        changed: (state) => {
          cells.set(OVERLOADED, state.active ? 1 : 0)
          context.records.push({ kind: 'overload', timeMs: clock.nowMs(), ...state })
        },
      }),
      clock,
      tickMs: clock.monotonicMs(),
      draining: false,
      drainTimeoutMs: 0,
    }
    this.#context = context
    this.#listener = new Listener(context)
    const watch = new MemoryWatch(
      () => clock.monotonicMs(),
      // Not `process.memoryUsage`: it reads a file, and throws where there is no descriptor left.
      () => getHeapStatistics().external_memory,
      () => inbound().limits.heldBytes * WATCHED_GROWTH,
      () => this.#listener.tickConnections(),
    )
    turn.atEnd = () => watch.turn()
    this.#succession = new Succession(generation, {
      create,
      publish: (next, whole) => this.#publish(next, whole),
      fault: (error) => recordFault(context, error),
      later: (step) => setImmediate(step),
    })
    this.#tickedMs = clock.monotonicMs()
    this.#tickDueMs = this.#tickedMs + TICK_MS
  }

  async listen(reusePort: boolean): Promise<void> {
    const { snapshot } = this.#context.generation
    const port = await this.#listener.listen(snapshot.settings.inbound.listen, reusePort)
    this.#tick()
    setInterval(() => this.#tick(), TICK_MS)
    this.#post({ kind: 'ready', port })
    this.#post({ kind: 'applied', generation: snapshot.generation })
    void this.#lendReads(snapshot)
  }

  /** Only after it listens: clients of the first milliseconds do not need it. */
  async #lendReads({ identity, trust }: Snapshot): Promise<void> {
    const context = this.#context
    try {
      const options = contextOptions(identity, trust.bundles)
      const fault = (error: unknown): void => recordFault(context, error)
      const reads = await LentReads.prove(options, context.shares, context.pool.copies, fault)
      if (reads instanceof LentReads) context.lentReads = reads
      else {
        context.records.push({ kind: 'slow_reads', timeMs: context.clock.nowMs(), detail: reads })
      }
    } catch (error) {
      recordFault(context, error)
    }
  }

  take(message: Exclude<ToDataThread, { kind: 'shake_hands' | 'take_in' | 'listen' }>): void {
    if (message.kind === 'snapshot') this.#succession.follow(message.snapshot)
    else if (message.kind === 'records_taken') this.#context.records.taken(message.bytes)
    else this.#drain(message.timeoutMs)
  }

  #publish(generation: Generation, whole: boolean): void {
    const context = this.#context
    const before = context.generation
    context.generation = generation
    try {
      this.#listener.generationChanged(generation.verifier !== before.verifier)
    } catch (error) {
      context.generation = before
      throw error
    }
    if (!whole) return
    context.cells.set(GENERATION_CELL, generation.snapshot.generation)
    this.#post({ kind: 'applied', generation: generation.snapshot.generation })
  }

  #drain(timeoutMs: number): void {
    if (this.#context.draining) return
    this.#context.draining = true
    this.#context.drainTimeoutMs = timeoutMs
    this.#drainUntilMs = this.#context.clock.monotonicMs() + timeoutMs
    this.#listener.stopAccepting()
  }

  #tick(): void {
    const { cells, clock, records, generation } = this.#context
    const monotonicMs = clock.monotonicMs()
    this.#context.tickMs += Math.min(MOST_TICK_MS, monotonicMs - this.#tickedMs)
    this.#tickedMs = monotonicMs
    cells.set(HEARTBEAT_CELL, monotonicMs)
    cells.set(LOOP_LAG_SECONDS_CELL, Math.max(0, monotonicMs - this.#tickDueMs) / 1000)
    cells.set(GENERATION_CELL, generation.snapshot.generation)
    // Has been ready since it decided, unless this thread is younger than that.
    generation.standby?.prepare(SLICE_BYTES)
    cells.set(WASM_MEMORY, generation.memoryBytes)
    const late = monotonicMs - this.#tickDueMs >= TICK_MS
    this.#tickDueMs = monotonicMs + TICK_MS
    this.#context.overload.tick()
    // After a stall, what has come meanwhile is read before anybody is found to be late.
    if (late) setImmediate(() => this.#keepDeadlines())
    else this.#keepDeadlines()
    records.flush()
    if (this.#drainUntilMs !== undefined && !this.#drained)
      this.#finishDrain(monotonicMs >= this.#drainUntilMs)
  }

  #keepDeadlines(): void {
    this.#listener.tick()
    this.#context.pool.tick()
    this.#context.h2c?.tick()
  }

  #finishDrain(overdue: boolean): void {
    const { connections } = this.#listener
    if (!this.#listener.idle) {
      if (!overdue) return
      if (this.#overdue === undefined) {
        // Their last records are written when their sockets have closed: at the next tick.
        this.#overdue = connections.size
        for (const connection of connections) connection.abort()
        return
      }
    }
    this.#drained = true
    this.#context.pool.close()
    this.#context.h2c?.close()
    this.#context.records.flush()
    this.#post({ kind: 'drained', left: this.#overdue ?? 0 })
  }
}

if (parentPort !== null) {
  const port = parentPort
  const post = (message: FromDataThread): void => port.postMessage(message)
  const fail = (error: unknown): void => {
    const { message, code } = error as NodeJS.ErrnoException
    post({ kind: 'failed', message, ...(code === undefined ? {} : { code }) })
    port.close()
  }
  const shakeHands = async ({ id, identity, bundles }: HandshakeQuestion): Promise<void> =>
    post({ kind: 'hands_shaken', id, problem: await selfHandshakeProblem(identity, bundles) })
  let thread: DataThread | undefined
  port.on('message', (message: ToDataThread) => {
    switch (message.kind) {
      case 'shake_hands':
        return void shakeHands(message.question)
      case 'take_in':
        try {
          thread = new DataThread(message.start, post)
        } catch (error) {
          fail(error)
        }
        return
      case 'listen':
        return void thread?.listen(message.reusePort).catch(fail)
      default:
        return thread?.take(message)
    }
  })
  warmUp()
}
