import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parse } from 'yaml'
import { FLAGS, flagAttribute } from '../../src/config/flags.ts'
import { effectiveConfig, printConfig } from '../../src/config/print.ts'
import { keys, typeOf } from '../../src/config/schema.ts'
import { COMPLETE, COMPLETE_FILE, configOf, load, loadFlags } from './loading.ts'

test('a printed configuration reads as the same configuration', () => {
  const path = fc.string({ minLength: 1 }).filter((text) => !text.includes('\0'))
  const flags = fc.record(
    {
      listen: fc.constantFrom(':0', '[::1]:9', 'unix:/a b'),
      forward: fc.constantFrom('http://localhost', `unix:/run/\${${'X'}}.sock`),
      cert: path,
      ca: fc.array(path, { minLength: 1, maxLength: 3 }),
      crl: fc.array(path, { minLength: 1, maxLength: 2 }),
      policy: path.filter((text) => !/^https?:/i.test(text)),
      allowCn: fc.array(
        path.filter((text) => !text.includes('*')),
        { minLength: 1, maxLength: 3 },
      ),
      admin: fc.constantFrom('off', 'unix:/admin'),
      metrics: fc.constantFrom('off', '127.0.0.1:0'),
      workers: fc.constantFrom('auto', '1'),
      unsafeForward: fc.boolean(),
    },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(flags, (some) => {
      const { config } = loadFlags({ ...some })
      if (config !== undefined) assert.deepEqual(configOf(load(printConfig(config))), config)
    }),
    { numRuns: 200 },
  )
})

/** What `auto` comes to on a machine with memory enough. */
const AUTO: Readonly<Record<string, string>> = {
  'inbound.limits.connections': '10000',
  'inbound.limits.connectionsPerAddress': '5000',
  'inbound.limits.connectionsPerPeer': '5000',
  'inbound.limits.heldBytes': '256MiB',
}

test('every default is shown', () => {
  // With one key of each section that is only there when it is used.
  const file = COMPLETE_FILE.replace(
    'bundle: bundle.tar.gz',
    'bundle: https://a/b\n  signing: { keys: { a: b } }\n  candidate: { bundle: c }\n  rollback: { maxDenyIncrease: 1 }',
  )
  const upload = 'log: { upload: { url: "https://a/b" } }\n'
  const printed = effectiveConfig(configOf(load(file + upload)))
  for (const { path, default: text } of keys) {
    if (text === undefined) continue
    const steps = path.replace('[]', '').split('.')
    const value = steps.reduce<unknown>(
      (at, step) => (at as Record<string, unknown> | undefined)?.[step],
      printed,
    )
    const shown = text === '[]' ? JSON.stringify(value) : String(value)
    assert.equal(shown, text === 'auto' ? AUTO[path] : text, path)
  }
})

test('what is off and what is absent are told apart', () => {
  const printed = parse(printConfig(configOf(loadFlags({ admin: 'off' }))))
  assert.equal(printed.admin.listen, 'off')
  assert.equal(printed.probes, undefined)
  assert.equal(printed.policy, undefined)
})

test('every default is a value that its own key accepts', () => {
  for (const key of keys) {
    if (key.default === undefined || key.default === '[]') continue
    assert.equal(typeOf(key).parse(key.default, key).kind, 'value', key.path)
  }
})

test('every unsafe key has a flag that says so, and nothing safe is called unsafe', () => {
  for (const key of keys) {
    const name = key.path.split('.').at(-1) ?? ''
    assert.equal(/^unsafe[A-Z]/.test(name), key.unsafe === true, key.path)
    assert.equal(/^--unsafe-/.test(key.flag?.name ?? ''), key.unsafe === true, key.path)
  }
})

test('no two keys or flags share a name', () => {
  const names = FLAGS.flatMap(({ flag, aliases }) => [flag, ...aliases])
  assert.equal(new Set(names.map(flagAttribute)).size, names.length)
  assert.equal(new Set(keys.map(({ path }) => path)).size, keys.length)
})

test('flags of a list may be repeated, others may not, switches take no argument', () => {
  const of = (name: string) => FLAGS.find(({ flag }) => flag === name)
  assert.equal(of('--allow-uri')?.repeatable, true)
  assert.equal(of('--ca')?.repeatable, true)
  assert.equal(of('--listen')?.repeatable, false)
  assert.equal(of('--allow-all')?.argument, undefined)
  assert.equal(of('--unsafe-forward')?.argument, undefined)
  assert.equal(of('--log-level')?.argument, 'WORD')
  assert.deepEqual(of('--forward')?.aliases, ['--target'])
  assert.ok(
    Object.keys(COMPLETE).every((name) => FLAGS.some((one) => flagAttribute(one.flag) === name)),
  )
})
