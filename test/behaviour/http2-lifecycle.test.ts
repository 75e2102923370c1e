// How HTTP/2 connections come to their end: when the peer stops being acceptable, when the sidecar
// drains, when they are old or used up; and what is told of each stream.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import type http2 from 'node:http2'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { FLAG, FRAME } from '../../src/http/h2/frames.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { startH2cWorkload } from '../support/http2.ts'
import {
  Authority,
  type IssuedCertificate,
  spiffeId,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
} from '../support/pki.ts'
import {
  data,
  frame,
  head,
  openRawHttp2,
  type RawHttp2,
  requestFields,
  type StreamAnswer,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const to = (path: string): string[] => requestFields({ ':path': path })
const grpcTo = (path: string): string[] => [
  ...requestFields({ ':method': 'POST', ':path': path }),
  'content-type',
  'application/grpc',
  'te',
  'trailers',
]
const field = (fields: readonly string[], name: string): string | undefined => {
  const at = fields.findIndex((one, i) => i % 2 === 0 && one === name)
  return at === -1 ? undefined : fields[at + 1]
}

const lastStreams = ({ frames }: RawHttp2): number[] =>
  frames.filter(({ type }) => type === FRAME.goAway).map(({ payload }) => payload.readUInt32BE(0))

/** `/hold` waits, `/drip` answers in part, everything else at once. */
async function startPatient(t: ReturnType<typeof suiteCleanup>) {
  const open = new Map<string, http2.ServerHttp2Stream>()
  const workload = await startH2cWorkload(t, (stream, headers) => {
    const path = String(headers[':path'])
    open.set(path, stream)
    stream.on('close', () => open.delete(path))
    if (path.startsWith('/hold')) return
    stream.respond({ ':status': 200 }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.write('first')
    if (!path.startsWith('/drip')) stream.end()
  })
  return { url: workload.url, open }
}

describe('an HTTP/2 peer that stops being acceptable', () => {
  const t = suiteCleanup()
  let workload: Awaited<ReturnType<typeof startPatient>>
  let authority: TestAuthority
  let other: Authority
  let sidecar: TestSidecar
  let trustFile: string
  let crlFile: string
  let good: RawHttp2
  let next = 1
  const trust = (...more: readonly Authority[]): Promise<void> =>
    writeFile(
      trustFile,
      [authority.root, authority.intermediate, ...more].map((one) => one.certificatePem).join(''),
    )
  const crls = async (number: number, ...serials: readonly string[]): Promise<void> => {
    const revoked = serials.map((serial) => ({ serial }))
    const all = [
      await authority.root.crl({ revoked: [], number }),
      await authority.intermediate.crl({ revoked, number }),
      await other.crl({ revoked: [], number }),
    ]
    await writeFile(crlFile, all.join(''))
  }
  before(async () => {
    const directory = await temporaryDirectory(t)
    trustFile = join(directory, 'ca.crt')
    crlFile = join(directory, 'ca.crl')
    authority = await testAuthority()
    other = await Authority.create({ commonName: 'the other authority' })
    await trust(other)
    await crls(1)
    workload = await startPatient(t)
    sidecar = await startSidecar(t, {
      authority,
      forward: workload.url,
      config: { trust: { bundles: [{ file: trustFile }], crls: [crlFile] } },
    })
    good = await openRawHttp2(t, sidecar, await authority.svid('good'))
  })

  const CASES: Readonly<
    Record<string, { svid(): Promise<IssuedCertificate>; end(bad: IssuedCertificate): unknown }>
  > = {
    revoked: { svid: () => authority.svid('bad'), end: (bad) => crls(2, bad.serial) },
    expired: {
      // Validity counts in whole seconds.
      svid: () => {
        const notAfter = new Date((Math.ceil(Date.now() / 1000) + 3) * 1000)
        return authority.svid('brief', { notAfter })
      },
      end: () => {},
    },
    untrusted: { svid: () => other.issue({ uris: [spiffeId('stranger')] }), end: () => trust() },
  }
  for (const [what, { svid, end }] of Object.entries(CASES)) {
    it(`is cut stream by stream, idle connections too: ${what}`, async () => {
      const bad = await svid()
      const [busy, idle] = await Promise.all([
        openRawHttp2(t, sidecar, bad),
        openRawHttp2(t, sidecar, bad),
      ])
      idle.send(head(1, to('/ok')))
      assert.equal((await idle.answered(1)).status, 200)
      busy.send(
        head(1, to(`/hold-${what}`)),
        head(3, to(`/drip-${what}`)),
        head(5, grpcTo(`/hold-grpc-${what}`), false),
        head(7, grpcTo(`/drip-grpc-${what}`), false),
        data(7, 'x'),
      )
      await eventually('all are with the workload, and two have begun', () => {
        const begun = [3, 7].every((id) => busy.answer(id).body.toString() === 'first')
        return begun && workload.open.size === 4
      })
      await end(bad)
      await Promise.all([busy.closed(), idle.closed()])
      assert.equal(busy.answer(1).status, 403)
      assert.equal(JSON.parse(busy.answer(1).body.toString()).error, `peer_${what}`)
      assert.equal(busy.answer(3).ended, false, 'an answer that was cut looks complete')
      assert.equal(field(busy.answer(5).fields, 'grpc-status'), '16')
      assert.equal(field(busy.answer(7).trailers, 'grpc-status'), '16')
      for (const raw of [busy, idle]) assert.equal(raw.goAway, 0)
      await eventually('nothing is left with the workload', () => workload.open.size === 0)
      const cut = { event: 'connection_cut', code: `peer_${what}` }
      await eventually('both are logged', () => {
        const lines = sidecar.lines.filter(
          ({ event, code }) => event === cut.event && code === cut.code,
        )
        return lines.length === 2
      })
      good.send(head(next, to('/ok')))
      assert.equal((await good.answered(next)).status, 200)
      next += 2
    })
  }
})

describe('an HTTP/2 connection whose sidecar drains', () => {
  const t = suiteCleanup()

  it('is told at once to send no more, then which of its streams is the last, and ends when they have', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.answersPings = false
    raw.send(head(1, to('/ok')), head(3, to('/drip')))
    await eventually('it has begun', () => raw.answer(3).body.length > 0)
    sidecar.signal('SIGTERM')
    await eventually('GOAWAY', () => raw.goAway === 0)
    // It was on its way: the client cannot have known.
    raw.send(head(5, to('/ok')))
    assert.equal((await raw.answered(5)).status, 200)
    const ping = raw.frames.find(({ type }) => type === FRAME.ping)
    raw.send(frame(FRAME.ping, FLAG.ack, 0, ping?.payload ?? Buffer.alloc(8)))
    await eventually('a second one', () => lastStreams(raw).length === 2)
    // What the client sends now it knows to be lost, and may send elsewhere.
    raw.send(head(7, to('/late')))
    assert.deepEqual(lastStreams(raw), [0x7fffffff, 5])
    workload.open.get('/drip')?.end('last')
    assert.equal((await raw.answered(3)).body.toString(), 'firstlast')
    await raw.closed()
    assert.equal(raw.answer(7).status, 0)
    assert.equal(await sidecar.exited, 0)
  })

  it('is told which of its streams is the last though it answers no PING', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.answersPings = false
    raw.send(head(1, to('/ok')))
    assert.equal((await raw.answered(1)).status, 200)
    sidecar.signal('SIGTERM')
    await raw.closed()
    assert.deepEqual(lastStreams(raw), [0x7fffffff, 1])
    assert.equal(await sidecar.exited, 0)
  })

  it('ends in time though the drain is short and its client answers no PING', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { drain: { timeout: '800ms' } },
    })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.answersPings = false
    raw.send(head(1, to('/ok')))
    assert.equal((await raw.answered(1)).status, 200)
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })

  it('tells who waits for an answer that there is none when the deadline has passed', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { drain: { timeout: '1500ms' } },
    })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.send(head(1, to('/hold')), head(3, grpcTo('/hold/call')), head(5, grpcTo('/drip/call')))
    await eventually(
      'all have begun',
      () => raw.answer(5).body.length > 0 && workload.open.size === 3,
    )
    sidecar.signal('SIGTERM')
    await raw.closed()
    const [request, call, stream] = [raw.answer(1), raw.answer(3), raw.answer(5)]
    assert.equal(request.status, 503)
    assert.equal(JSON.parse(String(request.body)).error, 'draining')
    assert.equal(field(call.fields, 'grpc-status'), '14')
    assert.equal(field(stream.trailers, 'grpc-status'), '14')
    assert.equal(await sidecar.exited, 1)
  })

  it('is ended with its streams when the deadline has passed', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { drain: { timeout: '1500ms' } },
    })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.send(head(1, to('/drip')))
    await eventually('it has begun', () => raw.answer(1).body.length > 0)
    sidecar.signal('SIGTERM')
    await raw.closed()
    assert.equal(raw.answer(1).ended, false)
    assert.equal(await sidecar.exited, 1)
  })
})

