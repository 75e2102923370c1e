// Whoever reaches the ports in plain text, for metrics and probes, and reads none of the answers, or asks
// faster than anybody could: the kubelet and the scraper beside them are answered, requests go on, and memory
// is bounded.
import assert from 'node:assert/strict'
import http from 'node:http'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { descriptorsOf, rssMibOf } from '../support/process-state.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

const ADDRESSES = ['127.0.0.2', '127.0.0.3', '127.0.0.4']
const OF_EACH = 32
const PIPELINED = 500
/** What so many requests are until they are collected; their answers would be 4 GB. */
const MOST_GROWTH_MIB = 200

describe('metrics and probes, asked by many who do not read', {
  skip: process.platform !== 'linux',
}, () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let client: SteadyClient

  before(async () => {
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: {
        log: { decisions: 'off' },
        probes: { listen: '127.0.0.1:0', paths: ['/healthz'] },
      },
    })
    client = new SteadyClient(t, sidecar, await sidecar.authority.svid('web'), { pauseMs: 2 })
    // Once, so that what is compared is not the first time.
    await sidecar.metrics()
    await client.served(20)
  })

  function flood(port: number, path: string, requests: number): net.Socket[] {
    return ADDRESSES.flatMap((localAddress) =>
      Array.from({ length: OF_EACH }, () => {
        const socket = net.connect({ host: '127.0.0.1', port, localAddress })
        t.after(() => socket.destroy())
        socket.on('error', () => {}).pause()
        socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`.repeat(requests))
        return socket
      }),
    )
  }

  const probed = (): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const { metricsPort: port } = sidecar
      // A connection for each, as the kubelet has it: an idle one may give way to others at any time.
      const asked = { host: '127.0.0.1', port, path: '/livez', timeout: KUBELET_MS, agent: false }
      http
        .get(asked, (response) => {
          response.resume().on('end', () => resolve(response.statusCode))
        })
        .on('timeout', function (this: http.ClientRequest) {
          this.destroy(new Error('the kubelet would not wait'))
        })
        .on('error', reject)
    })

  for (const [path, requests, listener = 'metrics'] of [
    ['/metrics', 1],
    ['/metrics', PIPELINED],
    ['/readyz', PIPELINED],
    ['/healthz', PIPELINED, 'probes'],
    ['/not-declared', PIPELINED, 'probes'],
  ] as const) {
    it(`hold up nobody else with ${requests} requests at once for ${path} of ${listener}`, async () => {
      const rssBefore = await rssMibOf(sidecar.pid)
      const descriptors = await descriptorsOf(sidecar.pid)
      const { [listener]: address } = await sidecar.logged('ready')
      const { port } = address as { port: number }
      const sockets = flood(port, path, requests)
      for (let i = 0; i < 50; i++) assert.equal(await probed(), 200)
      await client.served(200)
      assert.match(await sidecar.metrics(), /^postern_build_info/m)
      const grown = (await rssMibOf(sidecar.pid)) - rssBefore
      assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
      for (const socket of sockets) socket.destroy()
      // All: those of two floods together would be more connections than there may be.
      await eventually('they are gone', async () => {
        return (await descriptorsOf(sidecar.pid)) <= descriptors + 1
      })
    })
  }

  it('have not been noticed by who was served', () => client.unharmed())
})

/** Longer than a kubelet waits: this machine has other things to do as well. */
const KUBELET_MS = 15_000
