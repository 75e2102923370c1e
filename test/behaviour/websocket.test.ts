import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import type http2 from 'node:http2'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openClient } from '../support/http1.ts'
import { openSession } from '../support/http2.ts'
import { type IssuedCertificate, testAuthority } from '../support/pki.ts'
import { data, head, openRawHttp2, requestFields } from '../support/raw-http2.ts'
import { reconfigure } from '../support/reconfigure.ts'
import { call, SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import {
  encodeFrame,
  OPCODE,
  openWebSocket,
  openWebSocketStream,
  startH2cWebSocketWorkload,
  startWebSocketWorkload,
  type WebSocketEnd,
  type WebSocketWorkload,
  webSocketRequest,
} from '../support/websocket.ts'

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
const PATH = '/api/orders'
const NO_ERROR = 0
const CANCEL = 8

for (const [protocol, start, spoken] of [
  ['HTTP/1.1', startWebSocketWorkload, 'HTTP/1.1'],
  ['HTTP/2', startWebSocketWorkload, 'HTTP/1.1'],
  ['HTTP/1.1', startH2cWebSocketWorkload, 'HTTP/2'],
  ['HTTP/2', startH2cWebSocketWorkload, 'HTTP/2'],
] as const) {
  describe(`a WebSocket over ${protocol} to a workload that speaks ${spoken}`, () => {
    let sidecar: TestSidecar
    let workload: WebSocketWorkload
    let web: IssuedCertificate
    let inbound: Record<string, unknown>
    const t = suiteCleanup()
    before(async () => {
      workload = await start(t)
      inbound = { listen: '127.0.0.1:0', forward: workload.url }
      sidecar = await startSidecar(t, {
        forward: workload.url,
        config: { policy: { bundle: SAMPLE_POLICY }, log: { access: 'all' } },
      })
      web = await sidecar.authority.svid('web')
    })

    const tryOpen = async (
      path: string,
      identity = web,
    ): Promise<{ client: WebSocketEnd | number; session?: http2.ClientHttp2Session }> => {
      if (protocol === 'HTTP/1.1') {
        return { client: await openWebSocket(t, sidecar, identity, path) }
      }
      const session = await openSession(t, sidecar, identity)
      return { client: await openWebSocketStream(session, path), session }
    }
    const opened: WebSocketEnd[] = []
    const open = async (): Promise<{ client: WebSocketEnd; there: WebSocketEnd }> => {
      const known = workload.ends.length
      const { client } = await tryOpen(PATH)
      assert.ok(typeof client !== 'number', `refused with ${client}`)
      const there = await eventually('the workload has it', () => workload.ends[known])
      opened.push(client)
      return { client, there }
    }
    const rstCode = ({ stream }: WebSocketEnd): number | undefined =>
      (stream as http2.ClientHttp2Stream).rstCode

    it('carries frames of every size both ways, and many at once', async () => {
      const sent = [0, 1, 125, 126, 65_535, 65_536, 1_000_003].map((size) => randomBytes(size))
      await Promise.all(
        Array.from({ length: 3 }, async () => {
          const { client } = await open()
          for (const one of sent) client.send(one)
          await eventually('all echoes', () => client.frames.length === sent.length)
          assert.deepEqual(
            client.frames.map(({ payload }) => sum(payload)),
            sent.map(sum),
          )
          client.sendClose(1000)
          await eventually('the end', () => client.ended)
          assert.equal(client.closeCode, 1000)
          client.stream.end()
        }),
      )
    })

    it('carries frames whose bytes come one by one', async () => {
      const { client } = await open()
      const bytes = encodeFrame(OPCODE.text, Buffer.from('one by one'), true)
      for (const byte of bytes) {
        client.stream.write(Buffer.from([byte]))
        await new Promise(setImmediate)
      }
      await eventually('the echo', () => client.frames.length === 1)
      assert.equal(String(client.frames[0]?.payload), 'one by one')
    })

    it('stops the workload while its client does not read, and loses nothing', async () => {
      const { client, there } = await open()
      client.stream.pause()
      const payload = randomBytes(24 * 1024 * 1024)
      const socket = there.stream
      socket.write(encodeFrame(OPCODE.binary, payload, false))
      let left = -1
      let unchanged = 0
      await eventually('the workload is stopped', () => {
        unchanged = socket.writableLength === left ? unchanged + 1 : 0
        left = socket.writableLength
        return left > 0 && unchanged === 20
      })
      client.stream.resume()
      await eventually('everything', () => client.frames.length === 1)
      assert.equal(sum(client.frames[0]?.payload ?? Buffer.alloc(0)), sum(payload))
    })

    it('keeps what its client says, and its end, until the workload has agreed', async () => {
      const known = workload.ends.length
      const frame = encodeFrame(OPCODE.binary, Buffer.from('early'), true)
      if (protocol === 'HTTP/1.1') {
        const client = await openClient(t, sidecar, web)
        client.socket.end(Buffer.concat([Buffer.from(webSocketRequest(PATH)), frame]))
      } else {
        const raw = await openRawHttp2(t, sidecar, web)
        const connect = { ':method': 'CONNECT', ':protocol': 'websocket', ':path': PATH }
        raw.send(head(1, requestFields(connect), false), data(1, frame, true))
      }
      const there = await eventually('the workload has it', () => workload.ends[known])
      await eventually('the workload sees the end', () => there.ended)
      assert.deepEqual(
        there.frames.map(({ payload }) => String(payload)),
        ['early'],
      )
    })

    it('lets each side end on its own', async () => {
      const { client, there } = await open()
      const payload = randomBytes(500_000)
      there.send(payload)
      client.stream.end()
      await eventually('the workload sees the end', () => there.ended)
      await eventually('the client has all of it', () => client.frames.length === 1)
      assert.equal(sum(client.frames[0]?.payload ?? Buffer.alloc(0)), sum(payload))
      await eventually('the client sees the end', () => client.ended)
      if (protocol === 'HTTP/2') assert.equal(rstCode(client), NO_ERROR)
    })

    it('brings the last bytes to a workload that has ended and reads slowly', async () => {
      const { client, there } = await open()
      const socket = there.stream
      const { length } = there.frames
      socket.end()
      await eventually('the client sees the end', () => client.ended)
      socket.pause()
      const payload = randomBytes(8 * 1024 * 1024)
      client.send(payload)
      client.stream.end()
      socket.on('data', () => {
        socket.pause()
        setImmediate(() => socket.resume())
      })
      socket.resume()
      await eventually('the end', () => there.ended || there.closed)
      assert.equal(there.error, undefined)
      assert.equal(there.frames.length, length + 1)
      assert.equal(sum(there.frames.at(-1)?.payload ?? Buffer.alloc(0)), sum(payload))
    })

    it('that the workload resets is reset for the client', async () => {
      const { client, there } = await open()
      there.reset()
      // A workload that speaks HTTP/2 may end its side before it resets the stream.
      const isGone = (): boolean => client.closed || (protocol === 'HTTP/1.1' && client.ended)
      await eventually('it is gone', isGone)
      if (protocol === 'HTTP/2') assert.equal(rstCode(client), CANCEL)
    })

    it('that the client resets is reset for the workload', async () => {
      const { client, there } = await open()
      if (protocol === 'HTTP/2') client.stream.destroy(new Error('gone'))
      else client.stream.destroy()
      await eventually('it is gone', () => there.closed || there.ended)
      if (protocol === 'HTTP/2') assert.ok(there.wasReset)
    })

    it('is answered as the workload answers, where that is no', async () => {
      assert.equal((await tryOpen('/api/refuse')).client, 404)
    })

    it('is not opened where policy says no, and the workload hears nothing', async () => {
      const known = workload.paths.length
      const { client, session } = await tryOpen(PATH, await sidecar.authority.svid('stranger'))
      assert.equal(client, 403)
      if (session !== undefined) assert.equal(await openWebSocketStream(session, PATH), 403)
      assert.equal(workload.paths.length, known)
    })

    it('is closed with 1008, and the workload reset, when its peer is not trusted any more', async () => {
      const idle = await open()
      const amid = await open()
      amid.there.stream.write(Buffer.from([0x82, 126, 0x04, 0x00, 1, 2, 3]))
      await eventually('the part has come', () => amid.client.rest === 7)
      const stranger = await testAuthority('other.test')
      await writeFile(sidecar.files.trustBundle, stranger.root.certificatePem)
      await eventually('both are gone', () =>
        [idle, amid].every(({ client }) => client.ended || client.closed),
      )
      assert.equal(idle.client.closeCode, 1008)
      assert.deepEqual([amid.client.frames, amid.client.rest], [[], 7])
      for (const { there } of [idle, amid]) {
        await eventually('reset at the workload', () => there.wasReset)
      }
      await sidecar.logged('access', { outcome: 'peer_invalid', code: 'peer_untrusted' })
      await eventually('counted', async () => {
        const series = 'postern_tunnels_ended_total{kind="websocket",reason="peer_invalid"}'
        return (await sidecar.metric(series)) >= 2
      })
      await writeFile(sidecar.files.trustBundle, sidecar.authority.root.certificatePem)
      await eventually('trusted again', async () => {
        return (await call(sidecar, web, { path: PATH })).status === 404
      })
    })

    it('is closed with 1001 when nothing moves on it for longer than it may', async () => {
      const { client, there } = await open()
      await reconfigure(sidecar, { inbound: { ...inbound, timeouts: { tunnelIdle: '300ms' } } })
      await sidecar.admin('POST', '/reload')
      await eventually('the client is told', () => client.closeCode === 1001)
      client.sendClose(1001)
      await eventually('the workload has an ordinary end', () => there.closeCode === 1001)
      await eventually('the end', () => client.ended)
      client.stream.end()
      const series = 'postern_tunnels_ended_total{kind="websocket",reason="idle"}'
      await eventually('counted', async () => (await sidecar.metric(series)) >= 1)
      assert.equal((await sidecar.logged('access', { detail: 'idle' }))['path'], PATH)
      await reconfigure(sidecar, { inbound })
      await sidecar.admin('POST', '/reload')
    })

    it('is closed with 1001 as soon as a drain begins, once its frame is complete', async () => {
      for (const client of opened) client.stream.destroy()
      const idle = await open()
      const amid = await open()
      const gone = await open()
      const frame = encodeFrame(OPCODE.binary, randomBytes(1_000), false)
      amid.there.stream.write(frame.subarray(0, 500))
      await eventually('the part has come', () => amid.client.rest === 500)
      gone.there.sendClose(1000)
      await eventually('the close of the workload', () => gone.client.closeCode === 1000)
      sidecar.signal('SIGTERM')
      await eventually('told', () => idle.client.closeCode === 1001)
      assert.equal(amid.client.closeCode, undefined)
      amid.there.stream.write(
        Buffer.concat([frame.subarray(500), encodeFrame(OPCODE.text, Buffer.from('late'), false)]),
      )
      await eventually('told after the frame', () => amid.client.closeCode === 1001)
      assert.deepEqual(
        amid.client.frames.map(({ payload }) => payload.length),
        [1_000, 2],
      )
      assert.equal(gone.client.frames.length, 1)
      for (const { client, there } of [idle, amid]) {
        client.sendClose(1001)
        await eventually('the workload has an ordinary end', () => there.closeCode === 1001)
        await eventually('the end', () => client.ended)
        client.stream.end()
      }
      gone.client.stream.end()
      assert.equal(await sidecar.exited, 0)
    })
  })
}
