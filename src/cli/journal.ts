// The lines of the log that tell what came into force, what did not, and what ends soon.
import type { ReloadReport } from '../control/reloader.ts'
import type { ValidityNotice } from '../control/validity.ts'
import type { Problem } from '../errors.ts'
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
  if (!repeated) logProblems(logger, problems)
  if (result === 'failed') {
    const told =
      reason === 'start'
        ? 'Not everything could be loaded; it is tried again'
        : 'Reload failed; what was good before stays in force'
    if (!repeated) logger.error(about, told)
  } else if (result === 'published') logger.info(about, 'Reloaded')
  else if (failedBefore) logger.info(about, 'Good again; what is in force has not changed')
  else if (reason === 'signal' || reason === 'admin') logger.info(about, 'Nothing has changed')
}

export function logProblems(logger: Logger, problems: readonly Problem[]): void {
  for (const { severity, ...problem } of problems) {
    logger[severity === 'warning' ? 'warn' : 'error'](
      { event: 'reload_problem', ...problem },
      problem.what,
    )
  }
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
