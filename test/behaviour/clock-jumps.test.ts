// The wall clock is put forward and back while connections are open: certificates end by it, and
// nothing else does. Nobody who is valid is cut, and no deadline comes early, late or never.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, beforeEach, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { ask, openSession } from '../support/http2.ts'
import { type MovedClock, movedClock } from '../support/moved-clock.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { connectRaw, type RawClient, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const TRUST_RELOADS = 'postern_reload_total{source="revocation",result="success"}'

const send = (client: RawClient, path: string): void =>
  client.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)

describe('a wall clock that jumps', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let clock: MovedClock
  let denyList: string
  let web: IssuedCertificate
  /** Somebody is in the workload, which answers when it is told to. */
  let held: PromiseWithResolvers<() => void>

  before(async () => {
    const directory = await temporaryDirectory(t)
    clock = await movedClock(directory)
    denyList = join(directory, 'revoked.yaml')
    await writeFile(denyList, '[]\n')
    const workload = await startWorkload(t, ({ url }, response) => {
      if (url === '/never') return
      if (url === '/held') held.resolve(() => response.end('fine'))
      else response.end('fine')
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      env: clock.env,
      config: {
        trust: { revoked: denyList },
        inbound: { timeouts: { upstreamResponse: '3s', idle: '1m' } },
      },
    })
    web = await sidecar.authority.svid('web', { notAfter: new Date(Date.now() + 48 * HOUR_MS) })
  })
  beforeEach(async () => {
    held = Promise.withResolvers()
    await clock.move(0)
  })

  /** The sidecar has seen the time that it is now. */
  async function moveTo(ms: number): Promise<void> {
    await clock.move(ms)
    await eventually('a data thread has seen it', async () => {
      const { body } = await sidecar.admin('POST', '/reload')
      return JSON.parse(body).ok === true || ms < 0
    })
  }

  async function served(client: RawClient): Promise<void> {
    const before = client.received().match(/200 OK/g)?.length ?? 0
    send(client, '/')
    await eventually('it is answered', () => {
      const answers = client.received().match(/200 OK[\s\S]*?fine/g)?.length ?? 0
      return answers > before
    })
  }

  const closedFor = (reason: string): Promise<number> =>
    sidecar.metric(`postern_connections_closed_total{reason="${reason}"}`)

  it('forward ends the peer whose certificate has expired by it, and nothing and nobody else', async () => {
    const brief = await sidecar.authority.svid('brief', {
      notAfter: new Date(Date.now() + 10 * MINUTE_MS),
    })
    const [bystander, busy, expiring] = [
      await connectRaw(t, sidecar, web),
      await connectRaw(t, sidecar, web),
      await connectRaw(t, sidecar, brief),
    ]
    const session = await openSession(t, sidecar, web)
    await Promise.all([served(bystander), served(expiring), ask(session)])
    send(busy, '/held')
    const release = await held.promise

    await moveTo(5 * MINUTE_MS)
    await served(bystander)
    await served(expiring)
    assert.equal((await ask(session)).status, 200)
    release()
    await busy.until(/200 OK[\s\S]*fine/)

    await moveTo(11 * MINUTE_MS)
    await expiring.closed
    await sidecar.logged('connection_cut', { code: 'peer_expired' })
    await served(bystander)
    await served(busy)
    assert.equal((await ask(session)).status, 200)
    assert.equal(await closedFor('peer_invalid'), 1)
    for (const reason of ['idle', 'error', 'upstream', 'lifetime']) {
      assert.equal(await closedFor(reason), 0, reason)
    }
    bystander.socket.destroy()
    busy.socket.destroy()
  })

  it('back cuts nobody, not even when trust is read anew, and deadlines come all the same', async () => {
    const cut = await closedFor('peer_invalid')
    const bystander = await connectRaw(t, sidecar, web)
    const session = await openSession(t, sidecar, web)
    await served(bystander)
    await ask(session)
    const waiting = await connectRaw(t, sidecar, web)
    // Only then has the sidecar read the end of the handshake, under the clock before.
    await served(waiting)
    send(waiting, '/never')
    const call = ask(session, {
      ':path': '/never',
      'content-type': 'application/grpc',
      'grpc-timeout': '1S',
      te: 'trailers',
    })

    await clock.move(-24 * HOUR_MS)
    await waiting.until(/504 [\s\S]*upstream_timeout/)
    assert.equal((await call).headers['grpc-status'], '4')
    const reloads = await sidecar.metric(TRUST_RELOADS)
    await writeFile(denyList, '- { spiffeId: "spiffe://example.org/ns/default/sa/nobody" }\n')
    await eventually('trust is new', async () => (await sidecar.metric(TRUST_RELOADS)) > reloads)
    await served(bystander)
    assert.equal((await ask(session)).status, 200)
    assert.equal(await closedFor('peer_invalid'), cut)
    bystander.socket.destroy()
    waiting.socket.destroy()
  })

  it('does not shorten a drain', async () => {
    const [busy, idle] = [await connectRaw(t, sidecar, web), await connectRaw(t, sidecar, web)]
    send(busy, '/held')
    const release = await held.promise
    await clock.move(HOUR_MS)
    sidecar.signal('SIGTERM')
    await clock.move(2 * HOUR_MS)
    // After a second of the drain, and so after many a look at the clock.
    await idle.closed
    release()
    await busy.until(/200 OK[\s\S]*fine/)
    assert.equal(await sidecar.exited, 0)
  })
})
