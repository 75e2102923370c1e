// `postern explain`: why a decision came out as it did, asked from the sidecar that made it.
import { request } from 'node:http'
import { Command } from 'commander'
import { parseAddress } from '../config/values.ts'
import { harmless, harmlessJson } from '../observe/harmless.ts'
import { CommandFailure, exitTwoOnWrongUsage, reporting } from './failure.ts'
import type { Reconsidered } from './inquiry.ts'

export function command(): Command {
  const explain = new Command('explain')
    .description('why a decision came out as it did, and what the policies in force say now')
    .argument('<id>', 'x-postern-decision-id of a response, or decision_id of a log line')
    .option('--admin <url>', 'admin listener of the sidecar', 'http://127.0.0.1:15000')
    .option('--json', 'print the answer of the sidecar as it is')
    .addHelpText('after', EXAMPLE)
    .action(reporting(explainOne))
  return exitTwoOnWrongUsage(explain)
}

const EXAMPLE = `
The sidecar keeps the last 1000 decisions that it logs; older ones are in the log: see postern replay.
The policies are asked as of the time of the decision.

Example:
  postern explain 5f0f2c9e-6a33-4c2c-8a36-0f7f0a0f3d11
  postern explain --admin unix:/run/postern/admin.sock 5f0f2c9e-6a33-4c2c-8a36-0f7f0a0f3d11`

interface ExplainOptions {
  readonly admin: string
  readonly json?: true
}

/** `GET /decisions/ID`. */
interface Explained {
  readonly decision: {
    readonly decision_id: string
    readonly timestamp: string
    readonly path?: string
    readonly bundles?: { readonly policy?: { readonly revision?: string } }
    readonly input?: {
      readonly attributes?: {
        readonly source?: { readonly principal?: string }
        readonly request?: { readonly http?: { readonly method?: string; readonly path?: string } }
      }
    }
    readonly result?: unknown
    readonly masked?: readonly string[]
    readonly erased?: readonly string[]
    readonly custom: { readonly outcome: string; readonly bundle_digest?: string }
  }
  readonly why: string
  readonly code?: string
  readonly active?: Reconsidered
  readonly candidate?: Reconsidered
}

async function explainOne(id: string, { admin, json }: ExplainOptions): Promise<void> {
  const { status, body } = await ask(admin, `/decisions/${encodeURIComponent(id)}`)
  if (status === 404) {
    throw new CommandFailure(1, {
      where: id,
      what: 'the sidecar has no such decision any more, or never had',
      remedy:
        'look for it in the decision log; only the last 1000 are kept. Of an answer for which no policy was asked it is the request_id of a line in the log',
    })
  }
  if (status !== 200) throw unusable(admin, `it answered ${status}`)
  process.stdout.write(json ? harmlessJson(body) : inWords(parsed(admin, body)))
}

function inWords({ decision, why, code, active, candidate }: Explained): string {
  const { custom, input, bundles, erased = [], masked = [] } = decision
  const http = input?.attributes?.request?.http
  const hidden = [...erased, ...masked]
  const lines = [
    `Decision ${harmless(decision.decision_id)}`,
    `  at       ${decision.timestamp}`,
    `  request  ${shown(http?.method)} ${shown(http?.path)}`,
    `  from     ${shown(input?.attributes?.source?.principal)}`,
    `  outcome  ${custom.outcome}${code === undefined ? '' : ` (${code})`}`,
    `  because  ${harmless(why)}`,
    ...(decision.path === undefined
      ? []
      : [
          `  policy   ${decision.path}, ${versionOf(bundles?.policy?.revision, custom.bundle_digest)}`,
        ]),
    ...(hidden.length === 0 ? [] : [`  hidden   ${harmless(hidden.join(', '))}`]),
    '',
    `Input\n${indented(input)}`,
    ...(decision.result === undefined ? [] : [`Result\n${indented(decision.result)}`]),
    ...slotLines('active', active),
    ...slotLines('candidate', candidate),
  ]
  return `${lines.join('\n')}\n`
}

function slotLines(slot: string, now: Reconsidered | undefined): string[] {
  if (now === undefined) return []
  const { revision, bundle_digest, outcome, differs, result, error } = now
  const verdict = differs ? `${outcome}, not the same as then` : `${outcome}, the same as then`
  return [
    `The ${slot} policy (${versionOf(revision, bundle_digest)}) says now: ${verdict}`,
    ...(differs && result !== undefined ? [indented(result)] : []),
    ...(error === undefined ? [] : [indented(error)]),
  ]
}

/** Masks may leave anything in the place of a text. */
const shown = (value: unknown): string => (typeof value === 'string' ? harmless(value) : '?')

const versionOf = (revision: string | undefined, digest: string | undefined): string =>
  [
    ...(revision === undefined || revision === '' ? [] : [`revision ${harmless(revision)}`]),
    ...(digest === undefined ? [] : [`bundle ${digest.slice(0, 12)}`]),
  ].join(', ')

const indented = (value: unknown): string =>
  harmlessJson(JSON.stringify(value, null, 2) ?? 'none').replaceAll(/^/gm, '  ')

function parsed(admin: string, body: string): Explained {
  try {
    const explained = JSON.parse(body) as Explained
    if (typeof explained.why === 'string') return explained
  } catch {
    // Said below.
  }
  throw unusable(admin, 'its answer is none of an admin listener')
}

function ask(admin: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(unusable(admin, error.message))
    const asked = request({ ...placeOf(admin), path, signal: AbortSignal.timeout(ANSWER_MS) })
    asked.on('error', fail)
    asked.on('response', (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
        if (body.length > LONGEST_ANSWER) response.destroy(new Error('its answer has no end'))
      })
      response.on('error', fail)
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
    asked.end()
  })
}

const ANSWER_MS = 10_000
const LONGEST_ANSWER = 16 * 1024 * 1024

function placeOf(admin: string): { socketPath: string } | { host: string; port: number } {
  const address = parseAddress(admin.replace(/^http:\/\//, '').replace(/\/$/, ''))
  if (address.kind === 'wrong') {
    throw new CommandFailure(2, {
      where: '--admin',
      what: address.what,
      remedy: 'write http://127.0.0.1:15000 or unix:/path, as in admin.listen',
    })
  }
  const { value } = address
  return value.kind === 'unix' ? { socketPath: value.path } : { host: value.host, port: value.port }
}

const unusable = (admin: string, what: string): CommandFailure =>
  new CommandFailure(1, {
    where: `--admin ${admin}`,
    what: `the sidecar cannot be asked: ${what}`,
    remedy: 'give the address of admin.listen, on the host (in the pod) of the sidecar',
  })
