// What is different about a gRPC call: how long it may take, and how its errors are told
// (grpc/doc/PROTOCOL-HTTP2.md, grpc/doc/http-grpc-status-mapping.md).
import { type ErrorCode, errorEntry } from '../../errors.ts'
import { type Fields, fieldValue } from '../../http/fields.ts'

/** gRPC proper; gRPC-Web is ordinary HTTP and wants ordinary answers. */
export function isGrpc(fields: Fields): boolean {
  const type = fieldValue(fields, 'content-type')
  return type !== undefined && GRPC.test(type)
}

const GRPC = /^application\/grpc(?:$|[+;])/i

/** @returns milliseconds from now, or undefined where the client sets no (readable) deadline */
function deadlineMsOf(fields: Fields): number | undefined {
  const match = TIMEOUT.exec(fieldValue(fields, 'grpc-timeout') ?? '')
  return match === null ? undefined : Math.ceil(Number(match[1]) * (MS_OF_UNIT[match[2]!] ?? 0))
}

/** When a call that began at `startedMs` is to be over; undefined where it has no deadline. */
export function endOf(fields: Fields, startedMs: number): number | undefined {
  const timeoutMs = isGrpc(fields) ? deadlineMsOf(fields) : undefined
  return timeoutMs === undefined ? undefined : startedMs + timeoutMs
}

/** At most eight digits and a unit. */
const TIMEOUT = /^(\d{1,8})([HMSmun])$/
const MS_OF_UNIT: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
}

/** @param status that a policy chose, or that of the error */
export function grpcStatusOf(code: ErrorCode, status: number): number {
  const entry = errorEntry(code)
  return status === entry.http ? entry.grpc : (GRPC_OF_HTTP.get(status) ?? entry.grpc)
}

const GRPC_OF_HTTP: ReadonlyMap<number, number> = new Map([
  [400, 13],
  [401, 16],
  [403, 7],
  [404, 12],
  [429, 14],
  [502, 14],
  [503, 14],
  [504, 14],
])

/** @param message cut off where it is longer than anybody would read */
export function statusFields(status: number, message: string): string[] {
  return ['grpc-status', String(status), 'grpc-message', encoded(message.slice(0, MOST_MESSAGE))]
}

const MOST_MESSAGE = 1_024

/** `grpc-message` is percent-encoded UTF-8; printable ASCII but `%` stands for itself. */
function encoded(text: string): string {
  let out = ''
  for (const byte of Buffer.from(text, 'utf8')) {
    out +=
      byte >= 0x20 && byte < 0x7f && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return out
}
