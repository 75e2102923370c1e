// Whether, and how long, a request has to wait for its body before policy is asked.
import { type GrpcDescriptors, grpcPrefix } from './grpc.ts'
import { bodyFormat } from './parsed-body.ts'

/** What policy wants to have at hand of a body. */
export interface BodyNeed {
  /** More is never collected: a longer body is decided upon as a truncated one. */
  readonly maxBytes: number
  /** True when there is no use in waiting for more than these first bytes. */
  enough(bytes: Buffer): boolean
}

export interface BodyOutline {
  /** -1: unknown. 0: no body. */
  readonly size: number
  readonly contentType: string | undefined
  /** The segments of `parsed_path`. */
  path(): readonly string[]
}

/** Undefined: the body is not waited for. A gRPC call may stream for ever, so only its first message is. */
export function bodyNeed(
  maxBytes: number,
  { size, contentType, path }: BodyOutline,
  descriptors: GrpcDescriptors | undefined,
): BodyNeed | undefined {
  if (maxBytes === 0 || size === 0) return undefined
  if (bodyFormat(contentType) === 'grpc') {
    if (descriptors?.requestType(path()) === undefined) return undefined
    return { maxBytes, enough: (bytes) => hasFirstMessage(bytes, maxBytes) }
  }
  return size > maxBytes ? undefined : { maxBytes, enough: () => false }
}

function hasFirstMessage(bytes: Buffer, maxBytes: number): boolean {
  const prefix = grpcPrefix(bytes)
  return prefix !== undefined && (prefix.end <= bytes.length || prefix.end > maxBytes)
}
