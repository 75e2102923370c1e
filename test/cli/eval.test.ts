// `postern eval` and `postern explain`, as processes, with every wrong use that a person may try.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { startAdmin } from '../../src/observe/admin.ts'
import { decisionEvent } from '../../src/observe/decision-event.ts'
import { DecisionRing } from '../../src/observe/decision-ring.ts'
import { createRedactor } from '../../src/observe/redaction.ts'
import { isRunning } from '../../src/observe/server.ts'
import type { DecisionRecord } from '../../src/threads.ts'
import { decisionRecord } from '../observe/support.ts'
import { postern } from '../support/command.ts'

const bundle = (name: string): string =>
  new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url).pathname
const directory = mkdtempSync(join(tmpdir(), 'postern-eval-'))
after(() => rmSync(directory, { recursive: true }))

function file(name: string, content: string): string {
  const path = join(directory, name)
  writeFileSync(path, content)
  return path
}

const OPEN = file('open.json', '{"parsed_path": ["open"]}')

describe('eval', () => {
  it('gives outcome, result, what decided, and times', async () => {
    const { exitCode, stdout } = await postern([
      'eval',
      '--bundle',
      bundle('log-rules'),
      '--input',
      OPEN,
    ])
    assert.equal(exitCode, 0)
    const decision = JSON.parse(stdout)
    assert.equal(decision.outcome, 'allow')
    assert.equal(decision.result, true)
    assert.equal(decision.path, 'envoy/authz/allow')
    assert.match(decision.bundle_digest, /^[0-9a-f]{64}$/)
    assert.ok(decision.metrics.timer_rego_query_eval_ns > 0)
    assert.ok(decision.metrics.timer_rego_load_bundles_ns > 0)
  })

  it('ends with 0 for a denial, and with 1 where the policy failed', async () => {
    for (const [name, input, outcome, exitCode] of [
      ['deny-all', '{}', 'deny', 0],
      ['undefined', '{}', 'error', 1],
      ['abort', '{"parsed_path": ["conflict"]}', 'error', 1],
      ['runaway', '{}', 'timeout', 1],
    ] as const) {
      const path = file(`${name}.json`, input)
      const got = await postern(['eval', '--bundle', bundle(name), '--input', path])
      assert.equal(JSON.parse(got.stdout).outcome, outcome, name)
      assert.equal(got.exitCode, exitCode, name)
    }
  })

  for (const [what, args, expected] of [
    ['a bundle that is not there', ['--bundle', 'nowhere.tar.gz', '--input', OPEN], /--bundle/],
    ['a bundle that is none', ['--bundle', OPEN, '--input', OPEN], /not a readable gzipped tar/],
    [
      'a bundle that the gate refuses',
      ['--bundle', bundle('http-send'), '--input', OPEN],
      /http\.send/,
    ],
    [
      'an input that is not there',
      ['--bundle', bundle('jwt'), '--input', 'nowhere'],
      /--input nowhere/,
    ],
    [
      'an input that is a directory',
      ['--bundle', bundle('jwt'), '--input', directory],
      /directory/,
    ],
    ['broken JSON', ['--bundle', bundle('jwt'), '--input', file('broken', '{"a":')], /not JSON/],
    ['no JSON object', ['--bundle', bundle('jwt'), '--input', file('number', '1')], /no object/],
    ['no entrypoint', ['--bundle', bundle('jwt'), '--input', OPEN, '--entrypoint', 'x y'], /"x y"/],
    [
      'an unknown one',
      ['--bundle', bundle('jwt'), '--input', OPEN, '--entrypoint', 'x'],
      /has no entrypoint x/,
    ],
    ['no input at all', ['--bundle', bundle('jwt')], /--input/],
  ] as const) {
    it(`ends with 2 for ${what}`, async () => {
      const { exitCode, stdout, stderr } = await postern(['eval', ...args])
      assert.deepEqual([exitCode, stdout], [2, ''])
      assert.match(stderr, expected)
      assert.doesNotMatch(stderr, /\n {4}at /)
    })
  }
})

