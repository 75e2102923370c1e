// From start to exit: nothing half-starts, nothing is cut that may finish, and the exit code says
// how it ended.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate, TestAuthority } from '../support/pki.ts'
import { temporaryDirectory, testAuthority, writeFiles } from '../support/pki.ts'
import {
  call,
  connectRaw,
  type LogLine,
  type Process,
  spawnPostern,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const REQUEST = 'GET /api/orders HTTP/1.1\r\nHost: localhost\r\n\r\n'

/** A workload that answers when the test says so. */
async function startHeldWorkload(t: TestContext) {
  const gate = Promise.withResolvers<void>()
  const workload = await startWorkload(t, async (_, response) => {
    await gate.promise
    response.end('held')
  })
  return { workload, release: gate.resolve }
}

async function holdPort(t: TestContext): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  return (server.address() as AddressInfo).port
}

/** Whether anybody could listen on this port now. */
async function isFree(port: number): Promise<boolean> {
  const server = net.createServer().listen({ port, host: '127.0.0.1', exclusive: true })
  const outcome = await once(server, 'listening').then(
    () => true,
    () => false,
  )
  server.close()
  return outcome
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

const eventOf = (process: Process, event: string): LogLine | undefined =>
  process.lines.find((line) => line.event === event)

describe('the start', () => {
  const t = suiteCleanup()
  let flags: readonly string[]
  let authority: TestAuthority
  let directory: string

  before(async () => {
    directory = await temporaryDirectory(t)
    authority = await testAuthority()
    const own = await authority.intermediate.issue({ dns: ['localhost'] })
    const files = await writeFiles(directory, {
      'tls.crt': own.chainPem,
      'tls.key': own.privateKeyPem,
      'ca.crt': authority.root.certificatePem,
    })
    const { 'tls.crt': cert, 'tls.key': key, 'ca.crt': ca } = files
    flags = ['run', '--cert', cert, '--key', key, '--ca', ca, '--allow-all']
    flags = [...flags, '--forward', 'http://127.0.0.1:9']
  })

  function run(t: TestContext, ports: Record<'listen' | 'metrics' | 'admin', number>): Process {
    const addresses = Object.entries(ports).flatMap(([name, port]) => [
      `--${name}`,
      `127.0.0.1:${port}`,
    ])
    return spawnPostern(t, [...flags, ...addresses])
  }

  for (const taken of ['listen', 'metrics', 'admin'] as const) {
    it(`ends with 1 and one error when the port of --${taken} is taken, and holds no other`, async (t) => {
      const ports = { listen: await freePort(), metrics: await freePort(), admin: await freePort() }
      ports[taken] = await holdPort(t)
      const process = run(t, ports)
      assert.equal(await process.exited, 1)
      assert.equal(process.errors().match(/^error: /gm)?.length, 1, process.errors())
      assert.match(process.errors(), new RegExp(`${taken}\\.?.*${ports[taken]}`))
      assert.doesNotMatch(process.errors(), /\n\s+at /)
      assert.equal(eventOf(process, 'ready'), undefined)
      for (const [name, port] of Object.entries(ports)) {
        assert.equal(await isFree(port), name !== taken, name)
      }
    })
  }

  it('is refused while another Postern holds the port, which goes on alone', async (t) => {
    const port = await freePort()
    const first = run(t, { listen: port, metrics: 0, admin: 0 })
    await eventually('the first is ready', () => eventOf(first, 'ready'))
    const second = run(t, { listen: port, metrics: 0, admin: 0 })
    assert.equal(await second.exited, 1)
    assert.match(second.errors(), /inbound\.listen.*EADDRINUSE/)
    assert.equal(eventOf(first, 'exit'), undefined)
  })

  it('loads before it binds: bad files end with 2 although the port is taken, too', async (t) => {
    const listen = await holdPort(t)
    const process = spawnPostern(t, [
      ...flags,
      '--listen',
      `127.0.0.1:${listen}`,
      '--ca',
      join(directory, 'nope'),
    ])
    assert.equal(await process.exited, 2)
    assert.match(process.errors(), /nope does not exist/)
  })

  it('is cut short by SIGTERM without a trace', async (t) => {
    const ports = { listen: await freePort(), metrics: await freePort(), admin: await freePort() }
    const process = run(t, ports)
    // The first moment that shows from outside: the metrics server stands before the data threads.
    await eventually('something listens', () =>
      fetch(`http://127.0.0.1:${ports.metrics}/startupz`).then(
        ({ status }) => status === 503 || status === 200,
        () => false,
      ),
    )
    process.signal('SIGTERM')
    assert.equal(await process.exited, 0)
    for (const port of Object.values(ports)) assert.equal(await isFree(port), true)
  })

  it('takes the UNIX socket that a killed Postern left behind, and no other', async (t) => {
    const socket = join(directory, 'inbound.sock')
    const start = async (): Promise<Process> => {
      const args = ['--listen', `unix:${socket}`, '--metrics', 'off', '--admin', 'off']
      const process = spawnPostern(t, [...flags, ...args])
      let ended = false
      void process.exited.then(() => {
        ended = true
      })
      await eventually('it is ready, or has ended', () => ended || eventOf(process, 'ready'))
      return process
    }
    const first = await start()
    assert.ok(eventOf(first, 'ready'))
    const second = await start()
    assert.equal(await second.exited, 1)
    assert.match(second.errors(), /inbound\.listen.*inbound\.sock.*in use/)
    first.signal('SIGKILL')
    await first.exited
    assert.equal(existsSync(socket), true)
    assert.ok(eventOf(await start(), 'ready'))
  })

  it('tells its state on /startupz, /livez and /readyz, and serves admin on a UNIX socket', async (t) => {
    const metrics = await freePort()
    const socket = join(directory, 'admin.sock')
    const process = spawnPostern(t, [
      ...flags,
      ...['--listen', '127.0.0.1:0', '--metrics', `127.0.0.1:${metrics}`],
      ...['--admin', `unix:${socket}`],
    ])
    await eventually('it is ready', () => eventOf(process, 'ready'))
    for (const path of ['/startupz', '/livez', '/readyz']) {
      assert.equal((await fetch(`http://127.0.0.1:${metrics}${path}`)).status, 200, path)
    }
    assert.match(await overSocket(socket, 'GET /snapshot HTTP/1.0\r\n\r\n'), /"generation":1/)
    process.signal('SIGTERM')
    assert.equal(await process.exited, 0)
    assert.equal(existsSync(socket), false)
  })
})

async function overSocket(path: string, request: string): Promise<string> {
  const socket = net.connect(path)
  socket.setEncoding('utf8').write(request)
  let text = ''
  for await (const chunk of socket) text += chunk
  return text
}

describe('the end', () => {
  const start = async (
    t: TestContext,
    workload: Workload,
    config: Record<string, unknown> = {},
  ): Promise<{ sidecar: TestSidecar; web: IssuedCertificate }> => {
    const sidecar = await startSidecar(t, { forward: workload.url, config })
    return { sidecar, web: await sidecar.authority.svid('web') }
  }

  it('comes at once on SIGTERM when nothing is open', async (t) => {
    const { sidecar } = await start(t, await startWorkload(t))
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
    assert.equal(eventOf(sidecar, 'exit')?.['connections_left'], 0)
  })

  it('lets requests in flight finish with Connection: close, and takes no new connections', async (t) => {
    const { workload, release } = await startHeldWorkload(t)
    const { sidecar, web } = await start(t, workload)
    const busy = await connectRaw(t, sidecar, web)
    busy.write(REQUEST)
    await eventually('the request is at the workload', () => workload.seen.length === 1)
    const idle = await connectRaw(t, sidecar, web)
    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    assert.equal(ready.status, 503)
    assert.deepEqual(((await ready.json()) as { not_ready: string[] }).not_ready, ['drain'])
    await eventually('no new connection is taken', () =>
      call(sidecar, web).then(
        () => false,
        ({ code }) => code === 'ECONNREFUSED',
      ),
    )
    await idle.closed
    assert.equal(idle.received(), '')
    release()
    const [head] = await busy.until(/^HTTP\/1\.1 200 [\s\S]*held/)
    assert.match(head, /\r\nconnection: close\r\n/i)
    await busy.closed
    assert.equal(await sidecar.exited, 0)
    assert.equal(workload.seen.length, 1)
  })

  it('answers 503 to a request that comes on an open connection while draining, or serves and closes', async (t) => {
    const { workload, release } = await startHeldWorkload(t)
    const { sidecar, web } = await start(t, workload)
    const busy = await connectRaw(t, sidecar, web)
    busy.write(REQUEST)
    await eventually('the request is at the workload', () => workload.seen.length === 1)
    const open = await connectRaw(t, sidecar, web)
    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    open.write(REQUEST)
    release()
    const [head] = await open.until(/^HTTP\/1\.1 (200|503) [\s\S]*?\r\n\r\n/)
    assert.match(head, /\r\nconnection: close\r\n/i)
    await open.closed
    assert.equal(await sidecar.exited, 0)
  })

  it('ends with 1 when the drain deadline passes with a request left', async (t) => {
    const { workload } = await startHeldWorkload(t)
    const { sidecar, web } = await start(t, workload, { drain: { timeout: '200ms' } })
    const client = await connectRaw(t, sidecar, web)
    client.write(REQUEST)
    await eventually('the request is at the workload', () => workload.seen.length === 1)
    sidecar.signal('SIGINT')
    assert.equal(await sidecar.exited, 1)
    const exit = eventOf(sidecar, 'exit')
    assert.deepEqual(
      [exit?.['connections_left'], exit?.['exit_code'], exit?.level],
      [1, 1, 'error'],
    )
    await client.closed
    assert.match(client.received(), /^HTTP\/1\.1 503 [\s\S]*"error":"draining"/)
  })

  it('breaks off an answer that is not over at the drain deadline, and says so in the access log', async (t) => {
    const workload = await startWorkload(t, (_, response) => response.write('the begin'))
    const config = { drain: { timeout: '200ms' }, log: { access: 'all' } }
    const { sidecar, web } = await start(t, workload, config)
    const client = await connectRaw(t, sidecar, web)
    client.write(REQUEST)
    await client.until(/the begin/)
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 1)
    await client.closed
    assert.equal(eventOf(sidecar, 'access')?.['code'], 'draining')
  })

  it('comes at once on a second signal', async (t) => {
    const { workload } = await startHeldWorkload(t)
    const { sidecar, web } = await start(t, workload, { drain: { timeout: '10m' } })
    const client = await connectRaw(t, sidecar, web)
    client.write(REQUEST)
    await eventually('the request is at the workload', () => workload.seen.length === 1)
    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 1)
    await client.closed
  })

  it('is prepared by POST /drain, which leaves the process to SIGTERM', async (t) => {
    const { sidecar, web } = await start(t, await startWorkload(t))
    assert.equal((await call(sidecar, web)).status, 200)
    assert.equal((await sidecar.admin('POST', '/drain')).status, 202)
    await eventually('it is not ready', async () => {
      const { status } = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
      return status === 503
    })
    assert.equal((await fetch(`http://127.0.0.1:${sidecar.metricsPort}/livez`)).status, 200)
    await assert.rejects(call(sidecar, web), { code: 'ECONNREFUSED' })
    assert.equal(eventOf(sidecar, 'exit'), undefined)
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })

  it('loses no line of the decision file', async (t) => {
    const file = join(await temporaryDirectory(t), 'decisions.ndjson')
    const { sidecar, web } = await start(t, await startWorkload(t), { log: { decisionFile: file } })
    for (let i = 0; i < 20; i++) assert.equal((await call(sidecar, web)).status, 200)
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
    const lines = (await readFile(file, 'utf8')).trimEnd().split('\n')
    assert.equal(lines.length, 20)
    for (const line of lines) assert.equal(JSON.parse(line).custom.outcome, 'allow')
  })
})
