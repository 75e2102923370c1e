import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import type http2 from 'node:http2'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { chunked, get, openClient, post } from '../support/http1.ts'
import { ask, openSession, replyOf, startH2cWorkload } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { call, SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const BODY_POLICY = fileURLToPath(new URL('../policy/bundles/body.tar.gz', import.meta.url))
const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

describe('HTTP/2 to a workload that speaks HTTP/1.1', () => {
  let sidecar: TestSidecar
  let workload: Workload
  let web: IssuedCertificate
  let session: http2.ClientHttp2Session
  const t = suiteCleanup()
  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: SAMPLE_POLICY } },
    })
    web = await sidecar.authority.svid('web')
    session = await openSession(t, sidecar, web)
  })

  it('is negotiated on the same port, and brings what policy allows with our identity fields', async () => {
    const reply = await ask(session, {
      ':path': '/api/orders?limit=1',
      'x-forwarded-client-cert': 'By=forged',
      cookie: ['a=b', 'c=d'],
    })
    assert.equal(reply.status, 200)
    const seen = JSON.parse(reply.body.toString())
    assert.equal(seen.url, '/api/orders?limit=1')
    assert.equal(seen.headers.host, `localhost:${sidecar.port}`)
    assert.match(
      seen.headers['x-forwarded-client-cert'],
      /^By=.*;URI=spiffe:\/\/example.org\/ns\/default\/sa\/web$/,
    )
    assert.equal(seen.headers.cookie, 'a=b; c=d')
  })

  it('is denied by policy with a code and an id, and the connection goes on', async () => {
    const reply = await ask(session, { ':method': 'DELETE' })
    assert.equal(reply.status, 403)
    assert.equal(JSON.parse(reply.body.toString()).error, 'denied')
    assert.equal(reply.headers['x-postern-decision-id'], JSON.parse(reply.body.toString()).id)
    assert.equal((await ask(session)).status, 200)
  })

  it('answers many requests at once on one connection', async () => {
    const replies = await Promise.all(
      Array.from({ length: 80 }, (_, i) => ask(session, { ':path': `/api/orders?n=${i}` })),
    )
    for (const [i, reply] of replies.entries()) {
      assert.equal(reply.status, 200)
      assert.equal(JSON.parse(reply.body.toString()).url, `/api/orders?n=${i}`)
    }
  })

  it('refuses what HTTP/1.1 would be refused for, and nothing reaches the workload', async () => {
    const before = workload.seen.length
    for (const [headers, status] of [
      [{ ':path': '/api/../orders' }, 400],
      [{ ':path': '//api/orders' }, 400],
      [{ ':path': '/api%2forders' }, 400],
      [{ ':authority': 'svc.test', host: 'other.test' }, 400],
      [{ ':method': 'TRACE' }, 501],
      [{ 'x-a': 'ü' }, 400],
    ] as const) {
      const reply = await ask(session, headers)
      assert.equal(reply.status, status, JSON.stringify(headers))
    }
    assert.equal(workload.seen.length, before)
    assert.equal((await ask(session)).status, 200)
  })

  it('counts its requests apart', async () => {
    const series = 'postern_requests_total{protocol="http/2",outcome="deny",status_class="4xx"}'
    await eventually('a denial is counted', async () => (await sidecar.metric(series)) > 0)
  })
})

describe('HTTP/2 bodies to a workload that speaks HTTP/1.1', () => {
  const t = suiteCleanup()

  it('carries bodies of any size, with and without a length', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
    for (const length of [0, 1, 16_384, 1_000_003]) {
      const body = randomBytes(length)
      for (const headers of [{ 'content-length': String(length) }, {}]) {
        const reply = await ask(session, { ':method': 'POST', ...headers }, body)
        assert.equal(reply.status, 200)
        const seen = workload.seen.at(-1)
        assert.equal(sum(seen?.body ?? Buffer.alloc(0)), sum(body))
      }
    }
  })
})