describe('explain', () => {
  const ID = '5f0f2c9e-6a33-4c2c-8a36-0f7f0a0f3d11'
  const now = {
    revision: 'r2',
    bundle_digest: 'cd'.repeat(32),
    entrypoint: 'envoy/authz/allow',
    outcome: 'allow',
    result: { allowed: true },
    eval_ns: 1,
    differs: true,
  }

  async function adminOn(path: string, changes: Partial<DecisionRecord> = {}): Promise<string> {
    const record = decisionRecord({
      outcome: 'deny',
      result: '{"allowed":false}',
      input: JSON.stringify({
        attributes: {
          source: { principal: 'spiffe://example.org/web' },
          request: { http: { method: 'GET', path: '/a\u001b[31m' } },
        },
      }),
      ...changes,
    })
    const event = decisionEvent(record, {
      labels: { id: 'a', version: '1' },
      redactor: createRedactor(),
    })
    assert.ok(event.kind === 'event')
    const decisions = new DecisionRing()
    const { outcome, principal } = record
    decisions.add({ id: record.decisionId, outcome, principal, json: event.json, record })
    const server = await startAdmin(
      { kind: 'unix', path },
      {
        config: () => '',
        snapshot: () => ({}),
        decisions,
        reconsider: () => ({ active: now, candidate: { ...now, revision: 'r3' } }),
        reload: async () => ({ ok: true, generation: 1, problems: [] }),
        drain: () => {},
        policy: {
          rollback: async () => ({ ok: true }),
          promote: async () => ({ ok: true }),
        },
      },
    )
    assert.ok(isRunning(server))
    after(() => server.close())
    return `unix:${path}`
  }

  it('says who asked for what, why, and what the policies say now', async () => {
    const admin = await adminOn(join(directory, 'a.sock'))
    const { exitCode, stdout } = await postern(['explain', ID, '--admin', admin])
    assert.equal(exitCode, 0)
    assert.match(stdout, /outcome {2}deny \(denied\)/)
    assert.match(stdout, /because {2}The policy said no\./)
    assert.match(stdout, /spiffe:\/\/example\.org\/web/)
    assert.match(stdout, /revision r1, bundle abababababab/)
    assert.match(
      stdout,
      /The active policy \(revision r2, .*\) says now: allow, not the same as then/,
    )
    assert.match(stdout, /The candidate policy \(revision r3, /)
    assert.equal(stdout.includes('\u001b'), false)
    const json = await postern(['explain', ID, '--admin', admin, '--json'])
    const { decision, why, code, active, candidate } = JSON.parse(json.stdout)
    assert.deepEqual(
      [decision.decision_id, why, code, active.outcome, candidate.revision],
      [ID, 'The policy said no.', 'denied', 'allow', 'r3'],
    )
  })

  it('ends with 1 for a decision that is gone, and for a sidecar that cannot be asked', async () => {
    const admin = await adminOn(join(directory, 'b.sock'))
    const gone = await postern(['explain', 'no-such', '--admin', admin])
    assert.equal(gone.exitCode, 1)
    assert.match(gone.stderr, /no such decision/)
    const nobody = await postern(['explain', ID, '--admin', `unix:${directory}/nobody`])
    assert.equal(nobody.exitCode, 1)
    assert.match(nobody.stderr, /cannot be asked/)
  })

  it('ends with 1 where the other side is no sidecar, and with 2 for no address', async () => {
    const server = createServer((_, response) => response.end('<html>'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    after(() => server.close())
    const { port } = server.address() as AddressInfo
    const other = await postern(['explain', ID, '--admin', `http://127.0.0.1:${port}`])
    assert.equal(other.exitCode, 1)
    assert.match(other.stderr, /none of an admin listener/)
    const wrong = await postern(['explain', ID, '--admin', 'nonsense'])
    assert.equal(wrong.exitCode, 2)
    assert.match(wrong.stderr, /--admin/)
  })
})
