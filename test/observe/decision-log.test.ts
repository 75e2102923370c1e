import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { decisionEvent } from '../../src/observe/decision-event.ts'
import { DecisionLog, type DecisionLogOptions } from '../../src/observe/decision-log.ts'
import { DecisionRing } from '../../src/observe/decision-ring.ts'
import { createLogger } from '../../src/observe/log.ts'
import { createRedactor, REDACTED } from '../../src/observe/redaction.ts'
import { decisionRecord, inputText, MemorySink } from './support.ts'

const redactor = createRedactor()
const labels = { id: 'pod-1', version: '0.1.0' }
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-decisions-'))
after(() => fs.rmSync(directory, { recursive: true }))

const event = (changes: Parameters<typeof decisionRecord>[0] = {}) => {
  const outcome = decisionEvent(decisionRecord(changes), { labels, redactor })
  assert.equal(outcome.kind, 'event')
  const json = outcome.kind === 'event' ? outcome.json : ''
  assert.ok(!json.includes('\n'))
  return JSON.parse(json) as Record<string, unknown>
}

test('an event has the shape and order of EventV1, then our own fields', () => {
  const input = inputText({ authorization: 'Bearer abc', accept: '*/*' }, '/a?token=t')
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const json = event({ input, traceparent, outcome: 'error', error: 'trap' })
  assert.deepEqual(Object.keys(json), [
    'labels',
    'decision_id',
    'trace_id',
    'span_id',
    'bundles',
    'path',
    'input',
    'result',
    'masked',
    'error',
    'timestamp',
    'metrics',
    'req_id',
    'custom',
  ])
  assert.deepEqual(Object.keys(json['custom'] as object), [
    'outcome',
    'rule',
    'bundle_digest',
    'input_digest',
  ])
  assert.deepEqual(json['labels'], labels)
  assert.equal(json['trace_id'], '0af7651916cd43dd8448eb211c80319c')
  assert.equal(json['span_id'], 'b7ad6b7169203331')
  assert.deepEqual(json['bundles'], { policy: { revision: 'r1' } })
  assert.equal(json['path'], 'envoy/authz/allow')
  assert.equal(json['timestamp'], '2026-01-02T03:04:05.678000000Z')
  assert.deepEqual(json['metrics'], { timer_rego_query_eval_ns: 42_000 })
  assert.deepEqual(json['result'], { allowed: true })
  assert.deepEqual(json['error'], { message: 'trap' })
  assert.deepEqual(json['masked'], [
    '/input/attributes/request/http/headers/authorization',
    '/input/attributes/request/http/path',
  ])
  const http = (json['input'] as { attributes: { request: { http: Record<string, unknown> } } })
    .attributes.request.http
  assert.deepEqual(http['headers'], { authorization: REDACTED, accept: '*/*' })
  assert.equal(http['path'], `/a?token=${REDACTED}`)
})

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const digestIn = (json: Record<string, unknown>): unknown =>
  (json['custom'] as Record<string, unknown>)['input_digest']

test('the input digest is that of the text that the policy read, where nothing is masked', () => {
  // Neither order nor number survives a JSON.parse.
  const input = '{"b":1.0,"10":1,"2":12345678901234567890,"attributes":{}}'
  const outcome = decisionEvent(decisionRecord({ input }), { labels, redactor })
  assert.ok(outcome.kind === 'event' && outcome.json.includes(`"input":${input},`))
  assert.equal(digestIn(JSON.parse(outcome.json)), sha256(input))
})

test('the input digest tells nothing about what was masked', () => {
  const json = event({ input: inputText({ authorization: 'Bearer abc' }) })
  assert.equal(digestIn(json), sha256(JSON.stringify(json['input'])))
})

test('what does not exist is left out', () => {
  const { result, entrypoint, revision, bundleDigest, ...rest } = decisionRecord({ evalNs: 0 })
  const outcome = decisionEvent(rest, { labels, redactor })
  const json = JSON.parse(outcome.kind === 'event' ? outcome.json : '') as object
  for (const name of ['trace_id', 'bundles', 'path', 'result', 'masked', 'error', 'metrics']) {
    assert.ok(!(name in json), name)
  }
})

