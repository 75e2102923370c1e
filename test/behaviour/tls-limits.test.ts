// What clients that never become peers can take from those that do: places, time, connections.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { costlyChain } from '../support/costly-chain.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const ATTACKER = '127.0.0.2'
const HONEST = '127.0.0.3'

/** Of one that is 120,000 bytes long. */
const HELLO_PART = Buffer.concat([Buffer.from([1, 1, 0xd4, 0xc0]), Buffer.alloc(12_000, 1)])

const failures = (reason: string): string =>
  `postern_handshakes_total{result="failure",reason="${reason}"}`
const SUCCESSES = 'postern_handshakes_total{result="success",reason="none"}'

async function startLimited(t: Cleanup, inbound: Record<string, unknown>): Promise<TestSidecar> {
  const { url } = await startWorkload(t)
  return startSidecar(t, { forward: url, config: { inbound } })
}

/** A TCP connection on which nothing is ever sent, unless `bytes` are. */
function openRaw(t: Cleanup, sidecar: TestSidecar, localAddress: string, bytes?: Buffer) {
  const socket = net.connect({ host: '127.0.0.1', port: sidecar.port, localAddress })
  t.after(() => socket.destroy())
  socket.on('error', () => {}).resume()
  if (bytes !== undefined) socket.write(bytes)
  return { socket, closed: new Promise<void>((resolve) => socket.once('close', () => resolve())) }
}

/** The status of one request on a connection of its own; undefined when there was no answer. */
function ask(
  t: Cleanup,
  sidecar: TestSidecar,
  localAddress: string,
  certificate: IssuedCertificate,
): Promise<number | undefined> {
  return new Promise((resolve) => {
    const options = { ...sidecar.clientOptions(certificate), localAddress }
    const socket = tls.connect(options as tls.ConnectionOptions)
    t.after(() => socket.destroy())
    let text = ''
    socket.on('error', () => {}).on('close', () => resolve(statusOf(text)))
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
      if (statusOf(text) !== undefined) socket.destroy()
    })
    socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')
  })
}

const statusOf = (text: string): number | undefined => {
  const status = /^HTTP\/1.1 (\d{3}) /.exec(text)?.[1]
  return status === undefined ? undefined : Number(status)
}

const allClosed = (sidecar: TestSidecar): Promise<unknown> =>
  eventually('no connection is left', async () => {
    return (await sidecar.metric('postern_connections_open')) === 0
  })

describe('half a handshake', () => {
  let sidecar: TestSidecar
  const t = suiteCleanup()
  before(async () => {
    sidecar = await startLimited(t, { timeouts: { handshake: '300ms' } })
  })
  const beginnings: Readonly<Record<string, Buffer | undefined>> = {
    'no byte at all': undefined,
    'the start of a record': Buffer.from([0x16, 0x03, 0x01]),
    'a record without its end': Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]),
  }
  for (const [what, bytes] of Object.entries(beginnings)) {
    it(`is closed at its deadline: ${what}`, async () => {
      const before = await sidecar.metric(failures('timeout'))
      await openRaw(t, sidecar, '127.0.0.4', bytes).closed
      await eventually('it is counted', async () => {
        return (await sidecar.metric(failures('timeout'))) === before + 1
      })
    })
  }

  it('is closed when it is plain HTTP, and logged as what it is', async () => {
    const bytes = Buffer.from('GET /plain HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await openRaw(t, sidecar, '127.0.0.4', bytes).closed
    const line = await sidecar.logged('handshake_failed', { reason: 'protocol' })
    assert.match(String(line['detail']), /http request|wrong version number/i)
    await eventually('it is counted', () => sidecar.metric(failures('protocol')))
  })
})

