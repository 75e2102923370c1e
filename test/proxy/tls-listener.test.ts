import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import tls from 'node:tls'
import type { PeerVerifier } from '../../src/identity/verifier.ts'
import type { ClientConnection } from '../../src/proxy/connection.ts'
import { writeProxyHeader } from '../../src/proxy/proxy-protocol.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/pki.ts'
import { type Listening, secureConnect, startListener } from './listening.ts'

/** Passes on the first bytes of a client at once, and the rest of them only when `atLeast` are there. */
async function startHoldingRelay(t: TestContext, port: number, atLeast: number): Promise<number> {
  const relay = net.createServer((client) => {
    const server = net.connect(port, '127.0.0.1')
    const held: Buffer[] = []
    let first = true
    client.on('data', (chunk: Buffer) => {
      if (first) {
        first = false
        server.write(chunk)
        return
      }
      held.push(chunk)
      const bytes = Buffer.concat(held)
      if (bytes.length < atLeast) return
      held.length = 0
      server.write(bytes)
    })
    server.pipe(client)
    for (const socket of [client, server]) socket.on('error', () => {})
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
    t.after(() => client.destroy())
  })
  relay.listen(0, '127.0.0.1')
  await once(relay, 'listening')
  t.after(() => relay.close())
  return (relay.address() as AddressInfo).port
}

/** A balancer that writes its header and the first bytes of the client at once. */
async function startGluingRelay(t: TestContext, port: number): Promise<number> {
  const relay = net.createServer((client) => {
    const server = net.connect(port, '127.0.0.1')
    client.once('data', (first: Buffer) => {
      server.write(Buffer.concat([HEADER, first]))
      client.pipe(server)
    })
    server.pipe(client)
    for (const socket of [client, server]) socket.on('error', () => {})
    t.after(() => client.destroy())
    t.after(() => server.destroy())
  })
  relay.listen(0, '127.0.0.1')
  await once(relay, 'listening')
  t.after(() => relay.close())
  return (relay.address() as AddressInfo).port
}

const nothingLeft = (listening: Listening): Promise<unknown> =>
  eventually('every connection is accounted for', () => {
    return listening.listener.idle && listening.open() === 0
  })

async function refused(t: TestContext, options: tls.ConnectionOptions): Promise<void> {
  const socket = tls.connect(options)
  t.after(() => socket.destroy())
  socket.on('error', () => {}).resume()
  await gone(socket)
}

const HEADER = writeProxyHeader({
  source: { address: '203.0.113.9', port: 4_711 },
  destination: { address: '203.0.113.1', port: 443 },
  principal: '',
  commonName: undefined,
  serverName: '',
  tlsVersion: '',
  cipher: '',
})

const POST = `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n${'x'.repeat(60_000)}`

/** Closed, with or without the reset that whoever writes to a closed socket gets. */
const gone = (socket: net.Socket): Promise<unknown> =>
  new Promise((resolve) => socket.on('error', () => {}).once('close', resolve))

