// Clients that do not read their answers, and a workload that takes no requests or answers none: each stream
// and each connection holds a bounded part of it, and all together no more than the limit, however many they are.
// Whoever holds little is served all along, also where the container is small.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type http2 from 'node:http2'
import type net from 'node:net'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { FRAME } from '../../src/http/h2/frames.ts'
import {
  assertUnharmed,
  type Bystander,
  calmAnswer,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openSession, startH2cWorkload } from '../support/http2.ts'
import { LARGE_HEAD } from '../support/large-head.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { rssMibOf } from '../support/process-state.ts'
import { frame, openRawHttp2 } from '../support/raw-http2.ts'
import { openRawTls } from '../support/raw-tls.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload } from '../support/workload.ts'

const PIECE = Buffer.alloc(64 * 1024, 'x')
const CONNECTIONS = 24
const STREAMS = 100
/** More than a stream may send before the workload takes it. */
const UPLOAD = Buffer.alloc(300_000, 'y')
/** What node reads at once, about. */
const RECORDS = 2_800
const LIMIT_MIB = 8
/** The limit is looked at ten times a second, and what was closed is collected later. */
const MOST_GROWTH_MIB = 200
const CLOSED = 'postern_connections_closed_total{reason="memory"}'

interface Writable {
  write(bytes: Buffer): boolean
  on(event: 'drain', listener: () => void): unknown
  readonly destroyed: boolean
}

/** Sends for as long as somebody takes it. */
function flood(to: Writable): void {
  const more = (): void => {
    while (!to.destroyed && to.write(PIECE)) {}
  }
  to.on('drain', more)
  more()
}

