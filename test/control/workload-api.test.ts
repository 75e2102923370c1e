// The client of the SPIFFE Workload API against a server that speaks the same protocol.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { parseWorkloadApi } from '../../src/config/values.ts'
import { chooseSvid, deliveredMaterials } from '../../src/control/delivered-materials.ts'
import { fetchDelivery, WorkloadApi } from '../../src/control/workload-api.ts'
import { type Delivery, readDelivery } from '../../src/control/workload-api-messages.ts'
import type { Problem } from '../../src/errors.ts'
import { eventually } from '../support/eventually.ts'
import { ORDERS, temporaryDirectory, testAuthority } from '../support/pki.ts'
import { type Answer, encodeAnswer, WorkloadApiServer } from '../support/workload-api.ts'

const authority = await testAuthority()
const partner = await testAuthority('partner.example')
const svid = async (hint?: string, serviceAccount = 'orders') => ({
  spiffeId: ORDERS.replace('orders', serviceAccount),
  issued: await authority.svid(serviceAccount),
  bundlePem: authority.root.certificatePem,
  ...(hint === undefined ? {} : { hint }),
})
const ONE: Answer = { svids: [await svid()] }

const addressOf = (text: string) => {
  const parsed = parseWorkloadApi(text)
  assert.ok(parsed.kind === 'value')
  return parsed.value
}
const socketIn = async (t: TestContext) =>
  `unix://${join(await temporaryDirectory(t), 'agent.sock')}`

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function follow(t: TestContext, address: string, silenceMs?: number) {
  const delivered: Delivery[] = []
  const troubles: Problem[] = []
  const api = new WorkloadApi({
    address: addressOf(address),
    firstPauseMs: 20,
    longestPauseMs: 50,
    ...(silenceMs === undefined ? {} : { silenceMs }),
    events: {
      delivered: (one) => delivered.push(one),
      trouble: (one) => troubles.push(one),
    },
  })
  api.start()
  t.after(() => api.stop())
  return { api, delivered, troubles }
}

describe('the client of the Workload API', () => {
  it('asks with the security header, and reads own and federated bundles, CRLs and hints', async (t) => {
    const crl = Buffer.from('crl')
    const server = await new WorkloadApiServer(t, await socketIn(t), {
      svids: [await svid('internal'), await svid('external', 'web')],
      crls: [crl],
      federated: { 'spiffe://partner.example': partner.root.certificatePem },
    }).start()
    const { delivered } = follow(t, server.address)
    const delivery = await eventually('a delivery', () => delivered[0])
    assert.deepEqual(server.metadata[0]?.get('workload.spiffe.io'), ['true'])
    assert.deepEqual(
      delivery.svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
      [
        [ORDERS, 'internal'],
        [ORDERS.replace('orders', 'web'), 'external'],
      ],
    )
    assert.deepEqual(delivery.crls, [Uint8Array.from(crl)])
    assert.deepEqual([...(delivery.federated.keys() ?? [])], ['spiffe://partner.example'])
  })

  it('reaches an agent on a loopback port, whatever proxy the environment names', async (t) => {
    process.env['http_proxy'] = 'http://192.0.2.1:1'
    t.after(() => delete process.env['http_proxy'])
    const address = `tcp://127.0.0.1:${await freePort()}`
    const server = await new WorkloadApiServer(t, address, ONE).start()
    const { delivered } = follow(t, server.address)
    await eventually('a delivery', () => delivered.length > 0)
  })

  it('follows rotations on the same stream', async (t) => {
    const server = await new WorkloadApiServer(t, await socketIn(t), ONE).start()
    const { delivered } = follow(t, server.address)
    await eventually('the first', () => delivered.length === 1)
    server.send({ svids: [await svid()] })
    await eventually('the second', () => delivered.length === 2)
    assert.notDeepEqual(delivered[1]?.svids[0]?.chain, delivered[0]?.svids[0]?.chain)
    assert.equal(server.metadata.length, 1)
  })

  it('waits for an agent that is not there yet, and comes back to one that was restarted', async (t) => {
    const server = new WorkloadApiServer(t, await socketIn(t), ONE)
    const { api, delivered, troubles } = follow(t, server.address)
    await eventually('it is told', () => troubles.length > 0)
    assert.match(troubles[0]?.what ?? '', /cannot be reached/)
    await server.start()
    await eventually('a delivery', () => delivered.length === 1)
    assert.equal(api.trouble, undefined)
    await server.stop()
    await eventually('the loss is told', () => api.trouble)
    assert.equal(api.delivery, delivered[0])
    await server.start()
    await eventually('another', () => delivered.length === 2 && api.trouble === undefined)
  })

  it('notices an agent that has stopped without a word, and comes back', async (t) => {
    const server = await new WorkloadApiServer(t, await socketIn(t), ONE).start()
    const relay = createServer((client) => {
      const agent = connect(server.address.slice('unix://'.length))
      for (const socket of [client, agent]) socket.on('error', () => {})
      client.pipe(agent).pipe(client)
      t.after(() => client.destroy())
    })
    const address = await socketIn(t)
    const connections: Socket[] = []
    relay.on('connection', (socket) => connections.push(socket))
    relay.listen(address.slice('unix://'.length))
    await once(relay, 'listening')
    t.after(() => relay.close())
    const { delivered, troubles } = follow(t, address, 50)
    await eventually('a delivery', () => delivered.length === 1)
    connections[0]?.unpipe().pause()
    await eventually('another one', () => delivered.length > 1)
    assert.match(troubles[0]?.what ?? '', /cannot be reached/)
  })

  it('explains that no identity is issued, once, and gets it when there is one', async (t) => {
    const denied = { code: 7, details: 'no identity issued' }
    const server = await new WorkloadApiServer(t, await socketIn(t), denied).start()
    const { delivered, troubles } = follow(t, server.address)
    await eventually('several attempts', () => server.metadata.length > 3)
    assert.equal(troubles.length, 1)
    assert.match(
      troubles[0]?.what ?? '',
      /issues no identity to this workload .*no identity issued/,
    )
    assert.match(troubles[0]?.remedy ?? '', /register this workload/)
    server.answer = ONE
    await eventually('a delivery', () => delivered.length > 0)
  })

  it('keeps what it has when an answer cannot be read, and connects again', async (t) => {
    const server = await new WorkloadApiServer(t, await socketIn(t), ONE).start()
    const { api, delivered, troubles } = follow(t, server.address)
    await eventually('a delivery', () => delivered.length === 1)
    server.send(Uint8Array.from([0x0a, 0xff]))
    await eventually('it is told', () => troubles.length > 0)
    assert.match(troubles[0]?.what ?? '', /cannot be read/)
    assert.equal(api.delivery, delivered[0])
    server.answer = ONE
    await eventually('another', () => delivered.length === 2)
  })

  it('takes CRLs of a hundred thousand entries, and says so of a message that is too large', async (t) => {
    const server = await new WorkloadApiServer(t, await socketIn(t), {
      ...ONE,
      crls: [Buffer.alloc(5 << 20)],
    }).start()
    const { delivered, troubles } = follow(t, server.address)
    const delivery = await eventually('a delivery', () => delivered[0])
    assert.equal(delivery.crls[0]?.length, 5 << 20)
    server.send({ ...ONE, crls: [Buffer.alloc(33 << 20)] })
    const problem = await eventually('the problem', () => troubles[0])
    assert.match(problem.what, /cannot be read .*larger than max/)
  })

  it('says that a socket is that of something else', async (t) => {
    const other = { code: 12, details: 'unknown service' }
    const server = await new WorkloadApiServer(t, await socketIn(t), other).start()
    const { troubles } = follow(t, server.address)
    await eventually('it is told', () => troubles.length > 0)
    assert.match(troubles[0]?.remedy ?? '', /socket of a SPIFFE Workload API/)
  })

  it('tries once for a check, with a deadline', async (t) => {
    const server = new WorkloadApiServer(t, await socketIn(t), ONE)
    const address = addressOf(server.address)
    const absent = await fetchDelivery(address, 5_000)
    assert.ok('what' in absent && /cannot be reached/.test(absent.what))
    await server.start()
    const there = await fetchDelivery(address, 5_000)
    assert.ok('svids' in there)
    server.answer = { svids: [] }
    await eventually('its stream is gone', () => server.streams === 0)
  })
})

