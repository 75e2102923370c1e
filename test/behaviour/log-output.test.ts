// Nobody reads the log, or its disk is full: requests are served as ever, what does not fit is counted,
// memory is bounded, and the log goes on when somebody reads again or there is room.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { stringify } from 'yaml'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory, testAuthority, writeFiles } from '../support/pki.ts'
import { inNamespaces } from '../support/privileges.ts'
import { rssMibOf } from '../support/process-state.ts'
import { call, spawnPostern, startSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

/** Longer lines, so that fewer requests fill what may wait. */
const PATH = `/api/orders?${'x'.repeat(6_000)}`
/** 16 MiB may wait (UTF-16), and what is in flight around it. */
const MOST_GROWTH_MIB = 64
const DROPPED = 'postern_log_records_dropped_total{kind="access"}'
const LOST_DECISIONS = 'postern_decision_log_deliveries_total{sink="console",result="failed"}'
const delivered = (result: string): string =>
  `postern_decision_log_deliveries_total{sink="file",result="${result}"}`

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

describe('a log that nobody reads', () => {
  const t = suiteCleanup()

  it('holds up no request, is bounded in memory and goes on when it is read again', async () => {
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { log: { access: 'all', decisions: 'all' } },
    })
    const web = await sidecar.authority.svid('web')
    const clients = Array.from(
      { length: 4 },
      () => new SteadyClient(t, sidecar, web, { path: PATH }),
    )
    // Warm: what is measured is what waits.
    for (const client of clients) await client.served(200)
    const before = await rssMibOf(sidecar.pid)
    sidecar.stopReading()
    await eventually('lines are dropped', async () => (await sidecar.metric(DROPPED)) > 0)
    for (const client of clients) await client.served(50)
    if (process.platform === 'linux') {
      const grown = (await rssMibOf(sidecar.pid)) - before
      assert.ok(grown < MOST_GROWTH_MIB, `grew by ${grown} MiB`)
    }
    for (const client of clients) await client.unharmed()

    sidecar.readOn()
    const requestId = crypto.randomUUID()
    await eventually('new requests are in the log', async () => {
      await call(sidecar, web, { headers: { 'x-request-id': requestId } })
      return sidecar.lines.some(
        ({ event, request_id }) => event === 'access' && request_id === requestId,
      )
    })
  })

  it('keeps no process from its end', async () => {
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { log: { access: 'all', decisions: 'all' } },
    })
    const web = await sidecar.authority.svid('web')
    sidecar.stopReading()
    const client = new SteadyClient(t, sidecar, web, { path: PATH })
    await client.served(50)
    await client.unharmed()
    sidecar.signal('SIGTERM')
    await eventually('nobody listens any more', () =>
      call(sidecar, web).then(
        () => false,
        ({ code }) => code === 'ECONNREFUSED',
      ),
    )
    await eventually('the process has ended', () => {
      try {
        return process.kill(sidecar.pid, 0) && undefined
      } catch {
        return true
      }
    })
    sidecar.readOn()
    assert.equal(await sidecar.exited, 0)
  })
})

