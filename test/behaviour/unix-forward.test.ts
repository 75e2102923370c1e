import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { ask, openSession } from '../support/http2.ts'
import { temporaryDirectory } from '../support/pki.ts'
import { call, startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

async function listenOn(t: Cleanup, server: net.Server): Promise<string> {
  const path = join(await temporaryDirectory(t), 'workload.sock')
  const sockets = new Set<net.Socket>()
  server.on('connection', (socket: net.Socket) => sockets.add(socket))
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return path
}

describe('a client on a UNIX socket', () => {
  const t = suiteCleanup()

  it('is served, and named as such where others have an address', async () => {
    const workload = await startWorkload(t)
    const path = join(await temporaryDirectory(t), 'postern.sock')
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { listen: `unix:${path}` }, log: { access: 'all' } },
    })
    const {
      host: _,
      port: __,
      ...options
    } = sidecar.clientOptions(await sidecar.authority.svid('web'))
    const socket = tls.connect({ ...options, path })
    t.after(() => socket.destroy())
    socket.write('GET /here HTTP/1.1\r\nhost: localhost\r\n\r\n')
    const [answer] = (await once(socket, 'data')) as [Buffer]
    assert.match(String(answer), /^HTTP\/1\.1 200 /)
    assert.equal((await sidecar.logged('access'))['remote_address'], 'unix')
  })
})

describe('a workload on a UNIX socket', () => {
  const t = suiteCleanup()
  const body = randomBytes(1_000_003)

  it('is spoken to in HTTP/1.1, from clients of both versions', async () => {
    const path = await listenOn(
      t,
      http.createServer((request, response) => request.pipe(response)),
    )
    for (const forward of [`unix:${path}`, `http+unix:${path}`]) {
      const sidecar = await startSidecar(t, { forward })
      const web = await sidecar.authority.svid('web')
      const text = body.toString('hex')
      const reply = await call(sidecar, web, { method: 'POST', body: text })
      assert.equal(sum(Buffer.from(reply.body)), sum(Buffer.from(text)))
      const session = await openSession(t, sidecar, web)
      assert.equal(sum((await ask(session, { ':method': 'POST' }, body)).body), sum(body))
    }
  })

  it('that is not there is told of by its path', async () => {
    const path = join(await temporaryDirectory(t), 'nobody.sock')
    for (const scheme of ['http', 'h2c']) {
      const sidecar = await startSidecar(t, { forward: `${scheme}+unix:${path}` })
      assert.equal((await call(sidecar, await sidecar.authority.svid('web'))).status, 502)
      const { detail } = await sidecar.logged('workload_unreachable')
      assert.equal(detail, `connect ENOENT ${path}`)
    }
  })

  it('is spoken to in HTTP/2, from clients of both versions', async () => {
    const server = http2.createServer()
    server.on('stream', (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
    })
    const path = await listenOn(t, server)
    const sidecar = await startSidecar(t, { forward: `h2c+unix:${path}` })
    const web = await sidecar.authority.svid('web')
    const text = body.toString('hex')
    const reply = await call(sidecar, web, { method: 'POST', body: text })
    assert.equal(sum(Buffer.from(reply.body)), sum(Buffer.from(text)))
    const session = await openSession(t, sidecar, web)
    assert.equal(sum((await ask(session, { ':method': 'POST' }, body)).body), sum(body))
  })

  it('is passed the bytes of a connection, and each side ends on its own', async () => {
    const path = await listenOn(
      t,
      net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)),
    )
    const sidecar = await startSidecar(t, { forward: `tcp+unix:${path}` })
    const { ALPNProtocols: _, ...options } = sidecar.clientOptions(
      await sidecar.authority.svid('web'),
    )
    const socket = tls.connect({ ...options, allowHalfOpen: true } as tls.ConnectionOptions)
    t.after(() => socket.destroy())
    const received: Buffer[] = []
    socket.on('data', (chunk: Buffer) => received.push(chunk))
    socket.end(body)
    await once(socket, 'end')
    assert.equal(sum(Buffer.concat(received)), sum(body))
  })
})
