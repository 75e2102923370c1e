// Each rule of RFC 9113 that an intermediary must keep, as frames on the wire.
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { FLAG, FRAME } from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  data,
  frame,
  head,
  openRawHttp2,
  type RawHttp2,
  requestFields,
  resetStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import {
  type RawWorkload,
  startRawWorkload,
  startWorkload,
  type Workload,
} from '../support/workload.ts'

const GET = requestFields()
const POST = requestFields({ ':method': 'POST' })
const PROTOCOL_ERROR = 1
const FLOW_CONTROL_ERROR = 3
const STREAM_CLOSED = 5
const FRAME_SIZE_ERROR = 6
const COMPRESSION_ERROR = 9
const ENHANCE_YOUR_CALM = 11

const block = (fields: readonly string[]): Buffer => encodeHeaderBlock(fields)
const opened = head(1, POST, false)

/** Section 8.2.1: fields that one recipient takes for two, or for others than the next one does. */
const FORBIDDEN: readonly (readonly [name: string, value: string])[] = [
  ['x-lf', 'a\nb'],
  ['x-cr', 'a\rb'],
  ['x-nul', 'a\0b'],
  ['x-delete', 'a\x7fb'],
  ['x-space-before', ' a'],
  ['x-tab-behind', 'a\t'],
  ['x-forwarded-client-cert', 'By=x\n'],
  ['authorization', 'Bearer a\r\nx-admin: 1'],
  ['x space', 'a'],
  ['x:colon', 'a'],
  ['x\xfc', 'a'],
  ['', 'a'],
]

/** Malformed: the stream ends with PROTOCOL_ERROR (section 8.1.1), the others go on. */
const MALFORMED: readonly (readonly [string, readonly Buffer[]])[] = [
  ['connection', [head(1, [...GET, 'connection', 'close'])]],
  ['proxy-connection', [head(1, [...GET, 'proxy-connection', 'close'])]],
  ['keep-alive', [head(1, [...GET, 'keep-alive', '5'])]],
  ['transfer-encoding', [head(1, [...GET, 'transfer-encoding', 'chunked'])]],
  ['upgrade', [head(1, [...GET, 'upgrade', 'h2c'])]],
  ['te with something else than trailers', [head(1, [...GET, 'te', 'gzip'])]],
  ['a name in upper case', [head(1, [...GET, 'X-Upper', 'a'])]],
  ['a pseudo-header field behind a field', [head(1, ['a', 'b', ...GET])]],
  ['a second :path', [head(1, [...GET, ':path', '/x'])]],
  ['a second :authority', [head(1, [':authority', 'other', ...GET])]],
  ['a pseudo-header field that nobody knows', [head(1, [':foo', 'x', ...GET])]],
  ['a pseudo-header field of answers', [head(1, [':status', '200', ...GET])]],
  ['no :method', [head(1, [':scheme', 'https', ':path', '/', ':authority', 'a'])]],
  ['no :scheme', [head(1, [':method', 'GET', ':path', '/', ':authority', 'a'])]],
  ['no :path', [head(1, [':method', 'GET', ':scheme', 'https', ':authority', 'a'])]],
  ['an empty :path', [head(1, requestFields({ ':path': '' }))]],
  ['a :path that is a whole URI', [head(1, requestFields({ ':path': 'http://a/b' }))]],
  ['neither :authority nor host', [head(1, [':method', 'GET', ':scheme', 'https', ':path', '/'])]],
  ['two hosts', [head(1, [...GET, 'host', 'localhost', 'host', 'localhost'])]],
  ['user information in :authority', [head(1, requestFields({ ':authority': 'a@b' }))]],
  [':protocol without CONNECT', [head(1, [':protocol', 'websocket', ...GET])]],
  [
    'less body than content-length',
    [head(1, [...POST, 'content-length', '5'], false), data(1, 'abc', true)],
  ],
  ['content-length and no body', [head(1, [...POST, 'content-length', '2'])]],
  [
    'a content-length that is no number',
    [head(1, [...POST, 'content-length', '+2'], false), data(1, 'ab', true)],
  ],
  [
    'two equal content-lengths',
    [head(1, [...POST, 'content-length', '2', 'content-length', '2'], false), data(1, 'ab', true)],
  ],
  ['pseudo-header fields in trailers', [opened, data(1, 'a'), head(1, [':path', '/x'])]],
  ['connection in trailers', [opened, data(1, 'a'), head(1, ['connection', 'x'])]],
  ['trailers that are not the end', [opened, data(1, 'a'), head(1, ['x-a', 'b'], false)]],
  ...FORBIDDEN.flatMap(([name, value]) => [
    [JSON.stringify([name, value]), [head(1, [...GET, name, value])]] as const,
    [
      `trailers with ${JSON.stringify([name, value])}`,
      [opened, data(1, 'a'), head(1, [name, value])],
    ] as const,
  ]),
]

