// Puts the rooms together: load, check, bind, ready; then reload on every change, and drain at the
// end. Promises that nothing half-starts: on failure everything that was bound is released.
import type { Config } from '../config/config.ts'
import { applyLive, takesRestart } from '../config/live.ts'
import { printConfig } from '../config/print.ts'
import { formatWorkloadApi } from '../config/values.ts'
import { DataThread } from '../control/data-thread.ts'
import type { Serving } from '../control/loader.ts'
import { PolicyBundles } from '../control/policy-bundles.ts'
import { candidatePolicy } from '../control/policy-slots-candidate.ts'
import { ReloadLag } from '../control/reload-lag.ts'
import { type ConfigReading, Reloader, type ReloadReport } from '../control/reloader.ts'
import type { Generation } from '../control/snapshot-builder.ts'
import { isError } from '../control/sources.ts'
import { Supervisor } from '../control/supervisor.ts'
import { ValidityWatch } from '../control/validity.ts'
import { Watcher, watchedPaths } from '../control/watcher.ts'
import type { WorkloadApi } from '../control/workload-api.ts'
import type { Problem } from '../errors.ts'
import { startAdmin } from '../observe/admin.ts'
import { type ReadyReport, startMetricsServer } from '../observe/health.ts'
import type { Logger } from '../observe/log.ts'
import { MetricsRegistry } from '../observe/metrics.ts'
import { RecordSink } from '../observe/records.ts'
import { createRedactor } from '../observe/redaction.ts'
import { isRunning, type RunningServer, removeStaleSocket } from '../observe/server.ts'
import { moduleFile } from '../package.ts'
import { probeAddress } from '../proxy/port.ts'
import type { DecisionRecord } from '../threads.ts'
import { VERSION } from '../version.ts'
import { Decisions, withDocument } from './decisions.ts'
import type { AskedPolicies } from './inquiry.ts'
import { logProblems, logReload, logValidity } from './journal.ts'
import { loadChecked, prove, servingOf } from './materials.ts'
import type { ConfigurationRead } from './options.ts'
import { PolicyOperation } from './policy-operation.ts'
import { bindFailure, type StartFailure, threadFault, threadRefused } from './start-failure.ts'
import { countReload, readiness, showGeneration, snapshotView } from './status.ts'

export interface SidecarOptions {
  readonly config: Config
  readonly unsafeOptions: readonly string[]
  /** Reads file, flags and environment anew, when a reload is asked for. */
  readonly reread: () => ConfigurationRead
  readonly logger: Logger
  /** See `prepareDataThread`. */
  readonly prepared: DataThread | undefined
  /** The process cannot go on. */
  readonly fatal: (message: string) => void
  /** Ends a start that waits for an identity; one that does not wait goes on to its end. */
  readonly giveUp: AbortSignal
}

export type SidecarStart =
  | { readonly kind: 'started'; readonly sidecar: Sidecar }
  | (({ readonly kind: 'given_up' } | StartFailure) & {
      /** Data threads that do not end. */
      readonly stuck: number
    })

const now = (): number => Date.now()

const DATA_THREAD = moduleFile('proxy/data-thread')

/**
 * Every sidecar has one: its code is loaded beside everything that comes before it is needed.
 * @returns undefined when the system lets there be none; the start tries again, and says why not
 */
export function prepareDataThread(): DataThread | undefined {
  try {
    return new DataThread(DATA_THREAD, 0)
  } catch {
    return undefined
  }
}

