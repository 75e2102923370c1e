import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { FLAGS } from '../../src/config/flags.ts'
import { keys } from '../../src/config/schema.ts'
import { ERRORS } from '../../src/errors.ts'
import { METRICS } from '../../src/metrics.ts'
import { renderConfigSchema } from '../../tools/config-schema.ts'
import { staleDocuments } from '../../tools/docs.ts'
import { ENDPOINTS, EXAMPLE, renderReference } from '../../tools/reference.ts'
import { configOf, load } from './loading.ts'

test('the committed documents are what the tables say (npm run docs)', () => {
  assert.deepEqual(staleDocuments(), [])
})

test('the reference names every key, flag, metric and error', () => {
  const page = renderReference()
  const names = [
    ...keys.map(({ path }) => path),
    ...FLAGS.flatMap(({ flag, aliases }) => [flag, ...aliases]),
    ...Object.keys(METRICS),
    ...Object.keys(ERRORS),
  ]
  for (const name of names) assert.ok(page.includes(`\`${name}\``), name)
})

test('the example of the reference is a whole configuration', () => {
  const config = configOf(load(EXAMPLE))
  assert.equal(config.inbound.limits.bodyBytes, 10_485_760)
})

test('the reference lists the routes that the listeners serve, and no others', () => {
  const documented = (listener: string) =>
    ENDPOINTS.filter(([one]) => one === listener)
      .map(([, call]) => call.split(' ')[1]?.replace('/ID', '/*') ?? '')
      .filter((path) => path !== '/')
  const served = (file: string) => {
    const source = readFileSync(new URL(`../../src/observe/${file}`, import.meta.url), 'utf8')
    return [...source.matchAll(/path: '(\/[^']*)'/g)].map(([, path]) => path)
  }
  assert.deepEqual(documented('admin').sort(), served('admin.ts').sort())
  assert.deepEqual(documented('metrics').sort(), served('health.ts').sort())
})

test('the schema knows the keys that the program takes', () => {
  const schema = JSON.parse(renderConfigSchema())
  const find = (path: string) =>
    path
      .replaceAll('[]', '.[]')
      .split('.')
      .reduce((at, step) => (step === '[]' ? at?.items : at?.properties?.[step]), schema)
  for (const key of keys) {
    assert.notEqual(find(key.path), undefined, key.path)
  }
  assert.equal(find('inbound').additionalProperties, false)
  assert.equal(find('inbound.limits.headBytes').default, '32KiB')
  assert.equal(find('inbound.limits.handshakes').default, 64)
  assert.deepEqual(find('log.level').anyOf[0], { enum: ['debug', 'info', 'warn', 'error'] })
})
