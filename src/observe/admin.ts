// The admin listener: shows what is in force and takes the operator's orders. Loopback or a UNIX
// socket only, and guarded against web pages that make a browser on this host ask for them.
import type { IncomingHttpHeaders } from 'node:http'
import type { Address } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import type { DecisionRecord } from '../threads.ts'
import { consoleRoutes } from './console.ts'
import type { DecisionRing } from './decision-ring.ts'
import { explain } from './explanation.ts'
import { type Answer, type Call, type Route, type RunningServer, startServer } from './server.ts'

export interface ReloadReport {
  readonly ok: boolean
  /** In force after the reload, whether it succeeded or not. */
  readonly generation: number
  readonly problems: readonly Problem[]
}

/** What became of an order; `ok` false: nothing was done, and why. */
export type SlotReport =
  | { readonly ok: true; readonly [fact: string]: unknown }
  | { readonly ok: false; readonly error: string; readonly detail: string }

export interface AdminFacade {
  /** The configuration as YAML or JSON text, secrets redacted. */
  config(): string
  /** Generation, certificates, trust bundles, CRLs and policy slots, as plain data without keys. */
  snapshot(): unknown
  readonly decisions: DecisionRing
  /** What the policies in force say about it now, by slot, as plain data. */
  reconsider(record: DecisionRecord): object
  reload(): Promise<ReloadReport>
  drain(): void
  readonly policy: {
    rollback(): Promise<SlotReport>
    /** @param slot absent: the candidate if there is one, otherwise what was held back. */
    promote(slot?: 'candidate' | 'held_back'): Promise<SlotReport>
  }
  /** A handler threw. */
  fault?(error: unknown): void
}

const MAX_LISTED = 1000

export async function startAdmin(
  address: Address,
  facade: AdminFacade,
): Promise<RunningServer | Problem> {
  const where = 'admin.listen'
  if (address.kind === 'tcp' && !isLoopback(address.host)) {
    return {
      where,
      what: `${address.host} can be reached from other hosts, and the admin server takes orders from anyone`,
      remedy: 'Use 127.0.0.1, [::1] or unix:/path',
    }
  }
  return startServer({
    where,
    address,
    socketMode: 0o600,
    routes: [...routes(facade), ...consoleRoutes()],
    guard: (method, headers) => refuseForeign(address, method, headers),
    onFault: (error) => facade.fault?.(error),
  })
}

function routes(facade: AdminFacade): Route[] {
  const { decisions } = facade
  return [
    { method: 'GET', path: '/config', answer: () => configAnswer(facade.config()) },
    {
      method: 'GET',
      path: '/snapshot',
      answer: () => ({ status: 200, body: facade.snapshot() }),
    },
    { method: 'GET', path: '/decisions', answer: (call) => listDecisions(decisions, call) },
    {
      method: 'GET',
      path: '/decisions/*',
      answer: ({ rest }) => {
        const found = decisions.find(rest)
        if (found === undefined) return { status: 404, body: { error: 'unknown_decision' } }
        const { record, json, principal } = found
        const facts = { ...record, principal }
        const about = JSON.stringify({ ...explain(facts), ...facade.reconsider(record) })
        return { status: 200, body: `{"decision":${json},${about.slice(1)}\n` }
      },
    },
    {
      method: 'POST',
      path: '/reload',
      answer: async () => {
        const report = await facade.reload()
        return { status: report.ok ? 200 : 500, body: report }
      },
    },
    {
      method: 'POST',
      path: '/drain',
      answer: () => {
        facade.drain()
        return { status: 202, body: { status: 'draining' } }
      },
    },
    {
      method: 'POST',
      path: '/policy/rollback',
      answer: async () => slotAnswer(await facade.policy.rollback()),
    },
    {
      method: 'POST',
      path: '/policy/promote',
      answer: async ({ query }) => {
        const slot = query.get('slot') ?? undefined
        if (slot !== undefined && slot !== 'candidate' && slot !== 'held_back') {
          return { status: 400, body: { error: 'bad_slot', allowed: 'candidate or held_back' } }
        }
        return slotAnswer(await facade.policy.promote(slot))
      },
    },
  ]
}

const slotAnswer = (report: SlotReport): Answer => ({
  status: report.ok ? 200 : 409,
  body: report,
})

const configAnswer = (text: string): Answer => ({
  status: 200,
  body: text,
  contentType: text.startsWith('{') ? 'application/json' : 'application/yaml; charset=utf-8',
})

function listDecisions(ring: DecisionRing, { query }: Call): Answer {
  const limit = query.get('limit') ?? '100'
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_LISTED) {
    return { status: 400, body: { error: 'bad_limit', allowed: `1 to ${MAX_LISTED}` } }
  }
  const outcome = query.get('outcome')
  const principal = query.get('principal')
  const found = ring.list({
    ...(outcome === null ? {} : { outcome }),
    ...(principal === null ? {} : { principal }),
    limit: Number(limit),
  })
  return { status: 200, body: `{"decisions":[${found.map(({ json }) => json).join(',')}]}\n` }
}

/**
 * A page in a browser on this host can send requests to loopback. With a name that it rebinds to
 * 127.0.0.1 it could even read the answers: hence the Host check. Without, it can still send a POST:
 * hence the Origin and Sec-Fetch-Site checks (a browser cannot leave them out or forge them).
 */
function refuseForeign(
  address: Address,
  method: string,
  headers: IncomingHttpHeaders,
): Answer | undefined {
  const refused = (error: string): Answer => ({ status: 403, body: { error } })
  const { host, origin } = headers
  if (address.kind === 'tcp' && !isLoopback(hostName(host ?? ''))) return refused('foreign_host')
  if (method === 'GET' || method === 'HEAD') return undefined
  if (origin !== undefined && origin !== `http://${host}`) return refused('foreign_origin')
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') {
    return refused('foreign_origin')
  }
  return undefined
}

const hostName = (host: string): string =>
  host.replace(/:[0-9]{1,5}$/, '').replace(/^\[(.*)\]$/, '$1')

const isLoopback = (host: string): boolean =>
  host.toLowerCase() === 'localhost' ||
  host === '::1' ||
  /^127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$/.test(host)
