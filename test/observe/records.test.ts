import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { Cells, cellOf } from '../../src/metrics.ts'
import type { DecisionRules } from '../../src/observe/decision-event.ts'
import { DecisionLog } from '../../src/observe/decision-log.ts'
import { createLogger, type LogLevel } from '../../src/observe/log.ts'
import { RecordSink } from '../../src/observe/records.ts'
import { createRedactor, REDACTED } from '../../src/observe/redaction.ts'
import { accessRecord, decisionRecord, handshakeRecord, MemorySink, until } from './support.ts'

function setUp(
  config: Partial<Config['log']> = {},
  level: LogLevel = 'info',
  windowMs = 1000,
  rules?: DecisionRules,
) {
  const lines = new MemorySink()
  const logger = createLogger({ level, destination: lines })
  const redactor = createRedactor()
  const cells = Cells.allocate()
  const decisions = DecisionLog.open({
    logger,
    redactor,
    labels: { id: 'a', version: '1' },
    onEvent: () => {},
    rules,
  })
  assert.ok(decisions instanceof DecisionLog)
  const sink = new RecordSink({
    logger,
    decisions,
    config: { access: 'denied', decisions: 'all', ...config },
    redactor,
    cells,
    linesPerWindow: 3,
    windowMs,
  })
  return { sink, lines, cells, decisions }
}

const ALLOWED = accessRecord()
const DENIED = accessRecord({ status: 403, outcome: 'deny', code: 'denied' })
const OWN_502 = accessRecord({ status: 502, code: 'upstream_refused' })
const WORKLOADS_500 = accessRecord({ status: 500 })
const BROKEN_OFF = accessRecord({ status: 206, code: 'upstream_reset' })
const UNREACHED_TCP = accessRecord({ status: 0, code: 'upstream_refused' })
const LEFT = accessRecord({ status: 201, code: 'client_closed' })

for (const [mode, statuses] of [
  ['off', []],
  ['denied', [403, 502, 206, 0]],
  ['all', [200, 403, 502, 500, 206, 0, 201]],
] as const) {
  test(`access log ${mode} writes ${statuses.join(', ') || 'nothing'}`, () => {
    const { sink, lines } = setUp({ access: mode }, 'error')
    sink.take([ALLOWED, DENIED, OWN_502, WORKLOADS_500, BROKEN_OFF, UNREACHED_TCP, LEFT], 0)
    assert.deepEqual(
      lines.events.map((one) => one['status']),
      statuses,
    )
  })
}

test('an access line says who asked what, what came of it, and no secret', () => {
  const { sink, lines } = setUp()
  sink.take([{ ...DENIED, path: '/a?token=abc' }], 1)
  assert.deepEqual(lines.events, [
    {
      level: 'info',
      time: '2026-01-02T03:04:05.000Z',
      msg: 'request',
      event: 'access',
      request_id: 'req-1',
      decision_id: 'd-1',
      principal: 'spiffe://example.org/web',
      remote_address: '10.0.0.1:4242',
      method: 'GET',
      path: `/a?token=${REDACTED}`,
      protocol: 'http/1.1',
      status: 403,
      outcome: 'deny',
      code: 'denied',
      duration_ms: 1.5,
      request_bytes: 10,
      response_bytes: 20,
      thread: 1,
    },
  ])
})

for (const [mode, outcomes] of [
  ['off', []],
  ['denied', ['deny', 'error']],
  ['all', ['allow', 'deny', 'error']],
] as const) {
  test(`decision log ${mode} writes ${outcomes.join(', ') || 'nothing'}`, () => {
    const { sink, lines } = setUp({ decisions: mode })
    sink.take(
      ['allow', 'deny', 'error'].map((outcome) => decisionRecord({ outcome })),
      0,
    )
    assert.deepEqual(
      lines.events.map(({ custom }) => (custom as { outcome: string }).outcome),
      outcomes,
    )
  })
}

test('a dropped access line is counted where the metrics can see it', () => {
  const { sink, lines, cells } = setUp()
  lines.full = true
  sink.take([DENIED], 0)
  assert.equal(cells.read(cellOf('log_records_dropped_total', { kind: 'access' })), 1)
})

