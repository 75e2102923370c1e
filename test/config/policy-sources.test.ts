import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printConfig } from '../../src/config/print.ts'
import { assertOneProblem, COMPLETE_FILE, configOf, load } from './loading.ts'

const withPolicy = (text: string) =>
  COMPLETE_FILE.replace('  bundle: bundle.tar.gz\n', () => `${text}\n`)
const bundle = '  bundle: bundle.tar.gz'
const remote = '  bundle: https://bundles.example/b.tar.gz'
const policyOf = (text: string) => configOf(load(withPolicy(text))).policy

test('keys are written as a map from id to file', () => {
  const policy = policyOf(`${bundle}
  signing:
    keys:
      k1: /run/k1.pem
      old: { file: /run/old.pem, algorithm: PS384 }
    scope: prod
    minimumIssuedAt: 2026-01-31T12:00:00+01:00
    monotonic: true`)
  assert.deepEqual(policy?.signing, {
    keys: [
      { id: 'k1', file: '/run/k1.pem' },
      { id: 'old', file: '/run/old.pem', algorithm: 'PS384' },
    ],
    scope: 'prod',
    minimumIssuedAtMs: Date.UTC(2026, 0, 31, 11),
    monotonic: true,
  })
  assert.equal(policy?.service, undefined)
})

test('what is printed gives the same configuration again', () => {
  const config = configOf(
    load(
      withPolicy(`${remote}
  data: [https://bundles.example/d.tar.gz, ./more]
  signing: { keys: { k1: a.pem, k2: { file: b, algorithm: HS512 } }, minimumIssuedAt: 2026-01-31T12:00:00Z }
  service: { tokenFile: t, certificate: c, privateKey: k, ca: ca, pollMin: 1s, pollMax: 90s, longPoll: 30s, persist: /var/p }`),
    ),
  )
  assert.deepEqual(configOf(load(printConfig(config))), config)
  assert.deepEqual(config.policy?.service, {
    tokenFile: 't',
    certificate: 'c',
    privateKey: 'k',
    ca: 'ca',
    pollMinMs: 1000,
    pollMaxMs: 90_000,
    longPollMs: 30_000,
    persist: '/var/p',
    unsafePlainText: false,
  })
  assert.deepEqual(config.policy?.data, ['https://bundles.example/d.tar.gz', './more'])
})

