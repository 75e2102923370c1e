// Bodies in both directions: whole or not at all, at the pace of the slower side, in bounded memory.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type http2 from 'node:http2'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openClient } from '../support/http1.ts'
import { openSession, replyOf, startH2cWorkload } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import {
  data,
  head,
  openRawHttp2,
  type RawHttp2,
  requestFields,
  resetStreamFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { type RawWorkload, startRawWorkload, startWorkload } from '../support/workload.ts'

const BODY_POLICY = fileURLToPath(new URL('../policy/bundles/body.tar.gz', import.meta.url))
const post = (path: string, ...fields: string[]): string[] => [
  ...requestFields({ ':method': 'POST', ':path': path }),
  ...fields,
]

/** How a client can stop in the middle; the workload must be able to tell it from an end. */
const STOPS: Readonly<Record<string, (raw: RawHttp2) => void>> = {
  'resets the stream without an error': (raw) => raw.send(resetStreamFrame(1, 0)),
  'cancels the stream': (raw) => raw.send(resetStreamFrame(1, 8)),
  'resets the stream with an error': (raw) => raw.send(resetStreamFrame(1, 2)),
  'sends trailers that are malformed': (raw) => raw.send(head(1, ['connection', 'x'])),
  'ends the connection': (raw) => raw.socket.end(),
  'breaks the connection': (raw) => raw.socket.destroy(),
}

describe('a body that stops in the middle', () => {
  const t = suiteCleanup()
  /** By path. */
  const ends = new Map<string, string[]>()
  let http1: RawWorkload
  let sidecars: readonly TestSidecar[]
  let web: IssuedCertificate
  before(async () => {
    http1 = await startRawWorkload(t, () => {})
    const h2c = await startH2cWorkload(t, (stream, headers) => {
      const heard: string[] = []
      ends.set(String(headers[':path']), heard)
      // Here too `end` comes with a reset, but behind `aborted`.
      stream.on('aborted', () => heard.push('aborted'))
      stream.on('end', () => heard.push('end')).resume()
      stream.on('close', () => heard.push('close'))
    })
    const one = await startSidecar(t, { forward: http1.url })
    const { authority } = one
    sidecars = [
      one,
      await startSidecar(t, { authority, forward: h2c.url }),
      await startSidecar(t, {
        authority,
        forward: http1.url,
        config: { policy: { bundle: BODY_POLICY } },
      }),
    ]
    web = await authority.svid('web')
  })

  for (const [what, stop] of Object.entries(STOPS)) {
    it(`is not taken for a whole one when the client ${what}`, async () => {
      const [toHttp1, toH2c, reading] = sidecars as [TestSidecar, TestSidecar, TestSidecar]
      const path = `/${what.replaceAll(' ', '-')}`
      const raws = await Promise.all(sidecars.map((sidecar) => openRawHttp2(t, sidecar, web)))
      const received = (): string => http1.received.find((one) => one.includes(path)) ?? ''
      for (const raw of raws) {
        raw.send(head(1, post(path, 'content-type', 'application/json'), false))
        raw.send(data(1, '{"allow":true}'))
      }
      await eventually('the part is with the workloads', () => {
        return received().endsWith('{"allow":true}\r\n') && ends.has(path)
      })
      for (const raw of raws) stop(raw)
      await eventually('the stream ends', () => ends.get(path)?.includes('close'))
      assert.equal(ends.get(path)?.[0], 'aborted')
      for (const sidecar of [toHttp1, toH2c, reading]) {
        await eventually('it is counted', async () =>
          /code="client_closed"\} [1-9]/.test(await sidecar.metrics()),
        )
      }
      assert.ok(received().endsWith('{"allow":true}\r\n'), received())
      const withPath = http1.received.filter((one) => one.includes(path))
      assert.equal(withPath.length, 1, 'policy was asked about half a body')
    })
  }
})

describe('a body of an HTTP/1.1 client that stops in the middle', () => {
  const t = suiteCleanup()

  it('is a reset to a workload that speaks HTTP/2', async () => {
    const heard: string[] = []
    const workload = await startH2cWorkload(t, (stream) => {
      stream.on('data', (chunk: Buffer) => heard.push(chunk.toString()))
      stream.on('aborted', () => heard.push('aborted'))
      stream.on('end', () => heard.push('end'))
    })
    const sidecar = await startSidecar(t, { forward: workload.url })
    const client = await openClient(t, sidecar, await sidecar.authority.svid('web'))
    client.send(
      'POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n',
    )
    await eventually('the part is there', () => heard.length === 1)
    client.socket.destroy()
    await eventually('it is aborted', () => heard.includes('aborted'))
    assert.deepEqual(heard.slice(0, 2), ['part', 'aborted'])
  })
})

const sum = (hash: { digest(encoding: 'hex'): string }): string => hash.digest('hex')

/** Sends `body` in pieces of prime sizes, and one byte at a time at its ends. */
async function inPieces(stream: http2.ClientHttp2Stream, body: Buffer): Promise<void> {
  const sizes = [1, 1, 2, 3, 5, 7, 8_191, 16_381, 16_411, 65_521]
  for (let at = 0, i = 0; at < body.length; i++) {
    const size = at > body.length - 20 ? 1 : sizes[i % sizes.length]!
    if (!stream.write(body.subarray(at, at + size))) {
      await new Promise((resolve) => stream.once('drain', resolve))
    }
    at += size
  }
  stream.end()
}