/** Answers GET without end, and reads nothing of anything else; but is calm where it is asked to. */
const WORKLOADS: Readonly<Record<string, (t: Cleanup) => Promise<string>>> = {
  h2c: async (t) => {
    const answer = (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void => {
      const path = String(headers[':path'])
      stream.pause()
      if (headers[':method'] !== 'GET') return
      stream.respond({ ':status': 200 })
      if (isCalm(path)) stream.end(calmAnswer(path))
      else flood(stream)
    }
    // In MB; with less it refuses streams of its own accord.
    return (await startH2cWorkload(t, answer, { maxSessionMemory: 1_000 })).url
  },
  http: async (t) => {
    const server = http.createServer({ maxHeaderSize: 64 * 1024 }, (request, response) => {
      for (const one of [request, response]) one.on('error', () => {})
      const path = String(request.url)
      if (isCalm(path)) response.end(calmAnswer(path))
      else if (request.method === 'GET') flood(response)
      else request.pause()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => {
      server.closeAllConnections()
      server.close()
    })
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  },
}

interface Hoard {
  readonly method: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer
}

const HOARDS: Readonly<Record<string, Hoard>> = {
  'answers that nobody reads': { method: 'GET' },
  'requests that the workload does not take': { method: 'PUT', body: UPLOAD },
  'heads of requests that the workload does not answer': { method: 'PUT', headers: LARGE_HEAD },
  'requests that the workload does not answer': { method: 'PUT' },
}

/** As many requests as there are streams, on as many connections as there may be. */
async function hoard(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  { method, headers, body }: Hoard,
): Promise<http2.ClientHttp2Session[]> {
  const sessions: http2.ClientHttp2Session[] = []
  for (let i = 0; i < CONNECTIONS; i++) {
    const session = await openSession(t, sidecar, certificate)
    sessions.push(session)
    for (let stream = 0; stream < STREAMS && !session.destroyed; stream++) {
      const one = session.request(
        { ':path': '/hoard', ':method': method, ...headers },
        { endStream: body === undefined },
      )
      one.on('error', () => {}).pause()
      if (body !== undefined) one.write(body)
    }
  }
  return sessions
}

for (const [scheme, startWorkload] of Object.entries(WORKLOADS)) {
  describe(`with a workload behind ${scheme}://, what is held for others`, () => {
    const t = suiteCleanup()
    let sidecar: TestSidecar
    let bystander: Bystander

    async function stand(timeouts = {}, heldBytes = `${LIMIT_MIB}MiB`): Promise<void> {
      sidecar = await startSidecar(t, {
        forward: await startWorkload(t),
        config: {
          inbound: { limits: { heldBytes }, timeouts },
          log: { decisions: 'off', access: 'all' },
        },
      })
      bystander = await startBystander(t, sidecar, await sidecar.authority.svid('calm'))
    }

    for (const [what, one] of Object.entries(HOARDS)) {
      it(`is bounded for all together: ${what}`, async () => {
        await stand()
        const before = await rssMibOf(sidecar.pid)
        const sessions = await hoard(t, sidecar, await sidecar.authority.svid('hoarder'), one)
        await eventually('some were closed', async () => (await sidecar.metric(CLOSED)) > 0)
        await bystander.served()
        const line = await sidecar.logged('connections_relieved')
        assert.equal(line['principal'], 'spiffe://example.org/ns/default/sa/hoarder')
        assert.equal(line.level, 'warn')
        const cut = await sidecar.logged('access', { code: 'held_bytes_full' })
        assert.equal(cut['principal'], line['principal'])
        if (process.platform === 'linux') {
          const grown = (await rssMibOf(sidecar.pid)) - before
          assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
        }
        for (const session of sessions) session.destroy()
        await bystander.stop()
        await assertUnharmed(sidecar, { upstream: scheme === 'h2c' ? CONNECTIONS : 0 })
      })
    }

    it('is counted by memory: the next request in TLS records of a byte', async () => {
      // That its client has gone is behind what waits, and seen when the request is over.
      await stand({ upstreamResponse: '3s' })
      const certificate = await sidecar.authority.svid('hoarder')
      const clients: net.Socket[] = []
      for (let i = 0; i < CONNECTIONS; i++) {
        const { socket, records } = await openRawTls(t, sidecar, certificate, ['http/1.1'])
        const head = 'PUT /hoard HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n'
        const first = records.data(head)
        const next = Array.from({ length: RECORDS }, () => records.data('x'))
        socket.on('error', () => {})
        socket.write(Buffer.concat([first, ...next]))
        clients.push(socket)
      }
      await eventually('some were closed', async () => (await sidecar.metric(CLOSED)) > 0)
      await bystander.served()
      for (const client of clients) client.destroy()
      await bystander.stop()
      await assertUnharmed(sidecar, { upstream: scheme === 'h2c' ? CONNECTIONS : 0 })
    })

    it('is counted where it is not a request yet: header blocks without an end', async () => {
      await stand({}, '1MiB')
      const certificate = await sidecar.authority.svid('hoarder')
      const part = Buffer.alloc(16 * 1024)
      const parts = [FRAME.headers, ...Array(3).fill(FRAME.continuation)].map((type) =>
        frame(type, 0, 1, part),
      )
      for (let i = 0; i < CONNECTIONS; i++) {
        const { socket } = await openRawHttp2(t, sidecar, certificate)
        socket.on('error', () => {})
        socket.write(Buffer.concat(parts))
      }
      await eventually('some were closed', async () => (await sidecar.metric(CLOSED)) > 0)
      await bystander.served()
      await bystander.stop()
    })
  })
}

describe('with a workload behind tcp://, what is held for others', () => {
  const t = suiteCleanup()

  it('is bounded for all together: bytes that the workload does not take', async () => {
    const { url } = await startRawWorkload(t, (socket) => socket.removeAllListeners('data').pause())
    const sidecar = await startSidecar(t, {
      forward: url.replace('http:', 'tcp:'),
      config: { inbound: { limits: { heldBytes: '2MiB' } } },
    })
    const options = sidecar.clientOptions(await sidecar.authority.svid('hoarder'))
    for (let i = 0; i < CONNECTIONS; i++) {
      const socket = tls.connect(options)
      t.after(() => socket.destroy())
      socket.on('error', () => {})
      flood(socket)
    }
    await eventually('some were closed', async () => (await sidecar.metric(CLOSED)) > 0)
    assert.equal((await sidecar.logged('connections_relieved')).level, 'warn')
  })
})