test('plain text over the network is unsafe and has to be asked for', () => {
  const plain = '  bundle: http://bundles.example/b.tar.gz'
  assertOneProblem(load(withPolicy(plain)), /policy.bundle \(/, /plain text/, /unsafePlainText/)
  const asked = load(withPolicy(`${plain}\n  service: { unsafePlainText: true }`))
  assert.deepEqual(asked.unsafeOptions, ['policy.service.unsafePlainText'])
  assert.equal(asked.config?.policy?.bundle, 'http://bundles.example/b.tar.gz')
  for (const local of ['127.0.0.1:8080', 'localhost', '[::1]:1']) {
    assert.deepEqual(load(withPolicy(`  bundle: http://${local}/b`)).problems, [], local)
  }
})

const signing = (keys: string) => `${bundle}\n  signing: ${keys}`
const service = (keys: string) => `${remote}\n  service: ${keys}`

for (const [name, text, where, what, remedy] of [
  ['a scheme', '  bundle: s3://bucket/b', /policy.bundle/, /scheme that is not known/, /https/],
  ['a name in the URL', '  bundle: https://a:b@h/b', /policy.bundle/, /name or password/, /token/],
  ['a fragment', '  bundle: https://h/b#c', /policy.bundle/, /fragment/, /#/],
  ['no URL', '  bundle: https://', /policy.bundle/, /not a URL/, /https/],
  ['no data', `${bundle}\n  data: bundle.tar.gz`, /policy.data/, /a list is expected/, /- /],
  ['an empty signing', signing(''), /policy.signing/, /has no keys/, /leave it out/],
  ['a signing of {}', signing('{}'), /policy.signing/, /has no keys/, /leave it out/],
  ['no keys', signing('{ scope: a }'), /signing.scope/, /without policy.signing.keys/, /name the/],
  ['keys of {}', signing('{ keys: {} }'), /signing.keys/, /no entries/, /add an entry/],
  ['one value', signing('{ keys: k1.pem }'), /signing.keys/, /a list is expected/, /./],
  ['no file', signing('{ keys: { k1: } }'), /keys\[0\].file/, /has no value/, /write a value/],
  [
    'no file in the entry',
    signing('{ keys: { k1: { algorithm: ES256 } } }'),
    /keys\[0\]/,
    /without file/,
    /ID: FILE/,
  ],
  ['no id', signing('{ keys: [ { file: a } ] }'), /keys\[0\].file/, /without id/, /ID: FILE/],
  [
    'an id twice',
    signing('{ keys: [ { id: a, file: a }, { id: a, file: b } ] }'),
    /keys\[1\].id/,
    /already has a key/,
    /of its own/,
  ],
  [
    'an id in the entry',
    signing('{ keys: { a: { id: b, file: c } } }'),
    /keys\[0\].id/,
    /given by the map/,
    /leave it/,
  ],
  [
    'an id with spaces',
    signing('{ keys: { "a b": c } }'),
    /keys\[0\].id/,
    /not the name of a key/,
    /without spaces/,
  ],
  [
    'none',
    signing('{ keys: { a: { file: b, algorithm: none } } }'),
    /algorithm/,
    /"none" is not one/,
    /RS256/,
  ],
  [
    'EdDSA',
    signing('{ keys: { a: { file: b, algorithm: EdDSA } } }'),
    /algorithm/,
    /not one/,
    /HS512/,
  ],
  [
    'an empty scope',
    signing('{ keys: { a: b }, scope: }'),
    /scope/,
    /no value/,
    /leave the key out/,
  ],
  [
    'no time',
    signing('{ keys: { a: b }, minimumIssuedAt: 1700000000 }'),
    /minimumIssuedAt/,
    /not a time/,
    /2026/,
  ],
  [
    'a day that is none',
    signing('{ keys: { a: b }, minimumIssuedAt: 2026-13-01T00:00:00Z }'),
    /minimumIssuedAt/,
    /not a time/,
    /2026/,
  ],
  [
    'no boolean',
    signing('{ keys: { a: b }, monotonic: 1 }'),
    /monotonic/,
    /neither true nor false/,
    /true/,
  ],
  [
    'a service for files',
    `${bundle}\n  service: { tokenFile: a }`,
    /tokenFile/,
    /no bundle comes from a server/,
    /https/,
  ],
  [
    'a certificate alone',
    service('{ certificate: a }'),
    /service.certificate/,
    /without policy.service.privateKey/,
    /both/,
  ],
  [
    'a key alone',
    service('{ privateKey: a }'),
    /service.privateKey/,
    /without policy.service.certificate/,
    /both/,
  ],
  ['polls too often', service('{ pollMin: 1ms }'), /pollMin/, /below what makes sense/, /100ms/],
  [
    'a minimum above the default maximum',
    service('{ pollMin: 5m }'),
    /pollMin/,
    /longer than/,
    /1m and 2m/,
  ],
  [
    'a maximum below the minimum',
    service('{ pollMin: 5s, pollMax: 1s }'),
    /pollMax/,
    /longer than/,
    /correct/,
  ],
  [
    'an endless long poll',
    service('{ longPoll: 1h }'),
    /longPoll/,
    /above what makes sense/,
    /10m/,
  ],
  ['an empty path', service("{ persist: '' }"), /persist/, /is empty/, /path/],
] as const) {
  test(`one clear problem: ${name}`, () => {
    assertOneProblem(load(withPolicy(text)), where, what, remedy)
  })
}

test('keys that cannot be told never lead to a bundle that is loaded unverified', () => {
  const read = load(withPolicy(signing('{ keys: { a: { file: b, algorithm: none } } }')))
  assert.equal(read.config, undefined)
  assert.equal(read.materials?.policy?.signing?.keys.length ?? 1, 1)
  const without = load(withPolicy(signing('{ keys: { a: { algorithm: ES256 } } }')))
  assert.equal(without.materials?.policy, undefined)
})
