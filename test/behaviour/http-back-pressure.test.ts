import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'

const MIB = 1024 * 1024
/** Small enough to arrive in one read. */
const PAGE = 16 * 1024
const BLOCK = randomBytes(MIB)
/** What a body that waits may cost, with kernel buffers left out and garbage collection left in. */
const MOST_GROWTH_MIB = 48

describe('a body that is longer than memory', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let reading = Promise.resolve()
  let sentMib = 0
  const t = suiteCleanup()
  before(async () => {
    // One request a connection: GET /N answers with N MiB; POST answers with the checksum of what came.
    const workload = net.createServer((socket) => {
      socket.on('error', () => {})
      t.after(() => socket.destroy())
      socket.once('data', async (first: Buffer) => {
        const headEnd = first.indexOf('\r\n\r\n') + 4
        const line = first.toString('latin1', 0, headEnd)
        const mib = Number(/^GET \/(\d+) /.exec(line)?.[1])
        if (line.startsWith('GET /page')) {
          const page = `HTTP/1.1 200 OK\r\ncontent-length: ${PAGE}\r\n\r\n${'p'.repeat(PAGE)}`
          socket.write(page)
          socket.on('data', () => void socket.write(page))
          return
        }
        if (!Number.isNaN(mib)) {
          const framing = `content-length: ${mib * MIB}\r\n`
          socket.write(`HTTP/1.1 200 OK\r\nconnection: close\r\n${framing}\r\n`)
          for (sentMib = 0; sentMib < mib; sentMib++) {
            if (!socket.write(BLOCK)) await once(socket, 'drain').catch(() => {})
          }
          return
        }
        const length = Number(/content-length: (\d+)/.exec(line)?.[1])
        const hash = createHash('sha256')
        let received = 0
        const take = (chunk: Buffer): void => {
          hash.update(chunk)
          received += chunk.length
          if (received === length) {
            socket.write(
              `HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 64\r\n\r\n${hash.digest('hex')}`,
            )
          }
        }
        take(first.subarray(headEnd))
        socket.pause()
        await reading
        socket.on('data', take)
        socket.resume()
      })
    })
    await new Promise<void>((resolve) => workload.listen(0, '127.0.0.1', resolve))
    t.after(() => workload.close())
    const { port } = workload.address() as AddressInfo
    sidecar = await startSidecar(t, { forward: `http://127.0.0.1:${port}` })
    web = await sidecar.authority.svid('web')
  })

  /** A client that counts what it gets and keeps the beginning and the end of it. */
  const openCounting = async () => {
    const socket = tls.connect(sidecar.clientOptions(web) as tls.ConnectionOptions)
    t.after(() => socket.destroy())
    await once(socket, 'secureConnect')
    const { promise: accepted, resolve: accept } = Promise.withResolvers<void>()
    socket.once('session', accept)
    await accepted // only then has the server read the end of the handshake
    const client = { socket, bytesRead: 0, head: '', tail: '', ended: once(socket, 'end') }
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      client.bytesRead += chunk.length
      if (client.head.length < 1_000) client.head += chunk.toString('latin1', 0, 1_000)
      client.tail = (client.tail + chunk.toString('latin1', Math.max(0, chunk.length - 100))).slice(
        -100,
      )
    })
    return client
  }

  const rssMib = async (): Promise<number> => {
    const status = await readFile(`/proc/${sidecar.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
  }

  /** Waits until a number has stopped to change, and gives it. */
  const settled = (what: string, value: () => number): Promise<number> => {
    let last = -1
    let same = 0
    return eventually(what, async () => {
      same = value() === last ? same + 1 : 0
      last = value()
      return same >= 30 ? last : undefined
    })
  }

  it('arrives whole from the workload', async () => {
    const expected = createHash('sha256')
    const received = createHash('sha256')
    await new Promise<void>((resolve, reject) => {
      const request = https.get(
        {
          ...(sidecar.clientOptions(web) as https.RequestOptions),
          path: '/256',
          headers: { host: 'localhost' },
          agent: false,
        },
        (response) => {
          response.on('data', (chunk: Buffer) => received.update(chunk))
          response.on('end', resolve)
          response.on('error', reject)
        },
      )
      request.on('error', reject)
    })
    for (let i = 0; i < 256; i++) expected.update(BLOCK)
    assert.equal(received.digest('hex'), expected.digest('hex'))
  })

  it('arrives whole at the workload', async () => {
    const expected = createHash('sha256')
    const client = await openCounting()
    client.socket.write(`PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${256 * MIB}\r\n\r\n`)
    for (let i = 0; i < 256; i++) {
      expected.update(BLOCK)
      if (!client.socket.write(BLOCK)) await once(client.socket, 'drain')
    }
    const digest = expected.digest('hex')
    await eventually('the answer', () => client.tail.endsWith(digest))
    client.socket.destroy()
  })

  it('waits in the workload while the client does not read', async () => {
    const client = await openCounting()
    const before = await rssMib()
    client.socket.pause()
    client.socket.write(get('/300'))
    await eventually('the workload has begun', () => sentMib > 0)
    const sent = await settled('the workload has to wait', () => sentMib)
    assert.ok(sent < 100, `the workload got rid of ${sent} MiB`)
    const grown = (await rssMib()) - before
    assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
    client.socket.resume()
    await eventually('it all comes in the end', () => client.bytesRead > 300 * MIB)
    client.socket.destroy()
  })

  it('waits in the client while the workload does not read', async () => {
    let goOn = (): void => {}
    reading = new Promise((resolve) => {
      goOn = resolve
    })
    const before = await rssMib()
    const client = await openCounting()
    client.socket.write(
      `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${200 * MIB}\r\n\r\n`,
    )
    let sent = 0
    const sending = (async () => {
      for (sent = 0; sent < 200; sent++) {
        if (!client.socket.write(BLOCK)) await once(client.socket, 'drain')
      }
    })()
    await eventually('the client has begun', () => sent > 0)
    const stuck = await settled('the client has to wait', () => sent)
    assert.ok(stuck < 100, `the client got rid of ${stuck} MiB`)
    const grown = (await rssMib()) - before
    assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
    goOn()
    await sending
    const expected = createHash('sha256')
    for (let i = 0; i < 200; i++) expected.update(BLOCK)
    const digest = expected.digest('hex')
    await eventually('the answer', () => client.tail.endsWith(digest))
    client.socket.destroy()
  })

  it('reaches a slow client whole although the connection ends with it', async () => {
    const client = await openCounting()
    client.socket.pause()
    client.socket.write(get('/20', 'connection: close\r\n'))
    await eventually('the workload has begun', () => sentMib > 0)
    await settled('the workload has to wait', () => sentMib)
    client.socket.resume()
    await client.ended
    const head = client.head.slice(0, client.head.indexOf('\r\n\r\n') + 4)
    assert.match(head, /connection: close/)
    assert.equal(client.bytesRead - head.length, 20 * MIB)
  })

  it('stops pipelined requests whose answers nobody reads', async () => {
    const client = await openCounting()
    const before = await rssMib()
    client.socket.pause()
    const requests = 12_000 // 187 MiB of answers
    const series = 'postern_requests_total{protocol="http/1.1",outcome="allow",status_class="2xx"}'
    const begun = await sidecar.metric(series)
    client.socket.write(get('/page').repeat(requests))
    let answered = 0
    let same = 0
    await eventually('the answers have stopped', async () => {
      const now = (await sidecar.metric(series)) - begun
      same = now === answered && now > 0 ? same + 1 : 0
      answered = now
      return same >= 20 || now > 6_000
    })
    assert.ok(answered < 3_000, `${answered} requests were answered to nobody`)
    const grown = (await rssMib()) - before
    assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
    client.socket.resume()
    await eventually('they all come in the end', () => client.bytesRead > requests * PAGE)
    client.socket.destroy()
  })

  it('leaves the sidecar as it was', async () => {
    assert.equal((await call(sidecar, web, { path: '/1' })).status, 200)
    await eventually(
      'all closed',
      async () => (await sidecar.metric('postern_connections_open')) === 0,
    )
  })
})
