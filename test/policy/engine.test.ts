import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PolicyEngine } from '../../src/policy/engine.ts'
import { PolicyHost } from '../../src/policy/host.ts'
import { buildInput, documentOf, type PolicyRequest } from '../../src/policy/input.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import { Permit } from '../../src/policy/permit.ts'
import {
  bundleUrl,
  connection,
  engineOf,
  FUEL,
  load,
  loadMaterial,
  NOW_MS,
  peer,
  request,
  SAMPLE_BUNDLE,
} from './support.ts'

const clock = { nowMs: () => NOW_MS }
const summary = (engine: PolicyEngine, ...args: Parameters<typeof request>) => {
  const verdict = engine.decide(request(...args))
  const { outcome, rule } = verdict.evaluation
  const code = verdict.kind === 'denial' ? `${verdict.code} ${verdict.status}` : 'permit'
  return `${code}: ${outcome} by ${rule}`
}

/** As the log has it, which another thread makes. */
const documented = (engine: PolicyEngine, asked: PolicyRequest) => {
  const sent = structuredClone(engine.inputOf(asked, engine.decide(asked).evaluation))
  return JSON.parse(typeof sent === 'string' ? sent : documentOf(sent))
}

test('the sample policy lets web read and not write', async () => {
  const engine = await engineOf(SAMPLE_BUNDLE)
  assert.equal(summary(engine, '/api/orders'), 'permit: allow by policy')
  assert.equal(summary(engine, '/api/orders', { method: 'POST' }), 'denied 403: deny by policy')
  const admin = connection(peer('admin'))
  assert.equal(
    summary(engine, '/api/orders', { method: 'POST', connection: admin }),
    'permit: allow by policy',
  )
  assert.equal(
    summary(engine, '/api/orders', { connection: connection(peer('batch')) }),
    'denied 403: deny by policy',
  )
})

test('with neither policy nor rules nothing is ready', () => {
  const engine = new PolicyEngine({ allow: [], policy: undefined, clock })
  assert.equal(summary(engine, '/'), 'policy_not_ready 503: not_ready by none')
})

test('allow rules alone decide by the peer', () => {
  const engine = new PolicyEngine({ allow: [{ cn: 'web' }], policy: undefined, clock })
  assert.equal(summary(engine, '/%'), 'permit: allow by allow_rules')
  assert.equal(
    summary(engine, '/', { connection: connection(peer('other')) }),
    'denied 403: deny by allow_rules',
  )
  assert.equal(documented(engine, request('/a')).parsed_path[0], 'a')
  assert.deepEqual(documented(engine, request('/%')), {})
})

test('where rules and a policy are given both must admit', async () => {
  const policy = await loadMaterial(SAMPLE_BUNDLE)
  const engine = new PolicyEngine({ allow: [{ cn: 'web' }], policy, clock })
  assert.equal(summary(engine, '/api/orders'), 'permit: allow by policy')
  assert.equal(summary(engine, '/admin'), 'denied 403: deny by policy')
  const admin = connection(peer('admin'))
  assert.equal(summary(engine, '/admin', { connection: admin }), 'denied 403: deny by allow_rules')
})

test('a permit carries every change of the result, and nothing else than the engine makes one', async () => {
  const engine = await engineOf(bundleUrl('result'))
  const verdict = engine.decide(request('/allow'))
  assert.ok(Permit.is(verdict))
  assert.equal(Permit.is({ ...verdict }), false)
  assert.equal(Permit.is(Object.create(Permit.prototype)), false)
  assert.throws(() => new Permit(Symbol('issuer'), verdict, verdict.evaluation), TypeError)
  const { kind, evaluation, ...mutations } = { ...verdict }
  assert.deepEqual(mutations.removeRequestHeaders, ['authorization'])
  assert.deepEqual(mutations.removeQueryParameters, ['token'])
  assert.deepEqual(
    new Set(mutations.setQueryParameters.map(String)),
    new Set(['tenant,one', 'tag,x', 'tag,y']),
  )
  assert.deepEqual(
    new Set(mutations.setRequestHeaders.map(String)),
    new Set(['x-role,reader', 'x-many,a', 'x-many,b']),
  )
  assert.deepEqual(mutations.responseHeaders.map(String), [
    'x-policy,sample',
    'set-cookie,a=1',
    'set-cookie,b=2',
  ])
  assert.equal(documented(engine, request('/allow')).parsed_path[0], 'allow')
  assert.equal(JSON.parse(evaluation.result ?? '').allowed, true)
})