/** Answered by us: the client learns which rule it was. */
const REFUSED: readonly (readonly [string, readonly Buffer[], number, string])[] = [
  ['host that is not :authority', [head(1, [...GET, 'host', 'other'])], 400, 'bad_host'],
  ['CONNECT', [head(1, [':method', 'CONNECT', ':authority', 'a:22'])], 501, 'unsupported_method'],
  [
    'CONNECT to a protocol that is not WebSocket',
    [
      head(
        1,
        [...requestFields({ ':method': 'CONNECT' }).slice(0, 2), ':protocol', 'x', ...GET.slice(2)],
        false,
      ),
    ],
    400,
    'bad_upgrade',
  ],
  [
    'a scheme that is not HTTP',
    [head(1, requestFields({ ':scheme': 'ftp' }))],
    400,
    'bad_request_line',
  ],
  ['a fragment', [head(1, requestFields({ ':path': '/a#b' }))], 400, 'bad_target'],
  [
    'a method in lower case',
    [head(1, requestFields({ ':method': 'get' }))],
    501,
    'unsupported_method',
  ],
  ['octets that are not ASCII', [head(1, [...GET, 'x-a', 'ü'])], 400, 'bad_header'],
  [
    'a second authorization',
    [head(1, [...GET, 'authorization', 'a', 'authorization', 'b'])],
    400,
    'duplicate_header',
  ],
  [
    'a trailer that says who asks',
    [opened, data(1, 'a'), head(1, ['authorization', 'b'])],
    400,
    'bad_trailer',
  ],
  [
    'too many fields',
    [head(1, [...GET, ...Array.from({ length: 150 }, (_, i) => [`x-${i}`, 'y']).flat()])],
    431,
    'too_many_headers',
  ],
  [
    'a head that is too large',
    [head(1, [...GET, 'x-a', 'y'.repeat(33_000)])],
    431,
    'head_too_large',
  ],
  [
    'a field that is larger than any head may be',
    [head(1, [...GET, 'x-a', 'y'.repeat(80_000)])],
    431,
    'head_too_large',
  ],
]

/** Ends the connection (section 5.4.1) with GOAWAY and one of these codes. */
const FATAL: readonly (readonly [string, readonly Buffer[], number])[] = [
  ['an even stream', [head(2, GET)], PROTOCOL_ERROR],
  ['HEADERS on stream 0', [head(0, GET)], PROTOCOL_ERROR],
  ['DATA on stream 0', [data(0, 'x')], PROTOCOL_ERROR],
  ['DATA on an idle stream', [data(1, 'x')], PROTOCOL_ERROR],
  ['RST_STREAM of an idle stream', [resetStreamFrame(1, 8)], PROTOCOL_ERROR],
  ['a stream that is opened twice', [head(1, GET), head(1, GET)], STREAM_CLOSED],
  ['DATA behind the end', [head(1, GET), data(1, 'x')], STREAM_CLOSED],
  ['a window of nothing', [windowUpdateFrame(0, 0)], PROTOCOL_ERROR],
  ['a window above its limit', [windowUpdateFrame(0, 0x7fffffff)], FLOW_CONTROL_ERROR],
  ['a first window above its limit', [settingsFrame([[4, 0x80000000]])], FLOW_CONTROL_ERROR],
  ['a frame size below its limit', [settingsFrame([[5, 100]])], PROTOCOL_ERROR],
  ['ENABLE_PUSH of 2', [settingsFrame([[2, 2]])], PROTOCOL_ERROR],
  ['SETTINGS of five bytes', [frame(FRAME.settings, 0, 0, Buffer.alloc(5))], FRAME_SIZE_ERROR],
  ['PING of seven bytes', [frame(FRAME.ping, 0, 0, Buffer.alloc(7))], FRAME_SIZE_ERROR],
  ['PUSH_PROMISE', [frame(FRAME.pushPromise, FLAG.endHeaders, 1, Buffer.alloc(4))], PROTOCOL_ERROR],
  ['CONTINUATION without HEADERS', [frame(FRAME.continuation, 4, 1, block(GET))], PROTOCOL_ERROR],
  [
    'a frame inside a header block',
    [frame(FRAME.headers, FLAG.endStream, 1, block(GET)), frame(0xbb, 0, 0, Buffer.alloc(0))],
    PROTOCOL_ERROR,
  ],
  [
    'a frame that is too large',
    [opened, frame(FRAME.data, 0, 1, Buffer.alloc(16_385))],
    FRAME_SIZE_ERROR,
  ],
  [
    'more padding than frame',
    [opened, frame(FRAME.data, FLAG.padded, 1, Buffer.from([9, 1]))],
    PROTOCOL_ERROR,
  ],
  [
    'a header block that cannot be read',
    [frame(FRAME.headers, 5, 1, Buffer.from([0x80]))],
    COMPRESSION_ERROR,
  ],
]