describe('an attacker with an address', () => {
  it('that opens half-open handshakes by the hundred does not hold up others', async (test) => {
    const sidecar = await startLimited(test, {})
    const web = await sidecar.authority.svid('web')
    const silent = Array.from({ length: 300 }, () => openRaw(test, sidecar, ATTACKER))
    await eventually('they are connected', async () => {
      return (await sidecar.metric('postern_connections_total')) >= 300
    })
    for (let i = 0; i < 20; i++) assert.equal(await ask(test, sidecar, HONEST, web), 200)
    assert.equal(await sidecar.metric(SUCCESSES), 20)
    assert.ok(silent.every(({ socket }) => !socket.destroyed))
    for (const { socket } of silent) socket.destroy()
    await allClosed(sidecar)
  })

  it('that sends much of a handshake without an end has it ended', async (t) => {
    const sidecar = await startLimited(t, { timeouts: { handshake: '60s' } })
    const { length } = HELLO_PART
    const record = Buffer.concat([Buffer.from([22, 3, 1, length >> 8, length & 0xff]), HELLO_PART])
    const { closed } = openRaw(
      t,
      sidecar,
      ATTACKER,
      Buffer.concat(Array.from({ length: 7 }, () => record)),
    )
    await closed
    const line = await sidecar.logged('handshake_failed')
    assert.equal(line['reason'], 'protocol')
    assert.equal(line['detail'], 'the handshake was not over after 72 KiB')
  })

  it('cannot have more connections than one address may', async (test) => {
    const sidecar = await startLimited(test, { limits: { connectionsPerAddress: 5 } })
    const web = await sidecar.authority.svid('web')
    const taken = Array.from({ length: 5 }, () => openRaw(test, sidecar, ATTACKER))
    await Promise.all(taken.map(({ socket }) => once(socket, 'connect')))
    await openRaw(test, sidecar, ATTACKER).closed
    assert.equal(await sidecar.metric(failures('address_limited')), 1)
    assert.equal(await ask(test, sidecar, HONEST, web), 200)
    for (const { socket } of taken) socket.destroy()
  })

  it('nor may all together have more than the limit, and a place that is left is free', async (test) => {
    const sidecar = await startLimited(test, { limits: { connections: 5 } })
    const web = await sidecar.authority.svid('web')
    const taken = Array.from({ length: 5 }, (_, i) => openRaw(test, sidecar, `127.0.1.${i + 1}`))
    await Promise.all(taken.map(({ socket }) => once(socket, 'connect')))
    await openRaw(test, sidecar, HONEST).closed
    assert.equal(await sidecar.metric(failures('overload')), 1)
    for (const { socket } of taken) socket.destroy()
    await eventually('there is a place', async () => {
      return (await ask(test, sidecar, HONEST, web)) === 200
    })
    await allClosed(sidecar)
  })

  it('pays for one dear certificate chain a penalty, and others complete meanwhile', async (test) => {
    const sidecar = await startLimited(test, {})
    const web = await sidecar.authority.svid('web')
    const dear = costlyChain()
    assert.ok(Buffer.from(dear.chainPem).length * 0.7 > 38_000)
    assert.equal(await ask(test, sidecar, HONEST, web), 200)
    const attack = async (): Promise<void> => {
      for (let i = 0; i < 50; i++) await ask(test, sidecar, ATTACKER, dear)
    }
    const others = async (): Promise<void> => {
      for (let i = 0; i < 50; i++) assert.equal(await ask(test, sidecar, HONEST, web), 200)
    }
    await Promise.all([attack(), attack(), others()])
    assert.equal(await sidecar.metric(failures('untrusted')), 1)
    await eventually('the rest is refused at accept', async () => {
      return (await sidecar.metric(failures('address_limited'))) === 99
    })
    assert.equal(await sidecar.metric(SUCCESSES), 51)
    await allClosed(sidecar)
  })

  it('runs out of failures however cheap they are, and others do not', async (test) => {
    const sidecar = await startLimited(test, { limits: { handshakeFailuresPerAddress: 3 } })
    const web = await sidecar.authority.svid('web')
    const garbage = Buffer.from('GET / HTTP/1.1\r\n\r\n')
    await eventually('it is put away', async () => {
      await openRaw(test, sidecar, ATTACKER, garbage).closed
      return sidecar.metric(failures('address_limited'))
    })
    assert.equal(await ask(test, sidecar, HONEST, web), 200)
  })
})
