// A client whose connection breaks anywhere: in the handshake, in a head, in a body, while it waits, in
// its answer, in a tunnel. Nothing of it is left, what it did not finish is not taken for finished, and
// others are served all along.
import assert from 'node:assert/strict'
import http, { type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { PREFACE } from '../../src/http/h2/frames.ts'
import {
  assertUnharmed,
  type Bystander,
  calmAnswer,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { type Cut, startCuttingRelay } from '../support/cutting-relay.ts'
import { eventually } from '../support/eventually.ts'
import { startH2cWorkload } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { data, head, requestFields, settingsFrame } from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload, startWorkload } from '../support/workload.ts'

/** Places of a session that are tried, from its first byte to its last, for each side that may break. */
const PLACES = 16
const BODY = 'all of it '.repeat(60)
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

interface Session {
  readonly alpn: readonly string[]
  /** Says everything that the client has to say, in an order that the answers do not change. */
  readonly say: (write: (bytes: string | Buffer) => void, path: string) => void
  /** How its last answer ends, so that a session that is not broken knows that it is over. */
  readonly last: string
}

const HTTP1: Session = {
  alpn: ['http/1.1'],
  say: (write, path) => {
    write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${BODY.length}\r\n\r\n`)
    write(BODY)
    write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n`)
    write(`${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\nx-sum: 1\r\n\r\n`)
    write('GET /last HTTP/1.1\r\nhost: localhost\r\n\r\n')
  },
  last: 'the last',
}

const HTTP2: Session = {
  alpn: ['h2'],
  say: (write, path) => {
    const post = requestFields({ ':method': 'POST', ':path': path })
    write(Buffer.concat([Buffer.from(PREFACE, 'latin1'), settingsFrame([])]))
    write(head(1, [...post, 'content-length', String(BODY.length)], false))
    write(data(1, BODY, true))
    write(head(3, post, false))
    write(data(3, BODY))
    write(head(3, ['x-sum', '1']))
    write(head(5, requestFields({ ':path': '/last' })))
  },
  last: 'the last',
}

const WEBSOCKET: Session = {
  alpn: ['http/1.1'],
  say: (write) => {
    write(
      `GET /socket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${KEY}\r\n\r\n`,
    )
    for (const _ of [1, 2, 3]) write(Buffer.concat([Buffer.from([0x82, 0x85, 0, 0, 0, 0]), FIVE]))
    write(Buffer.concat([Buffer.from([0x82, 0x85, 0, 0, 0, 0]), Buffer.from('LAST!')]))
  },
  last: 'LAST!',
}
const FIVE = Buffer.from('five!')

const TCP: Session = {
  alpn: [],
  say: (write) => {
    for (const _ of [1, 2, 3]) write(BODY)
    write('LAST!')
  },
  last: 'LAST!',
}

async function run(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  session: Session,
  cut: Cut,
): Promise<{ client: number; sidecar: number }> {
  const relay = await startCuttingRelay(t, sidecar.port, cut)
  const socket = tls.connect({
    ...sidecar.clientOptions(certificate),
    ALPNProtocols: [...session.alpn],
    port: relay.port,
    allowHalfOpen: true,
  } as tls.ConnectionOptions)
  socket.on('error', () => {})
  let text = ''
  let over = false
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  for (const event of ['end', 'close']) socket.on(event, () => (over = true))
  const path = `/cut/${cut.of}/${cut.how}/${cut.at}`
  socket.once('secureConnect', () => session.say((bytes) => socket.write(bytes), path))
  await eventually('the session is over', () => over || text.includes(session.last))
  const { bytes } = relay
  socket.destroy()
  await relay.closed
  return { ...bytes }
}

/** Breaks the session at each place, in each way; its length is taken from one that is not broken. */
function breaksEverywhere(
  stand: () => { sidecar: TestSidecar; web: IssuedCertificate; bystander?: Bystander },
  name: string,
  session: Session,
): void {
  for (const side of ['client', 'sidecar'] as const) {
    for (const how of ['reset', 'end', 'close'] as const) {
      it(`${name}: ${how} somewhere in what the ${side} sends`, async (t) => {
        const { sidecar, web, bystander } = stand()
        const whole = await run(t, sidecar, web, session, { at: undefined, of: side, how })
        for (let place = 0; place < PLACES; place++) {
          const at = 1 + Math.floor((place * whole[side]) / PLACES)
          await run(t, sidecar, web, session, { at, of: side, how })
        }
        await bystander?.served()
      })
    }
  }
}

const CONFIG = {
  inbound: {
    limits: { handshakeFailuresPerAddress: 10_000, handshakesPerAddress: 64 },
    // A reset that overtakes a write of ours may leave Node.js 26.10 waiting for that write (one in a
    // thousand): then it is the idle time that ends the connection.
    timeouts: { handshake: '2s', idle: '3s', tunnelIdle: '3s' },
  },
  log: { decisions: 'off' },
}

