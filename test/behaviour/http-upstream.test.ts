import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  get,
  type Message,
  MessageReader,
  ok,
  openClient,
  openResettableClient,
  post,
  startScriptedWorkload,
} from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { data, head, openRawHttp2, requestFields } from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

type Script = (
  socket: net.Socket,
  request: Message,
  place: { readonly request: number; readonly connection: number },
) => void

describe('a workload', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  let script: Script = () => {}
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, request, place) =>
      script(socket, request, place),
    )
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  const answerTo = async (
    bytes: string,
  ): Promise<{ status: number; text: string; error?: string }> => {
    const client = await openClient(t, sidecar, web)
    client.send(bytes)
    const { status, body } = await client.answer()
    client.socket.destroy()
    const text = String(body)
    return { status, text, ...(status >= 500 ? { error: JSON.parse(text).error } : {}) }
  }

  /** Closes every pooled connection, so that the next request opens one. */
  const emptyPool = async (): Promise<void> => {
    for (const socket of workload.sockets) socket.destroy()
    await eventually(
      'the pool is empty',
      async () => (await sidecar.metric('postern_upstream_connections_open')) === 0,
    )
  }

  for (const [what, bytes] of [
    ['is no HTTP', 'SSH-2.0-OpenSSH_9.7\r\n'],
    ['is of HTTP/2', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['has two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na'],
    [
      'has a length and a coding',
      'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['has a coding that is not chunked', 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n'],
    ['has a folded line', 'HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n'],
    ['has a bad first chunk', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n'],
    ['has a head that is too long', `HTTP/1.1 200 OK\r\nx: ${'a'.repeat(40_000)}\r\n\r\n`],
  ] as const) {
    it(`whose answer ${what} is answered for with 502 and not asked again`, async () => {
      script = (socket) => void socket.write(bytes)
      const connections = workload.sockets.length
      assert.deepEqual((await answerTo(get('/'))).error, 'upstream_bad_response')
      script = (socket) => void socket.write(ok('fresh'))
      assert.equal((await answerTo(get('/'))).text, 'fresh')
      const last = workload.sockets.at(-1)
      assert.ok(workload.sockets.length > connections && last !== undefined)
    })
  }

  it('that resets is answered for with 502, and the client goes on', async () => {
    await emptyPool()
    script = (socket) => void socket.resetAndDestroy()
    const client = await openClient(t, sidecar, web)
    client.send(get('/'))
    const answer = await client.answer()
    assert.equal(JSON.parse(String(answer.body)).error, 'upstream_reset')
    script = (socket) => void socket.write(ok('again'))
    client.send(get('/'))
    assert.equal(String((await client.answer()).body), 'again')
  })

  it('that says more than one answer says it to nobody', async () => {
    const surplus = ok('for somebody else')
    script = (socket) => void socket.write(ok('first') + surplus)
    assert.equal((await answerTo(get('/'))).text, 'first')
    script = (socket) => void socket.write(ok('second'))
    assert.equal((await answerTo(get('/'))).text, 'second')
    script = (socket) => void socket.write(`HTTP/1.1 204 No Content\r\n\r\n${surplus}`)
    assert.equal((await answerTo(get('/'))).status, 204)
    script = (socket) => void socket.write(ok('third'))
    assert.equal((await answerTo(get('/'))).text, 'third')
  })

  it('that speaks while nobody asks is left at once', async () => {
    let last: net.Socket | undefined
    script = (socket) => {
      last = socket
      socket.write(ok('asked'))
    }
    assert.equal((await answerTo(get('/'))).text, 'asked')
    last?.write(ok('not asked'))
    await eventually('left', () => last?.destroyed || last?.readableEnded)
    assert.equal((await answerTo(get('/'))).text, 'asked')
  })

  it('that says it will close is not asked again on that connection', async () => {
    script = (socket) => void socket.write(ok('once', 'connection: close\r\n'))
    const places: number[] = []
    for (let i = 0; i < 3; i++) {
      const before = workload.sockets.length
      await answerTo(get('/'))
      places.push(workload.sockets.length - before)
    }
    assert.deepEqual(places.slice(1), [1, 1])
  })

  it('is asked again on the same connection, also after a request with a body of no length', async () => {
    await emptyPool()
    script = (socket) => void socket.write(ok('kept'))
    const before = workload.sockets.length
    for (const bytes of [get('/'), post('/', ''), post('/', 'body'), post('/', ''), get('/')]) {
      assert.equal((await answerTo(bytes)).text, 'kept')
    }
    assert.equal(workload.sockets.length - before, 1)
  })

  it('is asked again on the same connection when a body was as long as it said, and its END_STREAM is late', async () => {
    await emptyPool()
    script = (socket) => void socket.write(ok('kept'))
    const before = workload.sockets.length
    const client = await openRawHttp2(t, sidecar, web)
    for (const [stream, body] of [
      [1, 'body'],
      [3, ''],
      [5, 'body'],
    ] as const) {
      const fields = requestFields({ ':method': 'POST', 'content-length': `${body.length}` })
      client.send(head(stream, fields, false))
      if (body !== '') client.send(data(stream, body))
      const answer = await client.answered(stream)
      assert.equal(`${answer.status} ${answer.body}`, '200 kept')
      client.send(data(stream, '', true))
    }
    assert.equal(workload.sockets.length - before, 1)
  })

  it('that closed a kept connection is asked once more, where that is safe', async () => {
    for (const [method, expected] of [
      ['GET', 'again'],
      ['PUT', 'again'],
      ['POST', 'upstream_reset'],
    ] as const) {
      await emptyPool()
      const heard: string[] = []
      script = (socket, { line }, { request }) => {
        heard.push(line)
        if (request === 1) socket.write(ok(heard.length === 1 ? 'warm' : 'again'))
        else socket.destroy()
      }
      assert.equal((await answerTo(get('/'))).text, 'warm')
      const bytes = post('/', 'body').replace('POST', method)
      const { text, error } = await answerTo(bytes)
      assert.equal(error ?? text, expected, method)
      assert.equal(heard.length, method === 'POST' ? 2 : 3)
    }
  })

  it('that began to answer is never asked again', async () => {
    await emptyPool()
    let asked = 0
    script = (socket, _, { request }) => {
      asked++
      if (request === 1) socket.write(ok('warm'))
      else socket.end('HTTP/1.1 2')
    }
    await answerTo(get('/'))
    assert.equal((await answerTo(get('/'))).error, 'upstream_reset')
    assert.equal(asked, 2)
  })

  it('may answer before the request is complete; then the connections end with it', async () => {
    await emptyPool()
    const early = net.createServer((socket) => {
      socket.on('error', () => {})
      socket.once(
        'data',
        () => void socket.write('HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig'),
      )
    })
    await new Promise<void>((resolve) => early.listen(0, '127.0.0.1', resolve))
    t.after(() => early.close())
    const { port } = early.address() as net.AddressInfo
    const other = await startSidecar(t, { forward: `http://127.0.0.1:${port}` })
    const client = await openClient(t, other, await other.authority.svid('web'))
    client.send('POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nbegun')
    const answer = await client.answer()
    assert.deepEqual([answer.status, String(answer.body)], [413, 'big'])
    assert.deepEqual(answer.values('connection'), ['close'])
    client.send('more of it')
    assert.equal(await client.ended, '')
    await eventually(
      'the half-used connection is gone',
      async () => (await other.metric('postern_upstream_connections_open')) === 0,
    )
  })

  it('counts in the metrics by what it did', async () => {
    const text = await sidecar.metrics()
    assert.match(text, /upstream_errors_total\{code="upstream_bad_response"\} 8\n/)
    assert.match(text, /upstream_errors_total\{code="upstream_reset"\} 3\n/)
    await emptyPool()
  })
})

