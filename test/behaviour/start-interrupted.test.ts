// A start that is ended at any moment, or finds a port taken, leaves nothing behind: every port is free
// again, the exit code says which it was, and nothing hangs.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory, testAuthority, writeFiles } from '../support/pki.ts'
import { type Process, spawnPostern } from '../support/sidecar.ts'

const LISTENERS = ['inbound', 'metrics', 'admin', 'probes'] as const
type Ports = Record<(typeof LISTENERS)[number], number>

async function listening(port: number): Promise<net.Server> {
  const server = net.createServer().listen({ port, host: '127.0.0.1', exclusive: true })
  await once(server, 'listening')
  return server
}

async function freePorts(): Promise<Ports> {
  const servers = await Promise.all(LISTENERS.map(() => listening(0)))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return Object.fromEntries(LISTENERS.map((name, at) => [name, ports[at]])) as Ports
}

const isFree = (port: number): Promise<boolean> =>
  listening(port).then(
    (server) => once(server.close(), 'close').then(() => true),
    () => false,
  )

describe('a start', () => {
  const t = suiteCleanup()
  let directory: string
  let files: Record<'tls.crt' | 'tls.key' | 'ca.crt', string>
  let runs = 0

  before(async () => {
    directory = await temporaryDirectory(t)
    const authority = await testAuthority()
    const own = await authority.intermediate.issue({ dns: ['localhost'] })
    files = await writeFiles(directory, {
      'tls.crt': own.chainPem,
      'tls.key': own.privateKeyPem,
      'ca.crt': authority.root.certificatePem,
    })
  })

  async function run(t: TestContext, ports: Ports): Promise<Process> {
    const address = (name: keyof Ports): string => `127.0.0.1:${ports[name]}`
    const config = join(directory, `postern-${runs++}.yaml`)
    await writeFile(
      config,
      stringify({
        inbound: { listen: address('inbound'), forward: 'http://127.0.0.1:9' },
        identity: { certificate: files['tls.crt'], privateKey: files['tls.key'] },
        trust: { bundles: [{ file: files['ca.crt'] }] },
        allow: [{ all: true }],
        metrics: { listen: address('metrics') },
        admin: { listen: address('admin') },
        probes: { listen: address('probes'), paths: ['/healthz'] },
        workers: 2,
      }),
    )
    return spawnPostern(t, ['run', '--config', config])
  }

  for (const taken of LISTENERS) {
    it(`that finds the port of ${taken} taken ends with 1, says so, and holds no other`, async (t) => {
      const ports = await freePorts()
      const holder = await listening(ports[taken])
      const process = await run(t, ports)
      assert.equal(await process.exited, 1)
      assert.match(process.errors(), new RegExp(`${taken}\\.listen.*${ports[taken]}`))
      assert.equal(process.errors().match(/^error: /gm)?.length, 1, process.errors())
      for (const [name, port] of Object.entries(ports)) {
        assert.equal(await isFree(port), name !== taken, name)
      }
      await once(holder.close(), 'close')
    })
  }

  it('that is ended at any moment is over at once, without an error and without a port', async (t) => {
    const unstarted = await freePorts()
    const started = performance.now()
    const whole = await run(t, unstarted)
    await eventually('a whole start', () => whole.lines.find(({ event }) => event === 'ready'))
    const takesMs = performance.now() - started
    whole.signal('SIGTERM')
    assert.equal(await whole.exited, 0)
    // Not a wait for anything: the moments at which a start is hit are what is tried here.
    for (let moment = 1; moment <= MOMENTS; moment++) {
      const ports = await freePorts()
      const process = await run(t, ports)
      await delay((takesMs * 1.2 * moment) / MOMENTS)
      process.signal('SIGTERM')
      const code = await Promise.race([process.exited, delay(20_000, 'hangs', { ref: false })])
      // Null: before Node.js had begun to run our code, nobody handled the signal.
      assert.ok(code === 0 || code === null, `${code} at moment ${moment}: ${process.errors()}`)
      assert.equal(process.errors(), '')
      for (const port of Object.values(ports)) assert.equal(await isFree(port), true)
    }
  })
})

const MOMENTS = 6