test('the log has the whole document of whatever the policy was shown', async () => {
  const policy = await loadMaterial(SAMPLE_BUNDLE)
  const engine = new PolicyEngine({ allow: [], policy, clock })
  const body = { bytes: Buffer.from('[1]'), complete: true }
  for (const asked of [
    request('/api/orders?a=1', { fields: ['accept', '*/*', 'x-a', '"é'], bodySize: -1 }),
    request('/', { protocol: 'TCP' }),
    request('/', { fields: ['content-type', 'application/json'], bodySize: 3, body }),
  ]) {
    assert.deepEqual(documented(engine, asked), JSON.parse(buildInput(asked)))
    assert.deepEqual(documented(engine, asked), JSON.parse(buildInput(asked)), 'remembered')
  }
  const fields = ['x-a', 'as it came']
  const asked = request('/', { fields })
  const sent = engine.inputOf(asked, engine.decide(asked).evaluation)
  fields[1] = 'as it is forwarded'
  assert.match(typeof sent === 'string' ? sent : documentOf(sent), /as it came/)
  const unreadable = Buffer.from('[')
  const json = { fields: ['content-type', 'application/json'], bodySize: 1 }
  const refused = request('/', { ...json, body: { bytes: unreadable, complete: true } })
  assert.deepEqual(documented(engine, refused), {})
  assert.deepEqual(documented(engine, request('/%')), {})
})

test('a header that is not shown is in no log, and reading it is worth a warning', async () => {
  const input = { body: { totalBytes: 0 }, certificate: false, v2: false, contextExtensions: [] }
  const options = {
    input: { ...input, headers: ['accept'] },
    entrypoint: 'projection/fixed_headers',
  }
  const loaded = await load(bundleUrl('projection'), options)
  assert.equal(loaded.kind, 'policy')
  if (loaded.kind !== 'policy') return
  const said = loaded.warnings.map(({ what }) => what).filter((what) => what.includes('the header'))
  assert.deepEqual(said, ['the policy reads the header "x-a", which is never there for it'])
  const engine = new PolicyEngine({ allow: [], policy: loaded.material, clock })
  const fields = ['accept', '*/*', 'authorization', 'secret']
  const shown = connection(undefined, engine.inputSettings)
  const { headers } = documented(engine, request('/', { fields, connection: shown })).attributes
    .request.http
  assert.deepEqual([headers.accept, headers.authorization], ['*/*', undefined])
})

test('a denial carries status, headers and body of the result', async () => {
  const engine = await engineOf(bundleUrl('result'))
  const verdict = engine.decide(request('/deny'))
  assert.equal(verdict.kind, 'denial')
  if (verdict.kind !== 'denial') return
  assert.equal(verdict.status, 401)
  assert.deepEqual(verdict.headers, [['www-authenticate', 'Bearer']])
  assert.equal(verdict.body, 'not you')
})

test('a result that is no decision is an error of the policy', async () => {
  const engine = await engineOf(bundleUrl('result'))
  for (const path of ['host', 'identity', 'split', 'interim', 'number', 'missing', 'list']) {
    assert.equal(summary(engine, `/${path}`), 'policy_error 500: error by policy', path)
  }
  const undecided = await engineOf(bundleUrl('undefined'))
  assert.equal(summary(undecided, '/defined'), 'permit: allow by policy')
  assert.equal(summary(undecided, '/other'), 'policy_error 500: error by policy')
})

test('what cannot be an input is the fault of the client, and is decided all the same', async () => {
  const engine = await engineOf(bundleUrl('allow-all'))
  assert.equal(summary(engine, '/%'), 'policy_bad_input 400: deny by policy')
  assert.equal(summary(engine, '/admin/%0ax'), 'policy_bad_input 400: deny by policy')
  assert.equal(summary(engine, '/?a;b'), 'policy_bad_input 400: deny by policy')
  assert.equal(summary(engine, '/'), 'permit: allow by policy')
  const reader = await engineOf(bundleUrl('oracle'))
  const fields = ['x-large', 'a'.repeat(300 * 1024)]
  assert.equal(summary(reader, '/', { fields }), 'policy_bad_input 400: deny by policy')
  assert.equal(summary(reader, '/'), 'permit: allow by policy')
})