export class Sidecar {
  readonly #options: SidecarOptions
  readonly #metrics: MetricsRegistry
  readonly #supervisor: Supervisor
  readonly #reloader: Reloader
  #watcher: Watcher
  readonly #validity: ValidityWatch
  readonly #decisions: Decisions
  readonly #records: RecordSink
  #workloadApi: WorkloadApi | undefined
  readonly #bundles = new PolicyBundles({
    clock: now,
    changed: () => void this.#reloader.reload('bundle_server', now()),
  })
  readonly #candidates = new PolicyBundles({
    clock: now,
    changed: () => void this.#reloader.reload('bundle_server', now()),
  })
  readonly #operation: PolicyOperation
  readonly #lag: ReloadLag
  #handshake: (Serving & { readonly problem: Promise<Problem | undefined> }) | undefined
  /** To be called as soon as there is a first generation. */
  #identityAwaited: (() => void) | undefined
  readonly #servers: { readonly name: string; readonly server: RunningServer }[] = []
  #unsafeOptions: readonly string[]
  /** As last read; in force once the reload has adopted the configuration they came with. */
  #unsafeOptionsRead: readonly string[] = []
  #refusedConfiguration: readonly Problem[] = []
  #failing = false
  #started = false
  #draining: Promise<{ readonly left: number }> | undefined

  /** Starts everything or nothing. */
  static async start(options: SidecarOptions): Promise<SidecarStart> {
    const { config, logger } = options
    const redactor = createRedactor(config.log.redact)
    // Nothing is decided, and nothing counted, before there is a sidecar.
    let sidecar: Sidecar | undefined
    const opened = await Decisions.open({
      config: config.log,
      logger,
      redactor,
      slots: () => (sidecar === undefined ? {} : sidecar.#slots),
      cells: () => (sidecar as Sidecar).#supervisor.retired,
    })
    if (opened.kind === 'problems') {
      const ended = await (options.prepared?.terminate() ?? true)
      return { kind: 'failed', exitCode: 2, problems: opened.problems, stuck: ended ? 0 : 1 }
    }
    sidecar = new Sidecar(options, opened.decisions, redactor)
    const failure = await sidecar.#start()
    if (failure === undefined) return { kind: 'started', sidecar }
    return { ...failure, ...(await sidecar.stop()) }
  }

  private constructor(
    options: SidecarOptions,
    decisions: Decisions,
    redactor: ReturnType<typeof createRedactor>,
  ) {
    const { config, logger, fatal } = options
    this.#options = options
    this.#decisions = decisions
    this.#unsafeOptions = options.unsafeOptions
    this.#supervisor = new Supervisor({
      dataThreadUrl: DATA_THREAD,
      threads: config.workers,
      ...(options.prepared && { prepared: options.prepared }),
      stallMs: config.stallMs,
      monotonicMs: () => performance.now(),
      events: {
        records: (records, thread) => this.#records.take(records.map(withDocument), thread),
        applied: (generation, thread) => {
          logger.debug({ event: 'applied', generation, thread }, 'Snapshot applied')
          this.#lag.applied(this.#supervisor.appliedGeneration(), now())
          this.#operation.applied()
        },
        restarting: (thread, reason, detail, delayMs) => {
          this.#metrics.inc('data_thread_restarts_total', { reason })
          logger.error(
            { event: 'data_thread_restart', thread, reason, detail, delay_ms: delayMs },
            'Data thread replaced',
          )
        },
        fatal,
      },
    })
    this.#records = new RecordSink({
      logger,
      decisions: decisions.log,
      config: logSettings(() => this.#reloader.config),
      redactor,
      sampled: (decision) => this.#operation.sampled(decision),
      cells: this.#supervisor.retired,
    })
    this.#metrics = new MetricsRegistry({
      cells: () => this.#supervisor.cells(),
      retired: this.#supervisor.retired,
      defaults: true,
    })
    this.#operation = new PolicyOperation({
      logger,
      metrics: this.#metrics,
      reloader: () => this.#reloader,
      decisions,
      counted: () => [...this.#supervisor.cells(), this.#supervisor.retired],
      cells: this.#supervisor.retired,
      appliedGeneration: () => this.#supervisor.appliedGeneration(),
      clock: now,
    })
    this.#reloader = new Reloader({
      config,
      slots: this.#operation.slots,
      configuration: (inForce) => this.#readConfiguration(inForce),
      clock: now,
      load: (wanted, nowMs, previous) => {
        // The first one is proven while a policy is loaded and the threads start.
        const unproven = !this.#started && previous === undefined
        return loadChecked(wanted, nowMs, {
          previous,
          delivery: this.#workloadApi?.delivery,
          bundles: this.#bundles,
          candidates: this.#candidates,
          unproven,
          identified:
            unproven && wanted.policy ? (serving) => this.#shakeHands(serving) : undefined,
        })
      },
      publish: (snapshot) => {
        if (this.#started) this.#supervisor.publish(snapshot)
      },
      onReload: (report) => this.#reloaded(report),
    })
    this.#lag = new ReloadLag((source, seconds) =>
      this.#metrics.set('reload_lag_seconds', { source }, seconds),
    )
    this.#watcher = this.#watcherOf(config)
    this.#validity = new ValidityWatch({
      loaded: () => this.#reloader.current?.loaded,
      clock: now,
      onNotice: (notice) => logValidity(logger, notice),
    })
  }

  /** Everything again, from the files, and the configuration with it. */
  async reload(reason: 'signal' | 'admin'): Promise<ReloadReport> {
    const problem = this.#decisions.log.reopen()
    if (problem !== undefined) {
      this.#options.logger.error(
        { event: 'decision_log', ...problem },
        'The decision log could not be reopened',
      )
    }
    return this.#reloader.reload(reason)
  }

  /** Takes no new connections and waits for the open ones, at most `drain.timeout`. */
  drain(): Promise<{ readonly left: number }> {
    if (this.#draining === undefined) {
      const { timeoutMs } = this.#reloader.config.drain
      this.#options.logger.info({ event: 'drain', timeout_ms: timeoutMs }, 'Draining')
      this.#draining = this.#supervisor.drain(timeoutMs)
    }
    return this.#draining
  }

  /** Ends the data threads, and takes no care of logs. */
  abort(): Promise<{ readonly stuck: number }> {
    return this.#supervisor.stop()
  }

  /** Ends everything at once; ports are free when it resolves. */
  async stop(): Promise<{ readonly stuck: number }> {
    this.#watcher.stop()
    this.#validity.stop()
    this.#workloadApi?.stop()
    this.#bundles.stop()
    this.#candidates.stop()
    this.#operation.stop()
    this.#reloader.stop()
    const { stuck } = await this.#supervisor.stop()
    await Promise.all(this.#servers.map(({ server }) => server.close()))
    await this.#records.settled(LAST_RECORDS_MS)
    await this.#decisions.close()
    return { stuck }
  }

  async #start(): Promise<StartFailure | { readonly kind: 'given_up' } | undefined> {
    const { config, logger } = this.#options
    this.#showUnsafeOptions()
    const { node, openssl } = process.versions
    this.#metrics.set('build_info', { version: VERSION, node, openssl: openssl ?? '' }, 1)

    try {
      this.#supervisor.prepare()
    } catch (error) {
      return threadRefused(error as Error)
    }
    await this.#openWorkloadApi()
    await this.#watcher.start()
    const loaded = await this.#reloader.reload('start')
    const first = this.#reloader.current
    if (first === undefined && !this.#lacksIdentityOnly(loaded))
      return { kind: 'failed', exitCode: 2, problems: loaded.problems }

    // A thread takes it in while this one sees what it may listen on.
    if (first !== undefined) this.#supervisor.takeIn(first.snapshot)
    const { listen } = config.inbound
    for (const [where, address] of [
      ['inbound.listen', listen],
      ['probes.listen', config.probes?.listen],
    ] as const) {
      if (address?.kind !== 'unix') continue
      const taken = await removeStaleSocket(address.path, where)
      if (taken !== undefined) return { kind: 'failed', exitCode: 1, problems: [taken] }
    }
    const taken = await probeAddress(listen)
    if (taken !== undefined) return bindFailure('inbound.listen', taken)
    const problem = await this.#startServers()
    if (problem !== undefined) return { kind: 'failed', exitCode: 1, problems: [problem] }
    const generation = first ?? (await this.#identityDelivered())
    if (generation === undefined) return { kind: 'given_up' }
    // Side by side: this thread has nothing else to do while the others get ready.
    const [outcome, findings] = await Promise.all([
      this.#supervisor.start(generation.snapshot),
      prove(generation.loaded, now(), this.#handshakeOf(generation.loaded)),
    ])
    if (outcome.kind === 'failed') {
      return outcome.code === undefined
        ? threadFault(outcome)
        : bindFailure('inbound.listen', outcome)
    }
    if (findings.some(isError)) return { kind: 'failed', exitCode: 2, problems: findings }
    logProblems(logger, findings)
    this.#started = true
    // Something may have changed while the threads were starting.
    const current = this.#reloader.current
    if (current !== undefined && current !== generation) this.#supervisor.publish(current.snapshot)
    this.#validity.start()
    logger.info(
      {
        event: 'ready',
        generation: generation.snapshot.generation,
        listen: listen.kind === 'tcp' ? { ...listen, port: outcome.port } : listen,
        ...Object.fromEntries(this.#servers.map(({ name, server }) => [name, server.address])),
      },
      'Ready',
    )
    // The libraries of a scrape are loaded by the first one: not when descriptors have run out. Nor
    // before the line above is out, which takes a turn of the loop: they would hold it up for 40 ms.
    if (config.metrics !== undefined) {
      logger
        .flush()
        .then(() => this.#metrics.text())
        .catch((error) => logger.error({ event: 'fault', err: error }, 'Metrics'))
    }
    return undefined
  }

  /** By a data thread, which has nothing to do as long as this one is busy with the policy. */
  #shakeHands(serving: Serving): void {
    const [identity, bundles] = servingOf(serving)
    const problem = this.#supervisor.shakeHands({ identity, bundles })
    this.#handshake = problem && { ...serving, problem }
  }

  /** Undefined unless it was tried with just these. */
  #handshakeOf({ identity, trust }: Serving): Promise<Problem | undefined> | undefined {
    const tried = this.#handshake
    return tried?.identity === identity && tried.trust === trust ? tried.problem : undefined
  }

  /** What is configured is good, as far as it can be told before the agent has answered. */
  #lacksIdentityOnly({ problems }: ReloadReport): boolean {
    if (this.#workloadApi === undefined) return false
    const from = formatWorkloadApi(this.#workloadApi.address)
    return problems
      .filter(isError)
      .every(({ where }) => where.startsWith('identity.') || where.startsWith(from))
  }

  /** Undefined when the start is given up before. Every delivery and every changed file is tried. */
  async #identityDelivered(): Promise<Generation | undefined> {
    const { giveUp, logger } = this.#options
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#identityAwaited = resolve
    giveUp.addEventListener('abort', () => resolve())
    logger.info({ event: 'waiting', reason: this.#waitingFor() }, 'Waiting for an identity')
    if (this.#reloader.current === undefined && !giveUp.aborted) await promise
    this.#identityAwaited = undefined
    return giveUp.aborted ? undefined : this.#reloader.current
  }

  #waitingFor(): string | undefined {
    const api = this.#workloadApi
    if (api === undefined || this.#reloader.current !== undefined) return undefined
    return (api.trouble ?? this.#reloader.lastReport?.problems.find(isError))?.what
  }

  async #openWorkloadApi(): Promise<void> {
    const { config, logger } = this.#options
    const { identity } = config
    if (identity.kind !== 'workloadApi') return
    const { workloadIdentity } = await import('./workload-identity.ts')
    this.#workloadApi = workloadIdentity({
      identity,
      logger,
      hint: () => {
        const { identity: current } = this.#reloader.config
        return current.kind === 'workloadApi' ? current.hint : undefined
      },
      delivered: () => void this.#reloader.reload('workload_api', now()),
    })
    this.#workloadApi.start()
  }

  async #startServers(): Promise<Problem | undefined> {
    const { config, logger } = this.#options
    const fault = (error: unknown): void =>
      logger.error({ event: 'fault', err: error }, 'A handler failed')
    const starts: [string, Promise<RunningServer | Problem>][] = []
    if (config.metrics !== undefined) {
      const facade = {
        metrics: () => {
          this.#decisions.showMetrics(this.#metrics, this.#supervisor.retired)
          return this.#metrics.text()
        },
        ready: () => this.#readiness(),
        started: () => this.#started,
        fault,
      }
      starts.push(['metrics', startMetricsServer(config.metrics.listen, facade)])
    }
    if (config.admin !== undefined) {
      const facade = {
        config: () => printConfig(this.#reloader.config),
        snapshot: () =>
          this.#reloader.current &&
          snapshotView(
            this.#reloader.current,
            [...this.#bundles.status(), ...this.#candidates.status()],
            this.#operation.view(),
          ),
        decisions: this.#decisions.log.ring,
        reconsider: (record: DecisionRecord) => this.#decisions.reconsider(record),
        reload: async () => {
          const { result, generation, problems } = await this.reload('admin')
          return { ok: result !== 'failed', generation, problems }
        },
        drain: () => void this.drain(),
        policy: this.#operation,
        fault,
      }
      starts.push(['admin', startAdmin(config.admin.listen, facade)])
    }
    if (config.probes !== undefined) {
      const { startProbes } = await import('../proxy/probes.ts')
      starts.push(['probes', startProbes(config.probes, config.inbound.forward, fault)])
    }
    let problem: Problem | undefined
    for (const [name, start] of starts) {
      const server = await start
      if (isRunning(server)) this.#servers.push({ name, server })
      else problem ??= server
    }
    return problem
  }

  get #slots(): AskedPolicies {
    const { active, candidate } = this.#operation.slots.pieces
    return { active: active?.material, candidate: candidate?.material }
  }

  #readiness(): ReadyReport {
    const report = this.#reloader.lastReport
    const failing = report?.result === 'failed' ? failedSources(report) : []
    // Files come and go by themselves; a refused configuration stays refused until it is read again.
    const refused = this.#refusedConfiguration
    return readiness({
      generation: this.#reloader.current,
      appliedGeneration: this.#supervisor.appliedGeneration(),
      serving: this.#supervisor.serving(),
      threads: this.#options.config.workers,
      draining: this.#draining !== undefined,
      lastReload: report?.result ?? 'none',
      failedSources: [...new Set([...failing, ...(refused.length > 0 ? ['config'] : [])])],
      problems: failing.length > 0 ? (report?.problems ?? []) : refused,
      waitingFor: this.#waitingFor(),
      workloadApiTrouble: this.#workloadApi?.trouble,
      nowMs: now(),
    })
  }

  #readConfiguration(inForce: Config): ConfigReading {
    const { config, problems, unsafeOptions } = this.#options.reread()
    if (config === undefined) return { config, problems }
    const live = applyLive(inForce, config)
    this.#unsafeOptionsRead = [
      ...this.#options.unsafeOptions.filter(takesRestart),
      ...unsafeOptions.filter((option) => !takesRestart(option)),
    ]
    if (live.restart.length === 0) return { config: live.config, problems }
    const waiting: Problem = {
      where: live.restart.join(', '),
      what: 'changed, and takes a restart; what was in force stays',
      remedy: 'restart Postern, or change it back',
      severity: 'warning',
    }
    return { config: live.config, problems: [...problems, waiting] }
  }

  #configurationAdopted(): void {
    this.#unsafeOptions = this.#unsafeOptionsRead
    this.#showUnsafeOptions()
    this.#watcher.stop()
    this.#watcher = this.#watcherOf(this.#reloader.config)
    // What changed between the load and the first look of this watcher is found by one more load.
    void this.#watcher.start().then(() => this.#reloader.reload('watch'))
  }

  #watcherOf(config: Config): Watcher {
    const { logger } = this.#options
    return new Watcher({
      paths: watchedPaths(config),
      clock: now,
      events: {
        changed: (sinceMs) => void this.#reloader.reload('watch', sinceMs),
        degraded: (message) =>
          logger.warn(
            { event: 'watch_degraded', detail: message },
            'Files are polled, not watched',
          ),
      },
    })
  }

  #showUnsafeOptions(): void {
    this.#metrics.clear('unsafe_options')
    for (const option of this.#unsafeOptions) {
      this.#metrics.set('unsafe_options', { option }, 1)
      this.#options.logger.warn(
        { event: 'unsafe_option', option },
        'An option that weakens a guarantee is in use',
      )
    }
  }

  #reloaded(report: ReloadReport): void {
    const { logger } = this.#options
    countReload(this.#metrics, report, now())
    const { policy } = this.#reloader.config
    this.#bundles.keep(policy)
    this.#candidates.keep(candidatePolicy(policy))
    this.#lag.reloaded(report)
    const { config } = report.perSource
    if (config !== undefined) {
      this.#refusedConfiguration = config === 'failed' ? report.problems : []
      if (config === 'changed' && report.reason !== 'start') this.#configurationAdopted()
    }
    const failedBefore = this.#failing
    this.#failing = report.result === 'failed'
    const generation = this.#reloader.current
    if (generation === undefined) {
      // A start that cannot load anything is told on standard error, once.
      if (this.#identityAwaited !== undefined) logReload(logger, report, failedBefore)
      return
    }
    this.#identityAwaited?.()
    showGeneration(this.#metrics, generation)
    this.#operation.published(generation)
    logReload(logger, report, failedBefore)
    this.#validity.look()
  }
}

/** Records wait only for masks that take long. */
const LAST_RECORDS_MS = 2_000

/** Read at every record, because a reload may change it. */
const logSettings = (config: () => Config): Pick<Config['log'], 'access' | 'decisions'> => ({
  get access() {
    return config().log.access
  },
  get decisions() {
    return config().log.decisions
  },
})

const failedSources = ({ perSource }: ReloadReport): string[] =>
  Object.entries(perSource).flatMap(([source, result]) => (result === 'failed' ? source : []))
