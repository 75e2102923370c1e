// Workloads that do anything at random, right or wrong, for many clients at once. Whatever they do, a
// client gets the bytes of its own answer, an answer that is seen to be cut, or an error of ours.
import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { goAwayFrame, SETTING } from '../../src/http/h2/frames.ts'
import { askHttp1 } from '../support/asker.ts'
import { assertUnharmed } from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { ok } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { type Randomness, randomness, SEED } from '../support/randomness.ts'
import { type RawStream, startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  data,
  frame,
  head,
  openRawHttp2,
  requestFields,
  resetStreamFrame,
  settingsFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload } from '../support/workload.ts'

const CLIENTS = 6
const ROUNDS = 8
const STREAMS = 6
const MOST_BODY = 90_000
/** What the sidecar reads at once: a limit that is worth hitting. */
const READ_BYTES = 65_536

/** The one right body for a path; no two have a byte in common for long. */
function bodyOf(path: string): string {
  const random = randomness(SEED ^ Number(path.slice(path.lastIndexOf('/') + 1)))
  const length = random.chance(0.2) ? random.below(3) : random.below(MOST_BODY)
  return `${path}.`.repeat(Math.ceil(length / (path.length + 1))).slice(0, length)
}

/** Behind its own end a socket cannot be reset, and Node.js 26.10 would never close it. */
function reset(socket: net.Socket): void {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

const POISON = ok('an answer that nobody asked for')

/** A right answer, or one that is wrong somewhere; and what happens behind it. */
function answerOverHttp1(socket: net.Socket, path: string, random: Randomness): void {
  const body = bodyOf(path)
  const framing = random.below(3)
  let text = 'HTTP/1.1 200 OK\r\n'
  if (framing === 0) text += `content-length: ${body.length}\r\n\r\n${body}`
  else if (framing === 1) {
    text += 'transfer-encoding: chunked\r\n\r\n'
    for (let at = 0; at < body.length; ) {
      const size = 1 + random.below(Math.min(body.length - at, 20_000))
      text += `${size.toString(16)}\r\n${body.slice(at, at + size)}\r\n`
      at += size
    }
    text += '0\r\n\r\n'
  } else text += `\r\n${body}`
  if (random.chance(0.2)) text = `HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n${text}`
  const cutAt = random.below(text.length)
  switch (random.below(9)) {
    case 0:
      // What ends with the connection is complete at its end, whoever ends it.
      text = text.slice(0, cutAt)
      return void (framing === 2 ? socket.write(text, () => reset(socket)) : socket.end(text))
    case 1:
      return void socket.write(text.slice(0, cutAt), () => reset(socket))
    case 2:
      // In the head: in a body it would be a body.
      return void socket.end(`${text.slice(0, random.below(17))}\0\xff\r\nzz\r\n`, 'latin1')
    case 3:
      return void reset(socket)
    case 4:
      return void socket.end()
    case 5:
      if (framing !== 2) text += POISON
      break
    case 6: {
      // The surplus is what is left when one read is full.
      const missing = READ_BYTES - text.length - 'x: \r\n'.length
      if (framing !== 0 || missing < 0 || missing > 20_000) break
      const padded = text.replace('\r\n', `\r\nx: ${'y'.repeat(missing)}\r\n`)
      return void socket.write(padded + POISON)
    }
  }
  const last = framing === 2
  inPieces(
    random,
    Buffer.from(text, 'latin1'),
    (piece) => socket.write(piece),
    () => {
      if (last) socket.end()
    },
  )
}

function inPieces(
  random: Randomness,
  bytes: Buffer,
  write: (piece: Buffer) => void,
  end: () => void,
): void {
  if (bytes.length === 0) return end()
  const size = random.chance(0.5) ? bytes.length : 1 + random.below(bytes.length)
  write(bytes.subarray(0, size))
  setImmediate(() => inPieces(random, bytes.subarray(size), write, end))
}

function answerOverHttp2(stream: RawStream, random: Randomness): void {
  const { id, path, send, socket } = stream
  const body = bodyOf(path)
  const frames: Buffer[] = []
  const length = random.chance(0.5) ? ['content-length', String(body.length)] : []
  if (random.chance(0.2)) frames.push(head(id, [':status', '103'], false))
  frames.push(head(id, [':status', '200', ...length], false))
  for (let at = 0; at < body.length; ) {
    const size = 1 + random.below(Math.min(body.length - at, 16_384))
    frames.push(data(id, body.slice(at, at + size)))
    at += size
  }
  frames.push(random.chance(0.3) ? head(id, ['x-sum', '1'], true) : data(id, '', true))
  const some = frames.slice(0, random.below(frames.length))
  switch (random.below(12)) {
    case 0:
      return send(...some, resetStreamFrame(id, random.below(14)))
    case 1:
      return send(resetStreamFrame(id, 7))
    case 2:
      return send(...some, goAwayFrame(id, 0), ...frames.slice(some.length))
    case 3:
      return send(...some, goAwayFrame(Math.max(0, id - 2), 0), ...frames.slice(some.length))
    case 4:
      return stream.sendLast(Buffer.concat(some), () => socket.end())
    case 5:
      return stream.sendLast(Buffer.concat(some), () => reset(socket))
    case 6:
      return send(
        ...some,
        frame(2 + random.below(8), random.below(256), id, Buffer.alloc(random.below(20))),
      )
    case 7:
      return send(
        ...some,
        settingsFrame([[SETTING.initialWindowSize, random.below(100_000)]]),
        ...frames.slice(some.length),
      )
    case 8:
      return send(...frames, ...frames)
    default:
      for (const one of frames) send(one)
  }
}

describe(`a workload that does anything (POSTERN_SEED=${SEED})`, () => {
  const t = suiteCleanup()
  const random = randomness(SEED)
  const sidecars: TestSidecar[] = []
  let web: IssuedCertificate
  const endings = { whole: 0, cut: 0, error: 0 }
  before(async () => {
    const http1 = await startRawWorkload(t, (socket) => {
      socket.setNoDelay(true)
      let text = ''
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
        for (let end = text.indexOf('\r\n\r\n'); end !== -1; end = text.indexOf('\r\n\r\n')) {
          const path = text.split(' ')[1] ?? ''
          text = text.slice(end + 4)
          answerOverHttp1(socket, path, random)
        }
      })
      socket.on('end', () => socket.end())
    })
    const h2c = await startRawH2cWorkload(t, (stream) => answerOverHttp2(stream, random))
    const config = {
      inbound: {
        timeouts: { upstreamResponse: '700ms', idle: '1s' },
        limits: { upstreamConnections: 8 },
      },
      log: { decisions: 'off', access: 'off' },
    }
    sidecars.push(await startSidecar(t, { forward: http1.url, config }))
    const { authority } = sidecars[0]!
    sidecars.push(await startSidecar(t, { forward: h2c.url, config, authority }))
    web = await authority.svid('web')
  })

  /** `200 body`, `cut 200 part` or `502 code`, for the path that was asked for. */
  function check(path: string, ending: string): void {
    const body = bodyOf(path)
    if (ending.trimEnd() === `200 ${body}`.trimEnd()) endings.whole++
    else if (/^50[234] upstream_\w+(, closed)?$/.test(ending)) endings.error++
    else if (ending === 'nothing') endings.cut++
    else {
      const part = /^cut 200 (.*)$/s.exec(ending)?.[1]
      const shown = `${path}: ${ending.length} bytes, ${JSON.stringify(ending.slice(0, 80))}`
      assert.ok(part !== undefined && body.startsWith(part), shown)
      endings.cut++
    }
  }

  for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const) {
    it(`gives nobody what is another’s, and nothing cut as if it were whole (${protocol})`, async (test) => {
      let asked = 0
      const next = (): string => `/${protocol}/${++asked}`
      const overHttp1 = async (sidecar: TestSidecar): Promise<void> => {
        const path = next()
        check(path, await askHttp1(test, sidecar, web, { path, alone: true }))
      }
      const overHttp2 = async (sidecar: TestSidecar): Promise<void> => {
        const raw = await openRawHttp2(test, sidecar, web)
        const paths = Array.from({ length: STREAMS }, next)
        raw.send(...paths.map((path, i) => head(2 * i + 1, requestFields({ ':path': path }))))
        for (const [i, path] of paths.entries()) {
          const { status, body, ended } = await raw.answered(2 * i + 1)
          const text = body.toString('latin1')
          const [, code] = /^\{"error":"(\w+)"/.exec(text) ?? []
          check(path, status === 0 ? 'nothing' : `${ended ? '' : 'cut '}${status} ${code ?? text}`)
        }
        assert.equal(raw.over, false, 'no fault of a workload costs the connection')
        raw.socket.destroy()
      }
      const ask = protocol === 'HTTP/1.1' ? overHttp1 : overHttp2
      await Promise.all(
        Array.from({ length: CLIENTS }, async (_, i) => {
          for (let round = 0; round < ROUNDS; round++) await ask(sidecars[i % 2]!)
        }),
      )
    })
  }

  it('does all of that, and leaves nothing behind', async () => {
    for (const [ending, count] of Object.entries(endings))
      assert.ok(count > 10, `${ending} ${count}`)
    const [http1, h2c] = sidecars
    await assertUnharmed(http1!, { upstream: 0 })
    await assertUnharmed(h2c!, { upstream: 8 })
    for (const sidecar of sidecars) {
      sidecar.signal('SIGTERM')
      assert.equal(await sidecar.exited, 0)
    }
  })
})
