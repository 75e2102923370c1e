import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { assertOneProblem, COMPLETE, COMPLETE_FILE, configOf, load, loadFlags } from './loading.ts'

test('flags alone are a whole configuration', () => {
  const config = configOf(load(undefined, COMPLETE))
  assert.deepEqual(config.inbound.forward, {
    scheme: 'http',
    address: { kind: 'tcp', host: '127.0.0.1', port: 8080 },
  })
  assert.deepEqual(config.identity, {
    kind: 'files',
    certificate: 'tls.crt',
    privateKey: 'tls.key',
  })
  assert.deepEqual(config.trust, {
    bundles: [{ file: 'ca.crt' }],
    crls: [],
    revocation: { mode: 'hard-fail', graceMs: 0, scope: 'leaf' },
    clockSkewMs: 0,
  })
  assert.deepEqual(config.allow, [{ uri: 'spiffe://example.org/ns/*/sa/web' }])
  assert.equal(config.policy, undefined)
})

test('a file says everything that the program can be told', () => {
  const config = configOf(
    load(`
inbound:
  listen: "[::]:9443"
  forward: unix:/run/app.sock
  forwardedClientCert: sanitize
  forwardedClientCertDetails: [subject, dns]
  clientCert: true
  limits: { headBytes: 64KiB, connections: 20 }
  timeouts: { idle: 90s, connectionLifetime: 1h }
identity: { credentialBundle: /id/credentials.pem }
trust:
  bundles:
    - file: /trust/ca.crt
    - { trustDomain: partner.example, file: /trust/partner.pem }
  crls: [/trust/ca.crl]
  revocation: { mode: soft-fail, grace: 24h, scope: chain }
  revoked: /trust/revoked.yaml
  clockSkew: 30s
allow:
  - { uri: "spiffe://example.org/**", dns: "*.example.org" }
  - cn: client
policy: { bundle: /policy, entrypoint: a/b, memoryBytes: 1MiB, fuel: 5000 }
admin: { listen: off }
metrics: { listen: "unix:/run/metrics.sock" }
probes: { listen: ":15021", paths: [/healthz, /ready] }
log: { level: debug, access: all, decisions: off, decisionFile: d.ndjson, redact: [X-Secret] }
drain: { timeout: 2m }
workers: auto
stall: 10s
`),
  )
  assert.equal(config.inbound.limits.headBytes, 65_536)
  assert.equal(config.inbound.limits.connections, 20)
  assert.equal(config.inbound.limits.headerCount, 100)
  assert.equal(config.inbound.timeouts.idleMs, 90_000)
  assert.equal(config.inbound.timeouts.connectionLifetimeMs, 3_600_000)
  assert.deepEqual(config.inbound.forwardedClientCertDetails, ['subject', 'dns'])
  assert.deepEqual(config.identity, {
    kind: 'bundle',
    credentialBundle: '/id/credentials.pem',
  })
  assert.deepEqual(config.trust, {
    bundles: [
      { file: '/trust/ca.crt' },
      { trustDomain: 'partner.example', file: '/trust/partner.pem' },
    ],
    crls: ['/trust/ca.crl'],
    revocation: { mode: 'soft-fail', graceMs: 86_400_000, scope: 'chain' },
    revoked: '/trust/revoked.yaml',
    clockSkewMs: 30_000,
  })
  assert.deepEqual(config.allow, [
    { uri: 'spiffe://example.org/**', dns: '*.example.org' },
    { cn: 'client' },
  ])
  assert.deepEqual(config.policy, {
    bundle: '/policy',
    data: [],
    entrypoint: 'a/b',
    memoryBytes: 1_048_576,
    fuel: 5000,
    input: {
      body: { totalBytes: 32 << 20 },
      certificate: false,
      contextExtensions: [],
      v2: false,
    },
  })
  assert.equal(config.admin, undefined)
  assert.deepEqual(config.metrics, { listen: { kind: 'unix', path: '/run/metrics.sock' } })
  assert.deepEqual(config.probes?.paths, ['/healthz', '/ready'])
  assert.deepEqual(config.log.redact, ['x-secret'])
  assert.equal(config.drain.timeoutMs, 120_000)
  assert.equal(config.workers, 3)
  assert.equal(config.stallMs, 10_000)
})

test('a JSON file is read like a YAML file', () => {
  const document = {
    inbound: { forward: 'http://127.0.0.1:8080', limits: { connections: 5 }, clientCert: true },
    identity: { certificate: 'tls.crt', privateKey: 'tls.key' },
    trust: { bundles: [{ file: 'ca.crt' }] },
    policy: { bundle: 'bundle.tar.gz' },
  }
  const config = configOf(load(JSON.stringify(document, null, 2)))
  assert.deepEqual(config, configOf(load(stringify(document))))
  assert.equal(config.inbound.limits.connections, 5)
})

test('a flag wins over the file', () => {
  const config = configOf(load(COMPLETE_FILE, { listen: ':1', policy: 'other', workers: '2' }))
  assert.deepEqual(config.inbound.listen, { kind: 'tcp', host: '0.0.0.0', port: 1 })
  assert.equal(config.policy?.bundle, 'other')
  assert.equal(config.workers, 2)
  assert.deepEqual(config.trust.bundles, [{ file: 'ca.crt' }])
})

