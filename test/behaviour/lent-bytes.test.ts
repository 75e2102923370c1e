// What clients send is read into memory that all connections of a thread share, one read after the
// other. Whatever waits and whoever is slow: the bytes of one client are never seen by another.
import assert from 'node:assert/strict'
import { createCipheriv, createHash } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { openClient, post } from '../support/http1.ts'
import { openSession, startH2cWorkload } from '../support/http2.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { type Randomness, randomness, SEED } from '../support/randomness.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const CLIENTS = 12
const MOST_BYTES = 700_000

/** What no other client sends. */
function bodyOf(client: number, length: number): Buffer {
  const cipher = createCipheriv(
    'aes-128-ctr',
    Buffer.alloc(16, client),
    Buffer.alloc(16, SEED % 251),
  )
  return cipher.update(Buffer.alloc(length))
}

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** Stops to read now and then, for a turn or for some milliseconds. */
function readSlowly(stream: Readable, random: Randomness): void {
  stream.on('data', () => {
    if (!random.chance(0.2)) return
    stream.pause()
    const goOn = (): void => void stream.resume()
    if (random.chance(0.5)) setImmediate(goOn)
    else setTimeout(goOn, random.below(20))
  })
}

/** In pieces of a byte to several records, with breaks. */
async function send(stream: Writable, body: Buffer, random: Randomness): Promise<void> {
  for (let at = 0; at < body.length; ) {
    const most = [20, 3_000, 20_000, 150_000][random.below(4)] ?? 1
    const to = Math.min(body.length, at + 1 + random.below(most))
    const room = stream.write(body.subarray(at, to))
    at = to
    if (!room) await once(stream, 'drain')
    else if (random.chance(0.1))
      await new Promise((resolve) => setTimeout(resolve, random.below(5)))
  }
  stream.end()
}

async function received(stream: Readable, random: Randomness): Promise<Buffer> {
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  readSlowly(stream, random)
  await once(stream, 'end')
  return Buffer.concat(chunks)
}

/** Sends back what comes, at its own pace. */
function startEcho(t: Cleanup): Promise<string> {
  const random = randomness(SEED)
  return startHttp(t, (request, response) => {
    readSlowly(request, randomness(random.below(2 ** 31)))
    request.pipe(response)
  })
}

/** Sends it back when all of it has come: an answer that outruns its request is the last of a connection. */
function startLateEcho(t: Cleanup): Promise<string> {
  const random = randomness(SEED)
  return startHttp(t, (request, response) => {
    received(request, randomness(random.below(2 ** 31))).then(
      (body) => response.end(body),
      () => response.destroy(),
    )
  })
}

