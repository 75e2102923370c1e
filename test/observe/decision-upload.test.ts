// Uploading against servers of any temper: what was taken is delivered or counted, never both less
// and more, whatever the server does; and memory and bodies stay within their bounds.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import { DecisionUpload, type UploadNotice } from '../../src/observe/decision-upload.ts'
import { EventBuffer } from '../../src/observe/event-buffer.ts'
import { until } from './support.ts'

type Options = ConstructorParameters<typeof DecisionUpload>[0]

/** Answers as `temper` says, by the number of the attempt. */
function server(temper: (attempt: number) => number | Error | 'never' = () => 200) {
  const bodies: Buffer[] = []
  const accepted: string[] = []
  const post: Options['post'] = (body, signal) => {
    bodies.push(body)
    const answer = temper(bodies.length)
    if (answer === 'never') {
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(new Error('aborted')))
      })
    }
    if (answer instanceof Error) return Promise.reject(answer)
    if (answer < 300)
      for (const one of JSON.parse(gunzipSync(body).toString())) accepted.push(one.id)
    return Promise.resolve(answer)
  }
  return { bodies, accepted, post }
}

function uploader(post: Options['post'], changes: Partial<Options> = {}) {
  const notices: UploadNotice[] = []
  const upload = new DecisionUpload({
    minDelayMs: 1,
    maxDelayMs: 2,
    maxEvents: 1000,
    bufferBytes: 1024 * 1024,
    chunkBytes: 1024,
    maxPerSecond: 0,
    post,
    onNotice: (notice) => void notices.push(notice),
    ...changes,
  })
  const total = () => {
    const { pending, results } = upload.deliveries()
    return Object.values(results).reduce((sum, one) => sum + one, pending)
  }
  return { upload, notices, total, results: () => upload.deliveries().results }
}

const event = (id: number, filling = ''): string => JSON.stringify({ id: `${id}`, filling })
const ids = (count: number): string[] => Array.from({ length: count }, (_, id) => `${id}`)
const NEVER = 2 ** 31 - 1

