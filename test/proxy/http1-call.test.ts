import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import type { CallRequest, UpgradeUser } from '../../src/proxy/call.ts'
import { Http1Call } from '../../src/proxy/http1-call.ts'
import { Turn } from '../../src/proxy/turn.ts'
import { UpstreamPool } from '../../src/proxy/upstream.ts'
import { eventually } from '../support/eventually.ts'

/** A workload that answers as soon as it has read anything. */
async function startHasty(t: TestContext): Promise<number> {
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  return (server.address() as AddressInfo).port
}

/** How many connections are left for the next request after one whose body was `bytes`. */
async function leftAfter(t: TestContext, length: number, bytes: string): Promise<number> {
  let open = 0
  const pool = new UpstreamPool({
    address: { kind: 'tcp', host: '127.0.0.1', port: await startHasty(t) },
    maxConnections: 1,
    connectTimeoutMs: 1_000,
    nowMs: () => 0,
    opened: (change) => {
      open += change
    },
    fault: (error) => assert.fail(String(error)),
  })
  t.after(() => pool.close())
  let ended = false
  const user: UpgradeUser = {
    callInterim() {},
    callHead() {},
    callData() {},
    callEnd() {
      ended = true
    },
    callDrain() {},
    callFailed: (code) => assert.fail(code),
    callUpgraded() {},
  }
  const request: CallRequest = {
    method: 'POST',
    target: '/',
    authority: 'localhost',
    scheme: 'https',
    fields: ['host', 'localhost'],
    body: { kind: 'length', length },
    expectContinue: false,
  }
  const limits = { headBytes: 16_384, headerCount: 100 }
  const call = new Http1Call(user, request, pool, limits, new Turn(), false, '')
  call.begin()
  call.write(Buffer.from(bytes))
  call.end([])
  await eventually('it is answered', () => ended)
  return open
}

describe('the connection of a call over HTTP/1.1', () => {
  it('is kept for the next after a complete answer to a complete request', async (t) => {
    assert.equal(await leftAfter(t, 5, 'hello'), 1)
  })

  it('is not, where the body was not as long as its head says', async (t) => {
    assert.equal(await leftAfter(t, 500, 'hello'), 0)
    assert.equal(await leftAfter(t, 4, 'hello'), 0)
  })
})
