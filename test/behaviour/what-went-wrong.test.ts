// Who is paged reads the access log: a request that went wrong is booked on whoever it was, and says what it was
// where its code leaves that open.
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { FLAG, FRAME, PREFACE } from '../../src/http/h2/frames.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient } from '../support/http1.ts'
import { startH2cWorkload } from '../support/http2.ts'
import { type IssuedCertificate, testAuthority } from '../support/pki.ts'
import { startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  data,
  frame,
  head,
  openRawHttp2,
  requestFields,
  resetStreamFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload, startWorkload } from '../support/workload.ts'

const upload = (path: string, length: number): string[] => [
  ...requestFields({ ':method': 'POST', ':path': path }),
  ...['content-length', String(length)],
]

describe('what the log says of an HTTP/2 client', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  before(async () => {
    const workload = await startH2cWorkload(t, (stream, headers) => {
      if (headers[':path'] === '/wait') return
      stream.respond({ ':status': 200 })
      if (headers[':path'] === '/much') stream.write(Buffer.alloc(1_000_000))
      else stream.end('fine')
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { timeouts: { idle: '500ms', requestHead: '300ms' } } },
    })
    web = await sidecar.authority.svid('web')
  })

  it('that does not read its answer is that it has left, not that the workload was late', async () => {
    const raw = await openRawHttp2(t, sidecar, web, { settings: [[4, 1_000]], credit: false })
    raw.send(head(1, requestFields({ ':path': '/much' })))
    await eventually('it is reset', () => raw.answer(1).reset !== undefined)
    const late = 'postern_upstream_errors_total{code="upstream_timeout"}'
    assert.equal(await sidecar.metric(late), 0)
    assert.equal(await sidecar.metric('postern_requests_rejected_total{code="client_closed"}'), 1)
  })

  for (const [what, bytes] of [
    ['shorter', [data(1, 'x', true)]],
    ['longer', [data(1, 'xxxx')]],
  ] as const) {
    it(`whose body is ${what} than it says is that its framing is wrong`, async () => {
      const path = `/wait?${what}`
      const raw = await openRawHttp2(t, sidecar, web)
      raw.send(head(1, upload('/wait', 3), false), ...bytes)
      await eventually(`${path} is reset`, () => raw.answer(1).reset === 1)
      const line = await sidecar.logged('access', { code: 'bad_framing' })
      assert.equal(line['outcome'], 'rejected')
      assert.equal(line['path'], '/wait')
      sidecar.lines.length = 0
    })
  }

  for (const [what, bytes] of [
    ['a head', [frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(40)).subarray(0, 20)]],
    ['a header block', [frame(FRAME.headers, 0, 1, Buffer.from([0x82]))]],
    ['the header of a frame', [Buffer.from([0, 0])]],
  ] as const) {
    it(`that does not end ${what} is that it was too late, and its connection is over`, async () => {
      sidecar.lines.length = 0
      const raw = await openRawHttp2(t, sidecar, web)
      raw.send(...bytes)
      await raw.closed()
      const line = await sidecar.logged('access', { code: 'head_timeout' })
      assert.equal(line['protocol'], 'http/2')
    })
  }

  it('that does not end its preface is that it was too late', async () => {
    sidecar.lines.length = 0
    const client = await openClient(t, sidecar, web, { ALPNProtocols: ['h2'] })
    client.send(PREFACE.slice(0, 10))
    await client.ended
    await sidecar.logged('access', { code: 'head_timeout' })
  })

  it('that sends frame by frame, none of which is whole for long, is nothing', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    raw.send(head(1, requestFields({ ':path': '/wait' }), false))
    const bytes = Buffer.concat(Array.from({ length: 30 }, () => data(1, 'x')))
    // Half of a frame waits at each moment.
    for (let at = 0; at < bytes.length; at += 10) {
      raw.send(bytes.subarray(at === 0 ? 0 : at - 5, at + 5))
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
    assert.equal(raw.over, false)
  })

  it('that floods is of what', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    const streams = Array.from({ length: 2_000 }, (_, i) => 2 * i + 1)
    raw.send(
      ...streams.flatMap((id) => [
        head(id, requestFields({ ':path': '/wait' })),
        resetStreamFrame(id, 8),
      ]),
    )
    await raw.closed()
    const line = await sidecar.logged('access', { code: 'h2_flood' })
    assert.equal(line['detail'], 'requests that were reset')
  })

  it('that breaks a rule is of which kind', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    raw.send(frame(FRAME.windowUpdate, 0, 0, Buffer.alloc(5)))
    await raw.closed()
    const line = await sidecar.logged('access', { code: 'h2_protocol_error' })
    assert.equal(line['detail'], 'FRAME_SIZE_ERROR')
  })
})

