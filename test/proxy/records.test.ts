import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cells, cellOf } from '../../src/metrics.ts'
import { RecordQueue } from '../../src/proxy/records.ts'
import type { DecisionRecord, FromDataThread, SentInput } from '../../src/threads.ts'

const KIB = 1024
const DROPPED = cellOf('decision_log_events_total', { result: 'queue_full' })

function setUp(heldBytes = 0) {
  const cells = Cells.allocate()
  const sent: { records: number; bytes: number }[] = []
  const post = (message: FromDataThread): void => {
    if (message.kind !== 'records') assert.fail(message.kind)
    sent.push({ records: message.records.length, bytes: message.bytes })
  }
  const queue = new RecordQueue(cells, post, () => heldBytes)
  return { queue, sent, dropped: () => cells.read(DROPPED) }
}

const decisionOn = (input: SentInput, principal = 'one') =>
  ({ kind: 'decision', input, principal }) as DecisionRecord<SentInput>

const factsWith = (value: string): SentInput => ({
  requestId: 'a',
  timeMs: 0,
  method: 'GET',
  target: '/',
  path: '/',
  query: undefined,
  host: 'localhost',
  scheme: 'https',
  protocol: 'HTTP/2',
  fields: ['x-large', value],
  bodySize: 0,
  connection: { beforeRequest: '{', afterRequest: '', ending: '}' },
})

for (const [what, input] of [
  ['document', 'x'.repeat(31 * KIB)],
  ['head', factsWith('x'.repeat(31 * KIB))],
] as const) {
  test(`records on their way are bounded by what clients wrote in them: a large ${what}`, () => {
    const { queue, sent, dropped } = setUp()
    for (let i = 0; i < 300; i++) queue.push(decisionOn(input, `${i}`))
    // 8 MiB.
    assert.equal(Math.round(dropped() / 10), 4)
    // Messages are small, too: one that is not holds up the thread that makes it.
    assert.ok(sent.every(({ bytes }) => bytes < 600 * KIB))
  })
}

test('what was taken makes room for as much', () => {
  const { queue, sent, dropped } = setUp()
  for (let i = 0; i < 300; i++) queue.push(decisionOn('x'.repeat(31 * KIB), `${i}`))
  const before = dropped()
  const [first] = sent
  assert.ok(first !== undefined)
  queue.taken(first.bytes)
  for (let i = 0; i < first.records; i++) queue.push(decisionOn('x'.repeat(31 * KIB), `${i}`))
  assert.equal(dropped(), before)
  queue.push(decisionOn('', 'last'))
  assert.equal(dropped(), before + 1)
})

test('of small records there are some thousands', () => {
  const { queue, dropped } = setUp()
  for (let i = 0; i < 8_000; i++) queue.push(decisionOn('', `${i}`))
  assert.equal(dropped(), 0)
})

test('there are more where there is more memory', () => {
  const { queue, dropped } = setUp(256 * KIB * KIB)
  for (let i = 0; i < 2_000; i++) queue.push(decisionOn('x'.repeat(31 * KIB), `${i}`))
  assert.equal(dropped(), 0)
})

test('a principal that floods the log does not keep others out of it', () => {
  const { queue, dropped, sent } = setUp()
  const large = 'x'.repeat(31 * KIB)
  for (let i = 0; i < 1_000; i++) queue.push(decisionOn(large, 'flooder'))
  const before = dropped()
  for (let i = 0; i < 60; i++) {
    queue.push(decisionOn(large, `another ${i % 3}`))
    queue.push(decisionOn(large, 'flooder'))
  }
  // There was a quarter left, for them alone.
  assert.equal(dropped() - before, 60)
  // As the log goes on, the flooder has its part of it, and no more.
  for (const { bytes } of sent.splice(0, 8)) queue.taken(bytes)
  const during = dropped()
  for (let i = 0; i < 100; i++) queue.push(decisionOn(large, 'flooder'))
  assert.ok(dropped() - during > 10 && dropped() - during < 100, `${dropped() - during} of 100`)
  const after = dropped()
  for (let i = 0; i < 5; i++) queue.push(decisionOn(large, 'another 0'))
  assert.equal(dropped(), after)
})
