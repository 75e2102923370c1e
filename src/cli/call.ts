// `postern call`: one HTTPS request as a workload, with an identity that the development CA issues
// for this one call and that never touches the disk.
import { once } from 'node:events'
import { Command, InvalidArgumentError } from 'commander'
import { explain, explainRefusal } from './call/explain.ts'
import { type CallRequest, send } from './call/send.ts'
import { CommandFailure, exitTwoOnWrongUsage, reporting } from './failure.ts'
import type { Environment } from './options.ts'
import { PkiDirectory } from './pki/directory.ts'
import { collect, directoryOption, parseWorkloadId } from './pki/options.ts'

export function command(env: Environment): Command {
  const call = new Command('call')
    .description('one request with an identity of the development CA')
    .argument('<url>', 'https://host:port/path', parseUrl)
    .requiredOption('--as <id>', 'SPIFFE ID to call as', parseWorkloadId)
    .addOption(directoryOption(env))
    .option('--server-id <id>', 'SPIFFE ID that the server must have', parseWorkloadId)
    .option('-X, --method <method>', 'default: GET, with --data POST', parseMethod)
    .option('-H, --header <line>', '"name: value"; may be repeated', collectHeader)
    .option('-d, --data <text>', 'request body')
    .option('-i, --include', 'print the response headers too')
    .option('-f, --fail', 'end with 1 unless the status is 2xx')
    .option('--timeout <seconds>', 'for the whole call', parseSeconds, 30)
    .addHelpText('after', EXAMPLE)
    .action(reporting(callOnce))
  return exitTwoOnWrongUsage(call)
}

const EXAMPLE = `
The server has to have a certificate of the same CA, for the host in the URL or for any SPIFFE ID.
The status goes to standard error, the body to standard output. Any response ends with 0.

Example:
  postern call --dir pki --as spiffe://example.org/ns/default/sa/web https://localhost:8443/api/orders`

interface CallOptions {
  readonly as: string
  readonly dir: string
  readonly serverId?: string
  readonly method?: string
  readonly header?: readonly string[]
  readonly data?: string
  readonly include?: true
  readonly fail?: true
  readonly timeout: number
}

async function callOnce(url: URL, options: CallOptions): Promise<void> {
  const call = await prepare(url, options)
  const outcome = await send(call)
  if (outcome.kind === 'failed') throw new CommandFailure(1, outcome.problem)
  const { response } = outcome
  const status = response.statusCode ?? 0
  process.stderr.write(`${status} ${response.statusMessage ?? ''}\n`)
  if (options.include) process.stdout.write(`${headerLines(response.rawHeaders)}\n`)
  let begin = ''
  try {
    for await (const chunk of response) {
      if (begin.length < MOST_OF_REFUSAL) begin += chunk
      if (!process.stdout.write(chunk)) await once(process.stdout, 'drain')
    }
  } catch (error) {
    throw new CommandFailure(1, explain(error as Error, url, true, call.timeoutMs))
  }
  const refusal = status < 400 ? undefined : explainRefusal(begin)
  if (refusal !== undefined) process.stderr.write(`${refusal}\n`)
  if (options.fail && (status < 200 || status > 299)) process.exitCode = 1
}

async function prepare(url: URL, options: CallOptions): Promise<CallRequest> {
  const pki = await PkiDirectory.open(options.dir, options.as)
  const identity = await pki.issueInMemory(options.as, IDENTITY_LIFETIME_MS)
  return {
    url,
    method: options.method ?? (options.data === undefined ? 'GET' : 'POST'),
    headers: (options.header ?? []).map(splitHeader),
    certificateChain: identity.chainPem,
    privateKey: identity.privateKeyPem,
    trustBundle: await pki.readBundle(),
    timeoutMs: options.timeout * 1000,
    ...(options.data === undefined ? {} : { body: options.data }),
    ...(options.serverId === undefined ? {} : { serverId: options.serverId }),
  }
}

/** Longer than any call may take. */
const IDENTITY_LIFETIME_MS = 3_600_000
const LONGEST_CALL_S = 3_000
/** Postern's own answers are far shorter. */
const MOST_OF_REFUSAL = 1_024

function parseUrl(text: string): URL {
  const url = URL.parse(text)
  if (url?.protocol === 'https:' && url.username === '' && url.password === '') return url
  throw new InvalidArgumentError('Write https://host:port/path, without user name and password.')
}

function parseMethod(text: string): string {
  if (TOKEN.test(text)) return text
  throw new InvalidArgumentError('Write a method such as GET or POST.')
}

function collectHeader(line: string, before: readonly string[] = []): string[] {
  const [name, value] = splitHeader(line)
  if (!TOKEN.test(name) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
    throw new InvalidArgumentError('Write "name: value".')
  }
  return collect(line, before)
}

function splitHeader(line: string): readonly [name: string, value: string] {
  const colon = line.indexOf(':')
  return colon < 0 ? ['', ''] : [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
}

function parseSeconds(text: string): number {
  const seconds = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (seconds >= 1 && seconds <= LONGEST_CALL_S) return seconds
  throw new InvalidArgumentError(`Write a number of seconds from 1 to ${LONGEST_CALL_S}.`)
}

/** RFC 9110 section 5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

function headerLines(raw: readonly string[]): string {
  let lines = ''
  for (let i = 0; i + 1 < raw.length; i += 2) lines += `${raw[i]}: ${raw[i + 1]}\n`
  return lines
}
