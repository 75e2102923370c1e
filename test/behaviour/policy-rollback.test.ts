// Back to the previous policy by one call: for the next request on every data thread, without one
// that fails, and until policy.bundle brings something else, whatever is reloaded meanwhile.
import assert from 'node:assert/strict'
import { readFile, rename, writeFile } from 'node:fs/promises'
import https from 'node:https'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { reconfigure } from '../support/reconfigure.ts'
import { call, serverCertificate, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const bundle = (name: string): string =>
  fileURLToPath(new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url))

async function replace(path: string, by: string): Promise<void> {
  await writeFile(`${path}.new`, await readFile(by))
  await rename(`${path}.new`, path)
}

interface Slot {
  readonly revision: string
  readonly digest: string
}
interface Slots {
  readonly active: Slot
  readonly previous?: Slot
  readonly candidate?: Slot
  readonly held_back?: Slot
  readonly last_change?: { readonly action: string; readonly by: string; readonly reason?: string }
}

const slotsOf = async (sidecar: TestSidecar): Promise<Slots> =>
  JSON.parse((await sidecar.admin('GET', '/snapshot')).body).policy

interface Answer {
  readonly status: number
  readonly ok: boolean
  readonly error?: string
  readonly applied?: boolean
  readonly from?: Slot
  readonly to?: Slot
}

async function order(sidecar: TestSidecar, path: string): Promise<Answer> {
  const { status, body } = await sidecar.admin('POST', path)
  return { ...JSON.parse(body), status }
}

/** Allowed by slots-old, denied by slots-new. */
const TELLING = '/tightened'

describe('a rollback', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let policy: string

  const decides = async (name: 'old' | 'new'): Promise<boolean> => {
    const { status } = await call(sidecar, web, { path: TELLING })
    return status === (name === 'old' ? 200 : 403)
  }

  before(async () => {
    policy = join(await temporaryDirectory(t), 'bundle.tar.gz')
    await replace(policy, bundle('slots-old'))
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { policy: { bundle: policy }, workers: 2, log: { access: 'all' } },
    })
    web = await sidecar.authority.svid('web')
  })

  it('is refused while there is nothing to go back to', async () => {
    const refused = await order(sidecar, '/policy/rollback')
    assert.equal(refused.status, 409)
    assert.equal(refused.error, 'nothing_to_roll_back_to')
    assert.equal((await order(sidecar, '/policy/promote')).error, 'nothing_to_promote')
  })

  it('holds for the next request on every data thread, and no request fails', async () => {
    await replace(policy, bundle('slots-new'))
    await eventually('the new one is in force', () => decides('new'))
    const agents = Array.from({ length: 12 }, () => {
      const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
      t.after(() => agent.destroy())
      return agent
    })
    const connections = () =>
      Promise.all(agents.map((agent) => call(sidecar, web, { path: TELLING, agent })))
    const threads = () =>
      new Set(sidecar.lines.filter(({ event }) => event === 'access').map((one) => one['thread']))
    await eventually('both threads have connections', async () => {
      await connections()
      return threads().size === 2
    })

    let loading = true
    let failures = 0
    let answered = 0
    const load = Promise.all(
      Array.from({ length: 4 }, async () => {
        const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
        t.after(() => agent.destroy())
        while (loading) {
          const reply = await call(sidecar, web, { path: '/same', agent }).catch(() => undefined)
          if (reply?.status !== 200) failures++
          answered++
        }
      }),
    )
    await eventually('there is load', () => answered > 50)
    for (const { status } of await connections()) assert.equal(status, 403)
    const done = await order(sidecar, '/policy/rollback')
    for (const { status } of await connections()) assert.equal(status, 200)
    const atRollback = answered
    await eventually('the load goes on', () => answered > atRollback + 50)
    loading = false
    await load
    assert.equal(failures, 0)
    assert.deepEqual([done.status, done.ok, done.applied], [200, true, true])
    assert.equal(done.from?.revision, 'new')
    assert.equal(done.to?.revision, 'old')
    const reloads = sidecar.lines.filter(({ event }) => event === 'reload')
    assert.equal(reloads.length, 2)
  })

  it('is told by /snapshot, /readyz, metrics and log', async () => {
    const { active, previous, held_back, last_change } = await slotsOf(sidecar)
    assert.deepEqual([active.revision, held_back?.revision, previous], ['old', 'new', undefined])
    assert.deepEqual([last_change?.action, last_change?.by], ['rollback', 'operator'])
    const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    const { details } = (await ready.json()) as { details: { policy: Slots } }
    assert.equal(details.policy.held_back?.revision, 'new')
    const metric = (series: string) => sidecar.metric(`postern_${series}`)
    assert.equal(await metric('policy_info{slot="active",revision="old"}'), 1)
    assert.equal(await metric('policy_info{slot="held_back",revision="new"}'), 1)
    assert.equal(await metric('policy_slot_changes_total{action="rollback",by="operator"}'), 1)
    await sidecar.logged('policy_slot', { action: 'rollback', by: 'operator' })
    assert.equal((await order(sidecar, '/policy/rollback')).status, 409)
  })

  it('outlives a rotated certificate, a reload on demand and the same bundle written again', async () => {
    const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, own.privateKeyPem)
    await writeFile(sidecar.files.certificate, own.chainPem)
    await eventually('the new certificate is shown', async () => {
      const { serialNumber } = await serverCertificate(sidecar, web)
      return serialNumber.toLowerCase() === own.serial
    })
    assert.ok(await decides('old'))
    assert.equal((await order(sidecar, '/reload')).ok, true)
    assert.ok(await decides('old'))
    await replace(policy, bundle('slots-new'))
    assert.equal((await order(sidecar, '/reload')).ok, true)
    assert.ok(await decides('old'))
    assert.equal((await slotsOf(sidecar)).held_back?.revision, 'new')
  })

  it('is taken back by a promotion of what was held back', async () => {
    const done = await order(sidecar, '/policy/promote')
    assert.deepEqual([done.status, done.to?.revision], [200, 'new'])
    assert.ok(await decides('new'))
    const { previous, held_back } = await slotsOf(sidecar)
    assert.deepEqual([previous?.revision, held_back], ['old', undefined])
  })

  it('ends, with a warning, when the settings of the policy change', async () => {
    assert.equal((await order(sidecar, '/policy/rollback')).status, 200)
    const before = await reconfigure(sidecar, { policy: { bundle: policy, memoryBytes: '32MiB' } })
    assert.equal((await order(sidecar, '/reload')).ok, true)
    assert.ok(await decides('new'))
    await sidecar.logged('policy_slot', { action: 'ended', level: 'warn' })
    assert.equal((await order(sidecar, '/policy/rollback')).status, 409)
    await writeFile(sidecar.files.config, before)
    assert.equal((await order(sidecar, '/reload')).ok, true)
  })

  it('ends when another bundle lies in the file', async () => {
    await replace(policy, bundle('slots-old'))
    await eventually('the old one is in force', () => decides('old'))
    await replace(policy, bundle('slots-new'))
    await eventually('the new one is in force', () => decides('new'))
    assert.equal((await order(sidecar, '/policy/rollback')).status, 200)
    assert.ok(await decides('old'))
    await replace(policy, bundle('deny-all'))
    await eventually('it is in force', async () => {
      return (await call(sidecar, web, { path: '/same' })).status === 403
    })
    const { active, previous, held_back } = await slotsOf(sidecar)
    assert.deepEqual([active.revision, previous?.revision, held_back], ['', 'old', undefined])
  })
})

