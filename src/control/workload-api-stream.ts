// One X.509-SVID stream of a SPIFFE Workload API over gRPC: messages until it ends, and why it ended.
// Loaded only where the API is configured: @grpc/grpc-js costs 60 ms and 12 MiB.
import {
  type ClientReadableStream,
  credentials,
  Client as GrpcClient,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import type { Address } from '../config/config.ts'
import { formatAddress } from '../config/values.ts'
import { type Delivery, readDelivery } from './workload-api-messages.ts'

export interface StreamEvents {
  delivered(delivery: Delivery): void
  /** Once, unless it was closed by us. */
  ended(end: StreamEnd): void
}

export type StreamEnd = {
  readonly kind: 'unreachable' | 'denied' | 'not_supported' | 'invalid' | 'ended'
  /** For the operator. */
  readonly detail: string
}

/**
 * @param silenceMs after which the agent is asked whether it is still there; it has a third of that,
 *   20 s at the most, to answer
 * @returns what closes the stream
 */
export function openStream(address: Address, events: StreamEvents, silenceMs: number): () => void {
  // Each attempt is ours to time: a shared subchannel would wait on its own back-off. And no proxy of
  // the environment may come between us and our private key.
  const client = new GrpcClient(targetOf(address), credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.default_authority': 'localhost',
    'grpc.max_receive_message_length': MOST_BYTES,
    'grpc.keepalive_time_ms': silenceMs,
    'grpc.keepalive_timeout_ms': Math.min(20_000, silenceMs / 3),
  })
  const metadata = new Metadata()
  // Against requests forged through a confused HTTP client (SPIFFE Workload Endpoint section 5).
  metadata.set('workload.spiffe.io', 'true')
  let open = true
  const end = (how: StreamEnd): void => {
    if (!open) return
    close()
    events.ended(how)
  }
  const close = (): void => {
    open = false
    stream.cancel()
    client.close()
  }
  const stream: ClientReadableStream<Delivery | undefined> = client.makeServerStreamRequest(
    '/SpiffeWorkloadAPI/FetchX509SVID',
    () => Buffer.alloc(0),
    (bytes: Buffer) => {
      try {
        return readDelivery(bytes)
      } catch {
        return undefined
      }
    },
    {},
    metadata,
  )
  stream.on('data', (delivery: Delivery | undefined) => {
    if (!open) return
    if (delivery !== undefined) events.delivered(delivery)
    else end({ kind: 'invalid', detail: 'it answered with something that is no X509SVIDResponse' })
  })
  stream.on('error', (error: ServiceError) => end(endOf(error)))
  stream.on('end', () => end({ kind: 'ended', detail: 'it ended the stream' }))
  return () => {
    if (open) close()
  }
}

function endOf({ code, details, message }: ServiceError): StreamEnd {
  const detail = `${status[code] ?? code}: ${(details || message).slice(0, 300)}`
  switch (code) {
    case status.PERMISSION_DENIED:
      return { kind: 'denied', detail }
    case status.UNIMPLEMENTED:
    case status.INVALID_ARGUMENT:
      return { kind: 'not_supported', detail }
    // Larger than MOST_BYTES.
    case status.RESOURCE_EXHAUSTED:
      return { kind: 'invalid', detail }
    case status.UNAVAILABLE:
    case status.DEADLINE_EXCEEDED:
      return { kind: 'unreachable', detail }
    default:
      return { kind: 'ended', detail }
  }
}

const targetOf = (address: Address): string =>
  address.kind === 'unix' ? `unix:${address.path}` : formatAddress(address)

/** As much as of a file. The 4 MiB that gRPC has by default are one CRL of 100,000 entries. */
const MOST_BYTES = 32 * 1024 * 1024
