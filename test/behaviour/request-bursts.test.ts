// More requests at once than a turn of the event loop begins: those that wait are answered in order,
// others have their turn meanwhile, and what is taken back before its turn costs nothing.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, type Http1Client, openClient, openResettableClient, post } from '../support/http1.ts'
import { ask, openSession } from '../support/http2.ts'
import { type IssuedCertificate, testAuthority } from '../support/pki.ts'
import { head, openRawHttp2, requestFields, resetStreamFrame } from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const SLOW = fileURLToPath(new URL('../policy/bundles/slow.tar.gz', import.meta.url))
const READS_BODIES = fileURLToPath(new URL('../policy/bundles/body.tar.gz', import.meta.url))
/** Some milliseconds of processor time for each request. */
const SLOW_PATH = '/slow/40000'
const ALLOWED = 'postern_decisions_total{outcome="allow",rule="policy"}'

describe('many requests at once', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let noisy: IssuedCertificate

  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        policy: { bundle: SLOW, fuel: 1_000_000_000 },
        inbound: { overload: { eventLoopLag: 0 } },
      },
    })
    noisy = await sidecar.authority.svid('noisy')
  })

  const openClients = async (count: number): Promise<Http1Client[]> => {
    const clients: Http1Client[] = []
    for (let i = 0; i < count; i++) clients.push(await openClient(t, sidecar, noisy))
    return clients
  }

  it('are answered each with its own answer, in order', async () => {
    const clients = await openClients(100)
    const session = await openSession(t, sidecar, noisy)
    const told = ({ body }: { readonly body: Buffer }): string => {
      const { url, body: sent } = JSON.parse(body.toString()) as { url: string; body: string }
      return `${url} ${sent}`
    }
    const pipelined = clients.map(async (client, i) => {
      const path = `/${i}`
      client.send(post(path, `${i}a`) + get(path) + post(path, `${i}b`))
      const answers = [await client.answer(), await client.answer(), await client.answer()]
      assert.deepEqual(answers.map(told), [`${path} ${i}a`, `${path} `, `${path} ${i}b`])
    })
    const streams = Array.from({ length: 100 }, async (_, i) => {
      const reply = await ask(session, { ':method': 'POST', ':path': `/h2/${i}` }, `body ${i}`)
      assert.equal(told(reply), `/h2/${i} body ${i}`)
    })
    await Promise.all([...pipelined, ...streams])
    for (const { socket } of clients) socket.destroy()
  })

  it('do not keep the thread from who asks for one', async () => {
    const clients = await openClients(50)
    const session = await openSession(t, sidecar, noisy)
    const modest = await openClient(t, sidecar, await sidecar.authority.svid('modest'))
    let answered = 0
    const crowd = [
      ...clients.map(async (client) => {
        client.send(get(SLOW_PATH))
        await client.answer()
        answered++
      }),
      ...clients.map(async () => {
        await ask(session, { ':path': SLOW_PATH })
        answered++
      }),
    ]
    await Promise.race(crowd)
    modest.send(get('/'))
    assert.equal((await modest.answer()).status, 200)
    assert.ok(answered < 50, `${answered} of 100 were answered before it`)
    await Promise.all(crowd)
    for (const { socket } of clients) socket.destroy()
  })

  it('that are taken back before their turn are not decided', async () => {
    const raw = await openRawHttp2(t, sidecar, noisy)
    const before = (await sidecar.metric(ALLOWED)) ?? 0
    const seen = workload.seen.length
    const ids = Array.from({ length: 60 }, (_, i) => 2 * i + 1)
    const slow = requestFields({ ':path': SLOW_PATH })
    const fast = requestFields({ ':path': '/last' })
    raw.send(
      ...ids.map((id) => head(id, slow)),
      ...ids.map((id) => resetStreamFrame(id, 8)),
      head(121, fast),
    )
    assert.equal((await raw.answered(121)).status, 200)
    const decided = (await sidecar.metric(ALLOWED))! - before
    assert.ok(decided < 30, `${decided} decisions`)
    assert.equal(workload.seen.at(-1)?.url, '/last')
    assert.ok(workload.seen.length - seen < 30)
  })

  it('are answered though their clients have ended their side, and not begun where they have gone', async () => {
    const ending = await openClients(60)
    const leaving = await Promise.all(
      Array.from({ length: 40 }, () => openResettableClient(t, sidecar, noisy)),
    )
    const answers = ending.map(async (client) => {
      client.send(get(SLOW_PATH))
      client.socket.end()
      return (await client.answer()).status
    })
    await Promise.race(answers)
    for (const client of leaving) client.send(get(`${SLOW_PATH}?gone`))
    // By then they wait behind those that came before them.
    await Promise.race(answers.slice(ending.length / 3))
    for (const client of leaving) client.reset()
    assert.deepEqual([...new Set(await Promise.all(answers))], [200])
    // Behind them in line.
    const [last] = await openClients(1)
    last?.send(get('/last'))
    assert.equal((await last?.answer())?.status, 200)
    const begun = workload.seen.filter(({ url }) => url.endsWith('?gone')).length
    assert.ok(begun < 20, `${begun} of 40 have reached the workload`)
  })

  it('are answered in a drain, those that wait among them', async () => {
    const clients = await openClients(60)
    const answers = clients.map(async (client) => {
      client.send(get(SLOW_PATH))
      return (await client.answer()).status
    })
    await Promise.race(answers)
    sidecar.signal('SIGTERM')
    assert.deepEqual([...new Set(await Promise.all(answers))], [200])
    assert.equal(await sidecar.exited, 0)
  })
})