describe('bodies both ways at once', () => {
  const t = suiteCleanup()
  const echoing = {
    'HTTP/1.1': () =>
      startWorkload(t, (request, response) => {
        response.writeHead(200)
        for (let at = 0; at < request.body.length; at += 7_919) {
          response.write(request.body.subarray(at, at + 7_919))
        }
        response.end()
      }),
    'HTTP/2': () => startH2cWorkload(t),
  }
  for (const [protocol, start] of Object.entries(echoing)) {
    it(`keep their checksums in pieces of any size, to a workload that speaks ${protocol}`, async () => {
      const workload = await start()
      const sidecar = await startSidecar(t, { forward: workload.url })
      const session = await openSession(t, sidecar, await sidecar.authority.svid('web'))
      await Promise.all(
        Array.from({ length: 5 }, async (_, n) => {
          const body = randomBytes(700_001 + 17 * n)
          const stream = session.request({ ':method': 'POST', ':path': '/echo' })
          const reply = replyOf(stream)
          await inPieces(stream, body)
          const got = await reply
          assert.equal(got.status, 200)
          assert.equal(
            sum(createHash('sha256').update(got.body)),
            sum(createHash('sha256').update(body)),
          )
        }),
      )
    })
  }
})

const ENDLESS = 60_000_000

describe('a side that does not read', () => {
  const t = suiteCleanup()
  let sent = 0
  const endless = (stream: NodeJS.WritableStream & { destroyed?: boolean }): void => {
    const piece = Buffer.alloc(16_384)
    const more = (): void => {
      while (stream.destroyed !== true && sent < ENDLESS) {
        sent += piece.length
        if (!stream.write(piece)) return void stream.once('drain', more)
      }
    }
    more()
  }
  const until = async (what: string, read: () => number): Promise<number> => {
    let before = -1
    let same = 0
    await eventually(what, () => {
      same = read() === before && before > 0 ? same + 1 : 0
      before = read()
      return same >= 30
    })
    return before
  }
  const residentMiB = async ({ pid }: TestSidecar): Promise<number> => {
    const status = await readFile(`/proc/${pid}/status`, 'latin1')
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024
  }
  const workloads = {
    'HTTP/1.1': async () => {
      const raw = await startRawWorkload(t, (socket) => {
        socket.once('data', (chunk) => {
          if (!chunk.toString('latin1').startsWith('GET')) {
            return void socket.pause()
          }
          socket.write('HTTP/1.1 200 OK\r\n\r\n')
          endless(socket)
        })
      })
      return { url: raw.url }
    },
    'HTTP/2': () =>
      startH2cWorkload(t, (stream, headers) => {
        stream.on('data', () => stream.pause())
        if (headers[':method'] !== 'GET') return
        stream.respond({ ':status': 200 })
        endless(stream)
      }),
  }

  for (const [protocol, start] of Object.entries(workloads)) {
    describe(`with a workload that speaks ${protocol}`, () => {
      let sidecar: TestSidecar
      let web: IssuedCertificate
      before(async () => {
        sidecar = await startSidecar(t, { forward: (await start()).url })
        web = await sidecar.authority.svid('web')
      })

      it('stops a workload that sends to an HTTP/2 client', async () => {
        const memory = await residentMiB(sidecar)
        sent = 0
        const raw = await openRawHttp2(t, sidecar, web, { credit: false })
        raw.send(head(1, requestFields()))
        const held = await until('the workload stops', () => sent)
        assert.ok(held < ENDLESS / 3, `${held} bytes were taken`)
        assert.ok((await residentMiB(sidecar)) - memory < 40)
        assert.equal(raw.answer(1).body.length, 65_535, 'what the window allows, and no more')
        raw.socket.destroy()
      })

      it('stops a workload that sends to an HTTP/1.1 client', async () => {
        sent = 0
        const client = await openClient(t, sidecar, web)
        client.socket.pause()
        client.send('GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n')
        const held = await until('the workload stops', () => sent)
        assert.ok(held < ENDLESS / 2, `${held} bytes were taken`)
        client.socket.destroy()
      })

      it('stops an HTTP/2 client that sends', async () => {
        const memory = await residentMiB(sidecar)
        const session = await openSession(t, sidecar, web)
        const stream = session.request({ ':method': 'POST', ':path': '/take' })
        stream.on('error', () => {})
        let accepted = 0
        const piece = Buffer.alloc(16_384)
        const more = (): void => {
          while (accepted < ENDLESS && !stream.destroyed) {
            accepted += piece.length
            if (!stream.write(piece)) return void stream.once('drain', more)
          }
        }
        more()
        const held = await until('the client stops', () => accepted)
        assert.ok(held < ENDLESS / 3, `${held} bytes were taken`)
        assert.ok((await residentMiB(sidecar)) - memory < 40)
        session.destroy()
      })
    })
  }
})
