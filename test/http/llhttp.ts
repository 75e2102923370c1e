// Node's own HTTP/1.1 parser (llhttp) as an oracle: raw bytes in, what it made of them out. Fed
// through node:http over an in-process stream pair, so there is no port and no timing.
import { once } from 'node:events'
import { createServer, type IncomingMessage, request } from 'node:http'
import { type Duplex, duplexPair } from 'node:stream'
import { setImmediate } from 'node:timers/promises'

export interface OracleMessage {
  /** `METHOD target`, or the status. */
  readonly start: string
  readonly fields: readonly string[]
  readonly keepAlive: boolean
  body: string
  trailers: readonly string[]
  /** Whether the end of the message was seen. */
  complete: boolean
}

export interface OracleResult {
  readonly messages: readonly OracleMessage[]
  /** `HPE_...` when the bytes were refused at some point. */
  readonly refused: string | undefined
}

/** All requests that llhttp reads from the bytes of one connection. */
export async function requestsByLlhttp(bytes: Buffer): Promise<OracleResult> {
  const messages: OracleMessage[] = []
  let refused: string | undefined
  // Host is judged by the test itself, and the head limit is not what is compared.
  const server = createServer(
    { requireHostHeader: false, maxHeaderSize: 65536 },
    (message, answer) => {
      const entry = {
        start: `${message.method} ${message.url}`,
        fields: lowerCaseNames(message.rawHeaders),
        keepAlive: answer.shouldKeepAlive,
        body: '',
        trailers: [],
        complete: false,
      }
      messages.push(entry)
      collect(message, entry)
      message.on('end', () => answer.end())
    },
  )
  server.on('checkExpectation', (message, answer) => server.emit('request', message, answer))
  // Without destroying the connection, which would abort earlier requests that are not yet read.
  server.on('clientError', (error: NodeJS.ErrnoException) => (refused ??= parserCode(error)))
  const [client, connection] = duplexPair()
  await feed(bytes, client, connection, () => server.emit('connection', connection))
  return { messages, refused }
}

/** The final response that llhttp reads from the bytes of one connection. */
export async function responseByLlhttp(bytes: Buffer, method: string): Promise<OracleResult> {
  const messages: OracleMessage[] = []
  let refused: string | undefined
  const [workload, connection] = duplexPair()
  await feed(bytes, workload, connection, () => {
    const asking = request({ method, createConnection: () => connection, setHost: false })
    asking.on('response', (message) => {
      const entry = {
        start: `${message.statusCode} ${message.statusMessage}`,
        fields: lowerCaseNames(message.rawHeaders),
        keepAlive: asking.shouldKeepAlive,
        body: '',
        trailers: [],
        complete: false,
      }
      messages.push(entry)
      collect(message, entry)
      message.on('error', (error: NodeJS.ErrnoException) => (refused ??= parserCode(error)))
    })
    asking.on('error', (error: NodeJS.ErrnoException) => (refused ??= parserCode(error)))
    asking.end()
  })
  return { messages, refused }
}

async function feed(bytes: Buffer, writer: Duplex, reader: Duplex, start: () => void) {
  const closed = once(reader, 'close')
  writer.on('error', () => {}).resume()
  reader.on('error', () => {})
  start()
  await setImmediate()
  writer.write(bytes)
  // In-process streams deliver within a few turns; only then the end, which would abort what is
  // parsed but not yet read.
  for (let turn = 0; turn < 4; turn++) await setImmediate()
  writer.end()
  await setImmediate()
  await setImmediate()
  reader.destroy()
  await closed
}

function collect(message: IncomingMessage, entry: OracleMessage): void {
  message.on('data', (data: Buffer) => (entry.body += data.toString('latin1')))
  message.on('end', () => {
    entry.complete = message.complete
    entry.trailers = lowerCaseNames(message.rawTrailers)
  })
  message.on('error', () => {})
}

/** Undefined where the connection merely ended too early. */
function parserCode(error: NodeJS.ErrnoException): string | undefined {
  return error.code?.startsWith('HPE_') && error.code !== 'HPE_INVALID_EOF_STATE'
    ? error.code
    : undefined
}

function lowerCaseNames(raw: readonly string[]): string[] {
  return raw.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text.trim()))
}

/** A chunk line whose extension is not made of tokens alone. */
export const isLooseChunkLine = (line: string): boolean =>
  /^[0-9a-f]+[ \t]*;/i.test(line) &&
  !/^[0-9a-f]+(;[!#$%&'*+.^_`|~0-9a-z-]+(=[!#$%&'*+.^_`|~0-9a-z-]+)?)*\r$/i.test(line)

const runs = process.env['DIFFERENTIAL_RUNS']

/**
 * The same cases each time, so that the suite does not fail now and then; with `DIFFERENTIAL_RUNS=n`
 * n new ones, to look for disagreements that are not listed yet.
 */
export const DIFFERENTIAL_CASES: { readonly numRuns: number; readonly seed?: number } =
  runs === undefined ? { numRuns: 1500, seed: 20_261_122 } : { numRuns: Number(runs) }
