// The decision log of the real process: what a policy wants left out of it is nowhere, what a server
// does to uploads costs no request, and every decision is accounted for.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { postern } from '../support/command.ts'
import { eventually } from '../support/eventually.ts'
import {
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  writeFiles,
} from '../support/pki.ts'
import {
  call,
  type LogLine,
  SAMPLE_POLICY,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const bundle = (name: string): string =>
  fileURLToPath(new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url))
const LOG_RULES = bundle('log-rules')
const ALLOW_ALL = bundle('allow-all')

const eventsOf = (sidecar: TestSidecar): LogLine[] =>
  sidecar.lines.filter(({ type }) => type === 'openpolicyagent.org/decision_logs')

/** Sums of series of one metric, by the values of its labels. */
async function sums(sidecar: TestSidecar, metric: string): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  for (const [, labels = '', value] of (await sidecar.metrics()).matchAll(
    new RegExp(`^postern_${metric}\\{(.*)\\} (\\d+)$`, 'gm'),
  )) {
    const key = [...labels.matchAll(/="([^"]*)"/g)].map(([, one]) => one).join(' ')
    found.set(key, Number(value))
  }
  return found
}

const total = (counts: ReadonlyMap<string, number>, prefix = ''): number =>
  [...counts].reduce((sum, [key, count]) => (key.startsWith(prefix) ? sum + count : sum), 0)

/**
 * Made = logged + left out by reason; and for the destination: logged, with and without input and
 * result, = written + dropped + pending.
 */
async function balance(sidecar: TestSidecar, sink: string) {
  const [made, events, deliveries, pending] = (await Promise.all(
    [
      'decisions_total',
      'decision_log_events_total',
      'decision_log_deliveries_total',
      'decision_log_pending',
    ].map((metric) => sums(sidecar, metric)),
  )) as [Map<string, number>, Map<string, number>, Map<string, number>, Map<string, number>]
  return {
    made: total(made),
    accounted: total(events),
    logged: (events.get('logged') ?? 0) + (events.get('policy_failed') ?? 0),
    delivered: total(deliveries, `${sink} `) + (pending.get(sink) ?? 0),
    events,
    deliveries,
  }
}

async function balanced(sidecar: TestSidecar, sink: string, decisions: number) {
  return eventually(`${decisions} decisions are accounted for`, async () => {
    const now = await balance(sidecar, sink)
    return now.made === decisions && now.accounted === decisions && now.delivered === now.logged
      ? now
      : undefined
  })
}