describe('an HTTP/2 connection that is old or used up', () => {
  const t = suiteCleanup()

  for (const [what, inbound] of [
    ['requests', { limits: { requestsPerConnection: 3 } }],
    ['lifetime', { timeouts: { connectionLifetime: '500ms' } }],
  ] as const) {
    it(`ends, and answers every stream up to the last that it names: ${what}`, async () => {
      const workload = await startPatient(t)
      const sidecar = await startSidecar(t, { forward: workload.url, config: { inbound } })
      const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
      raw.send(head(1, to('/drip')))
      let id = 1
      await eventually('GOAWAY', () => {
        id += 2
        raw.send(head(id, to('/ok')))
        return lastStreams(raw).length === 2
      })
      const [all, last = 0] = lastStreams(raw)
      assert.equal(all, 0x7fffffff)
      assert.ok(last >= 3 && last <= id, `${last}`)
      for (let one = 3; one <= last; one += 2) assert.equal((await raw.answered(one)).status, 200)
      workload.open.get('/drip')?.end('last')
      assert.equal((await raw.answered(1)).body.toString(), 'firstlast')
      await raw.closed()
      await eventually(
        'its end is counted',
        async () =>
          (await sidecar.metric(`postern_connections_closed_total{reason="${what}"}`)) === 1,
      )
    })
  }
})