async function startHttp(t: Cleanup, answer: http.RequestListener): Promise<string> {
  const server = http.createServer((request, response) => {
    response.on('error', () => {})
    answer(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function startTcpEcho(t: Cleanup): Promise<string> {
  const random = randomness(SEED)
  const sockets: net.Socket[] = []
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    readSlowly(socket, randomness(random.below(2 ** 31)))
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`
}

type Echo = (
  t: Cleanup,
  sidecar: TestSidecar,
  client: IssuedCertificate,
  body: Buffer,
  random: Randomness,
) => Promise<Buffer>

const overHttp1: Echo = async (_t, sidecar, client, body, random) => {
  const chunked = random.chance(0.5)
  const request = https.request({
    ...(sidecar.clientOptions(client) as https.RequestOptions),
    method: 'POST',
    path: '/echo',
    headers: { host: 'localhost', ...(chunked ? {} : { 'content-length': body.length }) },
    agent: false,
  })
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>
  const sent = send(request, body, random)
  const [response] = await answered
  assert.equal(response.statusCode, 200)
  const [echo] = await Promise.all([received(response, random), sent])
  return echo
}

/** Parts of it in requests that do not wait for each other, with the end of one next to the begin of another. */
const overOneConnection: Echo = async (t, sidecar, client, body, random) => {
  const { socket, answer } = await openClient(t, sidecar, client)
  const requests: Buffer[] = []
  for (let at = 0; at < body.length; ) {
    const most = [20, 1_000, 6_000, 40_000][random.below(4)] ?? 1
    const part = body.subarray(at, Math.min(body.length, at + 1 + random.below(most)))
    requests.push(
      Buffer.from(post('/echo', '', '').replace(/length: 0/, `length: ${part.length}`)),
      part,
    )
    at += part.length
  }
  const sent = (async () => {
    const bytes = Buffer.concat(requests)
    for (let at = 0; at < bytes.length; ) {
      const to = Math.min(
        bytes.length,
        at + 1 + random.below([20, 3_000, 60_000][random.below(3)] ?? 1),
      )
      if (!socket.write(bytes.subarray(at, to))) await once(socket, 'drain')
      at = to
    }
  })()
  const echoes: Buffer[] = []
  for (let i = 0; i < requests.length; i += 2) echoes.push((await answer()).body)
  await sent
  return Buffer.concat(echoes)
}

const overTcp: Echo = async (t, sidecar, client, body, random) => {
  const { ALPNProtocols: _, ...options } = sidecar.clientOptions(client)
  const halfOpen: tls.ConnectionOptions & { allowHalfOpen: boolean } = {
    ...options,
    allowHalfOpen: true,
  }
  const socket = tls.connect(halfOpen)
  socket.on('error', () => {})
  t.after(() => socket.destroy())
  await once(socket, 'secureConnect')
  const [echo] = await Promise.all([received(socket, random), send(socket, body, random)])
  return echo
}

/** Several streams on a connection. */
const overHttp2: Echo = async (t, sidecar, client, body, random) => {
  const session = await openSession(t, sidecar, client)
  const part = Math.ceil(body.length / 3)
  const echoes = [0, 1, 2].map(async (i) => {
    const stream: Duplex = session.request({ ':method': 'POST', ':path': '/echo' })
    const own = randomness(random.below(2 ** 31))
    const sent = send(stream, body.subarray(i * part, (i + 1) * part), own)
    const [echo] = await Promise.all([received(stream, own), sent])
    return echo
  })
  const whole = Buffer.concat(await Promise.all(echoes))
  session.close()
  return whole
}

const WAYS: Readonly<Record<string, { echo: Echo; start: (t: Cleanup) => Promise<string> }>> = {
  'HTTP/1.1': { echo: overHttp1, start: startEcho },
  'HTTP/1.1, requests in line': { echo: overOneConnection, start: startLateEcho },
  'HTTP/2': { echo: overHttp2, start: startEcho },
  'HTTP/2 to h2c': { echo: overHttp2, start: async (t) => (await startH2cWorkload(t)).url },
  TCP: { echo: overTcp, start: startTcpEcho },
}

/** Takes away what node:tls has inside for it, in every thread. */
const WITHOUT = `--import data:text/javascript,${encodeURIComponent(`
  import tls from 'node:tls'
  const handle = new tls.TLSSocket()._handle
  Object.getPrototypeOf(handle).useUserBuffer = undefined
`)}`

/** Overwrites what was read as soon as it was looked at, whoever reads next. */
const OVERWRITTEN = `--import data:text/javascript,${encodeURIComponent(`
  import tls from 'node:tls'
  const { emit } = tls.TLSSocket.prototype
  tls.TLSSocket.prototype.emit = function (event, ...values) {
    const heard = emit.call(this, event, ...values)
    if (event === 'data') values[0].fill(255)
    return heard
  }
`)}`

for (const [how, env] of [
  ['lent', {}],
  ['lent and overwritten', { NODE_OPTIONS: OVERWRITTEN }],
  ['read into new memory', { NODE_OPTIONS: WITHOUT }],
] as const) {
  describe(`bytes of clients that are ${how}`, () => {
    for (const [name, { echo, start }] of Object.entries(WAYS)) {
      describe(name, () => {
        let sidecar: TestSidecar
        let web: IssuedCertificate
        const t = suiteCleanup()
        before(async () => {
          sidecar = await startSidecar(t, { forward: await start(t), env })
          web = await sidecar.authority.svid('web')
        })

        it('come back to the client that sent them, all of them and in order', async (test) => {
          test.diagnostic(`seed ${SEED}`)
          const random = randomness(SEED)
          // The second time nobody is read in the way of the first milliseconds.
          for (let round = 0; round < 2; round++) {
            const clients = Array.from({ length: CLIENTS }, async (_, i) => {
              const own = randomness(random.below(2 ** 31))
              const body = bodyOf(round * CLIENTS + i, 1 + own.below(MOST_BYTES))
              const came = await echo(t, sidecar, web, body, own)
              assert.equal(came.length, body.length, `client ${i}, seed ${SEED}`)
              assert.equal(sum(came), sum(body), `client ${i}, seed ${SEED}`)
            })
            await Promise.all(clients)
          }
        })

        it('are read so', async () => {
          if (how !== 'read into new memory') {
            assert.ok(!sidecar.lines.some(({ event }) => event === 'slow_reads'))
          } else {
            const { level, detail } = await sidecar.logged('slow_reads')
            assert.equal(level, 'warn')
            assert.match(String(detail), /memory of its own/)
          }
        })
      })
    }
  })
}
