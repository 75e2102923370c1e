// What a workload that speaks HTTP/1.1 can do wrong, and what it comes to for its client: the answer
// where it is whole, an error of ours where none of it was passed on, and else an answer that is seen
// to be cut. Meanwhile others are served, and afterwards nothing is left.
import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { type Asker, askHttp1, askHttp2, type Ending, type Question } from '../support/asker.ts'
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
import { ok } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { type RawWorkload, startRawWorkload } from '../support/workload.ts'

type Act = (socket: net.Socket) => void

/** Says it, and leaves the connection as it is. */
const says =
  (text: string): Act =>
  (socket) =>
    void socket.write(text, 'latin1')
/** Says it, and ends its side. */
const saysAndEnds =
  (text: string): Act =>
  (socket) =>
    void socket.end(text, 'latin1')
/** Says it, and resets once that has been read. */
const saysAndResets =
  (text: string): Act =>
  (socket) => {
    socket.write(text, 'latin1', () => setTimeout(() => socket.resetAndDestroy(), 30))
  }
const saysByteWise =
  (text: string): Act =>
  async (socket) => {
    for (const byte of text) {
      await new Promise((resolve) => socket.write(byte, 'latin1', resolve))
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
/** Says it for as long as somebody listens. */
const saysForever =
  (first: string, again: string): Act =>
  (socket) => {
    socket.write(first, 'latin1')
    const more = (): void => {
      while (!socket.destroyed && socket.write(again, 'latin1')) {}
    }
    socket.on('drain', more)
    more()
  }

const RESET = '502 upstream_reset'
const BAD = '502 upstream_bad_response'
const LATE = '504 upstream_timeout'
const LENGTH = 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n'
const CHUNKED = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'
const KIB = 'x'.repeat(1024)
const LAST_CHUNK = '\r\n0\r\n\r\n'

interface Fault {
  readonly what: string
  readonly act: Act
  readonly ending: Ending | RegExp
  readonly question?: Partial<Question>
  /** How often the workload may be asked: the close of an idle connection would look the same. */
  readonly attempts?: number
}

const GARBAGE: readonly Fault[] = Object.entries({
  'NUL bytes': '\0'.repeat(200),
  'an alert of TLS': '\x15\x03\x03\x00\x02\x02\x46',
  'a handshake of TLS': `\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03${'\xa5'.repeat(60)}`,
  'HTTP/0.9': '<html>hello</html>',
  'SETTINGS and GOAWAY of HTTP/2': '\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01',
  'a banner': 'SSH-2.0-OpenSSH_9.7\r\n',
  'a request': 'GET / HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'empty lines': '\r\n\r\n',
}).flatMap(([what, text]) => [
  { what, act: says(text), ending: BAD },
  { what: `${what}, and ends`, act: saysAndEnds(text), ending: BAD },
])

/** Where an answer can break off, with what has been passed on by then. */
const BREAKS: readonly (readonly [what: string, text: string, ending: Ending])[] = [
  ['before the answer', '', RESET],
  ['in the status line', 'HTTP/1.1 20', RESET],
  ['in the head', 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n', RESET],
  ['behind an interim answer', 'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n', RESET],
  ['behind the head', LENGTH, 'cut 200 '],
  ['in a body of known length', `${LENGTH}part`, 'cut 200 part'],
  ['behind a head for chunks', CHUNKED, 'cut 200 '],
  ['in the line of a chunk', `${CHUNKED}4\r\npart\r\n1`, 'cut 200 part'],
  ['in a chunk', `${CHUNKED}8\r\npart`, 'cut 200 part'],
  ['in the end of a chunk', `${CHUNKED}4\r\npart\r`, 'cut 200 part'],
  ['before the last chunk', `${CHUNKED}4\r\npart\r\n`, 'cut 200 part'],
  ['before the trailers', `${CHUNKED}4\r\npart\r\n0\r\n`, 'cut 200 part'],
  ['in the trailers', `${CHUNKED}4\r\npart\r\n0\r\nx-sum: 1\r\n`, 'cut 200 part'],
]

const FAULTS: readonly Fault[] = [
  { what: 'says nothing', act: () => {}, ending: LATE },
  { what: 'begins a head and goes no further', act: says('HTTP/1.1 200 OK\r\nx:'), ending: LATE },
  {
    what: 'drips a head without end',
    act: (socket) => {
      socket.write('HTTP/1.1 200 OK\r\nx: ')
      const drip = setInterval(() => socket.write('x'), 20)
      socket.on('close', () => clearInterval(drip))
    },
    ending: LATE,
  },
  {
    what: 'sends interim answers and no other',
    act: says('HTTP/1.1 102 Processing\r\n\r\n'),
    ending: LATE,
  },
  ...GARBAGE.map((one) => ({ ...one, what: `answers ${one.what}` })),
  ...BREAKS.flatMap(([where, text, ending]) => [
    { what: `closes ${where}`, act: saysAndEnds(text), ending, attempts: text === '' ? 2 : 1 },
    { what: `resets ${where}`, act: saysAndResets(text), ending, attempts: text === '' ? 2 : 1 },
  ]),
  {
    what: 'resets a body that ends with the connection',
    act: saysAndResets('HTTP/1.1 200 OK\r\n\r\npart'),
    ending: 'cut 200 part',
  },
  {
    what: 'closes a body that ends with the connection',
    act: saysAndEnds('HTTP/1.1 200 OK\r\n\r\nwhole'),
    ending: '200 whole',
  },
  {
    what: 'sends interim answers without end',
    act: saysForever('', 'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n'),
    ending: BAD,
  },
  {
    what: 'sends header lines without end',
    act: saysForever('HTTP/1.1 200 OK\r\n', 'x-a: b\r\n'),
    ending: BAD,
  },
  {
    what: 'sends one header line without end',
    act: saysForever('HTTP/1.1 200 OK\r\nx: ', KIB),
    ending: BAD,
  },
  {
    what: 'sends trailers without end',
    act: saysForever(`${CHUNKED}4\r\npart\r\n0\r\n`, 'x-a: b\r\n'),
    ending: /^cut 200 part$|^502 upstream_bad_response$/,
  },
  {
    what: 'sends a chunk extension without end',
    act: saysForever(`${CHUNKED}4;`, KIB),
    ending: /^cut 200 $|^502 upstream_bad_response$/,
  },
  {
    what: 'says a length of a chunk that nobody can count',
    act: says(`${CHUNKED}ffffffffffffffffff\r\n`),
    ending: BAD,
  },
  {
    what: 'frames with a trailer',
    act: says(`${CHUNKED}4\r\npart\r\n0\r\ncontent-length: 2\r\n\r\n`),
    ending: BAD,
  },
  {
    what: 'frames with a trailer that comes late',
    act: (socket) => {
      socket.write(`${CHUNKED}4\r\npart\r\n`)
      setTimeout(() => socket.write('0\r\ntransfer-encoding: chunked\r\n\r\n'), 20)
    },
    ending: 'cut 200 part',
  },
  {
    what: 'answers byte by byte, with a length',
    act: saysByteWise(ok('byte by byte')),
    ending: '200 byte by byte',
  },
  {
    what: 'answers byte by byte, in chunks and behind an interim answer',
    act: saysByteWise(
      `HTTP/1.1 103 Early Hints\r\n\r\n${CHUNKED}4;a=b\r\nbyte\r\n3\r\n by\r\n0\r\nx-sum: 1\r\n\r\n`,
    ),
    ending: '200 byte by',
  },
  { what: 'answers twice', act: says(ok('one') + ok('two')), ending: '200 one' },
  {
    what: 'sends more than its length',
    act: says(`HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nonetwo`),
    ending: '200 one',
  },
  {
    what: 'switches protocols without being asked',
    act: says('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nx'),
    ending: BAD,
  },
  ...[204, 304].map((status) => ({
    what: `gives a ${status} a body`,
    act: says(`HTTP/1.1 ${status} x\r\ncontent-length: 4\r\n\r\nbody`),
    ending: `${status}`,
  })),
  {
    what: 'answers HEAD with a body',
    question: { method: 'HEAD' },
    act: says(ok('body')),
    ending: '200',
  },
  {
    what: 'answers HEAD in chunks',
    question: { method: 'HEAD' },
    act: says(`${CHUNKED}4\r\nbody\r\n0\r\n\r\n`),
    ending: '200',
  },
  ...[
    ['before the body is there', { body: 'begun', unfinished: true }],
    ['before it has read the body', { body: KIB.repeat(50) }],
  ].map(([when, question]) => ({
    what: `answers ${when}`,
    question: question as Partial<Question>,
    act: says(ok('early')),
    ending: '200 early',
  })),
  {
    what: 'answers before the body is there, and ends',
    question: { body: 'begun', unfinished: true },
    act: saysAndEnds(ok('early')),
    ending: '200 early',
  },
  {
    what: 'answers half before the body is there, and resets',
    question: { body: 'begun', unfinished: true },
    act: saysAndResets(`${LENGTH}early`),
    ending: 'cut 200 early',
  },
  {
    what: 'resets before the body is there',
    question: { body: 'begun', unfinished: true },
    act: saysAndResets(''),
    ending: RESET,
  },
]

/** At once: one client's trouble is no other's. */
const ASKERS: readonly Asker[] = [askHttp1, askHttp2]

describe('a workload that speaks HTTP/1.1', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  let bystander: Bystander
  let codes: () => Promise<Codes>
  let act: Act
  let heard: string[] = []
  before(async () => {
    workload = await startRawWorkload(t, (socket) => {
      socket.setNoDelay(true)
      let text = ''
      let bodyLeft = 0
      let inChunks = false
      const read = (chunk: Buffer): void => {
        const skipped = Math.min(bodyLeft, chunk.length)
        bodyLeft -= skipped
        text += chunk.toString('latin1', skipped)
        if (inChunks) {
          const last = text.indexOf(LAST_CHUNK)
          if (last === -1) return
          text = text.slice(last + LAST_CHUNK.length)
          inChunks = false
        }
        const end = text.indexOf('\r\n\r\n')
        if (end === -1) return
        const head = text.slice(0, end + 2)
        const path = head.split(' ')[1] ?? ''
        text = text.slice(end + 4)
        inChunks = head.includes('transfer-encoding: chunked')
        bodyLeft = Number(/^content-length: (\d+)\r$/im.exec(head)?.[1] ?? 0)
        const here = Math.min(bodyLeft, text.length)
        bodyLeft -= here
        text = text.slice(here)
        if (isCalm(path)) return void socket.write(ok(calmAnswer(path)))
        heard.push(path)
        act(socket)
      }
      socket.on('data', read)
      socket.on('end', () => socket.end())
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: { timeouts: { upstreamResponse: '800ms', upstreamConnect: '2s' } },
        log: { decisions: 'off' },
      },
    })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
    codes = await codeCounter(sidecar)
  })

  for (const { what, question, ending, attempts = 1, ...fault } of FAULTS) {
    it(`that ${what}`, async () => {
      act = fault.act
      heard = []
      await codes()
      const endings = await Promise.all(
        ASKERS.map(async (ask, i) => {
          const path = `/fault/${i}`
          const actual = await ask(t, sidecar, web, { path, ...question })
          if (ending instanceof RegExp) assert.match(actual, ending)
          else assert.equal(actual, ending)
          const asked = heard.filter((one) => one === path).length
          assert.ok(asked >= 1 && asked <= attempts, `asked ${asked} times`)
          return actual
        }),
      )
      await bystander.served()
      const broken = endings.filter((one) => one.startsWith('cut') || one.includes('upstream_'))
      let counted = 0
      await eventually('it is counted for what it is', async () => {
        for (const [code, count] of Object.entries(await codes())) {
          assert.ok(code.startsWith('upstream_'), code)
          if (typeof ending === 'string' && ending.startsWith('50'))
            assert.ok(ending.endsWith(code))
          counted += count
        }
        return counted === broken.length
      })
    })
  }

  it('leaves nothing behind', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 0 })
    await eventually('the workload’s side is closed too', () =>
      workload.sockets.every((socket) => socket.destroyed || socket.readableEnded),
    )
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})
