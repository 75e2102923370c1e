import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { spiffeId, WEB } from '../support/pki.ts'
import { call, SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

describe('the main job', () => {
  let sidecar: TestSidecar
  let workload: Workload
  const t = suiteCleanup()
  before(async () => {
    workload = await startWorkload(t)
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: SAMPLE_POLICY }, log: { access: 'all' } },
    })
  })

  it('lets a known peer through to the workload, with its identity in x-forwarded-client-cert', async () => {
    const reply = await call(sidecar, await sidecar.authority.svid('web'))
    assert.equal(reply.status, 200)
    const seen = workload.seen.at(-1)
    assert.equal(seen?.url, '/api/orders')
    assert.match(
      String(seen?.headers['x-forwarded-client-cert']),
      new RegExp(`^By=spiffe://example.org/ns/default/sa/orders;Hash=[0-9a-f]{64};URI=${WEB}$`),
    )
  })

  it('denies what the policy does not grant, without a word about rules, and the workload hears nothing', async () => {
    const before = workload.seen.length
    const web = await sidecar.authority.svid('web')
    const reply = await call(sidecar, web, { method: 'POST', path: '/api/orders', body: 'x' })
    assert.equal(reply.status, 403)
    const { error, id } = JSON.parse(reply.body)
    assert.equal(error, 'denied')
    assert.equal(reply.headers['x-postern-decision-id'], id)
    assert.doesNotMatch(reply.body, /rego|rule|role|policy\//)
    assert.equal(workload.seen.length, before)
    const line = await sidecar.logged('access', { decision_id: id })
    assert.equal(line['principal'], WEB)
    assert.equal(line['outcome'], 'deny')
  })

  it('denies a peer of the same trust domain that the policy does not know', async () => {
    const stranger = await sidecar.authority.svid('stranger')
    assert.equal((await call(sidecar, stranger)).status, 403)
    assert.notEqual(spiffeId('stranger'), WEB)
  })

  it('refuses a client without a certificate', async () => {
    const before = workload.seen.length
    const reply = await call(sidecar, undefined).catch((error: Error) => error)
    if (!(reply instanceof Error)) assert.equal(reply.status, 403)
    await sidecar.logged('handshake_failed', { reason: 'no_certificate' })
    assert.equal(workload.seen.length, before)
  })
})
