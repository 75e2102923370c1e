import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertOneProblem, COMPLETE_FILE, configOf, load, loadFlags } from './loading.ts'

test('refuses to start without any access rule', () => {
  assertOneProblem(
    loadFlags({ allowUri: undefined }),
    /policy.bundle, allow/,
    /no access rule/,
    /--allow-all/,
  )
})

test('admits everyone only where a rule says so', () => {
  assert.deepEqual(configOf(loadFlags({ allowUri: undefined, allowAll: true })).allow, [
    { all: true },
  ])
})

test('refuses a rule that admits everyone and names someone', () => {
  const file = `${COMPLETE_FILE}allow: [{ all: true, cn: a }]\n`
  assertOneProblem(load(file), /^allow\[0\].all/, /contradicts cn/, /two rules/)
})

test('refuses an empty rule and an empty list of rules: they could be read as everyone', () => {
  assertOneProblem(load(`${COMPLETE_FILE}allow: [{}]\n`), /^allow\[0\]/, /no keys/, /remove/)
  assertOneProblem(
    load(`${COMPLETE_FILE}allow: []\n`),
    /^allow /,
    /no entries/,
    /leave the key out/,
  )
  assertOneProblem(load(`${COMPLETE_FILE}allow:\n`), /^allow /, /no entries/, /./)
  assertOneProblem(load(`${COMPLETE_FILE}allow: [{ all: false }]\n`), /all/, /no meaning/, /true/)
})

test('refuses a workload on another host unless told so', () => {
  const forward = 'http://10.1.2.3:80'
  assertOneProblem(loadFlags({ forward }), /--forward/, /another host/, /--unsafe-forward/)
  assert.equal(configOf(loadFlags({ forward, unsafeForward: true })).inbound.unsafeForward, true)
})

test('refuses an admin listener that other hosts can reach', () => {
  assertOneProblem(loadFlags({ admin: ':15000' }), /--admin/, /other hosts/, /127\.0\.0\.1/)
  assert.equal(configOf(loadFlags({ admin: 'off' })).admin, undefined)
})

test('refuses two kinds of identity, half of one, and none', () => {
  assertOneProblem(
    loadFlags({ credentialBundle: 'c' }),
    /--credential-bundle/,
    /together/,
    /either/,
  )
  assertOneProblem(loadFlags({ key: undefined }), /identity.privateKey/, /missing/, /--key/)
  assertOneProblem(loadFlags({ cert: undefined }), /identity.certificate/, /missing/, /--cert/)
  assertOneProblem(loadFlags({ cert: undefined, key: undefined }), /identity/, /missing/, /--cert/)
})

test('takes identity and trust from a Workload API or a directory', () => {
  const without = { cert: undefined, key: undefined, ca: undefined }
  const api = configOf(loadFlags({ ...without, workloadApi: 'unix:///run/agent.sock' }))
  assert.deepEqual(api.identity, {
    kind: 'workloadApi',
    workloadApi: { kind: 'unix', path: '/run/agent.sock' },
  })
  assert.deepEqual(api.trust.bundles, [])
  const directory = configOf(loadFlags({ ...without, identityDirectory: '/svid' }))
  assert.deepEqual(directory.identity, { kind: 'directory', directory: '/svid' })
  assertOneProblem(
    loadFlags({ workloadApi: 'unix:///a' }),
    /--workload-api/,
    /together with identity.certificate/,
    /either certificate and privateKey, or workloadApi/,
  )
})

test('refuses what belongs to another kind of identity', () => {
  const identity = (text: string) => load(COMPLETE_FILE.replace(/identity:[\s\S]*?(?=^\w)/m, text))
  assertOneProblem(
    identity('identity: { workloadApi: unix:///a, passphraseFile: p }\n'),
    /identity.passphraseFile/,
    /never encrypted/,
    /leave it out/,
  )
  assertOneProblem(
    identity('identity: { credentialBundle: c, hint: h }\n'),
    /identity.hint/,
    /without identity.workloadApi/,
    /--workload-api/,
  )
  for (const [address, why] of [
    ['unix:a.sock', /no absolute path/],
    ['unix:///a?b', /query/],
    ['tcp://10.1.2.3:8081', /another host/],
    ['tcp://localhost:8081', /IP address/],
    ['tcp://127.0.0.1', /not the address/],
    ['tcp://127.0.0.1:0', /not the address/],
    ['http://127.0.0.1:1', /not the address/],
    ['/run/agent.sock', /not the address/],
  ] as const) {
    assertOneProblem(
      identity(`identity: { workloadApi: "${address}" }\n`),
      /identity.workloadApi/,
      why,
      /unix:\/|absolute|path/,
    )
  }
})