const BROKEN = 'postern_requests_rejected_total{code="h2_protocol_error"}'

describe('what RFC 9113 asks of an HTTP/2 client', () => {
  const t = suiteCleanup()
  let workload: Workload
  let sidecar: TestSidecar
  let web: IssuedCertificate
  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  it('resets the stream of a malformed request, and goes on with the others', async () => {
    for (const [what, frames] of MALFORMED) {
      const seen = workload.seen.length
      const raw = await openRawHttp2(t, sidecar, web)
      raw.send(...frames, head(3, GET))
      const answer = await raw.answered(1)
      assert.equal(answer.reset, PROTOCOL_ERROR, what)
      assert.equal(answer.status, 0, what)
      assert.equal((await raw.answered(3)).status, 200, what)
      assert.equal(workload.seen.length, seen + 1, what)
      raw.socket.destroy()
    }
  })

  it('answers what it refuses itself, and goes on', async () => {
    for (const [what, frames, status, code] of REFUSED) {
      const seen = workload.seen.length
      const raw = await openRawHttp2(t, sidecar, web)
      raw.send(...frames, head(3, GET))
      const answer = await raw.answered(1)
      assert.equal(answer.status, status, what)
      assert.equal(JSON.parse(answer.body.toString()).error, code, what)
      assert.equal((await raw.answered(3)).status, 200, what)
      assert.equal(workload.seen.length, seen + 1, what)
      raw.socket.destroy()
    }
  })

  it('resets the stream of a head with many times the fields allowed', async () => {
    const raw = await openRawHttp2(t, sidecar, web)
    const many = Array.from({ length: 401 }, (_, i) => [`x-${i}`, 'y']).flat()
    raw.send(head(1, [...GET, ...many]), head(3, GET))
    const { status, reset } = await raw.answered(1)
    assert.deepEqual([status, reset], [0, ENHANCE_YOUR_CALM])
    assert.equal((await raw.answered(3)).status, 200)
  })

  it('ends the connection where the rule says so, and counts it', async () => {
    const seen = workload.seen.length
    for (const [what, frames, code] of FATAL) {
      const before = await sidecar.metric(BROKEN)
      const raw = await openRawHttp2(t, sidecar, web)
      raw.send(...frames)
      await raw.closed()
      assert.equal(raw.goAway, code, what)
      await eventually(`${what} is counted`, async () => (await sidecar.metric(BROKEN)) > before)
    }
    assert.ok(workload.seen.length - seen <= 2, 'what was complete before may have gone on')
  })

  it('ends the connection of a client that sends more than a window, which nobody reads', async () => {
    // A workload that reads would give the window back, and no rule would be broken.
    const deaf = await startRawWorkload(t, (socket) => void socket.pause())
    const sidecar = await startSidecar(t, { forward: deaf.url })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    // More than the sockets of a machine hold on the way to it.
    raw.send(opened, ...Array.from({ length: 1_500 }, () => data(1, Buffer.alloc(16_384))))
    await raw.closed()
    assert.equal(raw.goAway, FLOW_CONTROL_ERROR)
    await eventually('it is counted', async () => (await sidecar.metric(BROKEN)) === 1)
  })

  it('takes padding, priorities, unknown frames and header blocks in many frames', async () => {
    const whole = block([...GET, 'x-long', 'y'.repeat(2_000)])
    const pieces = Array.from({ length: Math.ceil(whole.length / 300) }, (_, i) =>
      whole.subarray(300 * i, 300 * (i + 1)),
    )
    const padded = Buffer.concat([Buffer.from([3, 0, 0, 0, 0, 5]), block(GET), Buffer.alloc(3)])
    const frames = [
      frame(0xbb, 0xff, 0, Buffer.from('whatever')),
      frame(FRAME.priority, 0, 9, Buffer.from([0, 0, 0, 0, 5])),
      frame(FRAME.headers, 0x2d, 1, padded),
      ...pieces.map((piece, i) =>
        frame(
          i === 0 ? FRAME.headers : FRAME.continuation,
          (i === 0 ? FLAG.endStream : 0) | (i === pieces.length - 1 ? FLAG.endHeaders : 0),
          3,
          piece,
        ),
      ),
      head(5, POST, false),
      frame(FRAME.data, FLAG.padded, 5, Buffer.from([4, 0x61, 0x62, 0, 0, 0, 0])),
      data(5, ''),
      head(5, ['x-sum', '1']),
    ]
    const raw = await openRawHttp2(t, sidecar, web)
    // In pieces that end anywhere.
    const bytes = Buffer.concat(frames)
    for (let at = 0; at < bytes.length; at += 97) raw.send(bytes.subarray(at, at + 97))
    for (const stream of [1, 3]) assert.equal((await raw.answered(stream)).status, 200)
    assert.equal((await raw.answered(5)).status, 200)
    assert.equal(workload.seen.find(({ method }) => method === 'POST')?.body.toString(), 'ab')
    assert.ok(workload.seen.some(({ headers }) => headers['x-long']?.length === 2_000))
  })

  it('reads header blocks that use the dynamic table, and answers a client whose table is empty', async () => {
    const raw = await openRawHttp2(t, sidecar, web, { settings: [[1, 0]] })
    const literal = (name: string, value: string): Buffer =>
      Buffer.concat([
        Buffer.from([0x40, name.length]),
        Buffer.from(name),
        Buffer.from([value.length]),
        Buffer.from(value),
      ])
    const first = Buffer.concat([block(GET), literal('x-kept', 'in the table')])
    raw.send(frame(FRAME.headers, 5, 1, first))
    assert.equal((await raw.answered(1)).status, 200)
    raw.send(frame(FRAME.headers, 5, 3, Buffer.concat([block(GET), Buffer.from([0x80 | 62])])))
    assert.equal((await raw.answered(3)).status, 200)
    assert.equal(workload.seen.at(-1)?.headers['x-kept'], 'in the table')
  })

  it('keeps to a stream window that settings make smaller in the middle, even below zero', async () => {
    const raw = await openRawHttp2(t, sidecar, web, { settings: [[4, 10]], credit: false })
    raw.send(head(1, GET))
    await eventually('ten bytes', () => raw.answer(1).body.length === 10)
    raw.send(settingsFrame([[4, 0]]), windowUpdateFrame(1, 10))
    raw.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8)))
    await eventually('the PING is answered', () =>
      raw.frames.some(({ type, flags }) => type === FRAME.ping && flags === FLAG.ack),
    )
    assert.equal(raw.answer(1).body.length, 10)
    raw.send(windowUpdateFrame(1, 100_000))
    const { body, ended } = await raw.answered(1)
    assert.equal(ended, true)
    assert.equal(JSON.parse(body.toString()).url, '/api/orders')
  })
})

