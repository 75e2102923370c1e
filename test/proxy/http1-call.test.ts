import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import type { Framing } from '../../src/http/framing.ts'
import type { CallRequest, UpgradeUser } from '../../src/proxy/call.ts'
import { Http1Call } from '../../src/proxy/http1-call.ts'
import { Turn } from '../../src/proxy/turn.ts'
import { UpstreamPool } from '../../src/proxy/upstream.ts'
import { eventually } from '../support/eventually.ts'

/** A workload that answers as soon as it has read anything. */
async function startHasty(t: TestContext, interim = ''): Promise<number> {
  const answer = `${interim}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n`
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write(answer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  return (server.address() as AddressInfo).port
}

/** A workload that answers nothing, and tells what came. */
async function startListening(t: TestContext): Promise<{ port: number; received: () => string }> {
  let received = ''
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  return { port: (server.address() as AddressInfo).port, received: () => received }
}

function poolTo(t: TestContext, port: number, opened: (change: 1 | -1) => void): UpstreamPool {
  const pool = new UpstreamPool({
    address: { kind: 'tcp', host: '127.0.0.1', port },
    maxConnections: 1,
    connectTimeoutMs: 1_000,
    nowMs: () => 0,
    opened,
    fault: (error) => assert.fail(String(error)),
  })
  t.after(() => pool.close())
  return pool
}

function callOn(pool: UpstreamPool, body: Framing, callEnd: () => void): Http1Call {
  const user: UpgradeUser = {
    callInterim() {},
    callHead() {},
    callData() {},
    callEnd,
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
    body,
    expectContinue: false,
  }
  const limits = { headBytes: 16_384, headerCount: 100 }
  return new Http1Call(user, request, pool, limits, new Turn(), false, '')
}

/** How many connections are left for the next request after one whose body was `bytes`. */
async function leftAfter(
  t: TestContext,
  length: number,
  bytes: string,
  interim = '',
): Promise<number> {
  let open = 0
  const pool = poolTo(t, await startHasty(t, interim), (change) => {
    open += change
  })
  let ended = false
  const call = callOn(pool, { kind: 'length', length }, () => {
    ended = true
  })
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

describe('a workload that says in an interim answer that it closes the connection', () => {
  it('is believed', async (t) => {
    const interim = 'HTTP/1.1 103 Early Hints\r\n'
    assert.equal(await leftAfter(t, 5, 'hello', `${interim}\r\n`), 1)
    assert.equal(await leftAfter(t, 5, 'hello', `${interim}connection: close\r\n\r\n`), 0)
  })
})

describe('a body whose bytes are only lent', () => {
  const lent = Buffer.alloc(8_192)
  /** Lends the same memory again and again, as reading does. */
  const lend = (call: Http1Call, fill: string): void => {
    call.write(lent.fill(fill))
    lent.fill('!')
  }
  /** As a connection does that has read a head and the beginning of its body. */
  const beginWith = (call: Http1Call, fill: string): void => {
    call.write(lent.fill(fill))
    call.begin()
    lent.fill('!')
  }
  const PIECES = ['a', 'b', 'c'].map((fill) => fill.repeat(8_192))
  const FRAMINGS: readonly (readonly [Framing, string])[] = [
    [{ kind: 'length', length: 3 * 8_192 }, PIECES.join('')],
    [{ kind: 'chunked' }, `${PIECES.map((piece) => `2000\r\n${piece}\r\n`).join('')}0\r\n\r\n`],
  ]

  for (const [framing, expected] of FRAMINGS) {
    it(`comes whole where there is a connection (${framing.kind})`, async (t) => {
      const { port, received } = await startListening(t)
      const call = callOn(
        poolTo(t, port, () => {}),
        framing,
        () => {},
      )
      beginWith(call, 'a')
      lend(call, 'b')
      lend(call, 'c')
      call.end([])
      await eventually('it has come', () => received().endsWith(expected.slice(-6)))
      assert.equal(received().slice(received().indexOf('\r\n\r\n') + 4), expected)
    })

    it(`comes whole where it had to wait for one (${framing.kind})`, async (t) => {
      const { port, received } = await startListening(t)
      const pool = poolTo(t, port, () => {})
      const first = callOn(pool, { kind: 'none' }, () => {})
      first.begin()
      const call = callOn(pool, framing, () => {})
      beginWith(call, 'a')
      lend(call, 'b')
      lend(call, 'c')
      call.end([])
      first.abandon()
      await eventually('it has come', () => received().endsWith(expected.slice(-6)))
      assert.equal(
        received()
          .slice(received().indexOf('\r\n\r\n', 40) + 4)
          .slice(-expected.length),
        expected,
      )
    })
  }
})
