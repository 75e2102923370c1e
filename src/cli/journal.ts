// The lines of the log that tell what came into force, what did not, and what ends soon.
import type { Address } from '../config/config.ts'
import { formatWorkloadApi } from '../config/values.ts'
import { chooseSvid } from '../control/delivered-materials.ts'
import type { ReloadReport } from '../control/reloader.ts'
import type { ValidityNotice } from '../control/validity.ts'
import type { Delivery } from '../control/workload-api-messages.ts'
import type { Logger } from '../observe/log.ts'

/** One line for each problem and one for the reload; a failure that repeats itself is told once. */
export function logReload(logger: Logger, report: ReloadReport, failedBefore: boolean): void {
  const { reason, result, generation, perSource, problems, durationMs, repeated } = report
  const about = {
    event: 'reload',
    reason,
    result,
    generation,
    ...perSource,
    duration_ms: durationMs,
  }
  for (const { severity, ...problem } of repeated ? [] : problems) {
    logger[severity === 'warning' ? 'warn' : 'error'](
      { event: 'reload_problem', ...problem },
      problem.what,
    )
  }
  if (result === 'failed') {
    const told =
      reason === 'start'
        ? 'Not everything could be loaded; requests wait for it, it is tried again'
        : 'Reload failed; what was good before stays in force'
    if (!repeated) logger.error(about, told)
  } else if (result === 'published') logger.info(about, 'Reloaded')
  else if (failedBefore) logger.info(about, 'Good again; what is in force has not changed')
  else if (reason === 'signal' || reason === 'admin') logger.info(about, 'Nothing has changed')
}

export function logValidity(logger: Logger, notice: ValidityNotice): void {
  const { kind, name, stage, endsAtMs, nowMs } = notice
  const fields = {
    event: 'validity',
    kind,
    name,
    stage,
    ends_at: new Date(endsAtMs).toISOString(),
    now: new Date(nowMs).toISOString(),
  }
  // Without its own certificate the workload cannot be called at all.
  const urgent = stage === 'expired' || (kind === 'identity' && stage === 'twentieth')
  const level = urgent ? 'error' : stage === 'third' ? 'info' : 'warn'
  logger[level](fields, stage === 'expired' ? 'Expired' : 'Must be renewed soon')
}

/** What came, and which identity of it is used. */
export function logDelivery(
  logger: Logger,
  address: Address,
  hint: string | undefined,
  delivery: Delivery,
): void {
  const from = formatWorkloadApi(address)
  const svid = chooseSvid(delivery, hint, from)
  logger.info(
    {
      event: 'workload_api',
      from,
      ...('what' in svid ? {} : { spiffe_id: svid.spiffeId.slice(0, 300), hint: svid.hint }),
      identities: delivery.svids.length,
      federated: [...delivery.federated.keys()].slice(0, 20),
      crls: delivery.crls.length,
    },
    'The Workload API delivered',
  )
}
