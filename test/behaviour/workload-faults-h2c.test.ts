// What a workload that speaks HTTP/2 can do wrong, frame by frame, and what it comes to for a client of
// HTTP/1.1, of HTTP/2 and of gRPC. Its connections are shared: others go on being served meanwhile.
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { FLAG, FRAME, goAwayFrame, SETTING } from '../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../src/http/h2/hpack.ts'
import { askGrpc, askHttp1, askHttp2, type Ending, type Question } from '../support/asker.ts'
import {
  assertUnharmed,
  type Bystander,
  type Codes,
  calmAnswer,
  codeCounter,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { type RawStream, startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  data,
  frame,
  head,
  resetStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const PROTOCOLS = ['HTTP/1.1', 'HTTP/2', 'gRPC'] as const
type Protocol = (typeof PROTOCOLS)[number]
const ASKERS = { 'HTTP/1.1': askHttp1, 'HTTP/2': askHttp2, gRPC: askGrpc }

type Endings = Readonly<Record<Protocol, Ending>>
const RESET = all('502 upstream_reset', 14)
const BAD = all('502 upstream_bad_response', 14)
const LATE = all('504 upstream_timeout', 4)
/** A gRPC answer can end in a status in any case. */
const CUT = all('cut 200 part', 14)

function all(ending: Ending, status: number): Endings {
  return { 'HTTP/1.1': ending, 'HTTP/2': ending, gRPC: `grpc ${status}` }
}
const whole = (body: string): Endings => all(`200 ${body}`, 0)

interface Fault {
  readonly what: string
  /** @param attempt counts from 1 */
  readonly act: (stream: RawStream, attempt: number) => void
  readonly endings: Endings
  readonly question?: Partial<Question>
  /** How often the workload may be asked. */
  readonly attempts?: number
  readonly protocols?: readonly Protocol[]
}

const isGrpc = ({ fields }: RawStream): boolean => fields.includes('application/grpc')

const begin = ({ id }: RawStream): Buffer => head(id, [':status', '200'], false)
const end = (stream: RawStream): Buffer =>
  isGrpc(stream) ? head(stream.id, ['grpc-status', '0'], true) : data(stream.id, '', true)
const part = (stream: RawStream, body = 'part'): Buffer =>
  Buffer.concat([begin(stream), data(stream.id, body)])
/** Answers in the words of the protocol that it was asked in. */
const reply = (stream: RawStream, body: string): Buffer =>
  Buffer.concat([part(stream, body), end(stream)])

/** Once the request is complete, as a workload that has sense would. */
async function complete(stream: RawStream): Promise<void> {
  await eventually('the request is complete', () => stream.ended)
}

/** More than the first window of a stream, less than that of the connection. */
const UPLOAD = 'u'.repeat(60_000)
const WINDOW = 20_000

/** Frames that are wrong wherever they come, and cost the stream. */
const WRONG_ON_STREAM: typeof WRONG = [
  ['a window above its limit', ({ id }) => windowUpdateFrame(id, 0x7fffffff)],
  ['a window of nothing', ({ id }) => windowUpdateFrame(id, 0)],
]

/** And those that cost the connection, with everything that is on it. */
const WRONG: readonly (readonly [what: string, make: (stream: RawStream) => Buffer])[] = [
  ['PUSH_PROMISE', ({ id }) => frame(FRAME.pushPromise, FLAG.endHeaders, id, Buffer.alloc(4))],
  ['DATA on a stream of nobody', () => data(0x7ffffff1, 'x')],
  ['a head on a stream of nobody', () => head(0x7ffffff1, [':status', '200'])],
  ['a head on an even stream', () => head(2, [':status', '200'])],
  ['a reset of a stream of nobody', () => resetStreamFrame(0x7ffffff1, 8)],
  ['a window of a stream of nobody', () => windowUpdateFrame(0x7ffffff1, 1)],
  ['DATA on stream 0', () => data(0, 'x')],
  ['a header block that cannot be read', ({ id }) => headers(id, Buffer.from([0xff, 0xff, 0xff]))],
  ['an index that no table has', ({ id }) => headers(id, Buffer.from([0xfe]))],
  ['a table larger than was allowed', ({ id }) => headers(id, Buffer.from([0x3f, 0xe2, 0x7f]))],
  ['a connection window above its limit', () => windowUpdateFrame(0, 0x7fffffff)],
  ['settings with a window above its limit', () => settingsFrame([[4, 0x80000000]])],
  ['settings with frames that are too small', () => settingsFrame([[5, 100]])],
  ['settings of five bytes', () => frame(FRAME.settings, 0, 0, Buffer.alloc(5))],
  ['a frame that is too large', ({ id }) => frame(FRAME.data, 0, id, Buffer.alloc(16_385))],
  ['text of HTTP/1.1', () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ['an alert of TLS', () => Buffer.from('15030300020246'.repeat(2), 'hex')],
  ['noise', () => Buffer.alloc(4_000, 0xe5)],
]
const headers = (id: number, block: Buffer): Buffer =>
  frame(FRAME.headers, FLAG.endHeaders, id, block)

const FAULTS: readonly Fault[] = [
  { what: 'says nothing', act: () => {}, endings: LATE },
  {
    what: 'sends interim answers and no other',
    act: ({ id, send }): void => send(head(id, [':status', '103'], false)),
    endings: LATE,
  },
  {
    what: 'sends interim answers without end',
    act: ({ id, send }) =>
      send(...Array.from({ length: 17 }, () => head(id, [':status', '103'], false))),
    endings: BAD,
  },
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xffffffff].flatMap((code) => [
    {
      what: `resets with ${code}`,
      act: ({ id, send }: RawStream): void => send(resetStreamFrame(id, code)),
      endings: RESET,
      // REFUSED_STREAM says that the request was not looked at (RFC 9113 section 8.7).
      attempts: code === 7 ? 2 : 1,
    },
    {
      what: `resets with ${code} in the middle of its answer`,
      act: (stream: RawStream) => stream.send(part(stream), resetStreamFrame(stream.id, code)),
      endings: CUT,
    },
  ]),
  {
    what: 'refuses a stream once',
    act: (stream, attempt) =>
      stream.send(attempt === 1 ? resetStreamFrame(stream.id, 7) : reply(stream, 'again')),
    endings: whole('again'),
    attempts: 2,
  },
  ...(['ends', 'resets'] as const).flatMap((how) => [
    {
      what: `${how} the connection before its answer`,
      act: (stream: RawStream, attempt: number): void => {
        if (attempt === 2) stream.send(reply(stream, 'again'))
        else if (how === 'ends') stream.socket.end()
        else stream.socket.resetAndDestroy()
      },
      endings: { ...whole('again'), gRPC: 'grpc 14' },
      attempts: 2,
    },
    ...(
      [
        ['in the middle of its answer', (stream) => part(stream)],
        ['in the head of a frame', (stream) => cut(Buffer.concat([part(stream), end(stream)]), 5)],
        [
          'in the middle of a frame',
          (stream) => cut(Buffer.concat([begin(stream), data(stream.id, 'part of it')]), 6),
        ],
        [
          'in the middle of its trailers',
          (stream) => Buffer.concat([part(stream), cut(head(stream.id, ['a', 'b'], true), 2)]),
        ],
      ] as readonly (readonly [string, (stream: RawStream) => Buffer])[]
    ).map(([where, make]) => ({
      what: `${how} the connection ${where}`,
      act: (stream: RawStream) => {
        const { socket } = stream
        stream.sendLast(make(stream), () =>
          how === 'ends' ? socket.end() : setTimeout(() => socket.resetAndDestroy(), 30),
        )
      },
      endings: CUT,
    })),
  ]),
  {
    what: 'says that it goes, and completes its answer',
    act: (stream) => stream.send(goAwayFrame(stream.id, 0), reply(stream, 'the last')),
    endings: whole('the last'),
  },
  {
    what: 'says that it will go, and completes its answer',
    act: (stream) => stream.send(goAwayFrame(0x7fffffff, 0), reply(stream, 'the last')),
    endings: whole('the last'),
  },
  {
    what: 'says that it goes in the middle of its answer, and completes it',
    act: (stream) => {
      stream.send(part(stream, 'the '), goAwayFrame(stream.id, 0))
      setTimeout(() => stream.send(data(stream.id, 'last'), end(stream)), 30)
    },
    endings: whole('the last'),
  },
  {
    what: 'says that it goes, and has not looked at the request',
    act: (stream, attempt) =>
      stream.send(
        attempt === 1 ? goAwayFrame(Math.max(0, stream.id - 2), 0) : reply(stream, 'again'),
      ),
    endings: whole('again'),
    attempts: 2,
  },
  {
    what: 'says that it goes in the middle of its answer, and ends',
    act: (stream) => {
      stream.send(part(stream), goAwayFrame(stream.id, 2))
      stream.socket.end()
    },
    endings: CUT,
  },
  ...WRONG_ON_STREAM.map(([what, make]) => ({
    what: `sends ${what}`,
    act: (stream: RawStream): void => stream.send(make(stream)),
    endings: BAD,
  })),
  ...WRONG.map(([what, make]) => ({
    what: `sends ${what}`,
    act: (stream: RawStream, attempt: number): void =>
      stream.send(attempt === 1 ? make(stream) : reply(stream, 'again')),
    // Of a call that may be repeated, only the connection is lost.
    endings: { ...whole('again'), gRPC: 'grpc 14' },
    attempts: 2,
  })),
  ...[...WRONG, ...WRONG_ON_STREAM].map(([what, make]) => ({
    what: `sends ${what} in the middle of its answer`,
    act: (stream: RawStream): void => stream.send(part(stream), make(stream)),
    endings: CUT,
  })),
  {
    what: 'sends a second head',
    act: (stream) => stream.send(part(stream), begin(stream)),
    endings: CUT,
  },
  {
    what: 'sends an answer that is longer than it says',
    act: ({ id, send }) => {
      send(head(id, [':status', '200', 'content-length', '4'], false), data(id, 'part'))
      send(data(id, 'of it', true))
    },
    endings: { 'HTTP/1.1': '200 part, closed', 'HTTP/2': 'cut 200 part', gRPC: 'cut grpc' },
  },
  {
    what: 'sends an answer that is shorter than it says',
    act: ({ id, send }) =>
      send(head(id, [':status', '200', 'content-length', '5'], false), data(id, 'part', true)),
    endings: { 'HTTP/1.1': 'cut 200 part', 'HTTP/2': 'cut 200 part', gRPC: 'cut grpc' },
  },
  {
    what: 'frames with a trailer',
    act: (stream) =>
      stream.send(part(stream), head(stream.id, ['content-length', '2', 'grpc-status', '0'], true)),
    endings: CUT,
  },
  {
    what: 'has a status in its trailers',
    act: (stream) => stream.send(part(stream), head(stream.id, [':status', '200'], true)),
    endings: CUT,
  },
  ...[204, 304].map((status) => ({
    what: `gives a ${status} a body`,
    act: ({ id, send }: RawStream) =>
      send(head(id, [':status', String(status)], false), data(id, 'body', true)),
    endings: { 'HTTP/1.1': `${status}, closed`, 'HTTP/2': `${status}`, gRPC: '' },
    protocols: ['HTTP/1.1', 'HTTP/2'] as const,
  })),
  {
    what: 'answers HEAD with a body',
    question: { method: 'HEAD' },
    act: ({ id, send }) => send(head(id, [':status', '200'], false), data(id, 'body', true)),
    endings: { 'HTTP/1.1': '200, closed', 'HTTP/2': '200', gRPC: '' },
    protocols: ['HTTP/1.1', 'HTTP/2'],
  },
  {
    what: 'switches protocols',
    act: ({ id, send }) => send(head(id, [':status', '101'], false)),
    endings: BAD,
  },
  {
    what: 'answers byte by byte',
    act: (stream) => void stream.sendByteWise(reply(stream, 'byte by byte')),
    endings: whole('byte by byte'),
  },
  {
    what: 'pads, adds frames of other kinds and cuts its header blocks',
    act: (stream) => {
      const block = encodeHeaderBlock([':status', '200'])
      const { id } = stream
      stream.send(
        frame(0xfe, 0xff, id, Buffer.from('?')),
        frame(FRAME.priority, 0, id, Buffer.alloc(5)),
        frame(FRAME.headers, 0, id, block.subarray(0, 1)),
        frame(FRAME.continuation, 0, id, Buffer.alloc(0)),
        frame(FRAME.continuation, FLAG.endHeaders, id, block.subarray(1)),
        frame(
          FRAME.data,
          FLAG.padded,
          id,
          Buffer.concat([Buffer.from('\x03body'), Buffer.alloc(3)]),
        ),
        end(stream),
      )
    },
    endings: whole('body'),
  },
  {
    what: 'answers before the body is there',
    question: { body: 'begun', unfinished: true },
    act: (stream) => stream.send(reply(stream, 'early')),
    endings: whole('early'),
  },
  {
    what: 'answers before the body is there, and wants no more of it',
    question: { body: 'begun', unfinished: true },
    act: (stream) => stream.send(reply(stream, 'early'), resetStreamFrame(stream.id, 0)),
    endings: whole('early'),
  },
  {
    what: 'closes its window in the middle of a body and opens it again',
    question: { body: UPLOAD },
    act: async (stream) => {
      stream.send(settingsFrame([[SETTING.initialWindowSize, 0]]))
      await new Promise((resolve) => setTimeout(resolve, 50))
      stream.send(settingsFrame([[SETTING.initialWindowSize, 300_000]]))
      await complete(stream)
      stream.send(reply(stream, `${stream.body.length}`))
    },
    endings: whole('60000'),
  },
  {
    what: 'takes frames of more sizes and keeps no header table',
    question: { body: UPLOAD },
    act: async (stream) => {
      const sizes = [SETTING.maxFrameSize, 1 << 20] as const
      stream.send(settingsFrame([sizes, [SETTING.headerTableSize, 0], [0xabcd, 1]]))
      await complete(stream)
      stream.send(reply(stream, `${stream.body.length}`))
    },
    endings: whole('60000'),
  },
  {
    what: 'never opens the window of a stream again',
    question: { body: UPLOAD, path: '/stall' },
    act: () => {},
    endings: LATE,
  },
]

function cut(bytes: Buffer, missing: number): Buffer {
  return bytes.subarray(0, bytes.length - missing)
}

describe('a workload that speaks HTTP/2', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystander: Bystander
  let codes: () => Promise<Codes>
  let act: Fault['act']
  let heard: string[] = []
  before(async () => {
    const workload = await startRawH2cWorkload(
      t,
      (stream) => {
        const { id, path, send } = stream
        if (isCalm(path)) {
          return send(head(id, [':status', '200'], false), data(id, calmAnswer(path), true))
        }
        heard.push(path)
        act(stream, heard.length)
      },
      {
        settings: [[SETTING.initialWindowSize, WINDOW]],
        credit: ({ path }) => path !== '/stall',
      },
    )
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: { timeouts: { upstreamResponse: '800ms', idle: '1s' } },
        log: { decisions: 'off' },
      },
    })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
    codes = await codeCounter(sidecar)
  })

  for (const protocol of PROTOCOLS) {
    for (const { what, question, endings, attempts = 1, protocols, ...fault } of FAULTS) {
      if (protocols !== undefined && !protocols.includes(protocol)) continue
      it(`that ${what} (${protocol})`, async () => {
        heard = []
        act = fault.act
        await codes()
        const path = `/fault/${protocol}`
        const actual = await ASKERS[protocol](t, sidecar, web, { path, ...question })
        assert.equal(actual, endings[protocol])
        assert.ok(heard.length >= 1 && heard.length <= attempts, `asked ${heard.length} times`)
        await bystander.served()
        const counted = Object.values(await codes())
        assert.ok(counted.reduce((sum, count) => sum + count, 0) <= 1, 'nobody else had an error')
      })
    }
  }

  it('leaves nothing behind', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 1 })
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})
