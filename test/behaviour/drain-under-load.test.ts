// A drain finds transfers in the middle: uploads, downloads, HTTP/2 streams, bytes of TCP. All of them
// come to their end with the same checksum, and meanwhile certificates rotate and whoever is revoked is
// cut. (WebSockets, which have no end to wait for, are told to leave: websocket.test.ts.)
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import type http2 from 'node:http2'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openSession, replyOf } from '../support/http2.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const PIECE = randomBytes(64 * 1024)
const PIECES = 48
const WHOLE = createHash('sha256')
  .update(Buffer.concat(Array.from({ length: PIECES }, () => PIECE)))
  .digest('hex')
const OF_EACH = 4

/** Lets half of every transfer through, and the other half when it is opened. */
class Gate {
  readonly #open = Promise.withResolvers<void>()
  waiting = 0

  open(): void {
    this.#open.resolve()
  }

  async pass(): Promise<void> {
    this.waiting++
    await this.#open.promise
  }
}

async function* pieces(gate: Gate): AsyncGenerator<Buffer> {
  for (let sent = 0; sent < PIECES; sent++) {
    if (sent === PIECES / 2) await gate.pass()
    yield PIECE
  }
}

const digestOf = async (stream: AsyncIterable<Buffer>): Promise<string> => {
  const hash = createHash('sha256')
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}

/** GET answers with the pieces, anything else with the checksum of what came. */
async function startTransferWorkload(t: Cleanup, gate: Gate): Promise<string> {
  const server = http.createServer(async (request, response) => {
    request.on('error', () => {})
    response.on('error', () => {})
    if (request.method === 'GET') {
      await pipeline(Readable.from(pieces(gate)), response).catch(() => {})
    } else response.end(await digestOf(request).catch(() => 'broken'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function transfer(
  sidecar: TestSidecar,
  client: IssuedCertificate,
  method: 'GET' | 'PUT',
  gate: Gate,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = https.request(
      {
        ...(sidecar.clientOptions(client) as https.RequestOptions),
        method,
        path: '/transfer',
        headers: { host: 'localhost' },
        agent: false,
      },
      (response) => {
        if (method === 'GET') digestOf(response).then(resolve, reject)
        else response.toArray().then((parts) => resolve(Buffer.concat(parts).toString()), reject)
      },
    )
    request.on('error', reject)
    if (method === 'GET') request.end()
    else Readable.from(pieces(gate)).pipe(request)
  })
}

async function stream(
  session: http2.ClientHttp2Session,
  method: 'GET' | 'PUT',
  gate: Gate,
): Promise<string> {
  const one = session.request({ ':path': '/transfer', ':method': method })
  if (method === 'GET') one.end()
  else Readable.from(pieces(gate)).pipe(one)
  const { body, resetCode } = await replyOf(one)
  assert.equal(resetCode, 0)
  return method === 'GET' ? createHash('sha256').update(body).digest('hex') : body.toString()
}

async function rotateCertificate(sidecar: TestSidecar): Promise<string> {
  const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
  await writeFile(sidecar.files.privateKey, own.privateKeyPem)
  await writeFile(sidecar.files.certificate, own.chainPem)
  return own.serial
}

describe('a drain with transfers under way', () => {
  const t = suiteCleanup()

  it('lets every one of them end whole, goes on to rotate, and cuts whoever is revoked', async () => {
    const gate = new Gate()
    const denyList = join(await temporaryDirectory(t), 'revoked.yaml')
    await writeFile(denyList, '[]\n')
    const sidecar = await startSidecar(t, {
      forward: await startTransferWorkload(t, gate),
      config: { trust: { revoked: denyList } },
    })
    const web = await sidecar.authority.svid('web')
    const session = await openSession(t, sidecar, web)
    const transfers = Array.from({ length: OF_EACH }, () => [
      transfer(sidecar, web, 'GET', gate),
      transfer(sidecar, web, 'PUT', gate),
      stream(session, 'GET', gate),
      stream(session, 'PUT', gate),
    ]).flat()
    const revoked = transfer(sidecar, await sidecar.authority.svid('bad'), 'GET', gate)
    revoked.catch(() => {})
    await eventually('all are in the middle', () => gate.waiting === transfers.length + 1)

    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    const serial = await rotateCertificate(sidecar)
    const report = await sidecar.admin('POST', '/reload')
    assert.equal(report.status, 200, report.body)
    assert.equal(JSON.parse((await sidecar.admin('GET', '/snapshot')).body).identity.serial, serial)
    await writeFile(denyList, '- spiffeId: spiffe://example.org/ns/default/sa/bad\n')
    await assert.rejects(revoked)

    gate.open()
    for (const digest of await Promise.all(transfers)) assert.equal(digest, WHOLE)
    assert.equal(await sidecar.exited, 0)
    const exit = sidecar.lines.find(({ event }) => event === 'exit')
    assert.equal(exit?.['connections_left'], 0)
  })

  it('of TCP lets bytes both ways come to their end', async () => {
    const gate = new Gate()
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {})
      socket.pipe(socket)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => server.close())
    const { port } = server.address() as AddressInfo
    const sidecar = await startSidecar(t, { forward: `tcp://127.0.0.1:${port}` })
    const web = await sidecar.authority.svid('web')
    const transfers = Array.from({ length: OF_EACH }, async () => {
      const { ALPNProtocols: _, ...options } = sidecar.clientOptions(web)
      const socket = tls.connect({ ...options, allowHalfOpen: true } as tls.ConnectionOptions)
      t.after(() => socket.destroy())
      await once(socket, 'secureConnect')
      const digest = digestOf(socket)
      Readable.from(pieces(gate)).pipe(socket)
      return digest
    })
    await eventually('all are in the middle', () => gate.waiting === transfers.length)
    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    await eventually('nobody new is let in', async () => {
      const late = net.connect(sidecar.port, '127.0.0.1')
      t.after(() => late.destroy())
      return once(late, 'connect').then(
        () => late.destroy() && false,
        ({ code }) => code === 'ECONNREFUSED',
      )
    })
    gate.open()
    for (const digest of await Promise.all(transfers)) assert.equal(digest, WHOLE)
    assert.equal(await sidecar.exited, 0)
  })

  it('ends with 1 and says how many it cut when they do not end in time', async () => {
    const gate = new Gate()
    const sidecar = await startSidecar(t, {
      forward: await startTransferWorkload(t, gate),
      config: { drain: { timeout: '500ms' } },
    })
    const web = await sidecar.authority.svid('web')
    const transfers = Array.from({ length: OF_EACH }, () => transfer(sidecar, web, 'PUT', gate))
    const outcomes = Promise.allSettled(transfers)
    await eventually('all are in the middle', () => gate.waiting === transfers.length)
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 1)
    const exit = sidecar.lines.find(({ event }) => event === 'exit')
    assert.equal(exit?.['connections_left'], OF_EACH)
    // Told that there is no answer, where the end of the process leaves them the time to read it.
    for (const one of await outcomes) {
      if (one.status === 'fulfilled') assert.equal(JSON.parse(one.value).error, 'draining')
    }
    gate.open()
  })
})
