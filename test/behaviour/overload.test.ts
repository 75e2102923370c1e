// More requests than a data thread can answer: a part is refused early, with the time to come back; who
// is let in is served, who sends little is not refused, and what has nothing to do with it goes on.
import assert from 'node:assert/strict'
import type { ClientHttp2Session } from 'node:http2'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, type Http1Client, type Message, openClient, post } from '../support/http1.ts'
import { ask, type Http2Reply, openSession } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { openWebSocket, startWebSocketWorkload, WebSocketEnd } from '../support/websocket.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const SLOW = fileURLToPath(new URL('../policy/bundles/slow.tar.gz', import.meta.url))
/** Some milliseconds of processor time for each request on one path, on fast machines too. */
const POLICY = { bundle: SLOW, fuel: 1_000_000_000 }
/** A few such requests are too many for one turn: all that follows comes the sooner. */
const SHORT_TURNS = { policy: POLICY, inbound: { overload: { eventLoopLag: '20ms' } } }
const SLOW_PATH = '/slow/40000'
const ACTIVE = 'postern_overload_active'
const SHED = 'postern_requests_rejected_total{code="overloaded"}'
const MOST_AT_ONCE = 30

/** Connections of one principal, and one of HTTP/2 for as many streams. */
interface Crowd {
  readonly clients: readonly Http1Client[]
  readonly session: ClientHttp2Session
}

async function openCrowd(
  t: Cleanup,
  sidecar: TestSidecar,
  identity: IssuedCertificate,
): Promise<Crowd> {
  const clients: Http1Client[] = []
  for (let i = 0; i < MOST_AT_ONCE; i++) clients.push(await openClient(t, sidecar, identity))
  return { clients, session: await openSession(t, sidecar, identity) }
}

interface Flood {
  readonly answers: Message[]
  readonly h2Answers: Http2Reply[]
  stop(): Promise<void>
}

/** Asks again as soon as it is answered, on many connections and on many streams of one. */
function flood(
  t: Cleanup,
  { clients, session }: Crowd,
  headers: Readonly<Record<string, string>> = {},
): Flood {
  const answers: Message[] = []
  const h2Answers: Http2Reply[] = []
  let going = true
  const loops = [
    ...clients.map(async (client) => {
      while (going) {
        client.send(get(SLOW_PATH))
        answers.push(await client.answer())
      }
    }),
    ...clients.map(async () => {
      // A session that is over answers at once, and would leave no time for anything else.
      while (going && !session.closed)
        h2Answers.push(await ask(session, { ...headers, ':path': SLOW_PATH }))
    }),
  ]
  const over = Promise.all(loops)
  over.catch(() => {})
  const stop = async (): Promise<void> => {
    going = false
    await over
  }
  t.after(() => {
    going = false
  })
  return { answers, h2Answers, stop }
}

const isOverloaded = (sidecar: TestSidecar): Promise<unknown> =>
  eventually('it is overloaded', async () => (await sidecar.metric(ACTIVE)) === 1)

const isRefused = ({ status }: { readonly status: number }): boolean => status === 503

/** Connections of one address that begin no handshake: some always wait for their turn. */
function stayingSilent(t: Cleanup, sidecar: TestSidecar, localAddress: string): void {
  const open = new Set<net.Socket>()
  let going = true
  const another = (): void => {
    const socket = net.connect({ host: '127.0.0.1', port: sidecar.port, localAddress })
    open.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      open.delete(socket)
      if (going) another()
    })
  }
  for (let i = 0; i < 40; i++) another()
  t.after(() => {
    going = false
    for (const socket of open) socket.destroy()
  })
}

const isOver = (sidecar: TestSidecar): Promise<unknown> =>
  eventually('the overload is over', async () => (await sidecar.metric(ACTIVE)) === 0)

