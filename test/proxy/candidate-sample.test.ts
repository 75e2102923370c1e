import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cells, cellOf } from '../../src/metrics.ts'
import { CandidateSample, SAMPLES_DROPPED } from '../../src/proxy/candidate-sample.ts'
import { RecordQueue } from '../../src/proxy/records.ts'
import type { DecisionRecord, FromDataThread } from '../../src/threads.ts'

test('as many are chosen as the share says, and none without a candidate', () => {
  const random = [0.05, 0.1, 0.5, 0.99]
  const chosen = (share: number | undefined) =>
    random.map((one) => new CandidateSample(Cells.allocate(), () => one).takes(share, 1))
  assert.deepEqual(chosen(0.1), [true, false, false, false])
  assert.deepEqual(chosen(1), [true, true, true, true])
  assert.deepEqual(chosen(0), [false, false, false, false])
  assert.deepEqual(chosen(undefined), [false, false, false, false])
})

test('a tick has room for so many, and the rest is counted', () => {
  const cells = Cells.allocate()
  const sample = new CandidateSample(cells)
  const inTick = (tickMs: number) =>
    Array.from({ length: 250 }, () => sample.takes(1, tickMs)).filter(Boolean).length
  assert.deepEqual([inTick(100), inTick(200)], [200, 200])
  assert.equal(cells.read(SAMPLES_DROPPED), 100)
})

test('samples leave the room of a full queue to the log', () => {
  const cells = Cells.allocate()
  const sent: FromDataThread[] = []
  const queue = new RecordQueue(
    cells,
    (message) => sent.push(message),
    () => 0,
  )
  const decisionOf = (principal: number) =>
    ({ kind: 'decision', input: '', principal: String(principal) }) as DecisionRecord
  for (let i = 0; i < 3_000; i++) queue.push({ kind: 'sample', decision: decisionOf(i) })
  assert.equal(cells.read(SAMPLES_DROPPED), 3_000 - 2_048)
  for (let i = 0; i < 6_144; i++) queue.push(decisionOf(i))
  assert.equal(cells.read(cellOf('decision_log_events_total', { result: 'queue_full' })), 0)
  queue.push({ ...decisionOf(0), sampled: true })
  assert.equal(cells.read(cellOf('decision_log_events_total', { result: 'queue_full' })), 1)
  assert.equal(cells.read(SAMPLES_DROPPED), 3_000 - 2_048 + 1)
})