test('a flag for a list replaces the list of the file', () => {
  const file = `${COMPLETE_FILE}allow: [{ all: true }, { cn: a }]\n`
  const config = configOf(
    load(file, { allowDns: ['a.example'], allowCn: ['b', 'c'], ca: ['x', 'y'] }),
  )
  assert.deepEqual(config.allow, [{ dns: 'a.example' }, { cn: 'b' }, { cn: 'c' }])
  assert.deepEqual(config.trust.bundles, [{ file: 'x' }, { file: 'y' }])
})

test('identity flags replace the identity of the file, whatever its form', () => {
  const config = configOf(load(COMPLETE_FILE, { credentialBundle: 'one.pem' }))
  assert.deepEqual(config.identity, { kind: 'bundle', credentialBundle: 'one.pem' })
})

test("ghostunnel's names of flags are understood", () => {
  const config = configOf(
    loadFlags({
      forward: undefined,
      ca: undefined,
      target: 'http://10.0.0.1:80',
      cacert: 'roots.pem',
      unsafeTarget: true,
    }),
  )
  assert.equal(config.inbound.unsafeForward, true)
  assert.deepEqual(config.trust.bundles, [{ file: 'roots.pem' }])
})

/** `${name}`, out of reach of the rule against placeholders in plain strings. */
const variable = (name: string): string => `\${${name}}`

/** The complete file with another text as the value of `policy.bundle`. */
const withBundle = (text: string): string =>
  COMPLETE_FILE.replace('bundle.tar.gz', () => JSON.stringify(text))

test('a variable of the environment is put in place once', () => {
  const file = withBundle(`${variable('DIR')}/x-${variable('NAME')}.tar.gz`)
  const config = configOf(load(file, {}, { DIR: '/policies', NAME: variable('DIR') }))
  assert.equal(config.policy?.bundle, `/policies/x-${variable('DIR')}.tar.gz`)
  const doubled = configOf(load(withBundle(`$${variable('DIR')}$5`)))
  assert.equal(doubled.policy?.bundle, `${variable('DIR')}$5`)
})

test('a variable that is not set is a problem, also when objects have a property of its name', () => {
  for (const name of ['MISSING', 'constructor', '__proto__', 'toString']) {
    const loaded = load(withBundle(variable(name)))
    assertOneProblem(loaded, /^policy.bundle \(postern.yaml:\d+:\d+\)/, /is not set/, /set it/)
  }
  for (const text of ['$' + '{', variable(''), variable('a-b'), variable('A').slice(0, -1)]) {
    assertOneProblem(load(withBundle(text)), /^policy.bundle/, /names no variable/, /./)
  }
})

test('options that weaken a guarantee are listed', () => {
  assert.deepEqual(load(undefined, COMPLETE).unsafeOptions, [])
  const loaded = load(`${COMPLETE_FILE}`, { unsafeForward: true, unsafeAmbiguousPaths: true })
  assert.deepEqual(loaded.unsafeOptions, ['inbound.unsafeForward', 'inbound.unsafeAmbiguousPaths'])
  const mode = COMPLETE_FILE.replace('inbound:', 'inbound:\n  forwardedClientCert: forward_only')
  assert.deepEqual(load(mode).unsafeOptions, ['inbound.forwardedClientCert'])
})

test('everything that is wrong is said at once, with key or flag and place', () => {
  const loaded = load(
    `inbound:
  listen: nowhere
  limits: { headBytes: 3KB, headr: 1 }
  timeouts: { idle: 5 }
identity: { certificate: a, credentialBundle: b }
policy: { candidate: { sample: 1.5 } }
colour: blue
`,
    { forward: 'http://10.0.0.1:80', logLevel: 'loud' },
  )
  assert.equal(loaded.config, undefined)
  assert.deepEqual(loaded.problems.map(({ where }) => where).sort(), [
    '--forward',
    '--log-level',
    'colour (postern.yaml:7:1)',
    'identity.credentialBundle (postern.yaml:5:47)',
    'inbound.limits.headBytes (postern.yaml:3:24)',
    'inbound.limits.headr (postern.yaml:3:29)',
    'inbound.listen (postern.yaml:2:11)',
    'inbound.timeouts.idle (postern.yaml:4:21)',
    'policy.bundle, allow',
    'policy.candidate.sample (postern.yaml:6:32)',
    'trust.bundles',
  ])
  for (const { what, remedy } of loaded.problems) {
    assert.doesNotMatch(what, /\.$/)
    assert.ok(remedy.length > 5)
  }
})

test('nothing given at all says what a first configuration needs', () => {
  assert.deepEqual(
    load(undefined).problems.map(({ where }) => where),
    ['inbound.forward', 'identity', 'trust.bundles', 'policy.bundle, allow'],
  )
})

test('any flags are answered with a configuration or with problems', () => {
  const value = fc.oneof(fc.string(), fc.boolean(), fc.array(fc.string(), { maxLength: 3 }))
  const names = [...Object.keys(COMPLETE), 'policy', 'workers', 'admin', 'metrics', 'allowAll', 'x']
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...names), value), (flags) => {
      const { config, problems } = load(undefined, { ...COMPLETE, ...flags })
      assert.equal(config === undefined, problems.length > 0)
    }),
    { numRuns: 300 },
  )
})
