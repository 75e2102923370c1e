// A workload that says more than it was asked for must not be able to say it to somebody else: whatever
// comes before a request has left, or when none is under way, costs the connection.
import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { assertUnharmed, type Codes, codeCounter } from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient, post, startScriptedWorkload } from '../support/http1.ts'
import { ask, openSession } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

/** What the sidecar reads at once: an answer of this size can be told from what is behind it. */
const READ_BYTES = 64 * 1024
const POISON = ok('meant for somebody else')

function exactly(bytes: number, body: string): string {
  const head = `HTTP/1.1 200 OK\r\ncontent-length: ${bytes}\r\n\r\n`
  const length = bytes - head.length
  return ok(body.padEnd(length, '.'))
}

describe('a surplus answer', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let codes: () => Promise<Codes>
  let heard: string[] = []
  let sockets: readonly net.Socket[]
  /** By path; others are answered with their path. */
  let scripts: Record<string, (socket: net.Socket) => void> = {}
  before(async () => {
    const workload = await startScriptedWorkload(t, (socket, { line }) => {
      const path = line.split(' ')[1] ?? ''
      heard.push(line)
      const script = scripts[path]
      if (script === undefined) socket.write(ok(path))
      else script(socket)
    })
    sockets = workload.sockets
    // One connection, which everybody has to take in turn.
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { limits: { upstreamConnections: 1 } } },
    })
    web = await sidecar.authority.svid('web')
    codes = await codeCounter(sidecar)
  })

  const decided = (): Promise<number> =>
    sidecar.metric('postern_decisions_total{outcome="allow",rule="allow_rules"}')

  /** Answers, and says something more that is there when the sidecar comes to read the answer. */
  const answerAndMore = (more: string) => (socket: net.Socket) => {
    sidecar.signal('SIGSTOP')
    socket.write(exactly(READ_BYTES, '/first') + more, 'latin1', () => sidecar.signal('SIGCONT'))
  }

  for (const method of ['GET', 'POST'] as const) {
    it(`is not given to another client whose ${method} waits for the connection`, async (test) => {
      heard = []
      scripts = { '/first': () => {} }
      const first = await openClient(test, sidecar, web)
      const second = await openClient(test, sidecar, web)
      first.send(get('/first'))
      await eventually('it is with the workload', () => heard.length === 1)
      const socket = sockets.at(-1)
      assert.ok(socket !== undefined)
      const before = await decided()
      second.send(method === 'GET' ? get('/second') : post('/second', 'x'))
      await eventually('the other waits', async () => (await decided()) > before)
      answerAndMore(POISON)(socket)
      assert.match(String((await first.answer()).body), /^\/first/)
      assert.equal(String((await second.answer()).body), '/second')
      assert.deepEqual(heard, ['GET /first HTTP/1.1', `${method} /second HTTP/1.1`])
      assert.deepEqual(await codes(), {})
    })
  }

  it('is not taken for the answer to the next request of the same client', async (test) => {
    heard = []
    scripts = { '/first': answerAndMore(POISON) }
    const client = await openClient(test, sidecar, web)
    client.send(get('/first') + post('/second', 'x') + get('/third'))
    for (const path of ['/first', '/second', '/third']) {
      assert.ok(String((await client.answer()).body).startsWith(path))
    }
    assert.equal(heard.length, 3)
  })

  it('is not taken for the answer to a request that comes over HTTP/2', async (test) => {
    heard = []
    scripts = { '/first': answerAndMore(POISON) }
    const session = await openSession(test, sidecar, web)
    const paths = ['/first', ...Array.from({ length: 9 }, (_, i) => `/stream/${i}`)]
    const replies = await Promise.all(paths.map((path) => ask(session, { ':path': path })))
    for (const [i, path] of paths.entries()) {
      const { status, body } = replies[i]!
      assert.ok(status === 200 && String(body).startsWith(path), `${path}: ${status}`)
    }
  })

  it('leaves nothing behind', async (test) => {
    const client = await openClient(test, sidecar, web)
    client.send(get('/last'))
    assert.equal(String((await client.answer()).body), '/last')
    client.socket.destroy()
    await assertUnharmed(sidecar, { upstream: 1 })
  })
})