describe('what the log says of a workload that answers nonsense', () => {
  const t = suiteCleanup()

  it('is what was wrong, over HTTP/1.1', async () => {
    const { url } = await startRawWorkload(t, (socket) => {
      socket.once('data', () =>
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n'),
      )
    })
    const sidecar = await startSidecar(t, { forward: url })
    const client = await openClient(t, sidecar, await sidecar.authority.svid('web'))
    client.send(get('/'))
    assert.equal((await client.answer()).status, 502)
    const line = await sidecar.logged('access', { code: 'upstream_bad_response' })
    assert.equal(line['detail'], 'repeated content-length')
  })

  it('is what was wrong, over HTTP/2', async () => {
    const { url } = await startRawH2cWorkload(t, (stream) => {
      stream.send(head(stream.id, [':status', '200', 'content-length', '3'], true))
    })
    const sidecar = await startSidecar(t, { forward: url })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.send(head(1, requestFields()))
    assert.equal((await raw.answered(1)).status, 502)
    const line = await sidecar.logged('access', { code: 'upstream_bad_response' })
    assert.equal(line['detail'], 'a body of another length than it says')
  })

  it('is nothing where it answers well', async () => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: url, config: { log: { access: 'all' } } })
    const client = await openClient(t, sidecar, await sidecar.authority.svid('web'))
    client.send(get('/'))
    assert.equal((await client.answer()).status, 200)
    assert.equal((await sidecar.logged('access'))['detail'], undefined)
  })
})

describe('what the log says of a client that is refused at its handshake', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let stranger: IssuedCertificate
  before(async () => {
    const { url } = await startWorkload(t)
    sidecar = await startSidecar(t, { forward: url })
    stranger = await (await testAuthority()).svid('stranger')
  })

  it('is under the id that the client is told, over HTTP/1.1', async () => {
    const client = await openClient(t, sidecar, stranger)
    const answer = await client.answer()
    assert.equal(answer.status, 403)
    const [id] = answer.values('x-postern-decision-id')
    assert.equal(
      (await sidecar.logged('handshake_failed', { request_id: id }))['reason'],
      'untrusted',
    )
  })

  it('is under the id that the client is told, over HTTP/2', async () => {
    const raw = await openRawHttp2(t, sidecar, stranger)
    raw.send(head(1, requestFields()))
    const { status, body } = await raw.answered(1)
    assert.equal(status, 403)
    const { id } = JSON.parse(String(body)) as { id: string }
    assert.equal(
      (await sidecar.logged('handshake_failed', { request_id: id }))['reason'],
      'untrusted',
    )
  })
})

describe('what the log says of a request that is refused', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  before(async () => {
    const { url } = await startWorkload(t)
    sidecar = await startSidecar(t, { forward: url })
    web = await sidecar.authority.svid('web')
  })

  it('is which one it was, over HTTP/1.1', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/api/../admin?token=secret'))
    assert.equal((await client.answer()).status, 400)
    const line = await sidecar.logged('access', { code: 'ambiguous_path', protocol: 'http/1.1' })
    assert.deepEqual([line['method'], line['path']], ['GET', '/api/../admin'])
  })

  it('is which one it was, over HTTP/2', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    raw.send(head(1, requestFields({ ':path': '/api/../admin?token=secret' })))
    assert.equal((await raw.answered(1)).status, 400)
    const line = await sidecar.logged('access', { code: 'ambiguous_path', protocol: 'http/2' })
    assert.deepEqual([line['method'], line['path']], ['GET', '/api/../admin'])
  })
})

describe('what the log says of a connection that we have ended', () => {
  const t = suiteCleanup()

  it('is why', async () => {
    const { url } = await startRawWorkload(t, () => {})
    const sidecar = await startSidecar(t, {
      forward: url.replace('http:', 'tcp:'),
      config: { inbound: { timeouts: { tunnelIdle: '300ms' } }, log: { access: 'all' } },
    })
    const client = await openClient(t, sidecar, await sidecar.authority.svid('web'))
    await client.ended
    assert.equal((await sidecar.logged('access', { protocol: 'tcp' }))['detail'], 'idle')
  })
})
