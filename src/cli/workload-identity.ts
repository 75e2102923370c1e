// The Workload API of a running sidecar: what it delivers is told in the log and brought into force.
// Loaded only where one is configured.
import type { Config } from '../config/config.ts'
import { formatWorkloadApi } from '../config/values.ts'
import { chooseSvid } from '../control/delivered-materials.ts'
import { WorkloadApi } from '../control/workload-api.ts'
import type { Delivery } from '../control/workload-api-messages.ts'
import type { Logger } from '../observe/log.ts'

export interface WorkloadIdentityOptions {
  readonly identity: Extract<Config['identity'], { kind: 'workloadApi' }>
  readonly logger: Logger
  /** The hint may change with the configuration. */
  readonly hint: () => string | undefined
  readonly delivered: () => void
}

export function workloadIdentity(options: WorkloadIdentityOptions): WorkloadApi {
  const { identity, logger, hint, delivered } = options
  return new WorkloadApi({
    address: identity.workloadApi,
    events: {
      delivered: (delivery) => {
        logDelivery(logger, formatWorkloadApi(identity.workloadApi), hint(), delivery)
        delivered()
      },
      trouble: (problem) =>
        logger.warn({ event: 'workload_api_trouble', ...problem }, 'No word from the Workload API'),
    },
  })
}

/** What came, and which identity of it is used. */
function logDelivery(
  logger: Logger,
  from: string,
  hint: string | undefined,
  delivery: Delivery,
): void {
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