const metricOf = async (port: number, series: string): Promise<number> => {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${series} `))
      ?.split(' ')[1],
  )
}

describe('a log that cannot be written', { skip: process.platform !== 'linux' }, () => {
  const t = suiteCleanup()

  for (const [what, command] of [
    ['because its disk is full', 'exec "$@" >/dev/full'],
    ['because its reader has gone', 'exec "$@" > >(head -n 1)'],
  ] as const) {
    it(`costs nothing but the log, and is counted: ${what}`, async () => {
      const authority = await testAuthority()
      const directory = await temporaryDirectory(t)
      const own = await authority.intermediate.issue({ dns: ['localhost'] })
      const files = await writeFiles(directory, {
        'tls.crt': own.chainPem,
        'tls.key': own.privateKeyPem,
        'ca.crt': authority.root.certificatePem,
      })
      const [port, metrics] = [await freePort(), await freePort()]
      const config = join(directory, 'postern.yaml')
      await writeFile(
        config,
        stringify({
          inbound: { listen: `127.0.0.1:${port}`, forward: (await startWorkload(t)).url },
          identity: { certificate: files['tls.crt'], privateKey: files['tls.key'] },
          trust: { bundles: [{ file: files['ca.crt'] }] },
          allow: [{ all: true }],
          admin: { listen: '127.0.0.1:0' },
          metrics: { listen: `127.0.0.1:${metrics}` },
          log: { access: 'all' },
        }),
      )
      const launcher = ['bash', '-c', command, 'bash']
      const postern = spawnPostern(t, ['run', '--config', config], {}, launcher)
      await eventually('it is ready', () =>
        fetch(`http://127.0.0.1:${metrics}/readyz`).then(
          ({ status }) => status === 200,
          () => false,
        ),
      )
      const web = await authority.svid('web')
      const agent = new https.Agent({ keepAlive: true })
      t.after(() => agent.destroy())
      const ask = (): Promise<number | undefined> =>
        new Promise((resolve, reject) => {
          const options = { host: '127.0.0.1', port, servername: 'localhost', agent }
          const trust = {
            ca: authority.root.certificatePem,
            cert: web.chainPem,
            key: web.privateKeyPem,
          }
          https
            .get({ ...options, ...trust }, (response) => {
              response.resume().on('end', () => resolve(response.statusCode))
            })
            .on('error', reject)
        })
      for (let i = 0; i < 100; i++) assert.equal(await ask(), 200)
      agent.destroy()
      // The reader may have taken some of them with its one line.
      await eventually(
        'access records are counted',
        async () => (await metricOf(metrics, DROPPED)) > 90,
      )
      await eventually('decisions are counted', async () => {
        return (await metricOf(metrics, LOST_DECISIONS)) > 90
      })
      postern.signal('SIGTERM')
      assert.equal(await postern.exited, 0)
      assert.equal(postern.errors(), '')
    })
  }

  const disk = inNamespaces(
    'mount -t tmpfs -o size=512k none /mnt && head -c 400000 /dev/zero >/mnt/filler',
  )
  const skip = disk === undefined && 'no namespaces of its own here'
  it('that is a file on a full disk is counted as lost, and is written again when there is room', {
    skip,
  }, async () => {
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { log: { decisionFile: '/mnt/decisions.ndjson' } },
      ...(disk && { launcher: disk }),
    })
    const web = await sidecar.authority.svid('web')
    const mount = `/proc/${sidecar.pid}/root/mnt`
    const client = new SteadyClient(t, sidecar, web)
    await eventually(
      'the disk is full',
      async () => (await sidecar.metric(delivered('failed'))) > 5,
    )
    await client.served(20)
    const written = await sidecar.metric(delivered('written'))
    await rm(join(mount, 'filler'))
    await eventually('it is written again', async () => {
      return (await sidecar.metric(delivered('written'))) > written + 10
    })
    await client.unharmed()
    const lines = (await readFile(join(mount, 'decisions.ndjson'), 'utf8')).trimEnd().split('\n')
    const whole = lines.filter((line) => line.startsWith('{') && line.endsWith('}'))
    for (const line of whole) JSON.parse(line)
    // The one that the disk had no room for in its middle, and no good one with it.
    assert.ok(lines.length - whole.length <= 1, `${lines.length - whole.length} are torn`)
    await eventually('all that were written are there', async () => {
      return whole.length >= written + 10
    })
  })
})

describe('a decision file that is rotated away', () => {
  const t = suiteCleanup()

  it('is opened anew on SIGHUP, again and again, and no decision is lost', async () => {
    const file = join(await temporaryDirectory(t), 'decisions.ndjson')
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { log: { decisionFile: file } },
    })
    const web = await sidecar.authority.svid('web')
    const client = new SteadyClient(t, sidecar, web, { pauseMs: 1 })
    for (let rotation = 1; rotation <= 5; rotation++) {
      await client.served(5)
      await rename(file, `${file}.${rotation}`)
      sidecar.signal('SIGHUP')
      await eventually('it is there again', () => existsSync(file))
    }
    await client.unharmed()
    const { requests } = client
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
    const files = [file, ...[1, 2, 3, 4, 5].map((rotation) => `${file}.${rotation}`)]
    const texts = await Promise.all(files.map((one) => readFile(one, 'utf8')))
    const ids = texts.flatMap((text) =>
      text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line).decision_id),
    )
    assert.equal(new Set(ids).size, requests)
    assert.equal(ids.length, requests)
  })
})
