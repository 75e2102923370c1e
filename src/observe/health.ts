// The metrics listener: Prometheus text and the three probes of the kubelet. It may be reached from
// the cluster, so it answers questions and takes no orders.
import type { Address } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import { EXPOSITION_TYPE } from './metrics.ts'
import { type Answer, type RunningServer, startServer } from './server.ts'

/** One thing that has to hold before traffic may come. */
export interface ReadyPart {
  /** `snapshot`, `data_threads`, `drain`, ... */
  readonly name: string
  readonly ready: boolean
  /** Why not, in one sentence without file contents or secrets. */
  readonly reason?: string
}

export interface ReadyReport {
  readonly parts: readonly ReadyPart[]
  /** Facts that do not decide readiness: last reload failures, certificate expiry. */
  readonly details: Readonly<Record<string, unknown>>
}

export interface HealthFacade {
  /** Prometheus text format 0.0.4. */
  metrics(): Promise<string>
  ready(): ReadyReport
  /** The first snapshot is in force and the listener is open; never false again. */
  started(): boolean
  /** A handler threw. */
  fault?(error: unknown): void
}

export function startMetricsServer(
  address: Address,
  facade: HealthFacade,
): Promise<RunningServer | Problem> {
  return startServer({
    where: 'metrics.listen',
    address,
    socketMode: 0o666,
    onFault: (error) => facade.fault?.(error),
    routes: [
      {
        method: 'GET',
        path: '/metrics',
        answer: async () => ({
          status: 200,
          body: await facade.metrics(),
          contentType: EXPOSITION_TYPE,
        }),
      },
      // That this thread answers is all it says: a restart cures nothing else (ghostunnel#203).
      { method: 'GET', path: '/livez', answer: () => ({ status: 200, body: { status: 'ok' } }) },
      { method: 'GET', path: '/readyz', answer: () => readiness(facade.ready()) },
      {
        method: 'GET',
        path: '/startupz',
        answer: () =>
          facade.started()
            ? { status: 200, body: { status: 'started' } }
            : { status: 503, body: { status: 'starting', ...waiting(facade.ready()) } },
      },
    ],
  })
}

const waiting = ({ parts }: ReadyReport) => ({
  reasons: parts.flatMap(({ ready, reason }) => (ready || reason === undefined ? [] : reason)),
})

/** No part at all is not ready: an empty report says that nothing was checked. */
function readiness({ parts, details }: ReadyReport): Answer {
  const ready = parts.length > 0 && parts.every((part) => part.ready)
  return {
    status: ready ? 200 : 503,
    body: {
      status: ready ? 'ready' : 'not_ready',
      not_ready: parts.filter((part) => !part.ready).map((part) => part.name),
      parts,
      details,
    },
  }
}
