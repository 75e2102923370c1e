// Requests that wait because the workload has enough to do: for a connection to it, or for a stream where
// it allows few. Whoever has many of them waits for who has few, and those that are taken back cost
// nobody else his time.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { SETTING } from '../../src/http/h2/frames.ts'
import { assertUnharmed } from '../support/bystander.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient, startScriptedWorkload } from '../support/http1.ts'
import { startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  head,
  openRawHttp2,
  type RawHttp2,
  requestFields,
  resetStreamFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const UPSTREAM_CONNECTIONS = 32
const DECIDED = 'postern_decisions_total{outcome="allow",rule="allow_rules"}'
const RESTARTS = 'postern_data_thread_restarts_total{reason="stalled"}'
const HANG = '/hang'
const STREAMS = 1_000

/** Never answers `/hang`: what carries it stays taken until it is given up. */
const WORKLOADS = [
  [
    'HTTP/1.1',
    (t: Cleanup) =>
      startScriptedWorkload(t, (socket, { line }) => {
        if (!line.includes(HANG)) socket.write(ok('well'))
      }),
  ],
  [
    'HTTP/2, one stream at a time',
    (t: Cleanup) =>
      startRawH2cWorkload(
        t,
        ({ id, path, send }) => {
          if (path !== HANG) send(head(id, [':status', '200']))
        },
        { settings: [[SETTING.maxConcurrentStreams, 1]] },
      ),
  ],
] as const

for (const [protocol, startWorkload] of WORKLOADS) {
  describe(`requests that wait for a workload that speaks ${protocol}`, () => {
    const t = suiteCleanup()

    const start = async (): Promise<TestSidecar> =>
      startSidecar(t, {
        forward: (await startWorkload(t)).url,
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

    /** Of one peer, until they wait. */
    const manyWaiting = async (sidecar: TestSidecar, connections: number): Promise<RawHttp2[]> => {
      const web = await sidecar.authority.svid('web')
      const clients: RawHttp2[] = []
      for (let i = 0; i < connections; i++) clients.push(await openRawHttp2(t, sidecar, web))
      const hanging = requestFields({ ':path': HANG })
      const asked = Array.from({ length: STREAMS }, (_, i) => head(2 * i + 1, hanging))
      for (const client of clients) client.send(...asked)
      await eventually('all are decided', async () => {
        return (await sidecar.metric(DECIDED)) === connections * STREAMS
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
