// What a policy says about an input document outside of a request, and its rules about the log.
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import { PolicyHost } from '../../src/policy/host.ts'
import { HostPool, judge } from '../../src/policy/judge.ts'
import { bundleUrl, load, loadMaterial } from './support.ts'

describe('a judgement', () => {
  for (const [name, input, outcome, result] of [
    ['allow-all', '{}', 'allow', 'true'],
    ['deny-all', '{}', 'deny', 'false'],
    ['undefined', '{}', 'error', undefined],
    ['abort', '{"parsed_path":["conflict"]}', 'error', undefined],
    ['runaway', '{}', 'timeout', undefined],
    ['deny-all', `{"a":"${'x'.repeat(300_000)}"}`, 'deny', undefined],
  ] as const) {
    it(`of ${name} is ${outcome}`, async () => {
      const host = new PolicyHost(await loadMaterial(bundleUrl(name)))
      const judged = judge(host, input, 0)
      assert.deepEqual([judged.outcome, judged.result], [outcome, result])
      assert.equal(judged.error === undefined, result !== undefined)
      assert.ok(judged.evalNs > 0)
    })
  }

  it('is as of the time that is given', async () => {
    const host = new PolicyHost(await loadMaterial(bundleUrl('time')))
    assert.equal(judge(host, '{}', Date.UTC(2024, 11, 31)).outcome, 'allow')
    assert.equal(judge(host, '{}', Date.UTC(2025, 0, 2)).outcome, 'deny')
  })
})

test('a policy has one host, for as long as it exists', async () => {
  const [one, other] = [
    await loadMaterial(bundleUrl('allow-all')),
    await loadMaterial(bundleUrl('deny-all')),
  ]
  const pool = new HostPool()
  assert.equal(pool.hostOf(one), pool.hostOf(one))
  assert.notEqual(pool.hostOf(one), pool.hostOf(other))
})

describe('the rules about the log', () => {
  it('are found beside the one that decides, which stays the default', async () => {
    const material = await loadMaterial(bundleUrl('log-rules'))
    assert.equal(material.entrypoint, 'envoy/authz/allow')
    const { drop, mask } = material.logEntrypoints ?? {}
    assert.ok(drop !== undefined && mask !== undefined)
    const host = new PolicyHost(material)
    const event = JSON.stringify({ input: { parsed_path: ['health'] }, result: false })
    assert.deepEqual(host.evaluate(event, 0, drop), { kind: 'result', text: 'true' })
    assert.deepEqual(host.evaluate(event, 0, mask), {
      kind: 'result',
      text: '["/input/attributes/source/principal","/result"]',
    })
    assert.equal((await loadMaterial(bundleUrl('allow-all'))).logEntrypoints, undefined)
  })

  it('that fail are told when the policy is loaded, and do not keep it out', async () => {
    const loaded = await load(bundleUrl('log-fails'))
    assert.equal(loaded.kind, 'policy')
    const warnings = loaded.kind === 'policy' ? loaded.warnings : []
    assert.equal(warnings.length, 1)
    assert.match(warnings[0]?.what ?? '', /system\/log\/mask failed on a sample event: timeout/)
    assert.equal(warnings[0]?.severity, 'warning')
  })
})