test('refuses trust in nobody, a bundle without a file, and two bundles for one domain', () => {
  assertOneProblem(loadFlags({ ca: undefined }), /trust.bundles/, /missing/, /--ca/)
  const trusting = (bundles: string) => load(COMPLETE_FILE.replace('- file: ca.crt', bundles))
  assertOneProblem(trusting('- trustDomain: a'), /trust.bundles\[0\].file/, /missing/, /PEM/)
  assertOneProblem(
    trusting('- { trustDomain: a, file: x }\n    - { trustDomain: a, file: y }'),
    /trust.bundles\[1\].trustDomain/,
    /already has a bundle/,
    /one file/,
  )
})

test('refuses two listeners in one place', () => {
  const refusals = [
    { metrics: '127.0.0.1:8443' },
    { metrics: '0.0.0.0:15000' },
    { metrics: 'localhost:15000' },
    { listen: 'unix:/a', admin: 'unix:/a' },
  ]
  for (const flags of refusals)
    assertOneProblem(loadFlags(flags), /--/, /already taken/, /own port/)
  configOf(loadFlags({ listen: '127.0.0.1:0', admin: '127.0.0.1:0', metrics: '127.0.0.1:0' }))
  configOf(loadFlags({ listen: '127.0.0.2:1', metrics: '127.0.0.3:1' }))
})

test('refuses a workload that is Postern itself', () => {
  const forward = 'http://127.0.0.1:8443'
  assertOneProblem(loadFlags({ forward }), /--forward/, /leads back to inbound.listen/, /workload/)
})

test('refuses policy keys without a policy, and probe keys without each other', () => {
  const file = COMPLETE_FILE.replace(/policy:.*\n.*\n/, 'allow: [{ cn: a }]\n')
  assertOneProblem(load(`${file}policy: { fuel: 5000 }\n`), /policy.fuel/, /no effect/, /--policy/)
  assertOneProblem(
    load(`${file}probes: { listen: ":1" }\n`),
    /probes.listen/,
    /no paths/,
    /healthz/,
  )
  assertOneProblem(load(`${file}probes: { paths: [/a] }\n`), /probes.paths/, /no effect/, /listen/)
  assertOneProblem(load(`${file}probes: { tcpPaths: [/a] }\n`), /tcpPaths/, /no effect/, /listen/)
  assertOneProblem(
    load(`${file}probes: { listen: ":1", paths: [/a], tcpPaths: [/b, /a] }\n`),
    /probes.tcpPaths/,
    /\/a is one of probes.paths/,
    /another path/,
  )
  assertOneProblem(
    load(`${file}probes: { listen: ":1", grpcServices: ["*"] }\n`),
    /probes.grpcServices/,
    /HTTP\/1.1/,
    /h2c/,
  )
})

test('refuses several threads on one UNIX socket', () => {
  const listen = 'unix:/run/in.sock'
  assertOneProblem(loadFlags({ listen, workers: '2' }), /--workers/, /cannot share/, /one worker/)
  assert.equal(configOf(loadFlags({ listen, workers: 'auto' })).workers, 1)
})

test('refuses keys that the protocol of the workload has no place for', () => {
  const file = COMPLETE_FILE.replace('inbound:\n', 'inbound:\n  proxyProtocol: { send: true }\n')
  assert.notEqual(file, COMPLETE_FILE)
  assertOneProblem(load(file), /inbound.proxyProtocol.send/, /tcp:\/\//, /x-forwarded-client-cert/)
  const tcp = COMPLETE_FILE.replace(/forward: \S+/, 'forward: tcp://127.0.0.1:5432')
  assert.notEqual(tcp, COMPLETE_FILE)
  assert.equal(
    configOf(load(tcp.replace('inbound:\n', 'inbound:\n  proxyProtocol: { send: true }\n'))).inbound
      .proxyProtocol.send,
    true,
  )
  assertOneProblem(
    load(tcp.replace('inbound:\n', 'inbound:\n  clientCert: true\n')),
    /inbound.clientCert/,
    /no effect on TCP/,
    /proxyProtocol.send/,
  )
})
