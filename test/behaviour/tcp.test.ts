import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { readProxyHeader, writeProxyHeader } from '../../src/proxy/proxy-protocol.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory, testAuthority } from '../support/pki.ts'
import { rssMibOf } from '../support/process-state.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

interface TcpWorkload {
  readonly url: string
  readonly sockets: net.Socket[]
}

function echo(socket: net.Socket): void {
  socket.pipe(socket)
}

/** Echoes, unless `serve` does something else with the connection. */
async function startTcpWorkload(
  t: Cleanup,
  serve: (socket: net.Socket) => void = echo,
  path?: string,
): Promise<TcpWorkload> {
  const sockets: net.Socket[] = []
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    sockets.push(socket)
    serve(socket)
  })
  server.listen(path ?? { port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const url =
    path === undefined
      ? `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`
      : `tcp+unix:${path}`
  return { url, sockets }
}

interface Client {
  readonly socket: tls.TLSSocket
  readonly received: Buffer[]
  readonly ended: Promise<boolean>
}

/** `ended` tells whether the end was clean: with close_notify, not a mere close. */
function connect(t: Cleanup, sidecar: TestSidecar, identity: IssuedCertificate): Promise<Client> {
  const { ALPNProtocols: _, ...options } = sidecar.clientOptions(identity)
  // `allowHalfOpen` is missing in the types of tls.connect.
  const halfOpen: tls.ConnectionOptions & { allowHalfOpen: boolean } = {
    ...options,
    allowHalfOpen: true,
  }
  const socket = tls.connect(halfOpen)
  const received: Buffer[] = []
  let clean = false
  socket.on('data', (chunk: Buffer) => received.push(chunk))
  socket.on('end', () => {
    clean = true
  })
  socket.on('error', () => {})
  t.after(() => socket.destroy())
  const ended = new Promise<boolean>((resolve) => {
    socket.on('end', () => resolve(true))
    socket.on('close', () => resolve(clean))
  })
  return new Promise((resolve) =>
    socket.once('secureConnect', () => resolve({ socket, received, ended })),
  )
}

describe('a workload behind tcp://', () => {
  let sidecar: TestSidecar
  let workload: TcpWorkload
  let web: IssuedCertificate
  let denyList: string
  const t = suiteCleanup()
  before(async () => {
    workload = await startTcpWorkload(t)
    denyList = join(await temporaryDirectory(t), 'revoked.yaml')
    await writeFile(denyList, '[]\n')
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        allow: [{ uri: 'spiffe://example.org/ns/*/sa/web' }],
        log: { access: 'all' },
        trust: { revoked: denyList },
        inbound: { limits: { handshakeFailuresPerAddress: 1_000 } },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  it('gets the bytes of a permitted peer as they are, and sends its own back', async () => {
    await Promise.all(
      [1, 65_537, 3_000_017].map(async (length) => {
        const client = await connect(t, sidecar, web)
        const body = randomBytes(length)
        client.socket.end(body)
        assert.equal(await client.ended, true)
        assert.equal(sum(Buffer.concat(client.received)), sum(body))
        client.socket.destroy()
      }),
    )
  })

  it('never hears of a peer that is not permitted', async () => {
    const before = workload.sockets.length
    const client = await connect(t, sidecar, await sidecar.authority.svid('other'))
    client.socket.write('hello')
    await client.ended
    assert.equal(client.received.length, 0)
    assert.equal(workload.sockets.length, before)
    const line = await sidecar.logged('access', { outcome: 'deny', protocol: 'tcp' })
    assert.equal(line['principal'], 'spiffe://example.org/ns/default/sa/other')
  })

  it('may end its side and go on reading', async () => {
    const client = await connect(t, sidecar, web)
    client.socket.write('a')
    const socket = await eventually('the connection', () =>
      workload.sockets.find((one) => one.bytesRead === 1 && !one.destroyed),
    )
    client.socket.end()
    await eventually('the end arrives', () => socket.readableEnded)
    assert.equal(await client.ended, true)
  })

  it('sees a reset where the client was reset', async () => {
    const raw = net.connect(sidecar.port, '127.0.0.1')
    const client = tls.connect({ ...sidecar.clientOptions(web), socket: raw })
    client.on('error', () => {})
    client.write('abc')
    const socket = await eventually('the connection', () =>
      workload.sockets.find((one) => one.bytesRead === 3 && !one.destroyed),
    )
    let error: NodeJS.ErrnoException | undefined
    socket.on('error', (one) => {
      error = one
    })
    raw.resetAndDestroy()
    await eventually('it is gone', () => socket.destroyed)
    assert.equal(error?.code, 'ECONNRESET')
  })

  it('resets the client by its own reset, behind what it said before', async () => {
    const client = await connect(t, sidecar, web)
    let error: NodeJS.ErrnoException | undefined
    client.socket.on('error', (one) => {
      error = one
    })
    client.socket.write('abcd')
    await eventually('the echo', () => client.received.length > 0)
    const socket = workload.sockets.find((one) => one.bytesRead === 4 && !one.destroyed)
    socket?.resetAndDestroy()
    await eventually('it is gone', () => client.socket.destroyed)
    assert.equal(error?.code, 'ECONNRESET')
    assert.equal(Buffer.concat(client.received).toString(), 'abcd')
    const line = await sidecar.logged('access', { code: 'upstream_reset', protocol: 'tcp' })
    assert.equal(line['principal'], 'spiffe://example.org/ns/default/sa/web')
  })

  it('may reset many clients at whatever moment, which leaves nothing behind', async () => {
    const open = (): net.Socket[] => workload.sockets.filter(({ destroyed }) => !destroyed)
    const [openBefore, before] = [open(), await sidecar.metric('postern_connections_open')]
    const clients = await Promise.all(Array.from({ length: 60 }, () => connect(t, sidecar, web)))
    await eventually('all are connected', () => open().length === openBefore.length + 60)
    for (const [i, { socket }] of clients.entries()) {
      // Some are in the middle of what nobody reads, some are about to end their side.
      if (i % 3 === 0) socket.pause().write(randomBytes(2_000_000))
      else if (i % 3 === 1) socket.end('x')
      else socket.write('y')
    }
    await eventually('some are being served', () =>
      clients.some(({ received }) => received.length > 0),
    )
    for (const socket of open()) {
      // Behind its own end a socket cannot be reset.
      if (!openBefore.includes(socket) && !socket.writableEnded) socket.resetAndDestroy()
    }
    for (const { socket } of clients) socket.resume()
    await Promise.all(clients.map(({ ended }) => ended))
    for (const { socket } of clients) socket.destroy()
    await eventually('all are gone', async () => {
      return (await sidecar.metric('postern_connections_open')) <= before
    })
  })

  it('loses a peer when its certificate expires, however busy it is', async () => {
    const notAfter = new Date((Math.ceil(Date.now() / 1000) + 2) * 1000)
    const client = await connect(t, sidecar, await sidecar.authority.svid('web', { notAfter }))
    const talking = setInterval(() => client.socket.write('x'), 20)
    t.after(() => clearInterval(talking))
    await client.ended
    clearInterval(talking)
    assert.ok(client.received.length > 0)
    assert.ok(Date.now() >= notAfter.getTime())
    await sidecar.logged('access', { code: 'peer_expired', protocol: 'tcp' })
  })

  it('loses the one peer that the deny list names, and keeps the others', async () => {
    const other = await sidecar.authority.svid('web')
    const [denied, kept] = [await connect(t, sidecar, web), await connect(t, sidecar, other)]
    for (const client of [denied, kept]) client.socket.write('x')
    await eventually('the echoes', () => denied.received.length > 0 && kept.received.length > 0)
    const entry = { issuer: 'CN=example.org intermediate', serial: web.serial }
    await writeFile(denyList, JSON.stringify([entry]))
    await denied.ended
    await sidecar.logged('connection_cut', { code: 'peer_deny_listed' })
    kept.socket.write('y')
    await eventually('its echo', () => Buffer.concat(kept.received).toString() === 'xy')
    const before = workload.sockets.length
    const again = await connect(t, sidecar, web)
    again.socket.write('let me in')
    assert.equal(await again.ended, true)
    assert.equal(again.received.length, 0)
    await sidecar.logged('handshake_failed', { reason: 'deny_listed' })
    assert.equal(workload.sockets.length, before)
    const generation = await sidecar.metric('postern_snapshot_generation')
    await writeFile(denyList, '[]\n')
    await eventually('the list is empty again', async () => {
      return (await sidecar.metric('postern_snapshot_generation')) > generation
    })
  })

  it('loses a peer that is no longer trusted, and no bytes after that', async () => {
    const client = await connect(t, sidecar, web)
    client.socket.write('x')
    await eventually('the echo', () => client.received.length > 0)
    const stranger = await testAuthority('other.test')
    await writeFile(sidecar.files.trustBundle, stranger.root.certificatePem)
    await client.ended
    await sidecar.logged('access', { outcome: 'peer_invalid', protocol: 'tcp' })
    await writeFile(sidecar.files.trustBundle, sidecar.authority.root.certificatePem)
    await eventually('it is trusted again', async () => {
      const again = await connect(t, sidecar, web)
      again.socket.write('y')
      await Promise.race([again.ended, once(again.socket, 'data')])
      return again.received.length > 0
    })
  })
})

describe('bytes of TCP that one side does not take', () => {
  const WHOLE = randomBytes(1024 * 1024)
  const TIMES = 64
  const SUM = sum(Buffer.concat(Array.from({ length: TIMES }, () => WHOLE)))
  /** Buffers of the kernel and of both ends take some of them. */
  const MOST_GROWTH_MIB = 40

  /** Says all of it as fast as it is taken, and ends its side. */
  async function pour(into: net.Socket): Promise<void> {
    for (let i = 0; i < TIMES && !into.destroyed; i++) {
      if (!into.write(WHOLE)) await once(into, 'drain')
    }
    into.end()
  }

  const sumOf = async (from: net.Socket): Promise<string> => {
    const hash = createHash('sha256')
    for await (const chunk of from) hash.update(chunk as Buffer)
    return hash.digest('hex')
  }

  /** Nothing has moved for some looks, though there is more to say. */
  async function stopped(from: net.Socket): Promise<void> {
    let before = -1
    let quiet = 0
    await eventually('it is stopped', () => {
      quiet = from.bytesWritten === before ? quiet + 1 : 0
      before = from.bytesWritten
      return quiet === 30
    })
  }

  for (const reader of ['client', 'workload'] as const) {
    it(`wait where they come from while the ${reader} does not read, and all come`, async (test) => {
      const workload = await startTcpWorkload(test, (socket) => void socket.pause())
      const sidecar = await startSidecar(test, { forward: workload.url })
      const web = await sidecar.authority.svid('web')
      const { ALPNProtocols: _, ...options } = sidecar.clientOptions(web)
      const client = tls.connect({ ...options, allowHalfOpen: true } as tls.ConnectionOptions)
      test.after(() => client.destroy())
      client.on('error', () => {})
      await once(client, 'secureConnect')
      const there = await eventually('the connection', () => workload.sockets[0])
      const [slow, other] = reader === 'client' ? [client, there] : [there, client]
      slow.pause()
      const before = await rssMibOf(sidecar.pid)
      let done = false
      const poured = pour(other).then(() => {
        done = true
      })
      await stopped(other)
      assert.equal(done, false)
      assert.ok((await rssMibOf(sidecar.pid)) - before < MOST_GROWTH_MIB)
      slow.end()
      assert.equal(await sumOf(slow), SUM)
      await poured
    })
  }
})

describe('a PROXY header', () => {
  const t = suiteCleanup()

  it('tells a workload on a UNIX socket who its client is', async () => {
    const seen: Buffer[] = []
    const path = join(await temporaryDirectory(t), 'workload.sock')
    const workload = await startTcpWorkload(
      t,
      (socket) => void socket.on('data', (chunk: Buffer) => seen.push(chunk)),
      path,
    )
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { proxyProtocol: { send: true } } },
    })
    const client = await connect(t, sidecar, await sidecar.authority.svid('web'))
    client.socket.write('hello')
    await eventually('header and bytes', () => Buffer.concat(seen).includes('hello'))
    const bytes = Buffer.concat(seen)
    const header = readProxyHeader(bytes)
    assert.ok(header.kind === 'header')
    assert.deepEqual(header.source, { address: '127.0.0.1', port: client.socket.localPort })
    assert.deepEqual(header.destination, { address: '127.0.0.1', port: sidecar.port })
    assert.equal(bytes.subarray(header.length).toString(), 'hello')
    const told = bytes.subarray(0, header.length).toString('latin1')
    assert.ok(told.includes('spiffe://example.org/ns/default/sa/web'))
    assert.ok(told.includes('TLSv1.3'))
  })

  it('from a declared balancer says who the client is, whatever the bytes are cut into', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: { proxyProtocol: { acceptFrom: ['127.0.0.0/8'] } },
        log: { access: 'all' },
      },
    })
    const web = await sidecar.authority.svid('web')
    const header = PROXY_OF_A_CLIENT
    for (const pieces of [[header], [...header].map((byte) => Buffer.from([byte]))]) {
      const raw = net.connect(sidecar.port, '127.0.0.1')
      t.after(() => raw.destroy())
      raw.setNoDelay(true)
      for (const piece of pieces) raw.write(piece)
      const socket = tls.connect({ ...sidecar.clientOptions(web), socket: raw })
      socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
      let answer = ''
      socket.on('data', (chunk: Buffer) => {
        answer += chunk.toString()
      })
      await eventually('an answer', () => answer.startsWith('HTTP/1.1 200'))
      const line = await sidecar.logged('access', { remote_address: '203.0.113.9:4711' })
      assert.equal(line['status'], 200)
    }
    const without = tls.connect(sidecar.clientOptions(web))
    without.on('error', () => {})
    await new Promise((resolve) => without.once('close', resolve))
    const failures = 'postern_handshakes_total{result="failure",reason="protocol"}'
    await eventually('a failure', async () => (await sidecar.metric(failures)) === 1)
  })

  it('from anybody else is no header, and names nobody', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: { proxyProtocol: { acceptFrom: ['127.0.0.9/32'] } },
        log: { access: 'all' },
      },
    })
    const web = await sidecar.authority.svid('web')
    const lying = net.connect(sidecar.port, '127.0.0.1')
    t.after(() => lying.destroy())
    lying.on('error', () => {})
    lying.write(PROXY_OF_A_CLIENT)
    const socket = tls.connect({ ...sidecar.clientOptions(web), socket: lying })
    socket.on('error', () => {})
    await new Promise((resolve) => lying.once('close', resolve))
    const failures = 'postern_handshakes_total{result="failure",reason="protocol"}'
    await eventually('a failure', async () => (await sidecar.metric(failures)) === 1)
    assert.equal(workload.seen.length, 0)
    assert.equal((await call(sidecar, web)).status, 200)
    const { remote_address: address } = await sidecar.logged('access')
    assert.match(String(address), /^127\.0\.0\.1:/)
  })
})

const PROXY_OF_A_CLIENT = writeProxyHeader({
  source: { address: '203.0.113.9', port: 4_711 },
  destination: { address: '203.0.113.1', port: 443 },
  principal: '',
  commonName: undefined,
  serverName: '',
  tlsVersion: '',
  cipher: '',
})