describe('an upload', () => {
  it('sends every event once and in order, in gzipped arrays below the limit', async () => {
    const { bodies, accepted, post } = server()
    const { upload, results } = uploader(post)
    for (let id = 0; id < 500; id++) upload.take(event(id, randomBytes(20).toString('hex')))
    assert.equal(await upload.close(10_000), true)
    assert.deepEqual(accepted, ids(500))
    assert.equal(results().written, 500)
    for (const body of bodies) assert.ok(body.length <= 1024)
    assert.ok(bodies.length > 5 && bodies.length < 60, `${bodies.length} bodies`)
  })

  it('fills its chunks also where events compress well', async () => {
    const { bodies, accepted, post } = server()
    const { upload } = uploader(post, { minDelayMs: NEVER, maxDelayMs: NEVER, maxEvents: 10_000 })
    for (let id = 0; id < 2000; id++) upload.take(event(id, 'the same again'.repeat(10)))
    assert.equal(await upload.close(10_000), true)
    assert.equal(accepted.length, 2000)
    const sizes = bodies.slice(2, -1).map(({ length }) => length)
    assert.ok(
      sizes.every((size) => size > 400 && size <= 1024),
      sizes.join(' '),
    )
  })

  for (const [name, temper] of [
    ['answers 500', () => 500],
    ['answers with a redirect', () => 302],
    ['resets', () => new Error('socket hang up')],
  ] as const) {
    it(`keeps what a server that ${name} did not take, and sends it again`, async () => {
      const { accepted, post } = server((attempt) => (attempt <= 3 ? temper() : 200))
      const { upload, notices, results } = uploader(post, { chunkBytes: 64 * 1024 })
      for (let id = 0; id < 100; id++) upload.take(event(id))
      await until(() => results().written === 100)
      assert.deepEqual(accepted, ids(100))
      assert.deepEqual(
        notices.map(({ kind }) => kind),
        ['failing', 'working'],
      )
      assert.equal(await upload.close(1000), true)
    })
  }

  it('drops the oldest when the buffer is full, and counts them', async () => {
    const { accepted, post } = server(() => 503)
    const { upload, notices, results } = uploader(post, {
      maxEvents: 10,
      minDelayMs: NEVER,
      maxDelayMs: NEVER,
    })
    for (let id = 0; id < 25; id++) upload.take(event(id))
    assert.equal(results().buffer_full, 15)
    assert.equal(upload.deliveries().pending, 10)
    assert.ok(notices.some((one) => one.kind === 'dropped' && one.reason === 'buffer_full'))
    assert.equal(await upload.close(100), false)
    assert.deepEqual(accepted, [])
    assert.equal(results().failed, 10)
  })

  it('drops what is too large alone, and only that', async () => {
    const { accepted, post } = server()
    const { upload, results } = uploader(post)
    upload.take(event(0))
    upload.take(event(1, randomBytes(2000).toString('hex')))
    upload.take(event(2))
    assert.equal(await upload.close(10_000), true)
    assert.deepEqual(accepted, ['0', '2'])
    assert.equal(results().too_large, 1)
  })

  it('drops what is larger than the whole buffer', async () => {
    const { accepted, post } = server()
    const { upload, results } = uploader(post, { bufferBytes: 100 })
    upload.take(event(0, 'x'.repeat(200)))
    upload.take(event(1))
    assert.equal(await upload.close(10_000), true)
    assert.deepEqual([accepted, results().buffer_full], [['1'], 1])
  })

  it('takes no more a second than it may', async () => {
    const { accepted, post } = server()
    const { upload, results, total } = uploader(post, { maxPerSecond: 5 })
    for (let id = 0; id < 100; id++) upload.take(event(id))
    assert.equal(await upload.close(10_000), true)
    assert.equal(total(), 100)
    assert.ok(accepted.length >= 5 && accepted.length < 20, `${accepted.length}`)
    assert.equal(results().rate_limited, 100 - accepted.length)
  })

  it('does not wait for its time when the buffer is half full', async () => {
    const { accepted, post } = server()
    const { upload } = uploader(post, { maxEvents: 10, minDelayMs: NEVER, maxDelayMs: NEVER })
    for (let id = 0; id < 4; id++) upload.take(event(id))
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(accepted, [])
    upload.take(event(4))
    await until(() => accepted.length === 5)
    await upload.close(1000)
  })

  it('ends in time where the server never answers, and says what was left', async () => {
    const { post } = server(() => 'never')
    const { upload, results } = uploader(post)
    for (let id = 0; id < 3; id++) upload.take(event(id))
    assert.equal(await upload.close(50), false)
    assert.equal(results().failed, 3)
    assert.equal(upload.deliveries().pending, 0)
  })

  it('accounts for each event under any mix of tempers', async () => {
    const answer = fc.constantFrom(200, 200, 204, 400, 500, new Error('reset'))
    const size = fc.integer({ min: 0, max: 3000 })
    await fc.assert(
      fc.asyncProperty(
        fc.array(answer, { maxLength: 20 }),
        fc.array(size, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 40 }),
        async (answers, sizes, maxEvents) => {
          const { bodies, accepted, post } = server((attempt) => answers[attempt - 1] ?? 200)
          const { upload, results, total } = uploader(post, { maxEvents, bufferBytes: 20_000 })
          for (const [id, length] of sizes.entries()) {
            upload.take(event(id, randomBytes(length / 2).toString('hex')))
            assert.ok(upload.deliveries().pending <= maxEvents)
            if (id % 7 === 0) await new Promise((resolve) => setImmediate(resolve))
          }
          assert.equal(await upload.close(10_000), true)
          assert.equal(total(), sizes.length)
          assert.equal(accepted.length, results().written)
          assert.equal(new Set(accepted).size, accepted.length)
          for (const body of bodies) assert.ok(body.length <= 1024)
        },
      ),
      { numRuns: 25 },
    )
  })
})

describe('the buffer', () => {
  it('drops none that is lent, and stays within its bounds', () => {
    const buffer = new EventBuffer(4, 1000)
    for (const one of ['a', 'b', 'c']) buffer.add(one)
    assert.deepEqual(buffer.lend(1000, 2), ['a', 'b'])
    assert.equal(buffer.add('d'), 0)
    assert.equal(buffer.add('e'), 1)
    buffer.putBack()
    assert.deepEqual(buffer.lend(1000, 10), ['a', 'b', 'd', 'e'])
    assert.equal(buffer.add('f'), 1, 'everything else is lent')
    assert.equal(buffer.settle(), 4)
    assert.deepEqual([buffer.count, buffer.bytes], [0, 0])
  })

  it('lends at least one, and no more than asked for', () => {
    const buffer = new EventBuffer(100, 10_000)
    for (const one of ['aaaa', 'bbbb', 'cccc']) buffer.add(one)
    assert.deepEqual(buffer.lend(1, 10), ['aaaa'])
    buffer.settle()
    assert.deepEqual(buffer.lend(5, 10), ['bbbb', 'cccc'])
  })

  it('keeps its order and its sums over any use', () => {
    const buffer = new EventBuffer(5000, 1_000_000)
    let next = 0
    let expected = 0
    for (let round = 0; round < 300; round++) {
      for (let i = 0; i < 20; i++) buffer.add(`${next++}`)
      const lent = buffer.lend(Number.POSITIVE_INFINITY, 19)
      if (round % 3 === 0) {
        buffer.putBack()
      } else {
        assert.deepEqual(
          lent,
          Array.from(lent, () => `${expected++}`),
        )
        buffer.settle()
      }
    }
    assert.equal(buffer.count, next - expected)
    buffer.clear()
    assert.deepEqual([buffer.count, buffer.bytes], [0, 0])
  })
})