describe('the rules of a policy about its log', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let web: IssuedCertificate

  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: LOG_RULES }, log: { labels: ['app=orders'] } },
    })
    web = await sidecar.authority.svid('web')
  })

  const eventOf = (requestId: string): Promise<LogLine> =>
    eventually('the event', () => eventsOf(sidecar).find(({ req_id }) => req_id === requestId))

  it('hide what they mask, in log and ring and explanation, and from nobody else', async () => {
    const requestId = crypto.randomUUID()
    const headers = { 'x-card': '4711-0815', 'x-request-id': requestId }
    assert.equal((await call(sidecar, web, { path: '/open', headers })).status, 200)
    assert.equal(workload.seen.at(-1)?.headers['x-card'], '4711-0815')
    const event = await eventOf(requestId)
    assert.deepEqual(event['erased'], ['/input/attributes/source/principal'])
    assert.deepEqual(event['masked'], ['/input/attributes/request/http/headers/x-card'])
    assert.equal((event['labels'] as Record<string, string>)['app'], 'orders')
    const id = event['decision_id']
    const shown = await Promise.all(
      ['/decisions', `/decisions/${id}`].map(
        async (path) => (await sidecar.admin('GET', path)).body,
      ),
    )
    const [, explained = ''] = shown
    assert.equal(JSON.parse(explained).active.outcome, 'allow')
    for (const text of [...shown, JSON.stringify(sidecar.lines)]) {
      assert.equal(text.includes('4711-0815'), false)
    }
  })

  it('hide the result where they say so, also that of a policy that is asked again', async () => {
    const requestId = crypto.randomUUID()
    const { status } = await call(sidecar, web, {
      path: '/closed',
      headers: { 'x-request-id': requestId },
    })
    assert.equal(status, 403)
    const event = await eventOf(requestId)
    assert.ok(!('result' in event))
    const { body } = await sidecar.admin('GET', `/decisions/${event['decision_id']}`)
    const { active, code } = JSON.parse(body)
    assert.equal(code, 'denied')
    assert.deepEqual([active.outcome, active.differs, 'result' in active], ['deny', false, false])
  })

  it('keep an event out of the log, and input and result where they fail; all are counted', async () => {
    for (const path of ['/health', '/oops', '/mistake']) {
      assert.equal((await call(sidecar, web, { path })).status, 200, path)
    }
    const { events } = await balanced(sidecar, 'console', 5)
    assert.deepEqual(
      [events.get('logged'), events.get('dropped_by_policy'), events.get('policy_failed')],
      [2, 1, 2],
    )
    const bare = eventsOf(sidecar).filter((one) => !('input' in one || 'result' in one))
    assert.equal(eventsOf(sidecar).length, 4)
    assert.deepEqual(
      bare.map(({ erased }) => erased),
      [
        ['/input', '/result'],
        ['/input', '/result'],
      ],
    )
    assert.equal(JSON.parse((await sidecar.admin('GET', '/decisions')).body).decisions.length, 2)
    const told = await sidecar.logged('decisions_dropped')
    assert.equal(told['result'], 'policy_failed')
  })
})

type Temper = (request: IncomingMessage, response: ServerResponse) => void

interface LogServer {
  readonly url: string
  /** Of each request that was read to its end. */
  readonly bodies: Buffer[]
  readonly tokens: (string | undefined)[]
  temper: Temper
}

const take: Temper = (_, response) => void response.writeHead(204).end()

async function startLogServer(t: Cleanup, authority: TestAuthority): Promise<LogServer> {
  const own = await authority.intermediate.issue({ dns: ['localhost'] })
  const server: LogServer = { url: '', bodies: [], tokens: [], temper: take }
  const listening = https.createServer(
    {
      cert: own.chainPem,
      key: own.privateKeyPem,
      ca: authority.root.certificatePem,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('error', () => {})
      response.on('error', () => {})
      request.on('end', () => {
        server.bodies.push(Buffer.concat(chunks))
        server.tokens.push(request.headers.authorization)
        assert.equal(request.headers['content-encoding'], 'gzip')
        server.temper(request, response)
      })
    },
  )
  listening.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  t.after(() => {
    listening.closeAllConnections()
    listening.close()
  })
  const { port } = listening.address() as AddressInfo
  return Object.assign(server, { url: `https://localhost:${port}` })
}

interface Setup {
  readonly server: LogServer
  readonly sidecar: TestSidecar
  readonly web: IssuedCertificate
  readonly token: string
}

async function startUploading(t: Cleanup, upload: Record<string, unknown> = {}): Promise<Setup> {
  const authority = await testAuthority()
  const server = await startLogServer(t, authority)
  const client = await authority.svid('orders')
  const directory = await temporaryDirectory(t)
  const files = await writeFiles(directory, {
    token: 'token-of-the-test\n',
    'client.crt': client.chainPem,
    'client.key': client.privateKeyPem,
    'ca.crt': authority.root.certificatePem,
  })
  const { url: forward } = await startWorkload(t)
  const sidecar = await startSidecar(t, {
    authority,
    forward,
    config: {
      policy: { bundle: LOG_RULES },
      log: {
        upload: {
          url: server.url,
          tokenFile: files['token'],
          certificate: files['client.crt'],
          privateKey: files['client.key'],
          ca: files['ca.crt'],
          minDelay: '100ms',
          maxDelay: '200ms',
          ...upload,
        },
      },
    },
  })
  return { server, sidecar, web: await authority.svid('web'), token: files['token'] as string }
}

