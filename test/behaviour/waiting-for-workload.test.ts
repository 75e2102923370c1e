// Requests that wait because the workload has enough to do: for a connection to it, or for a stream where
// it allows few. Whoever has many of them waits for who has few, and those that are taken back cost
// nobody else his time.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { SETTING } from '../../src/http/h2/frames.ts'
import { assertUnharmed } from '../support/bystander.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient, startScriptedWorkload } from '../support/http1.ts'
import { testAuthority } from '../support/pki.ts'
import { startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  head,
  openRawHttp2,
  type RawHttp2,
  requestFields,
  resetStreamFrame,
} from '../support/raw-http2.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'

const UPSTREAM_CONNECTIONS = 32
/** Of these one peer has no more: the rest is for others. */
const TAKEN = 28
const DECIDED = 'postern_decisions_total{outcome="allow",rule="allow_rules"}'
const RESTARTS = 'postern_data_thread_restarts_total{reason="stalled"}'
const HANG = '/hang'
const STREAMS = 1_000

/** Never answers `/hang`: what carries it stays taken until it is given up. */
const WORKLOADS = [
  [
    'HTTP/1.1',
    (t: Cleanup, asked: () => void) =>
      startScriptedWorkload(t, (socket, { line }) => {
        asked()
        if (!line.includes(HANG)) socket.write(ok('well'))
      }),
  ],
  [
    'HTTP/2, one stream at a time',
    (t: Cleanup, asked: () => void) =>
      startRawH2cWorkload(
        t,
        ({ id, path, send }) => {
          asked()
          if (path !== HANG) send(head(id, [':status', '200']))
        },
        { settings: [[SETTING.maxConcurrentStreams, 1]] },
      ),
  ],
] as const

for (const [protocol, startWorkload] of WORKLOADS) {
  describe(`requests that wait for a workload that speaks ${protocol}`, () => {
    const t = suiteCleanup()

    let workload: Awaited<ReturnType<typeof startWorkload>>
    let asked = 0

    const start = async (): Promise<TestSidecar> => {
      asked = 0
      workload = await startWorkload(t, () => asked++)
      return startSidecar(t, {
        forward: workload.url,
        config: {
          inbound: {
            limits: { upstreamConnections: UPSTREAM_CONNECTIONS, streamsPerConnection: STREAMS },
            timeouts: { upstreamConnect: '1m' },
            overload: { eventLoopLag: 0 },
          },
          log: { access: 'off', decisions: 'off' },
          // Much less than so many took when each that left was looked for.
          stall: '2s',
        },
      })
    }

    /** Of one peer, until they wait. */
    const manyWaiting = async (
      sidecar: TestSidecar,
      connections: number,
      before = 0,
    ): Promise<RawHttp2[]> => {
      const web = await sidecar.authority.svid('web')
      const clients: RawHttp2[] = []
      for (let i = 0; i < connections; i++) clients.push(await openRawHttp2(t, sidecar, web))
      const hanging = requestFields({ ':path': HANG })
      const asked = Array.from({ length: STREAMS }, (_, i) => head(2 * i + 1, hanging))
      for (const client of clients) client.send(...asked)
      await eventually('all are decided', async () => {
        return (await sidecar.metric(DECIDED)) === before + connections * STREAMS
      })
      return clients
    }

    it('do not keep those of another peer', async () => {
      const sidecar = await start()
      await manyWaiting(sidecar, 1)
      const other = await openClient(t, sidecar, await sidecar.authority.svid('other'))
      for (let i = 0; i < 20; i++) {
        other.send(get('/'))
        assert.equal((await other.answer()).status, 200)
      }
    })

    for (const how of ['goes', 'is no longer trusted'] as const) {
      it(`and are of a peer that ${how} do not reach it after all`, async () => {
        const sidecar = await start()
        const other = await sidecar.authority.svid('other')
        // So that it is known how many streams there may be.
        assert.equal((await call(sidecar, other)).status, 200)
        const [client] = await manyWaiting(sidecar, 1, 1)
        await eventually('the workload has what it can take', () => asked === 1 + TAKEN)
        if (how === 'goes') client?.socket.destroy()
        else {
          const { root } = await testAuthority()
          await writeFile(sidecar.files.trustBundle, root.certificatePem)
          sidecar.signal('SIGHUP')
        }
        await assertUnharmed(sidecar, { upstream: UPSTREAM_CONNECTIONS })
        if (how === 'is no longer trusted') {
          await writeFile(sidecar.files.trustBundle, sidecar.authority.root.certificatePem)
          sidecar.signal('SIGHUP')
        }
        // Whatever had been sent before has come by the time of its answer.
        await eventually('another peer is served', async () => {
          return (await call(sidecar, other).catch(() => undefined))?.status === 200
        })
        assert.equal(asked, 1 + TAKEN + 1)
        assert.ok(workload.sockets.length <= UPSTREAM_CONNECTIONS + 1, 'connections for nobody')
      })
    }

    for (const how of ['its connections break', 'it resets its streams'] as const) {
      it(`and are many, of a peer that goes: ${how}`, async () => {
        const sidecar = await start()
        const other = await openClient(t, sidecar, await sidecar.authority.svid('other'))
        const clients = await manyWaiting(sidecar, 30)
        // The last that came is the first to go: it is behind all others.
        for (const client of clients.reverse()) {
          if (how === 'its connections break') client.socket.destroy()
          else client.send(...Array.from({ length: 90 }, (_, i) => resetStreamFrame(2 * i + 1, 8)))
        }
        other.send(get('/'))
        assert.equal((await other.answer()).status, 200)
        for (const client of clients) client.socket.destroy()
        other.socket.destroy()
        await assertUnharmed(sidecar, { upstream: UPSTREAM_CONNECTIONS })
        assert.equal(await sidecar.metric(RESTARTS), 0)
      })
    }
  })
}