test('a runaway ends as a timeout and the next evaluation works', async () => {
  const policy = await loadMaterial(bundleUrl('runaway-path'))
  for (const material of [
    policy,
    { ...policy, fuel: 10_000 },
    { ...policy, memoryBytes: 4 * 1024 * 1024 },
  ]) {
    let recycled = 0
    const engine = new PolicyEngine({
      allow: [],
      policy: material,
      clock,
      events: { recycled: () => recycled++ },
    })
    for (let i = 0; i < 3; i++) {
      assert.equal(summary(engine, '/runaway'), 'policy_timeout 504: timeout by policy')
      assert.equal(summary(engine, '/'), 'permit: allow by policy')
    }
    assert.equal(recycled, 3)
  }
})

test('a policy that always runs away can be loaded, with a warning, and always ends as a timeout', async () => {
  const engine = await engineOf(bundleUrl('runaway'))
  assert.equal(summary(engine, '/'), 'policy_timeout 504: timeout by policy')
})

test('calls that multiply without a loop end as a timeout', async () => {
  const engine = await engineOf(bundleUrl('calls'))
  assert.equal(summary(engine, '/calls'), 'policy_timeout 504: timeout by policy')
  assert.equal(summary(engine, '/'), 'permit: allow by policy')
})

test('a conflict in the policy is an error, and the next evaluation works', async () => {
  const engine = await engineOf(bundleUrl('abort'))
  const verdict = engine.decide(request('/conflict'))
  assert.equal(verdict.kind === 'denial' && verdict.code, 'policy_error')
  assert.match(verdict.evaluation.error ?? '', /conflict/)
  assert.equal(summary(engine, '/'), 'permit: allow by policy')
})

test('a token decides, and its claims reach the workload', async () => {
  const engine = await engineOf(bundleUrl('jwt'))
  const { createHmac } = await import('node:crypto')
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const token = (secret: string, claims: object) => {
    const signed = `${encode({ alg: 'HS256' })}.${encode(claims)}`
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
  }
  const ask = (text: string) =>
    engine.decide(request('/', { fields: ['authorization', `Bearer ${text}`] }))
  const claims = { iss: 'example', sub: 'bob', exp: NOW_MS / 1000 + 60 }
  const verdict = ask(token('sample secret', claims))
  assert.deepEqual(verdict.kind === 'permit' && verdict.setRequestHeaders, [['x-subject', 'bob']])
  for (const bad of [
    token('other', claims),
    token('sample secret', { ...claims, exp: NOW_MS / 1000 - 1 }),
    'a.b.c',
    '',
  ]) {
    assert.equal(ask(bad).kind, 'denial', bad)
  }
})