describe('a promoted candidate', () => {
  const t = suiteCleanup()

  it('decides until the file changes, and can be rolled back to what the file has', async () => {
    const policy = join(await temporaryDirectory(t), 'bundle.tar.gz')
    await replace(policy, bundle('slots-old'))
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { policy: { bundle: policy, candidate: { bundle: bundle('slots-new') } } },
    })
    const web = await sidecar.authority.svid('web')
    const answer = async () => (await call(sidecar, web, { path: TELLING })).status

    assert.equal((await order(sidecar, '/policy/promote?slot=held_back')).status, 409)
    const done = await order(sidecar, '/policy/promote')
    assert.deepEqual([done.status, done.applied], [200, true])
    assert.equal(await answer(), 403)
    assert.equal((await order(sidecar, '/reload')).ok, true)
    assert.equal(await answer(), 403)
    const { previous, candidate, held_back } = await slotsOf(sidecar)
    assert.deepEqual(
      [previous?.revision, held_back?.revision, candidate],
      ['old', 'old', undefined],
    )

    assert.equal((await order(sidecar, '/policy/rollback')).status, 200)
    assert.equal(await answer(), 200)
    const after = await slotsOf(sidecar)
    assert.deepEqual([after.candidate?.revision, after.held_back], ['new', undefined])

    assert.equal((await order(sidecar, '/policy/promote')).status, 200)
    await replace(policy, bundle('allow-all'))
    await eventually('the file decides again', async () => (await answer()) === 200)
    assert.equal((await slotsOf(sidecar)).held_back, undefined)
  })
})

describe('a new policy that denies far more than the one before', () => {
  const t = suiteCleanup()

  it('is rolled back by itself within its window', async () => {
    const policy = join(await temporaryDirectory(t), 'bundle.tar.gz')
    await replace(policy, bundle('slots-old'))
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: {
        policy: { bundle: policy, rollback: { maxDenyIncrease: 0.3, minDecisions: 20 } },
        workers: 2,
      },
    })
    const web = await sidecar.authority.svid('web')
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
    t.after(() => agent.destroy())
    for (let i = 0; i < 30; i++) assert.equal((await call(sidecar, web, { agent })).status, 200)
    await replace(policy, bundle('deny-all'))
    await eventually('it denies, and then does not any more', async () => {
      const { status } = await call(sidecar, web, { agent })
      return sidecar.lines.some(({ event }) => event === 'policy_slot') && status === 200
    })
    const line = await sidecar.logged('policy_slot', { action: 'rollback', by: 'automatic' })
    assert.match(String(line['reason']), /^100 % denials in \d+ decisions, /)
    assert.equal(line.level, 'error')
    const { last_change, active, held_back } = await slotsOf(sidecar)
    assert.deepEqual(last_change?.by, 'automatic')
    assert.deepEqual([active.revision, held_back?.revision], ['old', ''])
    const changes = 'postern_policy_slot_changes_total{action="rollback",by="automatic"}'
    assert.equal(await sidecar.metric(changes), 1)
  })
})