describe('a workload behind limits', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  const waiting: net.Socket[] = []
  const t = suiteCleanup()
  before(async () => {
    const workload = await startScriptedWorkload(t, (socket, { line }) => {
      if (line.includes('/wait')) waiting.push(socket)
      else socket.write(ok('free'))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: { limits: { upstreamConnections: 2 }, timeouts: { upstreamConnect: '3s' } },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  it('gets no more connections than allowed; who finds none waits, then gets 503', async () => {
    const clients = await Promise.all([1, 2, 3, 4].map(() => openClient(t, sidecar, web)))
    const [one, two, three, four] = clients
    assert.ok(one && two && three && four)
    one.send(get('/wait'))
    await eventually('one is taken', () => waiting.length === 1)
    two.send(get('/wait'))
    await eventually('both are taken', () => waiting.length === 2)
    three.send(post('/busy', 'x'))
    const refused = await three.answer()
    assert.equal(refused.status, 503)
    assert.equal(JSON.parse(String(refused.body)).error, 'upstream_busy')
    const series = 'postern_decisions_total{outcome="allow",rule="allow_rules"}'
    const decided = await sidecar.metric(series)
    three.send(get('/soon'))
    // In turn: whoever comes first waits first.
    await eventually('it waits', async () => (await sidecar.metric(series)) > decided)
    four.send(`POST /soon HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8\r\n\r\nhalf`)
    waiting[0]?.write(ok('done'))
    assert.equal(String((await one.answer()).body), 'done')
    assert.equal(String((await three.answer()).body), 'free')
    four.send('half')
    assert.equal(String((await four.answer()).body), 'free')
    waiting[1]?.write(ok('done'))
    assert.equal(String((await two.answer()).body), 'done')
    assert.equal(await sidecar.metric('postern_upstream_connections_open'), 2)
  })

  it('is not waited for by a client that has gone', async () => {
    waiting.length = 0
    const one = await openClient(t, sidecar, web)
    const two = await openClient(t, sidecar, web)
    const gone = await openResettableClient(t, sidecar, web)
    one.send(get('/wait'))
    two.send(get('/wait'))
    await eventually('both are taken', () => waiting.length === 2)
    const series = 'postern_decisions_total{outcome="allow",rule="allow_rules"}'
    const decided = await sidecar.metric(series)
    gone.send(get('/wait'))
    await eventually('it waits', async () => (await sidecar.metric(series)) > decided)
    gone.reset()
    await eventually(
      'the client has gone',
      async () =>
        (await sidecar.metric('postern_requests_rejected_total{code="client_closed"}')) > 0,
    )
    for (const socket of waiting) socket.write(ok('done'))
    assert.equal(String((await one.answer()).body), 'done')
    assert.equal(String((await two.answer()).body), 'done')
    assert.equal(waiting.length, 2)
  })
})

describe('a workload that cannot be reached', () => {
  const t = suiteCleanup()

  it('is answered for with 502 until it is there, on a UNIX socket', async () => {
    const path = join(tmpdir(), `postern-${randomUUID()}.sock`)
    const sidecar = await startSidecar(t, { forward: `unix:${path}` })
    const web = await sidecar.authority.svid('web')
    const client = await openClient(t, sidecar, web)
    client.send(get('/'))
    const answer = await client.answer()
    assert.equal(answer.status, 502)
    assert.equal(JSON.parse(String(answer.body)).error, 'upstream_refused')
    const server = net.createServer((socket) => {
      const reader = new MessageReader()
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => {
        reader.push(chunk)
        if (reader.next() !== undefined) socket.write(ok('by path'))
      })
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    t.after(() => server.close())
    client.send(get('/'))
    assert.equal(String((await client.answer()).body), 'by path')
    assert.equal(await sidecar.metric('postern_upstream_errors_total{code="upstream_refused"}'), 1)
  })
})