describe('the TLS listener', () => {
  it('does not take a request that comes with the end of the handshake for a dear certificate', async (t) => {
    const listening = await startListener(t)
    const web = await listening.authority.svid('web')
    const port = await startHoldingRelay(t, listening.port, 50_000)
    const socket = tls.connect({ ...listening.client(web), port })
    t.after(() => socket.destroy())
    socket.on('error', () => {})
    await once(socket, 'secureConnect')
    socket.write(POST)
    await eventually('the handshake is over', () => listening.successes() === 1)
    await secureConnect(t, listening.client(web))
    assert.equal(listening.failures('address_limited'), 0)
  })

  it('nor that of a client that is refused', async (t) => {
    const listening = await startListener(t)
    const expired = await listening.authority.svid('web', {
      notBefore: new Date(Date.now() - 7_200_000),
      notAfter: new Date(Date.now() - 3_600_000),
    })
    const port = await startHoldingRelay(t, listening.port, 50_000)
    const socket = tls.connect({ ...listening.client(expired), port })
    t.after(() => socket.destroy())
    socket.on('error', () => {}).resume()
    await once(socket, 'secureConnect')
    socket.write(POST)
    await eventually('it is refused', () => listening.failures('expired') === 1)
    await secureConnect(t, listening.client(await listening.authority.svid('web')))
    assert.equal(listening.failures('address_limited'), 0)
  })

  it('cuts a refused client that goes on sending', async (t) => {
    const listening = await startListener(t)
    const socket = await secureConnect(t, listening.client())
    const closed = new Promise((resolve) => socket.once('close', resolve))
    // So that only the bytes can end it.
    listening.stopTicking()
    const chunk = Buffer.alloc(16 * 1024)
    const send = (): void => {
      while (!socket.destroyed && socket.write(chunk)) {}
    }
    socket.on('drain', send)
    send()
    await closed
    await nothingLeft(listening)
  })

  it('lets others have their turn where many connections come to their deadline at once', async (t) => {
    const listening = await startListener(t)
    listening.stopTicking()
    const { listener } = listening
    let ticks = 0
    const dear = (): void => {
      ticks++
      for (const until = performance.now() + 1; performance.now() < until; );
    }
    const MANY = 200
    for (let i = 0; i < MANY; i++) {
      const one = {
        peer: { acceptableUntilMs: Number.POSITIVE_INFINITY },
        tick: dear,
        heldBytes: 0,
        abort: () => {},
      }
      const guarded = (step: (connection: unknown) => void): void => step(one)
      const socket = { writableLength: 0 }
      const connection: unknown = Object.assign(one, { socket, guarded })
      listener.connections.add(connection as ClientConnection)
    }
    listener.tick()
    assert.ok(ticks < MANY / 4, `${ticks} in one turn`)
    // The next is due before the first is over.
    listener.tick()
    await eventually('all have heard of it', () => ticks >= MANY)
    assert.equal(ticks, MANY)
    // The round may have a turn to come that finds nobody left.
    await new Promise((resolve) => setImmediate(resolve))
    listener.tick()
    await eventually('and of the next', () => ticks === 2 * MANY)
    listener.connections.clear()
  })

  it('does not hold clients of a UNIX socket to account for each other', async (t) => {
    const path = join(await temporaryDirectory(t), 'postern.sock')
    const listening = await startListener(t, {
      listen: `unix:${path}`,
      limits: { handshakeFailuresPerAddress: 1, connectionsPerAddress: 1 },
    })
    for (let i = 0; i < 5; i++) await refused(t, listening.client())
    assert.equal(listening.failures('no_certificate'), 5)
    const web = await listening.authority.svid('web')
    const first = await secureConnect(t, listening.client(web))
    const second = await secureConnect(t, listening.client(web))
    await eventually('both are in', () => listening.open() === 2)
    first.destroy()
    second.destroy()
    await nothingLeft(listening)
  })

  it('ends one connection when a fault of its own meets it in the handshake, and says so', async (t) => {
    const listening = await startListener(t)
    const web = await listening.authority.svid('web')
    const { generation } = listening.context
    listening.context.generation = Object.create(generation, {
      verifier: {
        value: {
          verify: () => {
            throw new TypeError('a fault')
          },
        } as unknown as PeerVerifier,
      },
    })
    await refused(t, listening.client(web))
    await eventually('the fault is recorded', () =>
      listening.records.some((record) => record.kind === 'fault' && /a fault/.test(record.detail)),
    )
    await nothingLeft(listening)
    listening.context.generation = generation
    await secureConnect(t, listening.client(web))
    await eventually('the next one is in', () => listening.successes() === 1)
  })

  it('keeps serving with the old material when OpenSSL does not take the new', async (t) => {
    const listening = await startListener(t)
    const web = await listening.authority.svid('web')
    const other = await listening.authority.svid('other')
    const before = listening.context.generation
    assert.throws(
      () =>
        listening.apply(({ identity }) => ({
          identity: { ...identity, privateKeyPem: other.privateKeyPem },
        })),
      /key values mismatch/i,
    )
    listening.context.generation = before
    const socket = await secureConnect(t, listening.client(web))
    assert.equal(socket.getPeerX509Certificate()?.checkHost('localhost'), 'localhost')
  })

  it('refuses to serve without a trust anchor, and keeps those it had', async (t) => {
    const listening = await startListener(t)
    const before = listening.context.generation
    assert.throws(
      () => listening.apply(({ trust }) => ({ trust: { ...trust, generation: 2, bundles: [] } })),
      /without a trust bundle/,
    )
    listening.context.generation = before
    await secureConnect(t, listening.client(await listening.authority.svid('web')))
    await eventually('it is in', () => listening.successes() === 1)
  })

  it('writes IPv4 clients of a dual-stack socket as IPv4', async (t) => {
    const listening = await startListener(t, { listen: '[::]:0' })
    await refused(t, listening.client())
    const record = await eventually('the refusal is recorded', () =>
      listening.records.find(({ kind }) => kind === 'handshake'),
    )
    assert.equal('remoteAddress' in record && record.remoteAddress, '127.0.0.1')
  })

  it('lets few handshakes begin when it is overloaded, and refuses those that would wait for long', async (t) => {
    const { authority, client, context, failures, successes, port } = await startListener(t, {
      limits: { handshakes: 32 },
    })
    const web = client(await authority.svid('web'))
    await secureConnect(t, web)
    await eventually('the address has shown a certificate', () => successes() === 1)
    const halfOpen = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const socket = net.connect(port, '127.0.0.1').on('error', () => {})
        t.after(() => socket.destroy())
      }
    }
    halfOpen(15)
    await secureConnect(t, web)
    assert.equal(failures('overload'), 0)
    ;(context.overload as { active: boolean }).active = true
    halfOpen(10)
    await eventually('some are refused', () => failures('overload') > 0)
    await eventually('a client still gets in', async () => {
      const socket = tls.connect(web).on('error', () => {})
      t.after(() => socket.destroy())
      return new Promise<boolean>((resolve) => {
        socket.once('secureConnect', () => resolve(true)).once('close', () => resolve(false))
      })
    })
  })

  it('lets go at once of a client that leaves during its handshake, as a TCP probe does', async (t) => {
    const listening = await startListener(t, {
      limits: { handshakeFailuresPerAddress: 1 },
      timeouts: { handshake: '10m' },
    })
    for (let i = 1; i <= 5; i++) {
      const socket = net
        .connect(listening.port, '127.0.0.1')
        .on('error', () => {})
        .end()
      await once(socket.resume(), 'close')
      await eventually('it has gone', () => listening.failures('client_closed') === i)
    }
    await secureConnect(t, listening.client(await listening.authority.svid('web')))
    await eventually('who comes next is in', () => listening.successes() === 1)
  })

  describe('with a balancer in front', () => {
    const behind = { proxyProtocol: { acceptFrom: ['127.0.0.0/8'] } }
    const arrive = async (t: TestContext, listening: Listening): Promise<net.Socket> => {
      const socket = net.connect(listening.port, '127.0.0.1').on('error', () => {})
      t.after(() => socket.destroy())
      await once(socket, 'connect')
      return socket.resume()
    }

    it('waits no longer for the header than for a handshake, however its bytes drip', async (t) => {
      const listening = await startListener(t, { ...behind, timeouts: { handshake: '300ms' } })
      const socket = await arrive(t, listening)
      const dripping = setInterval(() => socket.write(HEADER.subarray(sent, ++sent)), 100)
      let sent = 0
      t.after(() => clearInterval(dripping))
      const closed = gone(socket).then(() => sent)
      assert.ok((await closed) < HEADER.length, 'closed only after the whole header')
      assert.equal(listening.failures('timeout'), 1)
    })

    it('counts those that have not sent it among the connections, and tells them in a drain', async (t) => {
      const listening = await startListener(t, { ...behind, limits: { connections: 2 } })
      const waiting = [await arrive(t, listening), await arrive(t, listening)]
      await eventually('two wait for their header', () => !listening.listener.idle)
      const third = await arrive(t, listening)
      await gone(third)
      assert.equal(listening.failures('overload'), 1)
      for (const socket of waiting) socket.destroy()
      await nothingLeft(listening)
    })

    for (const unsafePlaintext of [false, true]) {
      const where = unsafePlaintext ? ', where plain text is let in as well' : ''
      it(`takes a client whose first bytes come with the header${where}`, async (t) => {
        const listening = await startListener(t, behind)
        listening.apply(({ settings }) => ({
          settings: { ...settings, inbound: { ...settings.inbound, unsafePlaintext } },
        }))
        const web = await listening.authority.svid('web')
        const port = await startGluingRelay(t, listening.port)
        await secureConnect(t, { ...listening.client(web), port })
        await eventually('it is in', () => listening.successes() === 1)
      })
    }

    it('says what was wrong where it has none', async (t) => {
      const listening = await startListener(t, behind)
      const socket = await arrive(t, listening)
      socket.write('PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n')
      await gone(socket)
      const record = listening.records.find(({ kind }) => kind === 'handshake')
      assert.ok(record?.kind === 'handshake')
      assert.equal(record.reason, 'protocol')
      assert.match(record.detail, /PROXY header/)
      assert.equal(record.remoteAddress, '127.0.0.1')
    })
  })

  it('lets a client end its side after the handshake and still read', async (t) => {
    const listening = await startListener(t)
    const web = await listening.authority.svid('web')
    const options = { ...listening.client(web), allowHalfOpen: true }
    const socket = tls.connect(options as tls.ConnectionOptions)
    t.after(() => socket.destroy())
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
    })
    socket.end('nonsense\r\n\r\n')
    await eventually('the answer has come', () => /^HTTP\/1.1 400 /.test(text))
    await nothingLeft(listening)
  })

  it('accounts for every way in which a connection can end', async (t) => {
    const listening = await startListener(t, {
      timeouts: { handshake: '200ms' },
      limits: { handshakeFailuresPerAddress: 1000 },
    })
    const web = await listening.authority.svid('web')
    const raw = (): net.Socket => {
      const socket = net.connect(listening.port, '127.0.0.1')
      t.after(() => socket.destroy())
      return socket.on('error', () => {})
    }
    const established = await secureConnect(t, listening.client(web))
    // Silent, half a handshake, gone at once, reset, plain HTTP, no certificate.
    for (let i = 0; i < 3; i++) raw()
    raw().write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]))
    raw().end()
    const reset = raw()
    await once(reset, 'connect')
    reset.resetAndDestroy()
    raw().write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await refused(t, listening.client())
    established.destroy()
    await nothingLeft(listening)
    assert.equal(listening.failures('no_certificate'), 1)
  })
})