const uploaded = ({ bodies }: LogServer, from = 0): string[] =>
  bodies
    .slice(from)
    .flatMap((body) => JSON.parse(gunzipSync(body).toString()) as { req_id: string }[])
    .map(({ req_id }) => req_id)

async function decide({ sidecar, web }: Setup, count: number): Promise<string[]> {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 8 })
  const requestIds = Array.from({ length: count }, () => crypto.randomUUID())
  const replies = await Promise.all(
    requestIds.map((id) =>
      call(sidecar, web, { path: '/open', agent, headers: { 'x-request-id': id } }),
    ),
  )
  agent.destroy()
  for (const { status } of replies) assert.equal(status, 200)
  return requestIds
}

describe('the upload of decisions', () => {
  const t = suiteCleanup()
  let setup: Setup

  before(async () => {
    setup = await startUploading(t)
  })

  it('brings every decision to the server, with token and client certificate', async () => {
    const { server, sidecar } = setup
    const requestIds = await decide(setup, 50)
    await balanced(sidecar, 'upload', 50)
    await eventually('all are there', () => uploaded(server).length === 50)
    assert.deepEqual(uploaded(server).sort(), requestIds.sort())
    assert.ok(server.tokens.every((one) => one === 'Bearer token-of-the-test'))
    assert.equal(eventsOf(sidecar).length, 0, 'and none to standard output')
    await eventually('they are counted', async () => {
      const { deliveries } = await balance(sidecar, 'upload')
      return deliveries.get('upload written') === 50
    })
  })

  for (const [what, temper] of [
    ['answers 500', (_, response) => void response.writeHead(500).end()],
    ['takes the body and resets', (request) => void request.socket.destroy()],
    ['refuses with an answer that has no end', (_, response) => void endless(response, 503)],
    ['answers nonsense', ({ socket }) => void socket.end('what was the question?\r\n\r\n')],
    ['closes without a word', ({ socket }) => void socket.end()],
    [
      'sends it elsewhere',
      (_, response) => void response.writeHead(307, { location: '/elsewhere' }).end(),
    ],
  ] as const satisfies readonly (readonly [string, Temper])[]) {
    it(`is tried again when the server ${what}, and nothing is lost or slowed`, async () => {
      const { server, sidecar } = setup
      const made = (await balance(sidecar, 'upload')).made
      await eventually(
        'quiet',
        async () => (await sums(sidecar, 'decision_log_pending')).get('upload') === 0,
      )
      server.temper = temper
      const from = server.bodies.length
      const requestIds = await decide(setup, 30)
      await eventually('it was tried', () => server.bodies.length >= from + 2)
      await balanced(sidecar, 'upload', made + 30)
      server.temper = take
      const { deliveries } = await eventually('all are written', async () => {
        const now = await balance(sidecar, 'upload')
        return now.deliveries.get('upload written') === now.logged ? now : undefined
      })
      assert.deepEqual([...new Set(uploaded(server, from))].sort(), requestIds.sort())
      assert.equal(deliveries.get('upload written'), made + 30)
    })
  }

  it('takes success without reading an answer that has no end', async () => {
    const { server, sidecar } = setup
    server.temper = (_, response) => void endless(response, 200)
    const made = (await balance(sidecar, 'upload')).made
    const from = server.bodies.length
    const requestIds = await decide(setup, 10)
    await eventually(
      'it was taken',
      async () => (await balance(sidecar, 'upload')).deliveries.get('upload written') === made + 10,
    )
    assert.deepEqual(uploaded(server, from).sort(), requestIds.sort(), 'once')
    server.temper = take
  })

  it('is in no hurry with a server that answers late: requests go on, and each event is sent once', async () => {
    const { server, sidecar } = setup
    const made = (await balance(sidecar, 'upload')).made
    const answers: (() => void)[] = []
    server.temper = (_, response) => void answers.push(() => response.writeHead(200).end())
    const from = server.bodies.length
    const first = await decide(setup, 10)
    await eventually('it has been asked', () => answers.length === 1)
    const second = await decide(setup, 50)
    const { deliveries } = await balanced(sidecar, 'upload', made + 60)
    assert.equal(deliveries.get('upload written'), made)
    assert.equal(answers.length, 1, 'one request at a time')
    server.temper = take
    answers[0]?.()
    await eventually('all are written', async () => {
      return (await balance(sidecar, 'upload')).deliveries.get('upload written') === made + 60
    })
    assert.deepEqual(uploaded(server, from).sort(), [...first, ...second].sort(), 'once')
  })

  it('sends what is left before the program ends', async () => {
    const { server, sidecar } = setup
    server.temper = (_, response) => void response.writeHead(500).end()
    const requestIds = await decide(setup, 20)
    await sidecar.logged('decision_upload', { result: 'failing' })
    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    server.temper = take
    assert.equal(await sidecar.exited, 0)
    const found = new Set(uploaded(server))
    for (const id of requestIds) assert.ok(found.has(id))
  })
})

