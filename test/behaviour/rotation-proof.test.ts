// What an operator can see of a rotation: how long it took, who still runs on the certificate before,
// and how near its end is.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, type TestAuthority, testAuthority } from '../support/pki.ts'
import {
  call,
  connectRaw,
  serverCertificate,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

describe('a rotation', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  let web: IssuedCertificate

  const older = () => sidecar.metric('postern_connections_older_identity')
  const lag = () => sidecar.metric('postern_reload_lag_seconds{source="identity"}')
  async function rotate(): Promise<void> {
    const own = await authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, own.privateKeyPem)
    await writeFile(sidecar.files.certificate, own.chainPem)
    await eventually('it is in force', async () => {
      const { serialNumber } = await serverCertificate(sidecar, web)
      return serialNumber.toLowerCase() === own.serial
    })
  }

  before(async () => {
    authority = await testAuthority()
    web = await authority.svid('web')
    sidecar = await startSidecar(t, {
      authority,
      forward: (await startWorkload(t)).url,
      config: { workers: 2 },
    })
  })

  it('shows how many connections run on the certificate before, until the last has gone', async () => {
    const [first, second] = [await connectRaw(t, sidecar, web), await connectRaw(t, sidecar, web)]
    await eventually(
      'both are open',
      async () => (await sidecar.metric('postern_connections_open')) === 2,
    )
    assert.equal(await older(), 0)
    await rotate()
    await eventually('both are older', async () => (await older()) === 2)
    const third = await connectRaw(t, sidecar, web)
    await eventually(
      'three are open',
      async () => (await sidecar.metric('postern_connections_open')) === 3,
    )
    assert.equal(await older(), 2)
    await rotate()
    await eventually('all three are older', async () => (await older()) === 3)
    for (const one of [first, third, second]) one.socket.destroy()
    await eventually('none is left', async () => (await older()) === 0)
  })

  it('shows how long it took from the file to every data thread', async () => {
    assert.ok((await lag()) > 0)
    assert.ok((await lag()) < 5)
    assert.equal(await sidecar.metric('postern_reload_lag_seconds{source="policy"}'), 0)
  })

  it('of the key alone is not published', async () => {
    const other = await authority.intermediate.issue({ dns: ['localhost'] })
    const generation = await sidecar.metric('postern_snapshot_generation')
    await writeFile(sidecar.files.privateKey, other.privateKeyPem)
    await sidecar.logged('reload', { identity: 'failed' })
    assert.equal((await call(sidecar, web)).status, 200)
    assert.equal(await sidecar.metric('postern_snapshot_generation'), generation)
  })
})

describe('a certificate near its end', () => {
  const t = suiteCleanup()

  const started = async (lifeMs: number, leftMs: number) => {
    const authority = await testAuthority()
    const notAfter = new Date(Date.now() + leftMs)
    const certificate = await authority.intermediate.issue({
      dns: ['localhost'],
      notBefore: new Date(notAfter.getTime() - lifeMs),
      notAfter,
    })
    return startSidecar(t, { authority, certificate, forward: (await startWorkload(t)).url })
  }
  const readiness = async (sidecar: TestSidecar) => {
    const answer = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    const { details } = (await answer.json()) as { details: Record<string, unknown> }
    return { status: answer.status, details }
  }

  it('is told the more urgently the nearer it is', async () => {
    for (const [share, stage, level] of [
      [0.3, 'third', 'info'],
      [0.08, 'tenth', 'warn'],
      [0.04, 'twentieth', 'error'],
    ] as const) {
      const sidecar = await started(100 * 3_600_000, share * 100 * 3_600_000)
      const line = await sidecar.logged('validity', { kind: 'identity' })
      assert.deepEqual([line['stage'], line.level], [stage, level])
      const { status, details } = await readiness(sidecar)
      assert.equal(status, 200)
      assert.equal(details['certificate_expired'], false)
      assert.ok(Number(details['certificate_seconds_left']) < share * 100 * 3_600 + 1)
    }
  })

  it('and beyond it is served where it can be seen: log, metric, detail of /readyz', async () => {
    const sidecar = await started(3_600_000, -60_000)
    const line = await sidecar.logged('validity', { kind: 'identity', stage: 'expired' })
    assert.equal(line.level, 'error')
    const { status, details } = await readiness(sidecar)
    assert.equal(status, 200)
    assert.equal(details['certificate_expired'], true)
    assert.ok(Number(details['certificate_seconds_left']) < 0)
    const metrics = await sidecar.metrics()
    const [, seconds] = /certificate_expiration_timestamp_seconds\{kind="identity".*\} (\S+)/.exec(
      metrics,
    ) as unknown as [string, string]
    assert.ok(Number(seconds) * 1000 < Date.now())
  })
})