test('hostile inputs leave the instance as it was', async () => {
  let recycled = 0
  const policy = await loadMaterial(SAMPLE_BUNDLE)
  const host = new PolicyHost(policy, () => recycled++)
  const good = buildInput(request('/api/orders'))
  const expected = host.evaluate(good, NOW_MS)
  assert.equal(expected.kind, 'result')
  const before = host.memoryBytes
  const hostile = [
    '{"a":"\\ud800"}',
    '{"a":',
    '"\ud800"',
    '[1 2 ,]',
    '{"a":"\\x"}',
    '',
    `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
    `{"parsed_path":${JSON.stringify(Array(2_000).fill('a'))}}`,
  ]
  for (let i = 0; i < 10_000; i++) {
    // The deep one costs a millisecond: seldom enough to stay quick, often enough to poison.
    const input = hostile[i % 50 === 0 ? 6 : i % 6] as string
    host.evaluate(input, NOW_MS)
    if (i % 1_000 === 0) assert.deepEqual(host.evaluate(good, NOW_MS), expected)
  }
  assert.deepEqual(host.evaluate(good, NOW_MS), expected)
  assert.ok(recycled > 0)
  assert.equal(host.memoryBytes, before)
})

test('keys that collide in the hash table of the module are stopped by fuel', async () => {
  const policy = await loadMaterial(bundleUrl('allow-all'))
  const host = new PolicyHost({ ...policy, fuel: FUEL })
  const keys = collidingKeys(4_000)
  const input = `{${keys.map((key) => `"${key}":1`).join(',')}}`
  assert.equal(host.evaluate(input, NOW_MS).kind, 'timeout')
  assert.equal(host.evaluate('{}', NOW_MS).kind, 'result')
})

/** FNV-1 of 32 bits is unseeded; a chain has as many keys as share the low bits of the hash. */
function collidingKeys(count: number): string[] {
  const keys: string[] = []
  for (let i = 0; keys.length < count; i++) {
    const key = i.toString(36)
    let hash = 0x811c9dc5
    for (const byte of Buffer.from(key)) hash = (Math.imul(hash, 0x01000193) ^ byte) >>> 0
    if ((hash & 0xff) === 0) keys.push(key)
  }
  return keys
}

test('an instance gives back the memory that one evaluation took', async () => {
  const policy: PolicyMaterial = await loadMaterial(bundleUrl('memory'))
  let recycled = 0
  const host = new PolicyHost({ ...policy, fuel: 1_000_000_000 }, () => recycled++)
  const small = buildInput(request('/'))
  host.evaluate(small, NOW_MS)
  const before = host.memoryBytes
  const large = host.evaluate(buildInput(request(`/memory/${'a'.repeat(20_000)}`)), NOW_MS)
  assert.deepEqual([large, recycled], [{ kind: 'result', text: 'true' }, 1])
  host.evaluate(small, NOW_MS)
  assert.equal(host.memoryBytes, before)
})

test('traps in a row share one memory, which is replaced seldom', async () => {
  const { fuel, ...policy } = await loadMaterial(bundleUrl('runaway-path'))
  let made = 0
  const { Memory } = WebAssembly
  class CountedMemory extends Memory {
    constructor(descriptor: { initial: number; maximum?: number }) {
      super(descriptor)
      made++
    }
  }
  WebAssembly.Memory = CountedMemory
  try {
    const host = new PolicyHost({ ...policy, fuel: 1_000_000_000, memoryBytes: 8 * 1024 * 1024 })
    const runaway = buildInput(request('/runaway'))
    const good = buildInput(request('/'))
    for (let i = 0; i < 50; i++) {
      assert.deepEqual(host.evaluate(runaway, NOW_MS), { kind: 'timeout', what: 'memory' })
      assert.deepEqual(host.evaluate(good, NOW_MS), { kind: 'result', text: 'true' })
    }
    assert.equal(made, 2)
    host.evaluate(runaway, NOW_MS + 3_600_000)
    host.evaluate(good, NOW_MS + 3_600_000)
    assert.equal(made, 3)
  } finally {
    WebAssembly.Memory = Memory
  }
})

test('what a policy said is remembered by what it reads, and only that', async () => {
  const policy = await loadMaterial(SAMPLE_BUNDLE)
  const engine = new PolicyEngine({ allow: [], policy, clock })
  assert.equal(summary(engine, '/api/orders', { requestId: '1' }), 'permit: allow by policy')
  const { evaluation } = engine.decide(
    request('/api/orders', { requestId: '2', fields: ['a', 'b'] }),
  )
  assert.equal(evaluation.outcome, 'allow')
  assert.ok(evaluation.evalNs > 0)
  assert.equal(summary(engine, '/api/orders', { method: 'POST' }), 'denied 403: deny by policy')
  const admin = connection(peer('admin'))
  for (let i = 0; i < 3; i++) {
    assert.equal(summary(engine, '/admin'), 'denied 403: deny by policy')
    assert.equal(summary(engine, '/admin', { connection: admin }), 'permit: allow by policy')
  }
})

test('while a configured policy has not come, the allow rules do not decide alone', () => {
  const pending = { allow: [{ all: true as const }], policy: undefined, policyPending: true, clock }
  const outcome = new PolicyEngine(pending).decide(request('/a'))
  assert.equal(outcome.kind === 'denial' && outcome.code, 'policy_not_ready')
  const stranger = { ...pending, allow: [{ cn: 'nobody' }] }
  assert.equal(new PolicyEngine(stranger).decide(request('/a')).kind, 'denial')
  const without = { ...pending, policyPending: false }
  assert.equal(new PolicyEngine(without).decide(request('/a')).kind, 'permit')
})

test('what a client says is JSON changes no constant of the policy', async () => {
  const policy = await loadMaterial(bundleUrl('valid-json'))
  for (const values of [policy.data.values, 0]) {
    const data = { ...policy.data, values }
    const engine = new PolicyEngine({ allow: [], policy: { ...policy, data }, clock })
    const ask = (json: string, role: string) =>
      engine.decide(request('/', { fields: ['x-json', json, 'x-role', role] })).evaluation.outcome
    for (const json of ['[]', 'true', 'false', 'null', '[true]', '1', '{']) {
      assert.equal(ask(json, 'other'), json === '{' ? 'deny' : 'allow', json)
      assert.equal(ask(json, 'blocked'), 'deny', json)
      assert.equal(ask('[]', 'blocked'), 'deny', json)
      assert.equal(ask('[]', 'other'), 'allow', json)
    }
  }
})