describe('past the capacity of a data thread', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let noisy: IssuedCertificate
  let modest: IssuedCertificate
  let crowd: Crowd

  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, { forward: workload.url, config: SHORT_TURNS })
    noisy = await sidecar.authority.svid('noisy')
    crowd = await openCrowd(t, sidecar, noisy)
    modest = await sidecar.authority.svid('modest')
  })

  it('some requests are refused with 503, the others reach the workload, and it is over by itself', async (t) => {
    const { answers, h2Answers, stop } = flood(t, crowd)
    await isOverloaded(sidecar)
    const refused = await eventually('one is refused', () => answers.find(isRefused))
    await eventually('and over HTTP/2', () => h2Answers.some(isRefused))
    const before = answers.filter(({ status }) => status === 200).length
    await eventually('others are served', () => {
      return answers.filter(({ status }) => status === 200).length >= before + 20
    })
    await stop()
    const { error, id } = JSON.parse(refused.body.toString()) as { error: string; id: string }
    assert.equal(error, 'overloaded')
    assert.deepEqual(refused.values('x-postern-decision-id'), [id])
    assert.deepEqual(refused.values('connection'), [])
    for (const { status, values } of answers) {
      assert.ok(status === 200 || status === 503, `${status}`)
      if (status === 503) assert.match(values('retry-after').join(), /^[1-3]$/)
    }
    for (const { status, headers, resetCode } of h2Answers) {
      assert.ok(status === 200 || status === 503, `${status}`)
      assert.equal(resetCode, 0)
      if (status === 503) assert.match(headers['retry-after'] ?? '', /^[1-3]$/)
    }
    const statuses = [...answers, ...h2Answers].map(({ status }) => status)
    const served = statuses.filter((status) => status === 200).length
    assert.equal(workload.seen.length, served, 'what was refused did not reach the workload')
    const shed = statuses.length - served
    assert.equal(await sidecar.metric(SHED), shed)
    const rejected = (protocol: string): string =>
      `postern_requests_total{protocol="${protocol}",outcome="rejected",status_class="5xx"}`
    const counted = await Promise.all(
      ['http/1.1', 'http/2'].map((protocol) => sidecar.metric(rejected(protocol))),
    )
    assert.equal(counted[0]! + counted[1]!, shed)
    await isOver(sidecar)
    assert.equal((await call(sidecar, noisy)).status, 200)
    const told = await sidecar.logged('overload_over')
    assert.equal(told['shed'], shed)
    assert.equal(sidecar.lines.filter(({ event }) => event === 'overload').length, 1)
    const lines = sidecar.lines.filter(({ code }) => code === 'overloaded')
    const dropped = await sidecar.metric('postern_log_records_dropped_total{kind="access"}')
    assert.equal(lines.length + dropped, shed, 'each has a line, or is counted')
    assert.equal(lines[0]?.['principal'], 'spiffe://example.org/ns/default/sa/noisy')
  })

  it('a connection is kept, a body that nobody wants is skipped, and what was pipelined is answered', async (t) => {
    const client = await openClient(t, sidecar, noisy)
    const { stop } = flood(t, crowd)
    await eventually('a request with a body is refused', async () => {
      client.send(post(SLOW_PATH, 'x'.repeat(2_000)) + get('/after'))
      const [first, second] = [await client.answer(), await client.answer()]
      for (const { status } of [first, second]) assert.ok(status === 200 || status === 503)
      return first.status === 503
    })
    await stop()
    await eventually('requests are served on it', async () => {
      client.send(get('/'))
      return (await client.answer()).status === 200
    })
  })

  it('a client that has ended its side hears what became of all its requests', async (t) => {
    const { clients } = await openCrowd(t, sidecar, noisy)
    const { answers, stop } = flood(t, crowd)
    await eventually('one is refused', () => answers.some(isRefused))
    const statuses = await Promise.all(
      clients.map(async (client) => {
        client.socket.end(get(SLOW_PATH) + get('/after'))
        const { status } = await client.answer()
        await client.answer()
        await client.ended
        return status
      }),
    )
    assert.ok(statuses.includes(503))
    await stop()
  })

  it('a gRPC call is UNAVAILABLE, with the time to wait', async (t) => {
    const grpc = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' }
    const { h2Answers, stop } = flood(t, crowd, grpc)
    const refused = await eventually('one is refused', () =>
      h2Answers.find(({ headers }) => headers['grpc-status'] === '14'),
    )
    await stop()
    assert.equal(refused.status, 200)
    assert.match(String(refused.headers['grpc-message']), /overloaded/)
    assert.match(String(refused.headers['grpc-retry-pushback-ms']), /^[1-3]000$/)
  })

  it('a peer that sends little is served, and admin, health and metrics answer', async (t) => {
    const { stop } = flood(t, crowd)
    await isOverloaded(sidecar)
    const before = await sidecar.metric(SHED)
    const kept = await openClient(t, sidecar, modest)
    const statuses: number[] = []
    await eventually('requests of others are refused meanwhile', async () => {
      kept.send(get(SLOW_PATH))
      statuses.push((await kept.answer()).status, (await call(sidecar, modest)).status)
      return statuses.length >= 20 && (await sidecar.metric(SHED)) >= before + 20
    })
    assert.deepEqual([...new Set(statuses)], [200])
    assert.equal(await sidecar.metric(ACTIVE), 1)
    assert.equal((await sidecar.admin('GET', '/snapshot')).status, 200)
    for (const path of ['livez', 'readyz']) {
      const { status } = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/${path}`)
      assert.equal(status, 200, path)
    }
    await stop()
  })

  it('it is over when the thread has nothing to do, though clients begin no handshake', async (t) => {
    stayingSilent(t, sidecar, '127.0.0.2')
    const { stop } = flood(t, crowd)
    await isOverloaded(sidecar)
    await stop()
    await isOver(sidecar)
  })

  it('a drain answers what was refused, too', async (t) => {
    const { answers, h2Answers } = flood(t, crowd)
    await eventually('some are refused', () => {
      return answers.some(isRefused) && h2Answers.some(isRefused)
    })
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})

describe('few connections to the workload', () => {
  const t = suiteCleanup()

  it('keep the turns of an overloaded thread short, and requests are refused all the same', async () => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: url,
      config: {
        policy: POLICY,
        inbound: {
          limits: { upstreamConnections: 8 },
          overload: { eventLoopLag: '100ms' },
        },
      },
    })
    const crowd = await openCrowd(t, sidecar, await sidecar.authority.svid('noisy'))
    const { answers, stop } = flood(t, crowd)
    await eventually('one is refused', () => answers.some(isRefused))
    const served = (): number => answers.filter(({ status }) => status === 200).length
    const before = served()
    await eventually('others are served', () => served() >= before + 20)
    await stop()
    await isOver(sidecar)
  })
})

describe('a tunnel', () => {
  const t = suiteCleanup()

  it('goes on while requests are refused', async () => {
    const workload = await startWebSocketWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url, config: SHORT_TURNS })
    const noisy = await sidecar.authority.svid('noisy')
    const tunnel = await openWebSocket(t, sidecar, noisy, '/chat')
    assert.ok(tunnel instanceof WebSocketEnd)
    const crowd = await openCrowd(t, sidecar, noisy)
    const { stop } = flood(t, crowd)
    const before = await eventually('requests are refused', () => sidecar.metric(SHED))
    await eventually('messages come back meanwhile', async () => {
      const { length } = tunnel.frames
      tunnel.send('hello')
      await eventually('the message', () => tunnel.frames.length > length)
      return tunnel.frames.length >= 10 && (await sidecar.metric(SHED)) > before
    })
    await stop()
    assert.ok(!tunnel.closed)
  })
})

describe('what a data thread can answer', () => {
  const t = suiteCleanup()

  it('is not refused, however many ask at once', async () => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: url,
      // Five times the default: a busy machine must not pass for many clients.
      config: { policy: POLICY, inbound: { overload: { eventLoopLag: '500ms' } } },
    })
    const identity = await sidecar.authority.svid('web')
    const statuses = new Set<number>()
    const clients: Http1Client[] = []
    for (let i = 0; i < 64; i++) clients.push(await openClient(t, sidecar, identity))
    const session = await openSession(t, sidecar, identity)
    await Promise.all([
      ...clients.map(async (client) => {
        for (let i = 0; i < 50; i++) {
          client.send(get('/'))
          statuses.add((await client.answer()).status)
        }
      }),
      ...clients.map(async () => {
        for (let i = 0; i < 10; i++) statuses.add((await ask(session)).status)
      }),
    ])
    assert.deepEqual([...statuses], [200])
    assert.equal(await sidecar.metric(SHED), 0)
    assert.ok(!sidecar.lines.some(({ event }) => event === 'overload'))
  })

  it('is up to clients where nothing is to be refused', async () => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: url,
      config: { policy: POLICY, inbound: { overload: { eventLoopLag: 0 } } },
    })
    const identity = await sidecar.authority.svid('web')
    const { answers, h2Answers, stop } = flood(t, await openCrowd(t, sidecar, identity))
    await eventually('many are served', () => answers.length >= 3 * MOST_AT_ONCE, 60_000)
    await stop()
    const statuses = [...answers, ...h2Answers].map(({ status }) => status)
    assert.deepEqual([...new Set(statuses)], [200])
    assert.equal(await sidecar.metric(ACTIVE), 0)
  })
})
