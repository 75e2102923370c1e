// Heads as text, latin1, for the workload and for the client. Promises framing that is generated from
// the parsed body and never copied. Values must be valid already: parsed, or checked by isFieldValue.
import type { Framing } from './framing.ts'
import type { ResponseFraming } from './response.ts'

/**
 * @param fields of the client, as `removeUntrustedFields` leaves them. Host goes first (RFC 9110
 *   section 7.2); a Content-Length, Transfer-Encoding or Connection among them is left out.
 * @param extra fields of our own: identity, request id, `expect`.
 * @param connection absent: the workload's connection is to be kept.
 */
export function requestHeadText(
  method: string,
  target: string,
  fields: readonly string[],
  body: Framing,
  extra: readonly string[] = [],
  connection?: 'close' | 'upgrade',
): string {
  let host = ''
  let rest = ''
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (name === 'host') host = fields[i + 1]!
    else if (!isGenerated(name)) rest += `${name}: ${fields[i + 1]}\r\n`
  }
  return `${method} ${target} HTTP/1.1\r\nhost: ${host}\r\n${rest}${lines(extra)}${framingLine(body)}${connectionLine(connection)}\r\n`
}

/**
 * The status line always says HTTP/1.1, the version we speak (RFC 9110 section 6.2).
 *
 * @param fields of the workload, as `removeHopByHop` leaves them, or our own.
 * @param body how we frame it; `none` keeps a Content-Length among the fields (HEAD, 304), except
 *   where the status allows none. Towards HTTP/1.0 `chunked` becomes `close`, and the caller must send
 *   the bytes bare and close.
 */
export function responseHeadText(
  status: number,
  reason: string,
  fields: readonly string[],
  body: ResponseFraming,
  connection: 'keep-alive' | 'close' | 'upgrade',
  clientMinorVersion: 0 | 1,
): string {
  const untilClose = body.kind === 'close' || (body.kind === 'chunked' && clientMinorVersion === 0)
  const keepsLength = body.kind === 'none' && status >= 200 && status !== 204
  let text = `HTTP/1.1 ${status} ${reason}\r\n`
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (!isGenerated(name) || (keepsLength && name === 'content-length')) {
      text += `${name}: ${fields[i + 1]}\r\n`
    }
  }
  if (untilClose) return `${text}connection: close\r\n\r\n`
  // Persistence is what HTTP/1.1 means without Connection, and HTTP/1.0 only with it.
  const said = connection === 'keep-alive' && clientMinorVersion === 1 ? undefined : connection
  return `${text}${framingLine(body)}${connectionLine(said)}\r\n`
}

/** For responses of our own, and those of HTTP/2 workloads, which say none; '' where there is none. */
export function reasonPhrase(status: number): string {
  return REASONS.get(status) ?? ''
}

function lines(fields: readonly string[]): string {
  let text = ''
  for (let i = 0; i < fields.length; i += 2) text += `${fields[i]}: ${fields[i + 1]}\r\n`
  return text
}

function isGenerated(name: string): boolean {
  switch (name.length) {
    case 10:
      return name === 'connection'
    case 14:
      return name === 'content-length'
    case 17:
      return name === 'transfer-encoding'
    default:
      return false
  }
}

function framingLine(body: ResponseFraming): string {
  switch (body.kind) {
    case 'length':
      return `content-length: ${body.length}\r\n`
    case 'chunked':
      return 'transfer-encoding: chunked\r\n'
    default:
      return ''
  }
}

function connectionLine(connection: 'keep-alive' | 'close' | 'upgrade' | undefined): string {
  switch (connection) {
    case undefined:
      return ''
    case 'upgrade':
      return 'connection: upgrade\r\nupgrade: websocket\r\n'
    default:
      return `connection: ${connection}\r\n`
  }
}

/** As registered with IANA. */
const REASONS: ReadonlyMap<number, string> = new Map([
  [100, 'Continue'],
  [101, 'Switching Protocols'],
  [102, 'Processing'],
  [103, 'Early Hints'],
  [200, 'OK'],
  [201, 'Created'],
  [202, 'Accepted'],
  [203, 'Non-Authoritative Information'],
  [204, 'No Content'],
  [205, 'Reset Content'],
  [206, 'Partial Content'],
  [207, 'Multi-Status'],
  [208, 'Already Reported'],
  [226, 'IM Used'],
  [300, 'Multiple Choices'],
  [301, 'Moved Permanently'],
  [302, 'Found'],
  [303, 'See Other'],
  [304, 'Not Modified'],
  [305, 'Use Proxy'],
  [307, 'Temporary Redirect'],
  [308, 'Permanent Redirect'],
  [400, 'Bad Request'],
  [401, 'Unauthorized'],
  [402, 'Payment Required'],
  [403, 'Forbidden'],
  [404, 'Not Found'],
  [405, 'Method Not Allowed'],
  [406, 'Not Acceptable'],
  [407, 'Proxy Authentication Required'],
  [408, 'Request Timeout'],
  [409, 'Conflict'],
  [410, 'Gone'],
  [411, 'Length Required'],
  [412, 'Precondition Failed'],
  [413, 'Content Too Large'],
  [414, 'URI Too Long'],
  [415, 'Unsupported Media Type'],
  [416, 'Range Not Satisfiable'],
  [417, 'Expectation Failed'],
  [421, 'Misdirected Request'],
  [422, 'Unprocessable Content'],
  [423, 'Locked'],
  [424, 'Failed Dependency'],
  [425, 'Too Early'],
  [426, 'Upgrade Required'],
  [428, 'Precondition Required'],
  [429, 'Too Many Requests'],
  [431, 'Request Header Fields Too Large'],
  [451, 'Unavailable For Legal Reasons'],
  [500, 'Internal Server Error'],
  [501, 'Not Implemented'],
  [502, 'Bad Gateway'],
  [503, 'Service Unavailable'],
  [504, 'Gateway Timeout'],
  [505, 'HTTP Version Not Supported'],
  [506, 'Variant Also Negotiates'],
  [507, 'Insufficient Storage'],
  [508, 'Loop Detected'],
  [511, 'Network Authentication Required'],
])