describe('HTTP/2 to a workload that speaks HTTP/2', () => {
  let sidecar: TestSidecar
  let session: http2.ClientHttp2Session
  const t = suiteCleanup()
  before(async () => {
    const workload = await startH2cWorkload(t, (stream, headers) => {
      switch (headers[':path']) {
        case '/trailers-only':
          return stream.respond(
            { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '5' },
            { endStream: true },
          )
        case '/early':
          stream.respond({ ':status': 413 })
          return void stream.end('no')
        case '/hang':
          return
        case '/cut':
          stream.respond({ ':status': 200 })
          stream.write('part')
          return void setImmediate(() => stream.destroy(new Error('cut')))
        default:
          stream.respond(
            { ':status': 200, 'content-type': 'application/grpc' },
            { waitForTrailers: true },
          )
          stream.on('wantTrailers', () =>
            stream.sendTrailers({ 'grpc-status': '0', 'x-te': String(headers['te']) }),
          )
          stream.pipe(stream)
      }
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
  })

  const grpc = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' }

  it('carries a call with trailers', async () => {
    const reply = await ask(session, grpc, 'abc')
    assert.equal(reply.body.toString(), 'abc')
    assert.equal(reply.trailers['grpc-status'], '0')
    assert.equal(reply.trailers['x-te'], 'trailers')
  })

  it('carries an answer that is a head alone', async () => {
    const reply = await ask(session, { ...grpc, ':path': '/trailers-only' }, 'abc')
    assert.equal(reply.headers['grpc-status'], '5')
    assert.equal(reply.body.length, 0)
  })

  it('streams both ways at once, message by message', async () => {
    const stream = session.request({ ':path': '/chat', ...grpc })
    const received: string[] = []
    stream.on('data', (chunk: Buffer) => received.push(chunk.toString()))
    for (let i = 0; i < 20; i++) {
      stream.write(`message ${i};`)
      await eventually('the echo', () => received.join('').endsWith(`message ${i};`))
    }
    const done = replyOf(stream)
    stream.end()
    assert.equal((await done).trailers['grpc-status'], '0')
  })

  it('moves large bodies both ways at once with equal checksums', async () => {
    await Promise.all(
      Array.from({ length: 6 }, async (_, n) => {
        const body = randomBytes(2_000_003 + n)
        const reply = await ask(session, grpc, body)
        assert.equal(sum(reply.body), sum(body))
        assert.equal(reply.trailers['grpc-status'], '0')
      }),
    )
  })

  it('passes on an answer that comes before the request is complete', async () => {
    const reply = await ask(session, { ...grpc, ':path': '/early' }, (stream) => {
      stream.write('x')
    })
    assert.equal(reply.status, 413)
    assert.equal(reply.body.toString(), 'no')
  })

  it('resets the stream of an answer that is cut off', async () => {
    const reply = await ask(session, { ':path': '/cut' })
    assert.equal(reply.status, 200)
    assert.notEqual(reply.resetCode, 0)
  })

  it('answers a gRPC call whose deadline has passed with status 4', async () => {
    const reply = await ask(session, { ...grpc, ':path': '/hang', 'grpc-timeout': '200m' }, 'abc')
    assert.equal(reply.status, 200)
    assert.equal(reply.headers['grpc-status'], '4')
    assert.equal(reply.headers['content-type'], 'application/grpc')
  })
})

describe('HTTP/1.1 to a workload that speaks HTTP/2', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  before(async () => {
    const workload = await startH2cWorkload(t, (stream, headers) => {
      if (headers[':path'] === '/length') {
        stream.respond({ ':status': 200, 'content-length': '5' })
        return void stream.end('hello')
      }
      const [, status] = /^\/alone\/(\d+)$/.exec(String(headers[':path'])) ?? []
      if (status !== undefined) return stream.respond({ ':status': status }, { endStream: true })
      stream.respond({ ':status': 201, 'x-host': headers[':authority'] }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '1' }))
      stream.pipe(stream)
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  it('gets answers of known and of unknown length on one connection, with trailers', async () => {
    const client = await openClient(t, sidecar, web)
    for (let i = 0; i < 3; i++) {
      client.send(get('/length'))
      const known = await client.answer()
      assert.equal(String(known.body), 'hello')
      assert.deepEqual(known.values('content-length'), ['5'])
      client.send(post('/echo', 'some body'))
      const unknown = await client.answer()
      assert.equal(unknown.status, 201)
      assert.equal(String(unknown.body), 'some body')
      assert.deepEqual(unknown.trailers, [['x-sum', '1']])
      client.send(chunked('/echo', ['some', 'more']))
      assert.equal(String((await client.answer()).body), 'somemore')
    }
  })

  it('sees where an answer ends that is a head alone', async () => {
    const client = await openClient(t, sidecar, web)
    for (const status of [200, 204, 205, 302, 304, 404]) {
      for (const method of ['GET', 'HEAD']) {
        client.send(`${method} /alone/${status} HTTP/1.1\r\nhost: localhost\r\n\r\n`)
        const answer = await client.answer(method)
        assert.equal(`${answer.status} ${answer.body}`, `${status} `)
      }
    }
  })

  it('moves large bodies with equal checksums', async () => {
    const body = randomBytes(3_000_001)
    const text = body.toString('hex')
    const reply = await call(sidecar, web, { method: 'POST', path: '/echo', body: text })
    assert.equal(reply.status, 201)
    assert.equal(sum(Buffer.from(reply.body)), sum(Buffer.from(text)))
  })
})

describe('a policy that reads the bodies of HTTP/2 requests', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let session: http2.ClientHttp2Session
  let workload: Workload
  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        policy: { bundle: BODY_POLICY, input: { body: { maxBytes: 4096, totalBytes: '128KiB' } } },
        inbound: { timeouts: { requestBody: '400ms' } },
      },
    })
    session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
  })
  const json = { ':method': 'POST', 'content-type': 'application/json' }
  const seenBy = (): { parsed: unknown; truncated: boolean } =>
    JSON.parse(Buffer.from(String(workload.seen.at(-1)?.headers['x-seen']), 'base64').toString())

  it('is given the body, however it is cut, and the workload gets the same bytes', async () => {
    const body = JSON.stringify({ name: 'x'.repeat(500), allow: true })
    const reply = await ask(session, json, (stream) => {
      for (const byte of body) stream.write(byte)
      stream.end()
    })
    assert.equal(reply.status, 200)
    assert.deepEqual(seenBy().parsed, JSON.parse(body))
    assert.equal(workload.seen.at(-1)?.body.toString(), body)
  })

  it('sees that a body over the limit is cut off, and all of it goes on to the workload', async () => {
    const body = JSON.stringify({ text: 'y'.repeat(200_000) })
    const reply = await ask(session, { ...json, ':path': '/truncated/allowed' }, body)
    assert.equal(reply.status, 200)
    assert.equal(seenBy().truncated, true)
    assert.equal(seenBy().parsed, null)
    assert.equal(workload.seen.at(-1)?.body.toString(), body)
  })

  it('is not asked about a body that does not come, which ends in 408', async () => {
    const before = workload.seen.length
    const reply = await ask(session, json, (stream) => {
      stream.write('{')
    })
    assert.equal(reply.status, 408)
    assert.equal(workload.seen.length, before)
    assert.equal((await ask(session, json, '{"allow":true}')).status, 200)
  })

  it('is asked, and says no, about a body that it does not like', async () => {
    const before = workload.seen.length
    assert.equal((await ask(session, json, '{"allow":false}')).status, 403)
    assert.equal(workload.seen.length, before)
  })

  it('gives back the memory of bodies whose clients went away', async () => {
    for (let i = 0; i < 40; i++) {
      const stream = session.request({ ':path': '/api/orders', ...json })
      stream.on('error', () => {})
      stream.write(`{"a":"${'z'.repeat(4_000)}`)
      stream.close(8)
    }
    const reply = await ask(session, json, '{"allow":true}')
    assert.equal(reply.status, 200)
  })
})