describe('many requests at once whose bodies policy reads', () => {
  const t = suiteCleanup()

  it('are decided each by its own', async () => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: url,
      config: { policy: { bundle: READS_BODIES } },
    })
    const identity = await sidecar.authority.svid('web')
    const clients: Http1Client[] = []
    for (let i = 0; i < 100; i++) clients.push(await openClient(t, sidecar, identity))
    const session = await openSession(t, sidecar, identity)
    /** What policy has read of the body, and what the workload got of it. */
    const told = (answer: { readonly body: Buffer }): readonly unknown[] => {
      const { headers, body } = JSON.parse(answer.body.toString()) as {
        headers: Record<string, string>
        body: string
      }
      const seen = Buffer.from(headers['x-seen'] ?? '', 'base64').toString()
      return [(JSON.parse(seen) as { parsed: unknown }).parsed, JSON.parse(body)]
    }
    await Promise.all([
      ...clients.map(async (client, i) => {
        const body = { allow: true, h1: i }
        client.send(post('/', JSON.stringify(body), 'content-type: application/json\r\n'))
        assert.deepEqual(told(await client.answer()), [body, body])
      }),
      ...clients.map(async (_, i) => {
        const body = { allow: true, h2: i }
        const json = { ':method': 'POST', 'content-type': 'application/json' }
        assert.deepEqual(told(await ask(session, json, JSON.stringify(body))), [body, body])
      }),
    ])
  })
})

describe('many requests at once of a peer that is no longer trusted', () => {
  const t = suiteCleanup()

  const start = async (): Promise<TestSidecar> =>
    startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: {
        policy: { bundle: SLOW, fuel: 1_000_000_000 },
        inbound: { overload: { eventLoopLag: 0 } },
      },
    })

  const trustOthers = async (sidecar: TestSidecar): Promise<void> => {
    const { root } = await testAuthority()
    await writeFile(sidecar.files.trustBundle, root.certificatePem)
    sidecar.signal('SIGHUP')
  }

  /** Each of `invalid` is counted, and at least one of them had waited. */
  const counted = async (
    sidecar: TestSidecar,
    protocol: string,
    invalid: number,
  ): Promise<void> => {
    // Those that were with the workload have no status in the metrics: it had not answered.
    const ended = (statusClass: string): Promise<number> =>
      sidecar.metric(
        `postern_requests_total{protocol="${protocol}",outcome="peer_invalid",status_class="${statusClass}"}`,
      )
    await eventually(
      'each is counted',
      async () => (await ended('4xx')) + (await ended('none')) === invalid,
    )
    assert.ok((await ended('4xx')) > 0, 'none of them waited')
  }

  it('are answered as such, those that wait among them, and go nowhere', async () => {
    const sidecar = await start()
    const session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
    const asked = Array.from({ length: 90 }, () => ask(session, { ':path': SLOW_PATH }))
    await Promise.race(asked)
    await trustOthers(sidecar)
    const statuses = (await Promise.all(asked)).map(({ status }) => status)
    assert.deepEqual([...new Set(statuses)].sort(), [200, 403])
    await counted(sidecar, 'http/2', statuses.filter((status) => status === 403).length)
  })

  it('are answered as such on connections of their own, too', async () => {
    const sidecar = await start()
    const web = await sidecar.authority.svid('web')
    const clients: Http1Client[] = []
    for (let i = 0; i < 200; i++) clients.push(await openClient(t, sidecar, web))
    const asked = clients.map(async (client) => {
      client.send(get(SLOW_PATH))
      // One that is with the workload just then is cut.
      return client.answer().then(
        ({ status }) => status,
        () => 0,
      )
    })
    await Promise.race(asked)
    await trustOthers(sidecar)
    const statuses = await Promise.all(asked)
    await counted(sidecar, 'http/1.1', statuses.filter((status) => status !== 200).length)
  })
})