test('an invalid traceparent gives no trace identifier', () => {
  for (const traceparent of ['x', `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, '00-A-b-01', '']) {
    assert.ok(!('trace_id' in event({ traceparent })), traceparent)
  }
})

test('a line stays one line whatever the texts hold', () => {
  const json = event({
    requestId: 'a"\nb',
    error: 'c\u2028\nd',
    input: JSON.stringify({ x: 1 }, null, 2),
    result: '{\n"allowed": true }',
  })
  assert.equal(json['req_id'], 'a"\nb')
  assert.deepEqual(json['input'], { x: 1 })
})

function opened(changes: Partial<DecisionLogOptions> = {}) {
  const sink = new MemorySink()
  const results: string[] = []
  const log = DecisionLog.open({
    logger: createLogger({ level: 'info', destination: sink }),
    redactor,
    labels,
    onEvent: (result) => void results.push(result),
    ...changes,
  })
  assert.ok(log instanceof DecisionLog)
  return { log, sink, results }
}

test('what cannot be redacted is not logged, and counted', () => {
  const { log, sink, results } = opened()
  log.record(decisionRecord({ input: 'token {' }))
  log.record(decisionRecord({ result: 'nonsense' }))
  assert.deepEqual(results, ['unreadable', 'unreadable'])
  assert.equal(sink.lines.length, 0)
  assert.equal(log.ring.count, 0)
})

test('who is hidden in an event is not found by the name', () => {
  const mask = () => ({ kind: 'result', text: '["/input/source_principal"]' }) as const
  const { log } = opened({ rules: { mask } })
  const principal = 'spiffe://example.org/secret'
  const shown = 'spiffe://example.org/shown'
  log.record(decisionRecord({ principal, input: JSON.stringify({ source_principal: principal }) }))
  log.record(decisionRecord({ principal: shown, input: JSON.stringify({ peer: shown }) }))
  assert.equal(log.ring.list({ principal, limit: 9 }).length, 0)
  assert.equal(log.ring.list({ principal: shown, limit: 9 }).length, 1)
  assert.equal(log.ring.list({ limit: 9 }).length, 2)
})

test('a line on the console is one that collectors of OPA know', () => {
  const { log, sink } = opened()
  log.record(decisionRecord())
  const [line] = sink.events
  assert.deepEqual(Object.keys(line ?? {}).slice(0, 5), ['level', 'time', 'msg', 'type', 'labels'])
  assert.equal(line?.['type'], 'openpolicyagent.org/decision_logs')
  assert.equal(line?.['msg'], 'Decision Log')
})

test('a full destination drops and counts, and the ring still has the decision', () => {
  const { log, sink, results } = opened()
  sink.full = true
  log.record(decisionRecord())
  assert.deepEqual(log.deliveries(), [
    { sink: 'console', pending: 0, results: { written: 0, failed: 0, buffer_full: 1 } },
  ])
  assert.equal(log.ring.count, 1)
  sink.full = false
  log.record(decisionRecord(), false)
  assert.equal(sink.lines.length, 0)
  assert.deepEqual(results, ['logged', 'sampled_out'])
})

test('a file gets the lines, and again after it was rotated', async () => {
  const file = path.join(directory, 'decisions.ndjson')
  const { log, sink } = opened({ file })
  log.record(decisionRecord({ decisionId: 'one' }))
  fs.renameSync(file, `${file}.1`)
  assert.equal(log.reopen(), undefined)
  log.record(decisionRecord({ decisionId: 'two' }))
  assert.equal(await log.close(10_000), true)
  assert.deepEqual(log.deliveries()[0]?.results, { written: 2, failed: 0, buffer_full: 0 })
  const text = fs.readFileSync(file, 'utf8')
  const ids = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).decision_id)
  assert.deepEqual(ids, ['one', 'two'])
  assert.equal(sink.lines.length, 0)
  assert.equal(fs.statSync(file).mode & 0o777, 0o600)
})

test('a directory as decision file is a problem at start', () => {
  const logger = createLogger({ level: 'info', destination: new MemorySink() })
  const onEvent = assert.fail
  const problem = DecisionLog.open({ file: directory, logger, redactor, labels, onEvent })
  assert.ok(!(problem instanceof DecisionLog))
  assert.equal(problem.where, 'log.decisionFile')
})

const recent = (
  id: string,
  changes: { outcome?: string; principal?: string; json?: string } = {},
) => ({
  id,
  outcome: 'allow',
  principal: 'a',
  json: '{}',
  record: decisionRecord({ input: '{}', result: 'true' }),
  ...changes,
})

test('the ring keeps the newest, newest first, and finds by identifier', () => {
  const ring = new DecisionRing(3)
  for (const id of ['1', '2', '3', '4', '5']) ring.add(recent(id))
  assert.deepEqual(
    ring.list({ limit: 10 }).map(({ id }) => id),
    ['5', '4', '3'],
  )
  assert.deepEqual(
    ring.list({ limit: 2 }).map(({ id }) => id),
    ['5', '4'],
  )
  assert.equal(ring.find('4')?.id, '4')
  assert.equal(ring.find('1'), undefined)
  assert.equal(ring.size, 3 * '{}{}true'.length)
})

test('the ring filters by outcome and principal', () => {
  const ring = new DecisionRing()
  ring.add(recent('1', { outcome: 'deny' }))
  ring.add(recent('2', { principal: 'b' }))
  ring.add(recent('3', { outcome: 'deny', principal: 'b' }))
  const ids = (outcome?: string, principal?: string) =>
    ring
      .list({ ...(outcome ? { outcome } : {}), ...(principal ? { principal } : {}), limit: 10 })
      .map(({ id }) => id)
  assert.deepEqual(ids('deny'), ['3', '1'])
  assert.deepEqual(ids(undefined, 'b'), ['3', '2'])
  assert.deepEqual(ids('deny', 'b'), ['3'])
  assert.deepEqual(ids('error'), [])
})

test('the ring is bounded by size as well, and skips what alone would exceed it', () => {
  const ring = new DecisionRing(100, 1000)
  for (let i = 0; i < 50; i++) {
    ring.add(recent(`${i}`, { json: 'x'.repeat(294) }))
    assert.ok(ring.size <= 1000)
  }
  assert.deepEqual(
    ring.list({ limit: 10 }).map(({ id }) => id),
    ['49', '48', '47'],
  )
  ring.add(recent('huge', { json: 'x'.repeat(995) }))
  assert.equal(ring.count, 3)
  assert.equal(ring.find('huge'), undefined)
})
