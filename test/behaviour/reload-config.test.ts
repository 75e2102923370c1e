// What a reload on demand does with a changed configuration file.
import assert from 'node:assert/strict'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import https from 'node:https'
import net from 'node:net'
import { join } from 'node:path'
import { afterEach, before, beforeEach, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, spiffeId, WEB } from '../support/pki.ts'
import { reconfigure } from '../support/reconfigure.ts'
import { call, connectRaw, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

interface Report {
  readonly ok: boolean
  readonly generation: number
  readonly problems: readonly { where: string; what: string; severity?: string }[]
}

describe('a reload on demand', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let original: string
  let forward: string
  const t = suiteCleanup()
  const FAILURES = 'postern_reload_total{source="config",result="failure"}'

  before(async () => {
    forward = (await startWorkload(t)).url
    sidecar = await startSidecar(t, { forward, config: { allow: [{ uri: WEB }] } })
    web = await sidecar.authority.svid('web')
  })
  beforeEach(async () => {
    original = await readFile(sidecar.files.config, 'utf8')
  })
  afterEach(async () => {
    await writeFile(sidecar.files.config, original)
    assert.equal((await sidecar.admin('POST', '/reload')).status, 200)
  })

  async function reload(): Promise<Report & { status: number }> {
    const { status, body } = await sidecar.admin('POST', '/reload')
    return { status, ...(JSON.parse(body) as Report) }
  }

  it('brings new allow rules into force on open connections', async () => {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
    t.after(() => agent.destroy())
    assert.equal((await call(sidecar, web, { agent })).status, 200)
    const opened = await sidecar.metric('postern_connections_total')

    await reconfigure(sidecar, { allow: [{ uri: spiffeId('batch') }] })
    const report = await reload()
    assert.deepEqual([report.status, report.ok, report.problems], [200, true, []])
    await eventually(
      'the old rule has gone',
      async () => (await call(sidecar, web, { agent })).status === 403,
    )
    assert.equal(await sidecar.metric('postern_connections_total'), opened)
    assert.equal((await call(sidecar, await sidecar.authority.svid('batch'))).status, 200)
  })

  it('reads the file on SIGHUP, too', async () => {
    await reconfigure(sidecar, { allow: [{ uri: spiffeId('batch') }] })
    sidecar.signal('SIGHUP')
    await sidecar.logged('reload', { reason: 'signal', config: 'changed' })
    await eventually('the new rule holds', async () => (await call(sidecar, web)).status === 403)
  })

  it('brings limits, timeouts and the drain deadline into force', async () => {
    await reconfigure(sidecar, {
      inbound: {
        listen: '127.0.0.1:0',
        forward,
        limits: { headBytes: '1KiB' },
        timeouts: { handshake: '150ms', idle: '400ms' },
      },
      drain: { timeout: '7s' },
    })
    assert.equal((await reload()).status, 200)
    const { body } = await sidecar.admin('GET', '/config')
    assert.match(body, /timeout: 7s/)
    assert.match(body, /headBytes: 1KiB/)
    await eventually('the limit holds', async () => {
      const reply = await call(sidecar, web, { headers: { 'x-long': 'x'.repeat(2000) } })
      return reply.status === 431
    })
    const idle = await connectRaw(t, sidecar, web)
    await idle.closed
    assert.ok((await sidecar.metric('postern_connections_closed_total{reason="idle"}')) >= 1)
    const silent = net.connect(sidecar.port, '127.0.0.1')
    t.after(() => silent.destroy())
    await new Promise((resolve) => silent.on('error', resolve).on('close', resolve).resume())
    await sidecar.logged('handshake_failed', { reason: 'timeout' })
  })

  it('says which changes take a restart, and applies the others', async () => {
    await reconfigure(sidecar, {
      inbound: { listen: '127.0.0.1:1', forward: 'http://127.0.0.1:2' },
      workers: 2,
      allow: [{ uri: spiffeId('batch') }],
    })
    const report = await reload()
    assert.deepEqual([report.status, report.ok], [200, true])
    assert.deepEqual(
      report.problems.map(({ where, severity }) => [where, severity]),
      [['inbound.listen, inbound.forward, workers', 'warning']],
    )
    assert.match(report.problems[0]?.what ?? '', /takes a restart/)
    const batch = await sidecar.authority.svid('batch')
    await eventually('the rule holds', async () => (await call(sidecar, batch)).status === 200)
    assert.match((await sidecar.admin('GET', '/config')).body, /workers: 1/)
  })

  it('keeps the old configuration when the new one is wrong, and rotates certificates all the same', async () => {
    const failures = await sidecar.metric(FAILURES)
    await reconfigure(sidecar, { alow: [{ all: true }], allow: [{ uri: 'not a pattern' }] })
    const fresh = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, fresh.privateKeyPem)
    await writeFile(sidecar.files.certificate, fresh.chainPem)
    const report = await reload()
    assert.deepEqual([report.status, report.ok], [500, false])
    assert.equal(report.problems.length, 2)
    assert.match(report.problems[0]?.where ?? '', /alow/)
    assert.equal(await sidecar.metric(FAILURES), failures + 1)
    assert.equal((await call(sidecar, web)).status, 200)
    assert.equal((await call(sidecar, await sidecar.authority.svid('batch'))).status, 403)
    const { body } = await sidecar.admin('GET', '/snapshot')
    assert.equal(JSON.parse(body).identity.serial, fresh.serial)
    // Not forgotten when files are looked at again, and no reason to take no traffic.
    const again = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, again.privateKeyPem)
    await writeFile(sidecar.files.certificate, again.chainPem)
    await eventually('the certificate is in force', async () => {
      const { body } = await sidecar.admin('GET', '/snapshot')
      return JSON.parse(body).identity.serial === again.serial
    })
    const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    assert.equal(ready.status, 200)
    const { details } = (await ready.json()) as { details: Record<string, unknown> }
    assert.deepEqual(details['failed_sources'], ['config'])
    assert.match(JSON.stringify(details['problems']), /alow/)
  })

  it('keeps the old configuration when the new one names a file that cannot be used', async () => {
    await reconfigure(sidecar, {
      allow: [{ all: true }],
      trust: { bundles: [{ file: join(sidecar.directory, 'not-there.pem') }] },
    })
    const report = await reload()
    assert.equal(report.status, 500)
    assert.match(report.problems[0]?.what ?? '', /not-there\.pem does not exist/)
    assert.equal((await call(sidecar, await sidecar.authority.svid('batch'))).status, 403)
  })

  it('watches the files that the new configuration names', async () => {
    const file = join(sidecar.directory, 'other-ca.pem')
    await writeFile(file, await readFile(sidecar.files.trustBundle))
    await reconfigure(sidecar, { trust: { bundles: [{ file }] } })
    assert.equal((await reload()).status, 200)
    await eventually('it is in force', async () =>
      (await sidecar.admin('GET', '/snapshot')).body.includes('other-ca.pem'),
    )
    await writeFile(file, 'no certificate at all')
    await sidecar.logged('reload', { reason: 'watch', trust: 'failed' })
  })

  it('forgets no trust domain when only the configuration narrows a bundle', async () => {
    await reconfigure(sidecar, {
      trust: { bundles: [{ trustDomain: 'elsewhere.example', file: sidecar.files.trustBundle }] },
    })
    assert.equal((await reload()).status, 200)
    await eventually('the peer is refused', async () => {
      const reply = await call(sidecar, web).catch((error: Error) => error)
      return reply instanceof Error || reply.status === 403
    })
  })

  it('shows an unsafe option that comes into force, and no longer when it goes', async () => {
    const series = 'postern_unsafe_options{option="inbound.unsafeAmbiguousPaths"}'
    const inbound = { listen: '127.0.0.1:0', forward }
    assert.equal(await sidecar.metric(series), 0)
    await reconfigure(sidecar, { inbound: { ...inbound, unsafeAmbiguousPaths: true } })
    await reload()
    assert.equal(await sidecar.metric(series), 1)
    await sidecar.logged('unsafe_option', { option: 'inbound.unsafeAmbiguousPaths' })
    await reconfigure(sidecar, { inbound })
    await reload()
    assert.equal(await sidecar.metric(series), 0)
  })

  it('keeps the configuration in force while its file is gone, or is a directory', async () => {
    const { config } = sidecar.files
    const inForce = (await sidecar.admin('GET', '/config')).body
    for (const [make, what] of [
      [() => rm(config), /does not exist/],
      [() => mkdir(config), /is a directory/],
    ] as const) {
      await make()
      const report = await reload()
      assert.equal(report.status, 500)
      assert.match(String(report.problems[0]?.what), what)
      assert.equal((await call(sidecar, web)).status, 200)
      assert.equal((await sidecar.admin('GET', '/config')).body, inForce)
    }
    await rm(config, { recursive: true })
  })

  it('is of what lies there last, and troubles nobody, where it is asked for a thousand times at once', async () => {
    const client = new SteadyClient(t, sidecar, web)
    const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
    for (let i = 0; i < 1_000; i++) {
      if (i === 500) {
        await writeFile(sidecar.files.privateKey, own.privateKeyPem)
        await writeFile(sidecar.files.certificate, own.chainPem)
      }
      sidecar.signal('SIGHUP')
    }
    await eventually('what lies there is in force', async () => {
      const { body } = await sidecar.admin('GET', '/snapshot')
      return JSON.parse(body).identity.serial === own.serial
    })
    await client.unharmed()
  })

  it('answers that nothing has changed', async () => {
    const generation = await sidecar.metric('postern_snapshot_generation')
    const report = await reload()
    assert.deepEqual([report.status, report.generation], [200, generation])
  })
})
