// What an HTTP/2 client can do to a sidecar, and what it costs: floods end the connection and are told
// apart from clients that leave, work that nobody wants is cancelled, and other clients go on.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import type http2 from 'node:http2'
import { after, before, describe, it } from 'node:test'
import { FLAG, FRAME } from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { ask, openSession, startH2cWorkload } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import {
  data,
  frame,
  head,
  openRawHttp2,
  requestFields,
  resetStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const GET = requestFields()
const POST = requestFields({ ':method': 'POST' })
const MANY = 20_000
const many = (make: (i: number) => Buffer): Buffer[] =>
  Array.from({ length: MANY }, (_, i) => make(i))
const streams = (make: (id: number) => Buffer[]): Buffer[] =>
  Array.from({ length: 3_000 }, (_, i) => make(2 * i + 1)).flat()

const FLOODS: readonly (readonly [string, () => Buffer[]])[] = [
  [
    'requests that are reset at once',
    () => streams((id) => [head(id, GET), resetStreamFrame(id, 8)]),
  ],
  [
    'requests that make us reset them',
    () => streams((id) => [head(id, POST, false), head(id, [':path', '/x'])]),
  ],
  ['malformed requests', () => streams((id) => [head(id, [...GET, 'connection', 'x'])])],
  ['more streams than allowed', () => streams((id) => [head(id, POST, false)])],
  ['PING', () => many(() => frame(FRAME.ping, 0, 0, Buffer.alloc(8)))],
  ['SETTINGS', () => many(() => settingsFrame([]))],
  ['SETTINGS that change windows', () => many((i) => settingsFrame([[4, 65_535 - (i % 2)]]))],
  ['empty DATA', () => [head(1, POST, false), ...many(() => data(1, ''))]],
  [
    'CONTINUATION',
    () => [
      frame(FRAME.headers, FLAG.endStream, 1, encodeHeaderBlock(GET)),
      ...many(() => frame(FRAME.continuation, 0, 1, encodeHeaderBlock(['x-a', 'b']))),
    ],
  ],
]

describe('a flood from an HTTP/2 client', () => {
  const t = suiteCleanup()
  const open = new Set<http2.ServerHttp2Stream>()
  let served = 0
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let calm: http2.ClientHttp2Session
  before(async () => {
    const workload = await startH2cWorkload(t, (stream, headers) => {
      served++
      if (headers[':path'] === '/calm') {
        stream.respond({ ':status': 200 })
        return void stream.end('calm')
      }
      open.add(stream)
      stream.on('close', () => open.delete(stream))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { log: { decisions: 'off' } },
    })
    web = await sidecar.authority.svid('web')
    calm = await openSession(t, sidecar, web)
  })

  for (const [what, make] of FLOODS) {
    it(`ends its connection, and no other: ${what}`, async () => {
      const before = served
      const rejected = 'postern_connections_closed_total{reason="rejected"}'
      const flood = 'postern_requests_rejected_total{code="h2_flood"}'
      const counted = [await sidecar.metric(rejected), await sidecar.metric(flood)]
      const raw = await openRawHttp2(t, sidecar, web)
      raw.send(...make())
      const reply = await ask(calm, { ':path': '/calm' })
      assert.equal(reply.body.toString(), 'calm')
      await raw.closed()
      await eventually('it is counted as what it is', async () => {
        const now = [await sidecar.metric(rejected), await sidecar.metric(flood)]
        return now[0] === counted[0]! + 1 && now[1] === counted[1]! + 1
      })
      // At most what is no flood yet and what may be open at once has gone on, and the calm request.
      assert.ok(
        served - before <= 500 + 100 + 1,
        `${served - before} requests reached the workload`,
      )
      await eventually('what had gone on is cancelled', () => open.size === 0)
    })
  }

  it('counts as a client that leaves when it only asks for room', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    raw.send(...many(() => windowUpdateFrame(0, 1)), head(1, requestFields({ ':path': '/calm' })))
    assert.equal((await raw.answered(1)).status, 200)
    const left = 'postern_connections_closed_total{reason="client"}'
    const before = await sidecar.metric(left)
    raw.socket.destroy()
    await eventually('it is counted', async () => (await sidecar.metric(left)) === before + 1)
  })
})

describe('an HTTP/2 client that leaves', () => {
  const t = suiteCleanup()

  for (const how of ['ends its side', 'resets its streams'] as const) {
    it(`takes its requests with it when it ${how}`, async () => {
      const open = new Set<http2.ServerHttp2Stream>()
      const workload = await startH2cWorkload(t, (stream) => {
        open.add(stream)
        stream.on('close', () => open.delete(stream))
      })
      const sidecar = await startSidecar(t, { forward: workload.url })
      const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
      const ids = Array.from({ length: 20 }, (_, i) => 2 * i + 1)
      raw.send(...ids.map((id) => head(id, POST, false)))
      await eventually('all are with the workload', () => open.size === ids.length)
      if (how === 'ends its side') raw.socket.end()
      else raw.send(...ids.map((id) => resetStreamFrame(id, 8)))
      await eventually('none is with the workload', () => open.size === 0)
      raw.socket.destroy()
      await eventually(
        'the connection is gone',
        async () => (await sidecar.metric('postern_connections_open')) === 0,
      )
    })
  }
})

