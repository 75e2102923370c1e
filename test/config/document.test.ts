import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { containerCpuLimit, readConfigFile } from '../../src/config/load.ts'
import { keys } from '../../src/config/schema.ts'
import { assertOneProblem, COMPLETE, COMPLETE_FILE, load } from './loading.ts'

const directory = mkdtempSync(join(tmpdir(), 'postern-config-'))
after(() => rmSync(directory, { recursive: true }))

test('takes an empty policy for a mistake, since without one only the allow rules decide', () => {
  for (const text of ['policy:', 'policy: {}', 'policy: # bundle: x']) {
    assertOneProblem(load(text, COMPLETE), /^policy \(/, /has no keys/, /bundle.*leave it out/)
  }
  assert.deepEqual(load('log: {}\ninbound: { limits: }', COMPLETE).problems, [])
})

test('suggests the nearest known key for an unknown one', () => {
  const suggestions: Record<string, string> = {
    'idenity: 1': 'identity',
    'inbound: { forwrd: x }': 'inbound.forward',
    'inbound: { limits: { head_bytes: 1 } }': 'inbound.limits.headBytes',
    'inbound: { limits: { HeadBytes: 1 } }': 'inbound.limits.headBytes',
    'privateKey: a': 'identity.privateKey',
    'trust: { bundle: a }': 'trust.bundles',
    'allow: [{ url: "spiffe://a/b" }]': 'allow\\[0\\].uri',
    'log: { levle: info }': 'log.level',
  }
  for (const [text, suggestion] of Object.entries(suggestions)) {
    const problem = load(text, COMPLETE).problems.find(({ what }) => what === 'is not a key')
    assert.match(problem?.remedy ?? '', new RegExp(`^did you mean ${suggestion}\\?$`), text)
  }
})

test('names the known keys where none is near', () => {
  const { problems } = load('log: { zzzzzzzzzz: 1 }', COMPLETE)
  assert.match(problems[0]?.remedy ?? '', /the keys here are level, access, decisions/)
})

test('never takes a property of objects for a key', () => {
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '<<']) {
    assertOneProblem(load(`{ "${name}": 1 }`, COMPLETE), /./, /is not a key/, /./)
  }
})

test('refuses a value of the wrong kind and says which is right', () => {
  const wrong: readonly (readonly [string, RegExp, RegExp])[] = [
    ['inbound: 5', /^inbound \(postern.yaml:1:10\)/, /a single value where a section/],
    ['inbound: [a]', /^inbound /, /a list where a section/],
    ['[a]', /^postern.yaml:1:1/, /a list where a section/],
    ['hello', /^postern.yaml:1:1/, /a single value where a section/],
    ['workers: { a: b }', /^workers/, /a section where one value/],
    ['workers: [1]', /^workers/, /a list where one value/],
    ['trust: { crls: a }', /^trust.crls/, /a single value where a list/],
    ['workers:', /^workers/, /has no value/],
    ['workers: 1.5', /^workers/, /not a number of threads/],
    ['workers: 0', /^workers/, /not a number of threads/],
    ['drain: { timeout: 30 }', /^drain.timeout/, /is not a duration/],
    ['inbound: { clientCert: yes }', /^inbound.clientCert/, /neither true nor false/],
    ['inbound: { limits: { headerCount: -1 } }', /headerCount/, /not a whole number/],
    ['inbound: { limits: { headBytes: 2MiB } }', /headBytes/, /above/],
    ['log: { access: some }', /^log.access/, /not one of its values/],
    ['? [a, b]\n: c', /^postern.yaml:1:3/, /not a plain word/],
  ]
  for (const [text, where, what] of wrong) assertOneProblem(load(text, COMPLETE), where, what, /./)
})

test('an empty section is the same as none', () => {
  const { problems } = load('inbound:\nlog: {}\ndrain: # later\n', COMPLETE)
  assert.deepEqual(problems, [])
})

test('refuses a key that is written twice', () => {
  assertOneProblem(
    load('workers: 1\nlog: {}\nworkers: 2\n', COMPLETE),
    /^workers \(postern.yaml:3:1\)/,
    /written twice, first in line 1/,
    /keep one/,
  )
  assertOneProblem(load('{"workers": 1, "workers": 2}', COMPLETE), /workers/, /written twice/, /./)
})

test('refuses aliases, so that no bomb can unfold', () => {
  assertOneProblem(load('log: &a { level: info }\ndrain: *a', COMPLETE), /^drain/, /an alias/, /./)
  let bomb = 'a0: &a0 [x]\n'
  for (let level = 1; level < 60; level++) {
    const before = `*a${level - 1}`
    bomb += `a${level}: &a${level} [${Array(9).fill(before).join(', ')}]\n`
  }
  assert.ok(load(`${bomb}allow: *a59`, COMPLETE).problems.length > 0)
})

