// A candidate policy: asked about what was decided, counted by what it would change, told in the log,
// and never felt by a request, whatever it does.
import assert from 'node:assert/strict'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { call, type LogLine, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const bundle = (name: string): string =>
  fileURLToPath(new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url))

async function replace(path: string, by: string): Promise<void> {
  await writeFile(`${path}.new`, await readFile(by))
  await rename(`${path}.new`, path)
}

type Slots = Readonly<Partial<Record<'active' | 'candidate', { readonly revision: string }>>>

describe('a candidate policy', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let candidate: string

  const counted = (change: string): Promise<number> =>
    sidecar.metric(`postern_candidate_decisions_total{change="${change}"}`)
  const status = async (path: string): Promise<number> =>
    (await call(sidecar, web, { path })).status
  const slots = async () =>
    JSON.parse((await sidecar.admin('GET', '/snapshot')).body).policy as Slots

  before(async () => {
    const directory = await temporaryDirectory(t)
    candidate = join(directory, 'candidate.tar.gz')
    await replace(candidate, bundle('slots-new'))
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: {
        policy: { bundle: bundle('slots-old'), candidate: { bundle: candidate } },
        log: { decisions: 'denied', redact: ['x-new'] },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  it('is counted by what it would change, and told in the log', async () => {
    const expected = [
      ['/same', 200, 'same', undefined],
      ['/reworded', 200, 'same', undefined],
      ['/changed', 200, 'same', ['request_headers']],
      ['/tightened', 200, 'allow_to_deny', ['outcome']],
      ['/loosened', 403, 'deny_to_allow', ['outcome']],
      ['/conflict', 200, 'error', ['outcome']],
    ] as const
    for (const [path, answer, change, diff] of expected) {
      const before = await counted(change)
      assert.equal(await status(path), answer)
      await eventually(`${path} is counted`, async () => (await counted(change)) === before + 1)
      const line = await differenceAt(path, diff !== undefined)
      assert.deepEqual((line?.['shadow'] as { diff?: unknown } | undefined)?.diff, diff, path)
      if (line === undefined) continue
      assert.equal(line['change'], change)
      assert.equal((line['shadow'] as { revision?: unknown }).revision, 'new')
    }
    const changed = await differenceAt('/changed', true)
    assert.doesNotMatch(JSON.stringify(changed), /secret-token/)
    assert.equal(await sidecar.metric('postern_candidate_samples_dropped_total'), 0)
    assert.equal(await sidecar.metric('postern_policy_info{slot="candidate",revision="new"}'), 1)
  })

  function differenceAt(path: string, isExpected: boolean): Promise<LogLine | undefined> {
    const find = () =>
      sidecar.lines.find((one) => one.event === 'candidate_difference' && one['path'] === path)
    return isExpected ? eventually(`a line about ${path}`, find) : Promise.resolve(find())
  }

  it('is asked again by whoever wants one decision explained', async () => {
    const { headers } = await call(sidecar, web, { path: '/loosened' })
    const id = String(headers['x-postern-decision-id'])
    const explained = await eventually('the decision is there', async () => {
      const { status, body } = await sidecar.admin('GET', `/decisions/${id}`)
      return status === 200 && JSON.parse(body)
    })
    assert.deepEqual(
      [explained.active.outcome, explained.candidate.outcome, explained.candidate.differs],
      ['deny', 'allow', true],
    )
  })

  it('costs no request anything when it never ends', async () => {
    const droppedSeries = 'postern_candidate_samples_dropped_total'
    const [failed, dropped] = [await counted('error'), await sidecar.metric(droppedSeries)]
    const replies = await Promise.all(Array.from({ length: 10 }, () => status('/runaway')))
    assert.deepEqual(replies, Array(10).fill(200))
    await eventually('each is counted, or dropped for lack of time', async () => {
      const more = (await sidecar.metric(droppedSeries)) - dropped
      return (await counted('error')) - failed + more === 10
    })
    assert.equal(
      await sidecar.metric('postern_decisions_total{outcome="timeout",rule="policy"}'),
      0,
    )
    assert.equal(await sidecar.metric('postern_data_thread_restarts_total{reason="stalled"}'), 0)
  })

  it('keeps its last good version when it breaks, and harms nobody', async () => {
    const failures = 'postern_reload_total{source="candidate",result="failure"}'
    await writeFile(candidate, 'no bundle')
    await eventually('it is told', async () => (await sidecar.metric(failures)) > 0)
    const line = await sidecar.logged('reload_problem')
    assert.match(String(line['where']), /candidate/)
    assert.equal(await status('/same'), 200)
    assert.equal((await slots()).candidate?.revision, 'new')
    assert.equal((await slots()).active?.revision, 'old')
    const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    assert.equal(ready.status, 200)
    await replace(candidate, bundle('slots-old'))
    await eventually('one that is the active one is none', async () => {
      return (await slots()).candidate === undefined
    })
    await replace(candidate, bundle('slots-new'))
    await eventually('it is back', async () => (await slots()).candidate?.revision === 'new')
  })
})

describe('a candidate policy that is broken at the start', () => {
  const t = suiteCleanup()

  it('keeps nothing from starting', async () => {
    const candidate = join(await temporaryDirectory(t), 'candidate.tar.gz')
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: { policy: { bundle: bundle('slots-old'), candidate: { bundle: candidate } } },
    })
    const web = await sidecar.authority.svid('web')
    assert.equal((await call(sidecar, web)).status, 200)
    const line = await sidecar.logged('reload_problem')
    assert.equal(line['where'], 'policy.candidate.bundle')
    const nothing = await sidecar.admin('POST', '/policy/promote')
    assert.equal(nothing.status, 409)
    assert.equal(JSON.parse(nothing.body).error, 'nothing_to_promote')
    await replace(candidate, bundle('slots-new'))
    await eventually('it is there', async () => {
      return (await sidecar.metric('postern_policy_info{slot="candidate",revision="new"}')) === 1
    })
  })
})