test('a failed handshake is logged with reason, both times and address', () => {
  const { sink, lines } = setUp()
  sink.take([handshakeRecord()], 0)
  const [line] = lines.events
  assert.equal(line?.['level'], 'warn')
  assert.equal(line?.['reason'], 'expired')
  assert.match(`${line?.['detail']}`, /notAfter 2026-01-01.* now 2026-01-02/)
  assert.equal(line?.['remote_address'], '[2001:db8::1]:4242')
})

test('what a client puts into its certificate is cut short', () => {
  const { sink, lines } = setUp()
  sink.take([handshakeRecord({ subject: 'x'.repeat(60_000) })], 0)
  assert.ok(lines.lines[0]!.length < 1500)
})

test('a flood of failed handshakes gives a few lines for each reason, then their number', async () => {
  const { sink, lines } = setUp({}, 'info', 20)
  const flood = Array.from({ length: 1000 }, () => handshakeRecord())
  sink.take([...flood, handshakeRecord({ reason: 'untrusted' })], 0)
  const before = lines.events.map((one) => one['reason'])
  assert.deepEqual(before, ['expired', 'expired', 'expired', 'untrusted'])
  // The limiter's timer does not keep a process alive; this one does.
  const alive = setInterval(() => {}, 1000)
  await until(() => lines.lines.length > 4)
  clearInterval(alive)
  assert.equal(lines.events[4]?.['suppressed'], 997)
  sink.take([handshakeRecord()], 0)
  await until(() => lines.events.some((one, i) => i > 4 && one['event'] === 'handshake_failed'))
})

test('a port scan is silent at the usual level', () => {
  const { sink, lines } = setUp()
  sink.take([handshakeRecord({ reason: 'client_closed' })], 0)
  assert.equal(lines.lines.length, 0)
})

test('a cut connection is logged with the sentence of its code', () => {
  const { sink, lines } = setUp()
  sink.take(
    [
      {
        kind: 'cut',
        timeMs: 0,
        remoteAddress: '10.0.0.1',
        remotePort: 1,
        principal: 'spiffe://example.org/web',
        serial: '0a',
        code: 'peer_revoked',
        detail: 'serial 0a is in ca.crl',
      },
    ],
    0,
  )
  assert.equal(lines.events[0]?.['msg'], 'The certificate of the peer has been revoked.')
  assert.equal(lines.events[0]?.['code'], 'peer_revoked')
})

test('a workload that is not there is told of once in a while, however many ask for it', () => {
  const { sink, lines } = setUp()
  const detail = 'connect ECONNREFUSED 127.0.0.1:8080'
  for (let i = 0; i < 3; i++) sink.take([{ kind: 'unreachable', timeMs: 0, detail }], 0)
  assert.deepEqual(
    lines.events.map(({ event, detail: told, level }) => [event, told, level]),
    [['workload_unreachable', detail, 'warn']],
  )
})

test('records whose masks take long hold up nothing else, and stay in their order', async () => {
  const slow = Promise.withResolvers<void>()
  let asked = 0
  const { sink, lines } = setUp({}, 'info', 1000, {
    mask: () => {
      asked++
      const end = performance.now() + 3
      while (performance.now() < end);
      return { kind: 'undefined' }
    },
  })
  const records = (from: number) =>
    Array.from({ length: 20 }, (_, i) => decisionRecord({ decisionId: `${from + i}` }))
  const first = sink.take(records(0), 0)
  const second = sink.take(records(20), 1)
  setImmediate(slow.resolve)
  await slow.promise
  assert.ok(asked < 40, `${asked} were masked before anything else had its turn`)
  await sink.settled(10_000)
  await Promise.all([first, second])
  assert.deepEqual(
    lines.events.map(({ decision_id }) => decision_id),
    Array.from({ length: 40 }, (_, i) => `${i}`),
  )
})

test('records that are written at once owe nothing', () => {
  const { sink } = setUp()
  assert.equal(sink.take([decisionRecord()], 0), undefined)
})
