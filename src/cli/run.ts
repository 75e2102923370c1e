// `postern run`: the sidecar as a process: configuration in, signals handled, an exit code out.
import { Command } from 'commander'
import { createLogger, type Logger } from '../observe/log.ts'
import { formatProblem } from './failure.ts'
import {
  addConfigurationOptions,
  type ConfigurationRead,
  type Environment,
  readConfiguration,
} from './options.ts'
import { prepareDataThread, Sidecar, type SidecarStart } from './sidecar.ts'

export function command(env: Environment): Command {
  return addConfigurationOptions(new Command('run'))
    .description('run the sidecar: mutual TLS in, policy, then the workload')
    .addHelpText('after', EXAMPLE)
    .action((options: Record<string, string | boolean | string[]>) => run(options, env))
}

const EXAMPLE = `
Example:
  postern run --listen :8443 --forward http://127.0.0.1:8080 \\
    --cert tls.crt --key tls.key --ca ca.crt \\
    --policy bundle.tar.gz --entrypoint envoy/authz/allow
  postern run --config /etc/postern/postern.yaml

Signals: SIGTERM and SIGINT drain and exit, a second one exits at once; SIGHUP reloads every file,
the configuration included.
Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration.`

async function run(
  options: Record<string, string | boolean | string[]>,
  env: Environment,
): Promise<void> {
  const prepared = prepareDataThread()
  const { config, problems, unsafeOptions } = readConfiguration(options, env)
  if (config === undefined) {
    const ended = prepared?.terminate() ?? Promise.resolve(true)
    const stopped = ended.then((end) => ({ stuck: end ? 0 : 1 }))
    return fail(2, problems.map(formatProblem), stopped)
  }
  const logger = createLogger({ level: config.log.level, redact: config.log.redact })
  process.on('exit', () => logger.flushSync())
  if (isOutdated(process.versions.node)) {
    logger.warn(
      { event: 'node_outdated', node: process.versions.node },
      'This Node.js lacks security releases; use 24.22.1, 26.12.1 or newer',
    )
  }
  const fatal = (message: string): void => {
    logger.error({ event: 'fatal' }, message)
    process.exit(1)
  }
  const reread = (): ConfigurationRead => readConfiguration(options, env)
  const ending = new AbortController()
  const start = Sidecar.start({
    config,
    unsafeOptions,
    reread,
    logger,
    prepared,
    fatal,
    giveUp: ending.signal,
  })
  // Before the start has ended, too: as process 1 of a container we would not hear SIGTERM
  // otherwise, and SIGHUP would end the process anywhere else.
  handleSignals(start, logger, ending)
  const started = await start
  if (started.kind === 'started') return
  const stopped = Promise.resolve({ stuck: started.stuck })
  if (started.kind === 'given_up') return leave(stopped, logger, 0)
  await logger.flush()
  await fail(started.exitCode, started.problems.map(formatProblem), stopped)
}

/** `process.exit` waits for every thread: with one that does not end there is only one way out. */
async function leave(
  stopped: Promise<{ readonly stuck: number }>,
  logger: Logger,
  exitCode: number,
): Promise<never> {
  const { stuck } = await stopped
  if (stuck > 0) logger.error({ event: 'exit', stuck }, 'A data thread does not end: SIGKILL')
  await logger.flush()
  return exit(exitCode, stuck)
}

function exit(exitCode: number, stuck: number): never {
  if (stuck > 0) process.kill(process.pid, 'SIGKILL')
  return process.exit(exitCode)
}

function handleSignals(
  start: Promise<SidecarStart>,
  logger: Logger,
  giveUp: AbortController,
): void {
  let ending = false
  let running: Sidecar | undefined
  const end = async (signal: string): Promise<void> => {
    if (ending) {
      logger.warn({ event: 'exit', signal }, 'Second signal: exiting at once')
      if (running === undefined) process.exit(1)
      return leave(running.abort(), logger, 1)
    }
    ending = true
    giveUp.abort()
    const started = await start
    if (started.kind !== 'started') return
    running = started.sidecar
    const { left } = await started.sidecar.drain()
    const exitCode = left === 0 ? 0 : 1
    const fields = { event: 'exit', signal, connections_left: left, exit_code: exitCode }
    if (left === 0) logger.info(fields, 'Drained')
    else logger.error(fields, 'Drain deadline passed with connections left')
    await leave(started.sidecar.stop(), logger, exitCode)
  }
  const reload = async (): Promise<void> => {
    const started = await start
    if (started.kind === 'started') await started.sidecar.reload('signal')
  }
  process.on('SIGTERM', () => void end('SIGTERM'))
  process.on('SIGINT', () => void end('SIGINT'))
  process.on('SIGHUP', () => void reload())
}

/** So long a reader of standard error may take. */
const TELLING_MS = 1_000

/** `process.exit` drops what a pipe has not taken yet: as soon as it has, or nobody reads it. */
async function fail(
  exitCode: 1 | 2,
  lines: readonly string[],
  stopped: Promise<{ readonly stuck: number }>,
): Promise<never> {
  const told = Promise.withResolvers<void>()
  setTimeout(told.resolve, TELLING_MS)
  // Nobody is left to hear that it cannot be written.
  process.stderr.on('error', () => told.resolve())
  process.stderr.write(`${lines.join('\n')}\n`, () => told.resolve())
  const [{ stuck }] = await Promise.all([stopped, told.promise])
  return exit(exitCode, stuck)
}

/** Older than the releases of 2026-10-21, which mend flaws that a proxy is exposed to. */
function isOutdated(version: string): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number)
  if (major === 24) return minor < 22 || (minor === 22 && patch < 1)
  return major < 24 || (major < 27 && (major === 25 || minor < 12 || (minor === 12 && patch < 1)))
}
