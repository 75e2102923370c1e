// Chooses how the workload is spoken to.
import type { Call, CallRequest, UpgradeUser } from './call.ts'
import { Http1Call } from './http1-call.ts'
import type { ThreadContext } from './thread-context.ts'

/**
 * @param fresh on a connection that was never used before; for HTTP/2 any will do
 * @param client the principal that asks
 */
export function openCall(
  context: ThreadContext,
  user: UpgradeUser,
  request: CallRequest,
  fresh: boolean,
  client: string,
): Call {
  const { pool, h2c, turn, generation } = context
  if (h2c !== undefined) return h2c.call(user, request, client)
  const { limits } = generation.snapshot.settings.inbound
  return new Http1Call(user, request, pool, limits, turn, fresh, client)
}