describe('an HTTP/2 client that does not hear that it is to go', () => {
  const t = suiteCleanup()

  it('has as many requests answered as may have been on their way', async () => {
    const workload = await startPatient(t)
    const limits = { requestsPerConnection: 5, streamsPerConnection: 10 }
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { limits } },
    })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.answersPings = false
    let id = -1
    while (lastStreams(raw).length < 2 && id < 80) {
      id += 2
      raw.send(head(id, to('/ok')))
      const { ended } = await Promise.race([
        raw.answered(id),
        raw.closed().then(() => raw.answer(id)),
      ])
      if (!ended) break
    }
    const answered = raw.frames.filter(
      ({ type, fields }) => type === FRAME.headers && fields[1] === '200',
    )
    assert.equal(answered.length, 15)
    await raw.closed()
  })
})

describe('what is told of HTTP/2 streams', () => {
  const t = suiteCleanup()

  it('is a line and a count for each of them', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { log: { access: 'all' } },
    })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.send(head(1, to('/ok')), head(3, grpcTo('/ok/grpc'), false), data(3, 'abc', true))
    for (const id of [1, 3]) await raw.answered(id)
    raw.send(head(5, to('/../x')))
    await raw.answered(5)
    const line = await sidecar.logged('access', { path: '/ok/grpc' })
    assert.equal(line['protocol'], 'http/2')
    assert.equal(line['principal'], spiffeId('web'))
    assert.deepEqual([line['request_bytes'], line['response_bytes'], line['status']], [3, 5, 200])
    for (const [labels, count] of [
      ['outcome="allow",status_class="2xx"', 2],
      ['outcome="rejected",status_class="4xx"', 1],
    ] as const) {
      const series = `postern_requests_total{protocol="http/2",${labels}}`
      await eventually(labels, async () => (await sidecar.metric(series)) === count)
    }
    assert.equal(await sidecar.metric('postern_connections_total'), 1)
  })
})

describe('an HTTP/2 client whose certificate is not accepted', () => {
  const t = suiteCleanup()

  it('reads why, in the form of what it asked for', async () => {
    const workload = await startPatient(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const answerTo = async (fields: readonly string[]): Promise<StreamAnswer> => {
      const client = await openRawHttp2(t, sidecar, undefined)
      client.send(head(1, fields))
      const answer = await client.answered(1)
      await client.closed()
      return answer
    }
    const asHead = await answerTo(requestFields({ ':method': 'HEAD' }))
    const asGet = await answerTo(to('/one'))
    const asCall = await answerTo(grpcTo('/svc/One'))
    assert.deepEqual([asHead.status, asHead.body.length], [403, 0])
    assert.equal(asGet.status, 403)
    assert.equal(JSON.parse(String(asGet.body)).error, 'peer_no_certificate')
    assert.equal(field(asHead.fields, 'content-length'), String(asGet.body.length))
    assert.deepEqual([asCall.status, field(asCall.fields, 'grpc-status')], [200, '16'])
  })
})