describe('a client that breaks off, to a workload that speaks HTTP/1.1', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystander: Bystander
  const bodies: string[] = []
  before(async () => {
    const server = http.createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('error', () => {})
      request.on('end', () => {
        const path = request.url ?? ''
        if (path.startsWith('/cut/')) bodies.push(Buffer.concat(chunks).toString())
        response.end(isCalm(path) ? calmAnswer(path) : path === '/last' ? 'the last' : BODY)
      })
    })
    server.on('upgrade', (_request: IncomingMessage, socket, early: Buffer) => {
      const accept = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ${accept}\r\n\r\n`,
      )
      // The frames of the client as they are: masked by zeroes, which only a test takes for its own.
      socket.write(early)
      socket.on('error', () => {})
      socket.pipe(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.after(() => {
      server.closeAllConnections()
      server.close()
    })
    const { port } = server.address() as AddressInfo
    sidecar = await startSidecar(t, { forward: `http://127.0.0.1:${port}`, config: CONFIG })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
  })
  const stand = () => ({ sidecar, web, bystander })

  breaksEverywhere(stand, 'HTTP/1.1', HTTP1)
  breaksEverywhere(stand, 'HTTP/2', HTTP2)
  breaksEverywhere(stand, 'WebSocket', WEBSOCKET)

  it('leaves nothing behind, and no half of a body was taken for a whole one', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 0 })
    assert.ok(bodies.length >= 12)
    assert.ok(bodies.every((body) => body === BODY))
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})

describe('a client that breaks off, to a workload that speaks HTTP/2', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystander: Bystander
  const bodies: string[] = []
  let open = 0
  before(async () => {
    const workload = await startH2cWorkload(t, (stream, headers) => {
      const path = String(headers[':path'])
      const chunks: Buffer[] = []
      open++
      stream.on('close', () => open--)
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('end', () => {
        if (stream.destroyed || stream.rstCode !== 0) return
        if (path.startsWith('/cut/')) bodies.push(Buffer.concat(chunks).toString())
        stream.respond({ ':status': 200 })
        stream.end(isCalm(path) ? calmAnswer(path) : path === '/last' ? 'the last' : BODY)
      })
    })
    sidecar = await startSidecar(t, { forward: workload.url, config: CONFIG })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
  })
  const stand = () => ({ sidecar, web, bystander })

  breaksEverywhere(stand, 'HTTP/1.1', HTTP1)
  breaksEverywhere(stand, 'HTTP/2', HTTP2)

  it('leaves nothing behind, and no half of a body was taken for a whole one', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 1 })
    await eventually('the workload has no stream left', () => open === 0)
    assert.ok(bodies.length >= 12)
    assert.ok(bodies.every((body) => body === BODY))
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})

describe('a client that breaks off, to a workload behind tcp://', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  before(async () => {
    const workload = await startRawWorkload(t, (socket) => void socket.pipe(socket))
    sidecar = await startSidecar(t, {
      forward: workload.url.replace('http', 'tcp'),
      config: CONFIG,
    })
    web = await sidecar.authority.svid('web')
  })

  breaksEverywhere(() => ({ sidecar, web }), 'TCP', TCP)

  it('leaves nothing behind', async () => {
    await assertUnharmed(sidecar, { upstream: 0 })
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})

describe('a client that breaks TLS in the middle of its connection', () => {
  const SAY: readonly (readonly [alpn: string, bytes: Buffer])[] = [
    ['http/1.1', Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')],
    [
      'h2',
      Buffer.concat([
        Buffer.from(PREFACE, 'latin1'),
        settingsFrame([]),
        head(1, requestFields({ ':path': '/' })),
      ]),
    ],
  ]

  /** Waits until `heard`, and breaks TLS. */
  async function breakTls(
    t: Cleanup,
    sidecar: TestSidecar,
    alpn: readonly string[],
    bytes: Buffer,
    heard: () => boolean,
  ): Promise<void> {
    const cut = { at: undefined, of: 'client', how: 'close' } as const
    const relay = await startCuttingRelay(t, sidecar.port, cut)
    const socket = tls.connect({
      ...sidecar.clientOptions(await sidecar.authority.svid('web')),
      ALPNProtocols: [...alpn],
      port: relay.port,
    })
    t.after(() => socket.destroy())
    socket.on('error', () => {})
    socket.write(bytes)
    await eventually('the workload has heard of it', heard)
    relay.spoil()
  }

  for (const [alpn, bytes] of SAY) {
    it(`is gone, and does not keep the workload busy (${alpn})`, async (t) => {
      const workload = await startWorkload(t, () => {})
      const sidecar = await startSidecar(t, { forward: workload.url })
      await breakTls(t, sidecar, [alpn], bytes, () => workload.seen.length === 1)
      await eventually('nothing is open', async () => (await workload.connections()) === 0)
      await assertUnharmed(sidecar, { upstream: 0 })
    })
  }

  it('is gone, and the workload behind tcp:// is told', async (t) => {
    const workload = await startRawWorkload(t, (socket) => void socket.resume())
    const sidecar = await startSidecar(t, { forward: workload.url.replace('http', 'tcp') })
    const heard = () => workload.received[0] === 'hello'
    await breakTls(t, sidecar, [], Buffer.from('hello'), heard)
    await eventually('nothing is open', () => workload.sockets[0]?.destroyed)
    await assertUnharmed(sidecar, { upstream: 0 })
  })
})
