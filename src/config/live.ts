// What of a new configuration goes into force while the program runs. Listeners, threads and
// destinations are made once, at the start: a change of those waits for a restart, and is told.
import { isDeepStrictEqual } from 'node:util'
import type { Config } from './config.ts'
import { formatWorkloadApi } from './values.ts'

export interface LiveConfig {
  /** `wanted`, with what cannot change taken from `current`. */
  readonly config: Config
  /** The keys whose change takes a restart. */
  readonly restart: readonly string[]
}

export function applyLive(current: Config, wanted: Config): LiveConfig {
  const restart = Object.entries(FIXED).flatMap(([key, of]) =>
    isDeepStrictEqual(of(current), of(wanted)) ? [] : key,
  )
  const { admin, metrics, probes, workers, stallMs } = current
  const { listen, forward, unsafeForward } = current.inbound
  const { level, redact, decisionFile, labels, upload } = current.log
  const { access, decisions } = wanted.log
  const { allow, policy, drain } = wanted
  // Trust may come with the identity: they change together or not at all.
  const { identity, trust } = workloadApiOf(current) === workloadApiOf(wanted) ? wanted : current
  const config: Config = {
    inbound: { ...wanted.inbound, listen, forward, unsafeForward },
    identity,
    trust,
    allow,
    ...(policy && { policy }),
    ...(admin && { admin }),
    ...(metrics && { metrics }),
    ...(probes && { probes }),
    log: {
      level,
      access,
      decisions,
      ...(decisionFile && { decisionFile }),
      redact,
      labels,
      ...(upload && { upload }),
    },
    drain,
    workers,
    stallMs,
  }
  return { config, restart }
}

/** True for a key as problems and `unsafeOptions` name it. */
export const takesRestart = (key: string): boolean => Object.hasOwn(FIXED, key)

const workloadApiOf = ({ identity }: Config): string | undefined =>
  identity.kind === 'workloadApi' ? formatWorkloadApi(identity.workloadApi) : undefined

const FIXED: Readonly<Record<string, (config: Config) => unknown>> = {
  'inbound.listen': ({ inbound }) => inbound.listen,
  'inbound.forward': ({ inbound }) => inbound.forward,
  'inbound.unsafeForward': ({ inbound }) => inbound.unsafeForward,
  'admin.listen': ({ admin }) => admin?.listen,
  'metrics.listen': ({ metrics }) => metrics?.listen,
  'probes.listen': ({ probes }) => probes?.listen,
  'probes.paths': ({ probes }) => probes?.paths,
  'probes.tcpPaths': ({ probes }) => probes?.tcpPaths,
  'probes.grpcServices': ({ probes }) => probes?.grpcServices,
  'identity.workloadApi': workloadApiOf,
  'log.level': ({ log }) => log.level,
  'log.decisionFile': ({ log }) => log.decisionFile,
  'log.redact': ({ log }) => log.redact,
  'log.labels': ({ log }) => log.labels,
  'log.upload': ({ log }) => log.upload,
  workers: ({ workers }) => workers,
  stall: ({ stallMs }) => stallMs,
}
