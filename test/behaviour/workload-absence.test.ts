// A workload that is not there yet, comes and goes, or accepts connections and does nothing good with
// them: requests of that time fail fast and as what they are, and the first one after it is served.
import assert from 'node:assert/strict'
import http from 'node:http'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { type Asker, askGrpc, askHttp1, askHttp2 } from '../support/asker.ts'
import { assertUnharmed, type Codes, calmAnswer, codeCounter } from '../support/bystander.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { openWebSocket } from '../support/websocket.ts'

const ROUNDS = 4
const AT_ONCE = 8
const PATH = '/calm/here'

/** What is listened to on one port, by turns. */
class Comings {
  readonly port: number
  accepted = 0
  readonly #sockets = new Set<net.Socket>()
  #server: net.Server | undefined

  constructor(port: number) {
    this.port = port
  }

  async comes(server: net.Server): Promise<void> {
    this.#server = server
    server.on('connection', (socket: net.Socket) => {
      this.accepted++
      this.#sockets.add(socket)
      socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve))
  }

  async goes(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    const closed = new Promise((resolve) => server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
    this.#server = undefined
  }
}

/** Nobody else gets it: the system gives free ports in turn. */
async function freePort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

const askTcp: Asker = async (_t, sidecar, certificate, { path }) => {
  const { ALPNProtocols: _, ...options } = sidecar.clientOptions(certificate)
  const socket = tls.connect(options)
  socket.on('error', () => {})
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  const closed = new Promise((resolve) => socket.once('close', resolve))
  socket.write(path)
  await Promise.race([eventually('the echo', () => text === path || socket.destroyed), closed])
  socket.destroy()
  return text === path ? `200 ${calmAnswer(path)}` : 'nothing'
}

const askWebSocket: Asker = async (t, sidecar, certificate, { path }) => {
  const opened = await openWebSocket(t, sidecar, certificate, path)
  return typeof opened === 'number' ? `${opened}` : 'open'
}

interface Kind {
  readonly askers: readonly Asker[]
  readonly good: () => net.Server
}

const KINDS: Readonly<Record<string, Kind>> = {
  http: {
    askers: [askHttp1, askHttp2],
    good: () =>
      http.createServer((request, response) => response.end(calmAnswer(`${request.url}`))),
  },
  h2c: {
    askers: [askHttp1, askHttp2, askGrpc],
    good: () =>
      http2.createServer().on('stream', (stream: http2.ServerHttp2Stream, headers) => {
        stream.on('error', () => {})
        if (headers['content-type'] === 'application/grpc') {
          stream.respond({ ':status': 200, 'grpc-status': '0' }, { endStream: true })
        } else {
          stream.respond({ ':status': 200 })
          stream.end(calmAnswer(String(headers[':path'])))
        }
      }),
  },
  tcp: { askers: [askTcp], good: () => net.createServer((socket) => void socket.pipe(socket)) },
}

const OPEN = 'postern_connections_open'
const REFUSED = ['502 upstream_refused', 'grpc 14', 'nothing']
const RESET = ['502 upstream_reset', 'grpc 14', 'nothing']
const LATE = ['504 upstream_timeout', 'grpc 4']
const SERVED = [`200 ${calmAnswer(PATH)}`, 'grpc 0']

for (const [scheme, { askers, good }] of Object.entries(KINDS)) {
  describe(`a workload behind ${scheme}://`, () => {
    const t = suiteCleanup()
    let comings: Comings
    let sidecar: TestSidecar
    let web: IssuedCertificate
    let codes: () => Promise<Codes>
    before(async () => {
      comings = new Comings(await freePort())
      t.after(() => comings.goes())
      sidecar = await startSidecar(t, {
        forward: `${scheme}://127.0.0.1:${comings.port}`,
        config: {
          inbound: { timeouts: { upstreamResponse: '700ms', idle: '1s' } },
          log: { decisions: 'off' },
        },
      })
      web = await sidecar.authority.svid('web')
      codes = await codeCounter(sidecar)
    })

    const askAll = (t: Cleanup, each = 1): Promise<string[]> =>
      Promise.all(
        Array.from({ length: each }, () => askers)
          .flat()
          .map((ask) => ask(t, sidecar, web, { path: PATH, alone: true })),
      )
    const assertAll = (endings: readonly string[], expected: readonly string[]): void => {
      const others = endings.filter((one) => !expected.includes(one))
      assert.deepEqual(others, [], `expected ${expected}`)
    }

    it('that is not there yet is served as soon as it is', async (test) => {
      test.after(() => comings.goes())
      assertAll(await askAll(test, AT_ONCE), REFUSED)
      // A connection of TCP is counted when it has closed, which its client may see first.
      await eventually('all are counted', async () => (await sidecar.metric(OPEN)) === 0)
      assert.deepEqual(await codes(), { upstream_refused: AT_ONCE * askers.length })
      await comings.comes(good())
      assertAll(await askAll(test, AT_ONCE), SERVED)
      assert.deepEqual(await codes(), {})
      await comings.goes()
    })

    it('that is not there yet is told of with what the system says', async () => {
      const { detail, level } = await sidecar.logged('workload_unreachable')
      assert.deepEqual([detail, level], [`connect ECONNREFUSED 127.0.0.1:${comings.port}`, 'warn'])
    })

    it('that comes and goes costs its absence and no more', async (test) => {
      test.after(() => comings.goes())
      for (let round = 0; round < ROUNDS; round++) {
        await comings.comes(good())
        const during = askAll(test, AT_ONCE)
        if (round % 2 === 0) assertAll(await during, SERVED)
        await comings.goes()
        assertAll(await during, [...SERVED, ...REFUSED, ...RESET])
        assertAll(await askAll(test), REFUSED)
      }
      await comings.comes(good())
      assertAll(await askAll(test, AT_ONCE), SERVED)
      await comings.goes()
      await codes()
    })

    it('that accepts and resets is served once it does not', async (test) => {
      test.after(() => comings.goes())
      await comings.comes(net.createServer((socket) => void socket.resetAndDestroy()))
      // A reset that comes with the connection is an error of connecting.
      assertAll(await askAll(test, AT_ONCE), [...RESET, ...REFUSED])
      const { upstream_reset: reset = 0, upstream_refused: refused = 0, ...others } = await codes()
      assert.ok(reset + refused === AT_ONCE * askers.length)
      assert.deepEqual(others, {})
      await comings.goes()
      await comings.comes(good())
      assertAll(await askAll(test, AT_ONCE), SERVED)
      await comings.goes()
    })

    if (scheme !== 'tcp') {
      it('that accepts and says nothing is served by the next connection that speaks', async (test) => {
        test.after(() => comings.goes())
        let deaf = true
        const inner = good()
        const listener = net.createServer((socket) => {
          if (deaf) socket.resume()
          else inner.emit('connection', socket)
        })
        await comings.comes(listener)
        assertAll(await askAll(test), LATE)
        deaf = false
        for (let i = 0; i < 3; i++) assertAll(await askAll(test), SERVED)
        await comings.goes()
      })
    }

    if (scheme === 'http') {
      it('that is not there is told to who wants a WebSocket', async (test) => {
        assert.equal(await askWebSocket(test, sidecar, web, { path: '/socket' }), '502')
      })
    }

    it('leaves nothing behind', async () => {
      await assertUnharmed(sidecar, { upstream: 0 })
      sidecar.signal('SIGTERM')
      assert.equal(await sidecar.exited, 0)
    })
  })
}