function endless(response: ServerResponse, status: number): void {
  response.writeHead(status)
  const more = (): void => {
    while (!response.destroyed && response.write('x'.repeat(16_384)));
    if (!response.destroyed) response.once('drain', more)
  }
  more()
}

describe('a log server that is down', () => {
  const t = suiteCleanup()

  it('costs no request; what does not fit is counted by reason, and the program still ends', async () => {
    const setup = await startUploading(t, { url: 'https://localhost:1/logs', maxEvents: 100 })
    const { sidecar } = setup
    for (let round = 0; round < 5; round++) await decide(setup, 100)
    const { logged, deliveries } = await balanced(sidecar, 'upload', 500)
    assert.equal(logged, 500)
    assert.equal(deliveries.get('upload buffer_full'), 400)
    assert.equal(deliveries.get('upload written'), 0)
    await sidecar.logged('decision_upload', { result: 'failing' })
    await sidecar.logged('decisions_dropped', { reason: 'buffer_full' })
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
    assert.equal((await sidecar.logged('decisions_lost'))['lost'], 100)
  })
})

describe('a decision file', () => {
  const t = suiteCleanup()

  it('has the denials only where that is wanted; they explain and replay themselves', async () => {
    const file = join(await temporaryDirectory(t), 'decisions.ndjson')
    const { url: forward } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward,
      config: {
        policy: { bundle: SAMPLE_POLICY },
        log: { decisions: 'denied', decisionFile: file },
      },
    })
    const [web, stranger] = [
      await sidecar.authority.svid('web'),
      await sidecar.authority.svid('stranger'),
    ]
    for (let i = 0; i < 3; i++) assert.equal((await call(sidecar, web)).status, 200)
    const secret = { authorization: 'Bearer not-read-by-this-policy' }
    assert.equal((await call(sidecar, stranger, { headers: secret })).status, 403)
    const id = String((await call(sidecar, stranger)).headers['x-postern-decision-id'])
    const { events } = await balanced(sidecar, 'file', 5)
    assert.deepEqual([events.get('sampled_out'), events.get('logged')], [3, 2])

    const admin = `http://127.0.0.1:${sidecar.adminPort}`
    const explained = await postern(['explain', id, '--admin', admin])
    assert.equal(explained.exitCode, 0, explained.stderr)
    assert.match(explained.stdout, /says now: deny, the same as then/)

    const same = await postern(['replay', '--bundle', SAMPLE_POLICY, file])
    assert.equal(same.exitCode, 0, same.stdout + same.stderr)
    assert.match(same.stdout, /replayed with .*: 2, of which 0 would change/)
    const other = await postern(['replay', '--bundle', ALLOW_ALL, file])
    assert.equal(other.exitCode, 1)
    assert.match(other.stdout, new RegExp(`^deny_to_allow {2}${id} `, 'm'))
  })
})