describe('a candidate policy that is to be promoted after some decisions', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let candidate: string

  const active = async (): Promise<string> =>
    JSON.parse((await sidecar.admin('GET', '/snapshot')).body).policy.active.revision
  const trial = async () => JSON.parse((await sidecar.admin('GET', '/snapshot')).body).policy.trial

  before(async () => {
    candidate = join(await temporaryDirectory(t), 'candidate.tar.gz')
    await replace(candidate, bundle('slots-new'))
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      config: {
        policy: {
          bundle: bundle('slots-old'),
          candidate: { bundle: candidate, promoteAfter: 5 },
        },
        log: { decisions: 'off' },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  it('is not after a difference, however many agree', async () => {
    await call(sidecar, web, { path: '/tightened' })
    await sidecar.logged('policy_promotion', { result: 'stopped' })
    for (let i = 0; i < 6; i++) await call(sidecar, web)
    await eventually('they were compared', async () => (await trial()).compared >= 7)
    assert.equal((await trial()).promotion, 'stopped')
    assert.equal(await active(), 'old')
  })

  it('is after enough decisions without one, and not again once it was rolled back', async () => {
    await writeFile(candidate, await readFile(bundle('allow-all')))
    await eventually('another candidate', async () => (await trial()).compared === 0)
    for (let i = 0; i < 5; i++) assert.equal((await call(sidecar, web)).status, 200)
    const line = await sidecar.logged('policy_slot', { action: 'promote' })
    assert.deepEqual(
      [line['by'], line['reason']],
      ['automatic', '5 decisions in a row without a difference'],
    )
    await eventually('it is in force', async () => (await active()) === '')
    const changes = 'postern_policy_slot_changes_total{action="promote",by="automatic"}'
    assert.equal(await sidecar.metric(changes), 1)
    assert.equal((await sidecar.admin('POST', '/policy/rollback')).status, 200)
    assert.equal(await active(), 'old')
    for (let i = 0; i < 6; i++) await call(sidecar, web)
    await eventually('they were compared', async () => (await trial()).compared >= 6)
    assert.equal(await active(), 'old')
    assert.equal((await trial()).promotion, 'stopped')
  })
})
