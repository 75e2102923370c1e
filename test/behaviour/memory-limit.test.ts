// A container with as much memory as deploy/sidecar.yaml gives it. One peer takes all that a peer can: as many
// connections as it gets, answers that it does not read, requests that the workload is slow to answer, and more
// than can be logged. The process is not killed for it, and another peer is served all along.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import type http2 from 'node:http2'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { type Bystander, calmAnswer, isCalm, startBystander } from '../support/bystander.ts'
import { limitedGroup } from '../support/cgroups.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get } from '../support/http1.ts'
import { openSession, startH2cWorkload } from '../support/http2.ts'
import { LARGE_HEAD } from '../support/large-head.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const BYTES = String(256 * 1024 * 1024)
/** Version 1 of cgroups, then version 2. */
const LIMITS = [
  { parent: '/sys/fs/cgroup/memory', file: 'memory.limit_in_bytes', value: BYTES },
  { parent: '/sys/fs/cgroup', file: 'memory.max', value: BYTES },
]
/** Of one peer, more than half of what 256 MiB have room for; 3,000 ended the process before. */
const CONNECTIONS = 700
const AT_ONCE = 16
const ADDRESSES = 8
const HOARDS = 20
const STREAMS = 100
const PIECE = Buffer.alloc(64 * 1024, 'x')
/** Of which the heads take as much as the container has. */
const SLOW_SESSIONS = 100
const FLOODS = 32
const NO_LOG = { decisions: 'off', access: 'off' }
const TO_NOWHERE = { decisions: 'all', decisionFile: '/dev/null' }
const REFUSED = 'postern_handshakes_total{result="failure",reason="peer_limited"}'
const ANSWERED = 'postern_requests_total{protocol="http/1.1",outcome="allow",status_class="2xx"}'
const RELIEVED = 'postern_connections_closed_total{reason="memory"}'

function answer(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
  const path = String(headers[':path'])
  if (path === '/slow') return
  stream.respond({ ':status': 200 })
  if (path !== '/hoard') return void stream.end(isCalm(path) ? calmAnswer(path) : 'fine')
  const more = (): void => {
    while (!stream.destroyed && stream.write(PIECE)) {}
  }
  stream.on('drain', more)
  more()
}

describe('with the memory of a small container', () => {
  const t = suiteCleanup()

  /** @param attack by one peer; when it is over, another is served and the process drains */
  function cannotTakeAll(
    how: string,
    log: object,
    attack: (sidecar: TestSidecar, bystander: Bystander) => Promise<void>,
  ): void {
    it(`one peer cannot take all of it: ${how}`, async (test) => {
      const group = await limitedGroup(t, LIMITS)
      if ('obstacle' in group) return test.skip(group.obstacle)
      const workload = await startH2cWorkload(t, answer, { maxSessionMemory: 1_000 })
      const sidecar = await startSidecar(t, {
        forward: workload.url,
        launcher: ['sh', '-c', `echo $$ >${group.processes} && exec "$@"`, 'sh'],
        config: { log },
      })
      const bystander = await startBystander(t, sidecar, await sidecar.authority.svid('calm'))
      await attack(sidecar, bystander)
      await bystander.served()
      await bystander.stop()
      sidecar.signal('SIGTERM')
      await sidecar.logged('drain')
    })
  }

  /** As many requests as one connection may have. */
  async function ask(
    sidecar: TestSidecar,
    certificate: IssuedCertificate,
    headers: http2.OutgoingHttpHeaders,
  ): Promise<void> {
    const session = await openSession(t, sidecar, certificate)
    for (let stream = 0; stream < STREAMS && !session.destroyed; stream++) {
      session
        .request(headers)
        .on('error', () => {})
        .pause()
    }
  }

  cannotTakeAll('connections, and answers unread', NO_LOG, async (sidecar, bystander) => {
    const hoarder = await sidecar.authority.svid('hoarder')
    const secureContext = tls.createSecureContext({
      ca: sidecar.authority.root.certificatePem,
      cert: hoarder.chainPem,
      key: hoarder.privateKeyPem,
    })
    const options = { ...sidecar.clientOptions(hoarder), secureContext }
    let left = CONNECTIONS
    async function connectAgainAndAgain(): Promise<void> {
      while (left-- > 0) {
        const localAddress = `127.0.0.${2 + (left % ADDRESSES)}`
        const socket = tls.connect({ ...options, localAddress } as tls.ConnectionOptions)
        t.after(() => socket.destroy())
        socket.on('error', () => {})
        socket.write(get('/'))
        await Promise.race([once(socket, 'data'), once(socket, 'close')]).catch(() => {})
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, connectAgainAndAgain))
    assert.ok((await sidecar.metric(REFUSED)) > 0)
    await bystander.served()

    const another = await sidecar.authority.svid('another')
    for (let i = 0; i < HOARDS; i++) await ask(sidecar, another, { ':path': '/hoard' })
    await eventually('some were closed', async () => (await sidecar.metric(RELIEVED)) > 0)
  })

  cannotTakeAll('requests that the workload is slow to answer', NO_LOG, async (sidecar) => {
    const hoarder = await sidecar.authority.svid('hoarder')
    for (let i = 0; i < SLOW_SESSIONS; i++) {
      await ask(sidecar, hoarder, { ':path': '/slow', ...LARGE_HEAD })
    }
    await eventually('most were closed', async () => {
      return (await sidecar.metric(RELIEVED)) >= SLOW_SESSIONS / 2
    })
  })

  cannotTakeAll('more large heads than can be logged', TO_NOWHERE, async (sidecar) => {
    const options = sidecar.clientOptions(await sidecar.authority.svid('flooder'))
    const fields = Object.entries(LARGE_HEAD).map(([name, value]) => `${name}: ${value}\r\n`)
    const requests = Buffer.from(get('/flood', fields.join('')).repeat(4))
    for (let i = 0; i < FLOODS; i++) {
      const socket = tls.connect(options)
      t.after(() => socket.destroy())
      const more = (): void => {
        while (!socket.destroyed && socket.write(requests)) {}
      }
      socket.on('error', () => {}).on('drain', more)
      socket.resume()
      more()
    }
    await eventually('many were answered', async () => (await sidecar.metric(ANSWERED)) > 6_000)
  })
})
