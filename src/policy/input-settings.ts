// How the input document is made: what the configuration says and what the bundle asks for.
import { INPUT_BYTES } from './host.ts'
import type { InputReads } from './reads.ts'

export interface InputSettings {
  /** Of a body that is collected before policy is asked; 0: none. */
  readonly bodyBytes: number
  /** Of all the bodies that one data thread collects. */
  readonly totalBodyBytes: number
  /** Show `attributes.source.certificate`. */
  readonly certificate: boolean
  /** Add the names of ext_authz v2. */
  readonly v2: boolean
  /** Those of a request that are shown, in lower case; absent: all. */
  readonly headers?: readonly string[]
  readonly contextExtensions: readonly { readonly name: string; readonly value: string }[]
  /** A FileDescriptorSet, for gRPC bodies. */
  readonly protoDescriptor?: Uint8Array
}

export const PLAIN_INPUT: InputSettings = {
  bodyBytes: 0,
  totalBodyBytes: 32 * 1024 * 1024,
  certificate: false,
  v2: false,
  contextExtensions: [],
}

/** A body may stand in the document twice, as text and parsed; more would not find its place. */
export const MOST_BODY_BYTES = INPUT_BYTES / 2
/** What the bodies of APIs seldom exceed; reading so much takes OPA about half a millisecond. */
export const DEFAULT_BODY_BYTES = 64 * 1024

/**
 * How much of a body to collect: as configured, else as the bundle asks for, else for a policy that
 * is seen to read it.
 */
export function bodyBytesOf(
  configured: number | undefined,
  asked: number | undefined,
  reads: InputReads,
): number {
  return configured ?? asked ?? (readsBody(reads) ? DEFAULT_BODY_BYTES : 0)
}

/** A policy that may read everything need not mean the body; so it has to ask for it. */
function readsBody(reads: InputReads): boolean {
  if (reads === 'all') return false
  if (reads.has('parsed_body')) return true
  const http = partOf(reads, ['attributes', 'request', 'http'])
  return http !== undefined && http !== 'all' && (http.has('body') || http.has('rawBody'))
}

/** The headers that a policy is seen to read by their names. */
export function headersRead(reads: InputReads): readonly string[] {
  const headers = partOf(reads, ['attributes', 'request', 'http', 'headers'])
  return headers === undefined || headers === 'all' ? [] : [...headers.keys()]
}

function partOf(reads: InputReads, path: readonly string[]): InputReads | undefined {
  return path.reduce<InputReads | undefined>(
    (part, key) => (part === undefined || part === 'all' ? undefined : part.get(key)),
    reads,
  )
}