const ANSWERS: Readonly<Record<string, string>> = {
  hop: 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-a, keep-alive\r\nkeep-alive: 1\r\nx-a: 1\r\nproxy-connection: x\r\nupgrade: h2c\r\n\r\nhi',
  case: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Upper: A\r\n\r\nhi',
  interim:
    'HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi',
  'bad-interim':
    'HTTP/1.1 103 Early\r\ncontent-type: a\r\ncontent-type: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi',
  '204': 'HTTP/1.1 204 None\r\ncontent-length: 2\r\n\r\n',
  '205': 'HTTP/1.1 205 Reset\r\ncontent-length: 2\r\n\r\nhi',
  '304': 'HTTP/1.1 304 Same\r\ncontent-length: 2\r\netag: "a"\r\n\r\n',
  cookies: 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nset-cookie: a\r\nset-cookie: b\r\n\r\n',
  types: 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-type: a\r\ncontent-type: b\r\n\r\n',
  octets: 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-a: \xfc\xc3\xbc\r\n\r\n',
  trailers:
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-a: b\r\nx-a: c\r\n\r\n',
  'bad-trailers':
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ntransfer-encoding: b\r\n\r\n',
  short: 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi',
  close: 'HTTP/1.1 200 OK\r\n\r\nhi',
  head: 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n',
}
const ENDS: ReadonlySet<string> = new Set(['short', 'close'])