test('refuses what is not YAML, more than one document, and nothing', () => {
  assertOneProblem(load('a: [1', COMPLETE), /^postern.yaml:1/, /is not YAML/, /syntax/)
  assertOneProblem(load('workers: 1\n---\nworkers: 2\n', COMPLETE), /:2:1/, /is not YAML/, /./)
  for (const text of ['', '   \n', '# only a comment\n', '---\n', '~']) {
    assert.equal(load(text, COMPLETE).config, undefined, JSON.stringify(text))
  }
  assertOneProblem(load('', COMPLETE), /^postern.yaml:1:1/, /is empty/, /--config/)
})

test('deep nesting is refused, not fatal', () => {
  for (const open of ['[', '{a: ', '- ', '? ']) {
    assert.equal(load(open.repeat(20_000), COMPLETE).config, undefined)
  }
})

test('a problem never carries a control character of the file to the terminal', () => {
  const texts = ['"\\e[31mred": 1\n', 'workers: "\\e[2J"\n', '\x1b[31m: [\n', '@\x1b[2J', '"\x1b']
  for (const text of texts) {
    const { problems } = load(text, COMPLETE)
    assert.notEqual(problems.length, 0, JSON.stringify(text))
    for (const { where, what } of problems) assert.doesNotMatch(where + what, /\x1b/)
  }
})

test('any text is answered with a configuration or with problems', () => {
  const words = [...new Set(keys.flatMap(({ path }) => path.replaceAll('[]', '').split('.')))]
  const scalar = fc.oneof(
    fc.string(),
    fc.constantFrom('auto', 'off', '1s', '8KiB', '*', '&a', '!!x'),
  )
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      scalar,
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(fc.oneof(fc.constantFrom(...words), fc.string()), tie('tree'), { maxKeys: 4 }),
    ),
  }))
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    tree.map((value) => JSON.stringify(value)),
    tree.map((value) => stringify(value)),
    fc.nat(COMPLETE_FILE.length).map((at) => COMPLETE_FILE.slice(0, at)),
  )
  fc.assert(
    fc.property(text, (written) => {
      const { config, problems } = load(written)
      assert.equal(config === undefined, problems.length > 0)
    }),
    { numRuns: 500 },
  )
})

test('a file that cannot be read is a problem that says why', () => {
  const file = join(directory, 'good.yaml')
  writeFileSync(file, COMPLETE_FILE)
  const read = readConfigFile(file)
  assert.deepEqual(read, { kind: 'file', file: { path: file, text: COMPLETE_FILE } })

  writeFileSync(join(directory, 'binary'), Buffer.from([0x77, 0xff, 0xfe]))
  writeFileSync(join(directory, 'large'), 'x'.repeat(1024 * 1024 + 1))
  const faults: readonly (readonly [string, RegExp])[] = [
    [directory, /is a directory/],
    [join(directory, 'none.yaml'), /does not exist/],
    [join(file, 'below'), /needs a directory/],
    [join(directory, 'binary'), /not UTF-8/],
    [join(directory, 'large'), /larger than 1 MiB/],
    ['a\0b', /cannot be read/],
  ]
  for (const [path, what] of faults) {
    const read = readConfigFile(path)
    assert.equal(read.kind, 'problem', path)
    assert.match(read.kind === 'problem' ? read.problem.what : '', what)
  }
})

test('workers: auto is the quota of the container, rounded up, and at least one', () => {
  const limit = (files: Record<string, string>) =>
    containerCpuLimit((path) => {
      const text = files[path]
      if (text === undefined) throw new Error('ENOENT')
      return text
    }, 8)
  const v1 = (quota: string) => ({
    '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': quota,
    '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
  })
  assert.equal(limit({}), 8)
  assert.equal(limit({ '/sys/fs/cgroup/cpu.max': 'max 100000\n' }), 8)
  assert.equal(limit({ '/sys/fs/cgroup/cpu.max': '200000 100000\n' }), 2)
  assert.equal(limit({ '/sys/fs/cgroup/cpu.max': '150000 100000\n' }), 2)
  assert.equal(limit({ '/sys/fs/cgroup/cpu.max': '10000 100000\n' }), 1)
  assert.equal(limit({ '/sys/fs/cgroup/cpu.max': '3200000 100000\n' }), 8)
  assert.equal(limit({ '/sys/fs/cgroup/cpu.max': 'nonsense' }), 8)
  assert.equal(limit(v1('300000\n')), 3)
  assert.equal(limit(v1('-1\n')), 8)
})
