// What is kept of HTTP/2 requests that an overloaded thread has refused and not answered yet.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2, { type ClientHttp2Session } from 'node:http2'
import { describe, it, type TestContext } from 'node:test'
import v8 from 'node:v8'
import vm from 'node:vm'
import type { Overload, Owed } from '../../../src/proxy/overload.ts'
import { eventually } from '../../support/eventually.ts'
import { ask } from '../../support/http2.ts'
import { startListener } from '../listening.ts'

/** A listener that refuses every request, and answers when the test says so. */
async function setUp(t: TestContext) {
  const listening = await startListener(t, { limits: { headBytes: '64KiB' } })
  const owed = new Set<Owed>()
  Object.assign(listening.context, {
    overload: {
      active: true,
      sheds: () => true,
      logs: () => false,
      press: () => {},
      tell: (answer: () => void): Owed => {
        const one = { answer }
        owed.add(one)
        return one
      },
      withdraw: (one: Owed) => void owed.delete(one),
    } as unknown as Overload,
  })
  const { ALPNProtocols: _, ...tls } = listening.client(await listening.authority.svid('noisy'))
  const connect = async (): Promise<ClientHttp2Session> => {
    const session = http2.connect(`https://localhost:${listening.port}`, tls)
    session.on('error', () => {})
    t.after(() => session.destroy())
    await once(session, 'connect')
    return session
  }
  const isOwed = (count: number): Promise<unknown> =>
    eventually(`${count} answers are owed`, () => owed.size === count)
  return { connect, owed, isOwed }
}

describe('requests over HTTP/2 that an overloaded thread refuses', () => {
  it('are owed no answer once their stream is closed, or their connection', async (t) => {
    const { connect, isOwed } = await setUp(t)
    const [one, other] = [await connect(), await connect()]
    const streams = [one, one, other].map((session) => {
      const stream = session.request({ ':path': '/', ':method': 'POST' }, { endStream: false })
      stream.on('error', () => {})
      return stream
    })
    await isOwed(3)
    streams[0]!.close(http2.constants.NGHTTP2_CANCEL)
    await isOwed(2)
    one.destroy()
    await isOwed(1)
    other.destroy()
    await isOwed(0)
  })

  it('are answered as what they are, without their heads', async (t) => {
    const { connect, owed, isOwed } = await setUp(t)
    const session = await connect()
    const replies = [
      ask(session, { ':method': 'GET' }),
      ask(session, { ':method': 'HEAD' }),
      ask(session, { ':method': 'POST', 'content-type': 'application/grpc+proto' }),
    ]
    await isOwed(3)
    for (const { answer } of owed) answer()
    const [get, head, grpc] = await Promise.all(replies)
    assert.deepEqual([get?.status, head?.status, grpc?.status], [503, 503, 200])
    assert.match(String(get?.body), /"overloaded"/)
    assert.equal(head?.body.length, 0)
    assert.equal(grpc?.headers['grpc-status'], '14')
    await isOwed(0)
  })

  it('take no more memory than their answers need', async (t) => {
    v8.setFlagsFromString('--expose-gc')
    const collectGarbage = vm.runInNewContext('gc') as () => void
    const heapBytes = (): number => {
      collectGarbage()
      return process.memoryUsage().heapUsed
    }
    const { connect, isOwed } = await setUp(t)
    const session = await connect()
    const before = heapBytes()
    const cookie = 'x'.repeat(50_000)
    for (let i = 0; i < 90; i++) session.request({ ':path': '/', cookie }).on('error', () => {})
    await isOwed(90)
    const each = (heapBytes() - before) / 90
    assert.ok(each < 25_000, `${Math.round(each)} bytes each, their clients' part included`)
  })
})
