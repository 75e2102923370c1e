import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../../src/observe/log.ts'
import { REDACTED } from '../../src/observe/redaction.ts'
import { MemorySink } from './support.ts'

test('a line is JSON with level as a word, ISO time and msg', () => {
  const sink = new MemorySink()
  createLogger({ level: 'info', destination: sink }).warn({ generation: 3 }, 'kept the old one')
  const [line] = sink.events
  assert.deepEqual(Object.keys(line ?? {}), ['level', 'time', 'generation', 'msg'])
  assert.equal(line?.['level'], 'warn')
  assert.equal(line?.['msg'], 'kept the old one')
  assert.match(`${line?.['time']}`, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
})

test('lines below the level are not written', () => {
  const sink = new MemorySink()
  const logger = createLogger({ level: 'warn', destination: sink })
  logger.debug('a')
  logger.info('b')
  logger.warn('c')
  logger.error('d')
  assert.deepEqual(
    sink.events.map((one) => one['msg']),
    ['c', 'd'],
  )
})

test('secrets are replaced, built-in and configured ones', () => {
  const sink = new MemorySink()
  const logger = createLogger({ level: 'info', redact: ['X-Pin'], destination: sink })
  logger.info({ headers: { authorization: 'Bearer a', 'x-pin': '1', accept: '*/*' } }, 'x')
  assert.deepEqual(sink.events[0]?.['headers'], {
    authorization: REDACTED,
    'x-pin': REDACTED,
    accept: '*/*',
  })
})

test('an error becomes its name, message, code and stack', () => {
  const sink = new MemorySink()
  const logger = createLogger({ level: 'info', destination: sink })
  const error = Object.assign(new Error('port taken'), { code: 'EADDRINUSE' })
  logger.error({ err: error, error }, 'failed')
  for (const key of ['err', 'error']) {
    const logged = sink.events[0]?.[key] as Record<string, unknown>
    assert.equal(logged['message'], 'port taken')
    assert.equal(logged['code'], 'EADDRINUSE')
    assert.match(`${logged['stack']}`, /port taken/)
  }
})

test('text with newlines cannot make a second line', () => {
  const sink = new MemorySink()
  createLogger({ level: 'info', destination: sink }).info({ path: 'a\n{"level":"error"}' }, 'b\nc')
  assert.equal(sink.lines.length, 1)
  assert.ok(!sink.lines[0]?.includes('\n'))
})

test('lines that a blocked destination refuses are counted', () => {
  const sink = new MemorySink()
  sink.full = true
  const logger = createLogger({ level: 'info', destination: sink })
  logger.info('a')
  logger.error('b')
  assert.equal(logger.dropped, 2)
  assert.equal(logger.line('{}'), false)
})