describe('an HTTP/1.1 answer to an HTTP/2 client', () => {
  const t = suiteCleanup()
  let raw: RawHttp2
  let workload: RawWorkload
  let next = 1
  before(async () => {
    workload = await startRawWorkload(t, (socket) => {
      socket.on('data', (chunk) => {
        const [, name = ''] = /^\w+ \/(\S+) /.exec(chunk.toString('latin1')) ?? []
        socket.write(ANSWERS[name] ?? '', 'latin1')
        if (ENDS.has(name)) socket.end()
      })
    })
    const sidecar = await startSidecar(t, { forward: workload.url })
    raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
  })
  const answerTo = async (name: string, method = 'GET') => {
    const stream = next
    next += 2
    raw.send(head(stream, requestFields({ ':method': method, ':path': `/${name}` })))
    return { ...(await raw.answered(stream)), stream }
  }
  const named = (fields: readonly string[], name: string): string[] =>
    fields.filter((_, i) => i % 2 === 1 && fields[i - 1] === name)

  it('loses what HTTP/2 forbids, and has its names in lower case', async () => {
    const { status, fields, body } = await answerTo('hop')
    assert.equal(status, 200)
    assert.equal(body.toString(), 'hi')
    const names = fields.filter((_, i) => i % 2 === 0)
    assert.deepEqual(names.sort(), [':status', 'content-length', 'date'])
    assert.deepEqual(named((await answerTo('case')).fields, 'x-upper'), ['A'])
  })

  it('brings interim answers, but the one that we have given ourselves', async () => {
    const { stream, status } = await answerTo('interim')
    assert.equal(status, 200)
    const interim = raw.frames.filter((one) => one.stream === stream && one.fields[1] === '103')
    assert.deepEqual(interim[0]?.fields, [':status', '103', 'link', '</a>'])
    assert.ok(!raw.frames.some((one) => one.stream === stream && one.fields[1] === '100'))
    assert.equal((await answerTo('bad-interim')).status, 502)
  })

  it('has no body and no length where there is none', async () => {
    for (const name of ['204', '205']) {
      const { status, fields, body, ended } = await answerTo(name)
      assert.equal(String(status), name)
      assert.deepEqual(named(fields, 'content-length'), [])
      assert.equal(body.length, 0)
      assert.equal(ended, true)
    }
    const unchanged = await answerTo('304')
    assert.deepEqual(named(unchanged.fields, 'content-length'), ['2'])
    assert.equal(unchanged.ended, true)
    const toHead = await answerTo('head', 'HEAD')
    assert.deepEqual(named(toHead.fields, 'content-length'), ['2'])
    assert.equal(toHead.body.length, 0)
    assert.equal(toHead.ended, true)
  })

  it('keeps several fields of one name and octets beyond ASCII', async () => {
    assert.deepEqual(named((await answerTo('cookies')).fields, 'set-cookie'), ['a', 'b'])
    assert.deepEqual(named((await answerTo('octets')).fields, 'x-a'), ['\xfc\xc3\xbc'])
    assert.equal((await answerTo('types')).status, 502, 'two content types')
  })

  it('brings its trailers, and is refused when they change its framing', async () => {
    assert.deepEqual((await answerTo('trailers')).trailers, ['x-a', 'b', 'x-a', 'c'])
    assert.equal((await answerTo('bad-trailers')).status, 502)
  })

  it('ends with the connection where it has no length, and is reset where it falls short of one', async () => {
    assert.equal((await answerTo('close')).body.toString(), 'hi')
    const short = await answerTo('short')
    assert.equal(short.ended, false)
    assert.notEqual(short.reset, undefined)
  })
})

describe('heads as large as inbound.limits.headBytes lets them be', () => {
  const t = suiteCleanup()

  it('go both ways over HTTP/2, in fields of any size', async () => {
    const large = 'v'.repeat(300_000)
    const workload = await startRawH2cWorkload(t, ({ id, fields, send }) => {
      const length = fields[fields.indexOf('x-large') + 1]?.length
      const answer = [':status', '200', 'x-length', String(length), 'x-large', large]
      send(head(id, answer))
    })
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { limits: { headBytes: '512KiB' } } },
    })
    const client = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    client.send(head(1, [...GET, 'x-large', large]))
    const { status, fields } = await client.answered(1)
    assert.equal(status, 200)
    assert.equal(fields[fields.indexOf('x-length') + 1], '300000')
    assert.equal(fields[fields.indexOf('x-large') + 1], large)
  })
})
