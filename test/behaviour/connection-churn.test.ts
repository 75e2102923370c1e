// Thousands of connections that come and go, politely or not, and thousands of handshakes that are left
// half-finished, while real clients are served. Afterwards everything is back where it was: connections,
// descriptors, timers, and the memory that they took.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { descriptorsOf, rssMibOf } from '../support/process-state.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { type ThreadTimers, threadTimers } from '../support/thread-timers.ts'
import { startWorkload } from '../support/workload.ts'

const OTHERS = '127.0.0.2'
/** CHURN=100 for a hundred thousand of each. */
const CONNECTIONS = 1_000 * Number(process.env['CHURN'] ?? 1)
const AT_ONCE = 50
/** What allocator and garbage collector keep for the next time. */
const MOST_GROWTH_MIB = 40
const REQUEST = 'GET /api/orders HTTP/1.1\r\nhost: localhost\r\n\r\n'

/** The first flight of a client, as it came off the wire. */
async function clientHello(): Promise<Buffer> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  const client = tls.connect({ host: '127.0.0.1', port, servername: 'localhost' })
  client.on('error', () => {})
  const [socket] = (await once(server, 'connection')) as [net.Socket]
  const [hello] = (await once(socket, 'data')) as [Buffer]
  client.destroy()
  socket.destroy()
  server.close()
  return hello
}

describe('connections by the thousand', { skip: process.platform !== 'linux' }, () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystanders: SteadyClient[]
  let baseline: Baseline
  let timers: ThreadTimers

  interface Baseline {
    readonly descriptors: number
    readonly timers: number
    readonly rssMib: number
  }

  before(async () => {
    timers = threadTimers(await temporaryDirectory(t))
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      env: timers.env,
      config: {
        log: { decisions: 'off' },
        inbound: {
          timeouts: { handshake: '2s' },
          limits: { handshakeFailuresPerAddress: 100_000 },
        },
      },
    })
    web = await sidecar.authority.svid('web')
    bystanders = [
      new SteadyClient(t, sidecar, web, { pauseMs: 5 }),
      new SteadyClient(t, sidecar, web, { pauseMs: 20, keepAlive: false }),
    ]
    // Once through everything, so that what is compared is not the first time.
    await churn(100)
    await quiet(1)
    baseline = {
      descriptors: await descriptorsOf(sidecar.pid),
      timers: await timers.count(),
      rssMib: await rssMibOf(sidecar.pid),
    }
  })

  const connect = (): net.Socket =>
    net
      .connect({ host: '127.0.0.1', port: sidecar.port, localAddress: OTHERS })
      .on('error', () => {})
      .resume()

  const ways: readonly (() => Promise<unknown>)[] = [
    async () => {
      const socket = connect()
      await once(socket, 'connect')
      socket.resetAndDestroy()
    },
    async () => {
      const socket = connect()
      await once(socket, 'connect')
      socket.end('GET / HTTP/1.1\r\n\r\n').resume()
      await once(socket, 'close')
    },
    async () => {
      const options = { ...sidecar.clientOptions(web), localAddress: OTHERS }
      const socket = tls.connect(options as tls.ConnectionOptions).on('error', () => {})
      await once(socket, 'secureConnect')
      socket.destroy()
    },
    async () => {
      const options = { ...sidecar.clientOptions(web), localAddress: OTHERS }
      const socket = tls.connect(options as tls.ConnectionOptions).on('error', () => {})
      socket.write(REQUEST)
      await once(socket, 'data')
      socket.destroy()
    },
  ]

  async function churn(connections: number): Promise<void> {
    let left = connections
    const one = async (): Promise<void> => {
      // One that is turned away has come and gone as well.
      while (left > 0) await ways[left-- % ways.length]?.().catch(() => {})
    }
    await Promise.all(Array.from({ length: AT_ONCE }, one))
  }

  /** Nobody but `clients` is connected. */
  const quiet = (clients: number): Promise<unknown> =>
    eventually('the others are gone', async () => {
      return (await sidecar.metric('postern_connections_open')) <= clients
    })

  async function backAtBaseline(): Promise<void> {
    await quiet(bystanders.length)
    await eventually('descriptors are back', async () => {
      return (await descriptorsOf(sidecar.pid)) <= baseline.descriptors + bystanders.length
    })
    await eventually('timers are back', async () => {
      return (await timers.count()) <= baseline.timers + bystanders.length
    })
    const grown = (await rssMibOf(sidecar.pid)) - baseline.rssMib
    assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
  }

  it('come and go, and leave nothing', async () => {
    await churn(CONNECTIONS)
    for (const bystander of bystanders) await bystander.served(10)
    await backAtBaseline()
  })

  it('stop in the middle of their handshakes, and others are served meanwhile', async () => {
    const hello = await clientHello()
    const sockets: net.Socket[] = []
    t.after(() => {
      for (const socket of sockets) socket.destroy()
    })
    for (let i = 0; i < CONNECTIONS; i++) {
      const socket = connect()
      sockets.push(socket)
      await once(socket, 'connect')
      if (i % 3 === 1) socket.write(hello.subarray(0, hello.length / 2))
      // The rest of the handshake would be its turn.
      if (i % 3 === 2) socket.write(hello)
    }
    for (const bystander of bystanders) await bystander.served(20)
    await eventually('all have come to the end of their time', () =>
      sockets.every(({ destroyed, readableEnded }) => destroyed || readableEnded),
    )
    await backAtBaseline()
  })

  it('have not been noticed by anybody who was served', async () => {
    for (const bystander of bystanders) await bystander.unharmed()
  })
})