describe('an HTTP/2 client that stalls', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  before(async () => {
    const workload = await startWorkload(t, (request, response) => {
      if (request.url === '/hang') return
      response.end(Buffer.alloc(4_000_000))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: {
          timeouts: { idle: '1s', requestBody: '500ms', upstreamResponse: '20s' },
          limits: { upstreamConnections: 200 },
        },
      },
    })
    web = await sidecar.authority.svid('web')
  })
  const residentKiB = async (): Promise<number> => {
    const status = await readFile(`/proc/${sidecar.pid}/status`, 'latin1')
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1])
  }

  it('holds a hundred answers with bounded memory, until they have been idle for too long', async () => {
    const before = await residentKiB()
    const raw = await openRawHttp2(t, sidecar, web, { settings: [[4, 0]], credit: false })
    const ids = Array.from({ length: 100 }, (_, i) => 2 * i + 1)
    raw.send(...ids.map((id) => head(id, GET)))
    await eventually('all have begun', () => ids.every((id) => raw.answer(id).status === 200))
    await eventually('all are reset', () => ids.every((id) => raw.answer(id).reset !== undefined))
    const grown = (await residentKiB()) - before
    // 400 MB are waiting behind them.
    assert.ok(grown < 100 * 1024, `${grown} KiB more`)
    await raw.closed()
    await eventually(
      'its end is counted',
      async () => (await sidecar.metric('postern_connections_closed_total{reason="idle"}')) >= 1,
    )
  })

  it('loses an answer of which it takes a byte now and then', async () => {
    const raw = await openRawHttp2(t, sidecar, web, { settings: [[4, 0]], credit: false })
    raw.send(head(1, GET))
    await eventually('it has begun', () => raw.answer(1).status === 200)
    const drips = setInterval(() => raw.send(windowUpdateFrame(1, 1)), 20)
    after(() => clearInterval(drips))
    await eventually('it is reset', () => raw.answer(1).reset !== undefined)
    assert.ok(raw.answer(1).body.length > 0)
    clearInterval(drips)
  })

  it('is told that its body does not come, and loses the stream alone', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    raw.send(head(1, requestFields({ ':method': 'POST', ':path': '/hang' }), false), data(1, 'x'))
    assert.equal((await raw.answered(1)).status, 408)
    raw.send(head(3, GET))
    assert.equal((await raw.answered(3)).status, 200)
  })

  it('is ended when it has no streams for as long as connections may be idle', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    await raw.closed()
    assert.equal(raw.goAway, 0)
  })

  it('is ended though it asks for a sign of life again and again', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    const pings = setInterval(() => raw.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8))), 50)
    after(() => clearInterval(pings))
    await raw.closed()
    assert.equal(raw.goAway, 0)
  })
})

describe('one HTTP/2 client beside another', () => {
  const t = suiteCleanup()

  it('gets its answers while the other has all its streams waiting', async () => {
    const workload = await startH2cWorkload(t, (stream, headers) => {
      if (headers[':path'] === '/hang') return
      stream.respond({ ':status': 200 })
      stream.end('here')
    })
    const sidecar = await startSidecar(t, { forward: workload.url })
    const web = await sidecar.authority.svid('web')
    const greedy = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const raw = await openRawHttp2(t, sidecar, web, { settings: [[4, 0]], credit: false })
        raw.send(
          ...Array.from({ length: 100 }, (_, i) =>
            head(2 * i + 1, requestFields({ ':path': '/hang' })),
          ),
        )
        return raw
      }),
    )
    await eventually('their requests are with the workload', () => workload.streams.length === 300)
    const session = await openSession(t, sidecar, web)
    for (let i = 0; i < 20; i++) assert.equal((await ask(session)).body.toString(), 'here')
    for (const raw of greedy) assert.equal(raw.over, false)
  })

  it('has as many streams as allowed, and the rest of a hasty client is refused, to be sent again', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    // Before it knows our settings.
    const session = await openSession(t, sidecar, await sidecar.authority.svid('web'), {
      peerMaxConcurrentStreams: 1_000,
    })
    const replies = await Promise.all(Array.from({ length: 250 }, () => ask(session)))
    const answered = replies.filter(({ status }) => status === 200).length
    const refused = replies.filter(({ resetCode }) => resetCode === 7).length
    assert.equal(answered + refused, 250)
    assert.ok(answered >= 100)
    assert.equal((await ask(session)).status, 200)
  })
})
