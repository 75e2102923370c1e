// The rules of a policy about its decision log, tried once before it is put into force: a rule that
// fails keeps what was decided out of the log, and that is better known now than missed later.
import type { Problem } from '../errors.ts'
import { PolicyHost } from './host.ts'
import type { PolicyMaterial } from './material.ts'

/** Of severity `warning`: such a policy decides as well as any other. */
export function logRuleWarnings(material: PolicyMaterial): readonly Problem[] {
  if (material.logEntrypoints === undefined) return []
  const host = new PolicyHost(material)
  return Object.entries(material.logEntrypoints).flatMap(([name, entrypoint]): Problem[] => {
    const outcome = host.evaluate(SAMPLE_EVENT, SAMPLE_TIME_MS, entrypoint)
    if (outcome.kind === 'result' || outcome.kind === 'undefined') return []
    const why = outcome.kind === 'error' ? outcome.reason : outcome.kind
    return [
      {
        where: material.file,
        what: `system/log/${name} failed on a sample event: ${why}`,
        remedy: 'correct the rule: events that it fails on are logged without input and result',
        severity: 'warning',
      },
    ]
  })
}

const SAMPLE_TIME_MS = Date.UTC(2026, 0, 1)

const SAMPLE_EVENT = JSON.stringify({
  labels: { id: 'self-test', version: '0' },
  decision_id: 'self-test',
  bundles: { policy: {} },
  path: 'envoy/authz/allow',
  input: {
    attributes: {
      source: { principal: 'spiffe://self-test.invalid/client' },
      request: { http: { method: 'GET', path: '/self-test', headers: { accept: '*/*' } } },
    },
    parsed_path: ['self-test'],
    parsed_query: {},
  },
  result: true,
  timestamp: '2026-01-01T00:00:00Z',
  req_id: 'self-test',
})