describe('what was delivered', () => {
  const address = addressOf('unix:///run/agent.sock')
  const read = (answer: Answer): Delivery => readDelivery(encodeAnswer(answer))
  const whatOf = (delivery: Delivery | undefined, hint?: string): string => {
    const { identity, bundles } = deliveredMaterials(address, hint, delivery)
    if (identity.kind === 'bytes') return 'good'
    assert.deepEqual(bundles, [])
    assert.ok(identity.problem.remedy)
    return identity.problem.what
  }

  it('is the first identity, or the one with the hint', async () => {
    const delivery = read({ svids: [await svid('a'), await svid('b', 'web'), await svid('b')] })
    const of = (hint?: string) => {
      const chosen = chooseSvid(delivery, hint, 'x')
      return 'what' in chosen ? chosen.what : chosen.spiffeId
    }
    assert.equal(of(), ORDERS)
    assert.equal(of('b'), ORDERS.replace('orders', 'web'))
    assert.match(of('c'), /none of the 3 identities .* has the hint "c"; theirs are: "a", "b", "b"/)
  })

  it('is a problem when it names nobody', async () => {
    assert.match(whatOf(undefined), /has delivered no identity yet/)
    assert.match(whatOf(read({ svids: [] })), /without any identity/)
    const bad = { ...(await svid()), spiffeId: 'spiffe://example.org' }
    assert.match(whatOf(read({ svids: [bad] })), /no SPIFFE ID of a workload/)
    assert.equal(whatOf(read(ONE)), 'good')
  })

  it('holds a bundle for each trust domain, and none for what is no trust domain', () => {
    const { bundles } = deliveredMaterials(
      address,
      undefined,
      read({
        ...ONE,
        federated: {
          'spiffe://partner.example': partner.root.certificatePem,
          'spiffe://Bad Domain': partner.root.certificatePem,
        },
      }),
    )
    assert.deepEqual(
      bundles.map(({ trustDomain, content }) => [trustDomain, content.kind]),
      [
        ['example.org', 'bytes'],
        ['Bad Domain', 'problem'],
        ['partner.example', 'bytes'],
      ],
    )
  })

  it('any bytes are a message, or none', () => {
    const some = encodeAnswer(ONE)
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.tuple(fc.nat(some.length - 1), fc.nat(255)).map(([at, value]) => {
        const changed = Uint8Array.from(some)
        changed[at] = value
        return changed
      }),
      fc.nat(some.length).map((length) => Uint8Array.from(some.subarray(0, length))),
    )
    fc.assert(
      fc.property(bytes, (message) => {
        let delivery: Delivery
        try {
          delivery = readDelivery(message)
        } catch (error) {
          return error instanceof Error
        }
        const { identity } = deliveredMaterials(address, undefined, delivery)
        return identity.kind === 'bytes' || identity.problem.what.length > 0
      }),
      { numRuns: 2_000 },
    )
  })
})
