import assert from 'node:assert/strict'
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gunzipSync, gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import type { BundleServiceConfig, Config, SigningConfig } from '../../src/config/config.ts'
import { PolicyBundles, type PolicyPiece } from '../../src/control/policy-bundles.ts'
import { watchedPaths } from '../../src/control/watcher.ts'
import { unpackArchive } from '../../src/policy/bundle.ts'
import { SECRET, signed } from '../policy/signed/support.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/pki.ts'
import { type BundleHost, bundleHost, SERVICE } from './bundle-host.ts'

type PolicyConfig = NonNullable<Config['policy']>

const SAMPLE = new URL('../../policies/bundle.tar.gz', import.meta.url)
const ALLOW_ALL = new URL('../policy/bundles/allow-all.tar.gz', import.meta.url)
const SPLIT = new URL('../policy/bundles/split.tar.gz', import.meta.url)
const SIGNED = new URL('../policy/signed/bundles/', import.meta.url)

const TIMEOUTS = { headMs: 300, silenceMs: 300, totalMs: 1_000 }

async function setting(t: TestContext) {
  const directory = await temporaryDirectory(t)
  const path = (name: string) => join(directory, name)
  let changes = 0
  const open = (more: { patient?: boolean } = {}) => {
    const bundles = new PolicyBundles({
      clock: () => Date.now(),
      changed: () => changes++,
      timeouts: TIMEOUTS,
      ...more,
    })
    t.after(() => bundles.stop())
    return bundles
  }
  return { directory, path, open, changes: () => changes }
}

const policyOf = (bundle: string, more: Partial<PolicyConfig> = {}): PolicyConfig => ({
  bundle,
  data: [],
  memoryBytes: 64 << 20,
  fuel: 10_000_000,
  input: { body: { totalBytes: 1 << 20 }, certificate: false, contextExtensions: [], v2: false },
  ...more,
})

const signedBy = (
  keys: Record<string, string>,
  more: { readonly scope?: string; readonly monotonic?: boolean } = {},
): { readonly signing: SigningConfig } => ({
  signing: {
    keys: Object.entries(keys).map(([id, file]) => ({ id, file })),
    monotonic: false,
    scope: '',
    ...more,
  },
})

async function archive(files: Readonly<Record<string, string | Buffer>>): Promise<Buffer> {
  const tar = pack()
  for (const [name, content] of Object.entries(files)) tar.entry({ name }, content as Buffer)
  tar.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of tar) chunks.push(chunk as Buffer)
  return gzipSync(Buffer.concat(chunks))
}

async function rebuilt(url: URL, changes: Readonly<Record<string, string>>): Promise<Buffer> {
  const unpacked = await unpackArchive(await readFile(url), 'b')
  assert.ok(unpacked.kind === 'entries')
  return archive({ ...Object.fromEntries(unpacked.entries), ...changes })
}

const told = ({ problems }: { problems: readonly { where: string; what: string }[] }) =>
  problems.map(({ where, what }) => `${where}: ${what}`).join('\n')

const revision = (piece: PolicyPiece | undefined) => piece?.material.revision

test('a signed bundle goes on only with its key, and a key that was replaced counts at once', async (t) => {
  const { path, open } = await setting(t)
  await copyFile(new URL('policy.tar.gz', SIGNED), path('b.tar.gz'))
  await copyFile(new URL('rsa.pem', SIGNED), path('k.pem'))
  const policy = policyOf(path('b.tar.gz'), signedBy({ release: path('k.pem') }))
  const bundles = open()
  const first = await bundles.read(policy, undefined)
  assert.deepEqual(first.problems, [])
  assert.equal(first.piece?.parts[0]?.keyId, 'release')
  assert.equal((await bundles.read(policy, first.piece)).piece, first.piece)

  await copyFile(new URL('p256.pem', SIGNED), path('k.pem'))
  const other = await bundles.read(policy, first.piece)
  assert.match(told(other), /says "RS256", and the key release is for ES256/)
  assert.equal(other.piece, first.piece)
  assert.equal((await bundles.read(policy, undefined)).piece, undefined)

  await writeFile(path('k.pem'), 'nothing')
  assert.match(told(await bundles.read(policy, first.piece)), /k.pem: holds no PEM block/)
  await rm(path('k.pem'))
  assert.match(told(await bundles.read(policy, first.piece)), /keys.release: .*does not exist/)
})

test('an unsigned bundle, or a changed one, does not replace a signed one', async (t) => {
  const { path, open } = await setting(t)
  await copyFile(new URL('policy.tar.gz', SIGNED), path('b.tar.gz'))
  const key = new URL('rsa.pem', SIGNED).pathname
  const policy = policyOf(path('b.tar.gz'), signedBy({ release: key }))
  const bundles = open()
  const { piece } = await bundles.read(policy, undefined)
  assert.equal(revision(piece), 'signed-1')
  await copyFile(ALLOW_ALL, path('b.tar.gz'))
  const unsigned = await bundles.read(policy, piece)
  assert.match(told(unsigned), /the bundle is not signed/)
  assert.equal(unsigned.piece, piece)
  const changed = await rebuilt(new URL('policy.tar.gz', SIGNED), { 'data.json': '{"acl":{}}' })
  await writeFile(path('b.tar.gz'), changed)
  assert.match(told(await bundles.read(policy, piece)), /data.json is not what was signed/)
})

test('an unpacked signed bundle is verified as well', async (t) => {
  const { path, open } = await setting(t)
  const unpacked = await unpackArchive(await readFile(new URL('policy.tar.gz', SIGNED)), 'b')
  assert.ok(unpacked.kind === 'entries')
  for (const [name, bytes] of unpacked.entries) {
    await mkdir(join(path('b'), name, '..'), { recursive: true })
    await writeFile(join(path('b'), name), bytes)
  }
  const key = new URL('rsa.pem', SIGNED).pathname
  const policy = policyOf(path('b'), signedBy({ release: key }))
  assert.deepEqual((await open().read(policy, undefined)).problems, [])
  await writeFile(join(path('b'), 'more.json'), '{}')
  assert.match(told(await open().read(policy, undefined)), /more.json is not signed/)
})

test('with monotonic a bundle that was signed earlier does not come back', async (t) => {
  const { path, open } = await setting(t)
  await writeFile(path('secret'), SECRET)
  const keys = [{ id: 'k1', file: path('secret'), algorithm: 'HS256' }] as const
  const policy = (monotonic: boolean) =>
    policyOf(path('b.tar.gz'), { signing: { keys, scope: '', monotonic } })
  const unpacked = await unpackArchive(await sample(), 'b')
  assert.ok(unpacked.kind === 'entries')
  const issue = async (iat?: number) => {
    const entries = signed(unpacked.entries, iat === undefined ? {} : { iat })
    await writeFile(path('b.tar.gz'), await archive(Object.fromEntries(entries)))
  }
  const bundles = open()
  await issue(1_700_000_000)
  const first = await bundles.read(policy(true), undefined)
  assert.deepEqual(first.problems, [])
  await issue(1_800_000_000)
  const second = await bundles.read(policy(true), first.piece)
  assert.equal(second.piece?.parts[0]?.issuedAt, 1_800_000_000)
  await issue(1_799_999_999)
  const older = await bundles.read(policy(true), second.piece)
  assert.match(told(older), /was issued at 2027-01-15.* nothing before 2027-01-15/)
  assert.equal(older.piece, second.piece)
  // As after a change of the configuration, where everything is loaded afresh.
  assert.match(told(await bundles.read(policy(true), undefined)), /was issued at/)
  await issue()
  assert.match(told(await bundles.read(policy(true), second.piece)), /does not say when/)
  assert.deepEqual((await bundles.read(policy(false), second.piece)).problems, [])
})

const DATA = {
  '.manifest': JSON.stringify({ revision: 'd1', roots: ['teams'] }),
  'data.json': '{"teams":{"web":["get"]}}',
}

/** The policy says in its own tests what it decides by the data of the other bundle. */
async function twoBundles(t: TestContext) {
  const set = await setting(t)
  const unpacked = await unpackArchive(await readFile(SPLIT), 'b')
  assert.ok(unpacked.kind === 'entries')
  const built = JSON.parse(unpacked.entries.get('.manifest')?.toString() ?? '')
  const writePolicy = async (revision: string, expect: boolean) => {
    const tests = [{ name: 'web gets', input: { team: 'web', method: 'get' }, expect }]
    const manifest = JSON.stringify({ ...built, revision, metadata: { postern: { tests } } })
    const files = { ...Object.fromEntries(unpacked.entries), '.manifest': manifest }
    await writeFile(set.path('p.tar.gz'), await archive(files))
  }
  const writeData = async (data: string) =>
    writeFile(set.path('d.tar.gz'), await archive({ ...DATA, 'data.json': data }))
  await writePolicy('p1', true)
  await writeData(DATA['data.json'])
  const config = policyOf(set.path('p.tar.gz'), { data: [set.path('d.tar.gz')] })
  return { ...set, config, writePolicy, writeData }
}

test('policy and data come from two bundles, and each changes alone', async (t) => {
  const { path, open, config, writePolicy, writeData } = await twoBundles(t)
  const bundles = open()
  const { piece, problems } = await bundles.read(config, undefined)
  assert.deepEqual(problems, [])
  assert.equal(revision(piece), 'p1')

  await writeData('{"teams":{"web":["get","put"]}}')
  const second = await bundles.read(config, piece)
  assert.deepEqual(second.problems, [])
  assert.notEqual(second.piece?.digest, piece?.digest)
  assert.equal(second.piece?.parts[0], piece?.parts[0])

  await writeFile(path('d.tar.gz'), 'no bundle')
  await writePolicy('p2', true)
  const third = await bundles.read(config, second.piece)
  assert.match(told(third), /d.tar.gz: not a readable gzipped tar/)
  assert.equal(revision(third.piece), 'p2')
  assert.equal(third.piece?.parts[1], second.piece?.parts[1])
})

test('together they go into force or not at all', async (t) => {
  const { open, config, writePolicy, writeData } = await twoBundles(t)
  const bundles = open()
  const { piece } = await bundles.read(config, undefined)
  await writeData('{"teams":{"web":["put"]}}')
  const refused = await bundles.read(config, piece)
  assert.match(told(refused), /its own test "web gets" fails: expected allowed, got false/)
  assert.equal(refused.piece, undefined)
  await writePolicy('p2', false)
  const second = await bundles.read(config, piece)
  assert.deepEqual(second.problems, [])
  assert.equal(revision(second.piece), 'p2')
})

test('bundles that could say the same thing are refused, both by name', async (t) => {
  const { path, open, config } = await twoBundles(t)
  const refused = async (manifest: object | undefined, files: object = {}) => {
    const { '.manifest': _, ...data } = DATA
    const written = manifest === undefined ? {} : { '.manifest': JSON.stringify(manifest) }
    await writeFile(path('d.tar.gz'), await archive({ ...data, ...written, ...files }))
    return told(await open().read(config, undefined))
  }
  assert.match(
    await refused(undefined),
    /p.tar.gz, .*d.tar.gz: root "envoy" of the first overlaps root "" of the second/,
  )
  assert.match(await refused({ roots: ['teams', 'envoy/authz'] }), /overlaps root "envoy\/authz"/)
  assert.equal(await refused({ roots: ['teams', 'envoy2'] }), '')
  assert.match(await refused({ roots: ['other'] }), /data at teams is not under a root/)
  assert.match(
    await refused({ roots: ['teams'] }, { 'policy.wasm': 'x' }),
    /each of them has a WebAssembly module/,
  )
})

test('without a module anywhere there is no policy', async (t) => {
  const { open, path } = await twoBundles(t)
  const config = policyOf(path('d.tar.gz'))
  assert.match(told(await open().read(config, undefined)), /no WebAssembly module in it/)
})

// From here on with servers.

async function served(t: TestContext, more: Partial<BundleServiceConfig> = {}) {
  const set = await setting(t)
  const host = await bundleHost(t)
  await writeFile(set.path('ca.pem'), host.ca)
  const service = { ...SERVICE, ca: set.path('ca.pem'), ...more }
  return { ...set, host, policy: policyOf(host.url, { service }) }
}

const sample = () => readFile(SAMPLE)

/** Resolves when the server has been asked twice more. */
function askedTwice({ requests }: BundleHost): Promise<unknown> {
  const before = requests.length
  return eventually('two more requests', () => requests.length >= before + 2)
}

test('a start finds its policy on the server, and a new one is noticed by its ETag', async (t) => {
  const { host, policy, open, changes } = await served(t)
  host.serve(await sample(), '"v1"')
  const bundles = open()
  const first = await bundles.read(policy, undefined)
  assert.deepEqual(first.problems, [])
  await eventually('the ETag of what is in force', () =>
    host.requests.some((headers) => headers['if-none-match'] === '"v1"'),
  )
  const before = changes()
  await askedTwice(host)
  assert.equal(changes(), before)
  host.serve(await readFile(ALLOW_ALL), '"v2"')
  await eventually('a change', () => changes() > before)
  const second = await bundles.read(policy, first.piece)
  assert.notEqual(second.piece, first.piece)
  assert.deepEqual(second.problems, [])
})

test('a bundle that fails keeps the old one and its ETag, and the server can take it back', async (t) => {
  const { host, policy, open } = await served(t)
  host.serve(await sample(), '"v1"')
  const bundles = open()
  const { piece } = await bundles.read(policy, undefined)
  for (const bad of [
    Buffer.from('no bundle'),
    (await sample()).subarray(0, 20_000),
    gzipSync(gunzipSync(await sample()).subarray(0, 60_000)),
    await archive({ 'data.json': '{}' }),
  ]) {
    host.serve(bad, '"bad"')
    const refused = await eventually('a refusal', async () => {
      const reading = await bundles.read(policy, piece)
      return reading.problems.length > 0 ? reading : undefined
    })
    assert.equal(refused.piece ?? piece, piece)
    host.requests.length = 0
    await eventually('another request', () => host.requests.length > 1)
    assert.ok(host.requests.every((headers) => headers['if-none-match'] === '"v1"'))
    host.serve(await sample(), '"v1"')
    await eventually('it is good again', async () => {
      const reading = await bundles.read(policy, piece)
      return reading.problems.length === 0 && reading.piece === piece
    })
  }
})

test('a server that fails is a problem of the reload, and healed when it answers again', async (t) => {
  const { host, policy, open } = await served(t)
  const bytes = await sample()
  host.serve(bytes, '"v1"')
  const bundles = open()
  const { piece } = await bundles.read(policy, undefined)
  host.answer = (_, response) => response.writeHead(500).end()
  const failing = await eventually('the failure', async () => {
    const reading = await bundles.read(policy, piece)
    return reading.problems.length > 0 ? reading : undefined
  })
  assert.match(told(failing), /policy.bundle: https:\/\/localhost.* answered 500/)
  assert.equal(failing.piece, piece)
  const [status] = bundles.status()
  assert.match(status?.problem?.what ?? '', /answered 500/)
  assert.ok((status?.lastSuccessfulDownloadMs ?? 0) > 0)
  assert.ok((status?.lastActivationMs ?? 0) > 0)
  host.serve(bytes, '"v1"')
  await eventually(
    'it is good',
    async () => (await bundles.read(policy, piece)).problems.length === 0,
  )
})

test('without a server and without anything kept the policy is pending, not wrong', async (t) => {
  const { host, policy, open, path } = await served(t)
  const bundles = open()
  const none = await bundles.read(policy, undefined)
  assert.deepEqual([none.pending, none.piece], [true, undefined])
  assert.match(told(none), /answered 500/)
  host.serve(Buffer.from('no bundle'), '"bad"')
  const bad = await eventually('the bad bundle', async () => {
    const reading = await bundles.read(policy, undefined)
    return told(reading).includes('gzipped tar') ? reading : undefined
  })
  assert.equal(bad.pending, true)
  host.serve(await sample(), '"v1"')
  await eventually('a policy', async () => (await bundles.read(policy, undefined)).piece)

  const local = policyOf(host.url, { service: { ...SERVICE, ca: path('absent.pem') } })
  const wrong = await open().read(local, undefined)
  assert.equal(wrong.pending, false)
  assert.match(told(wrong), /policy.service.ca: .*absent.pem does not exist/)
})

test('check waits for the server, and takes nothing for an answer that is none', async (t) => {
  const { policy, open } = await served(t)
  const reading = await open({ patient: true }).read(policy, undefined)
  assert.equal(reading.pending, false)
  assert.match(told(reading), /answered 500/)
})

test('what was good is kept on disk and verified again at the next start', async (t) => {
  const { host, open, path } = await served(t)
  const service = { ...SERVICE, ca: path('ca.pem'), persist: path('kept/here') }
  const key = new URL('rsa.pem', SIGNED).pathname
  const policy = policyOf(host.url, { service, ...signedBy({ release: key }) })
  host.serve(await readFile(new URL('policy.tar.gz', SIGNED)), '"v1"')
  const first = open()
  const { piece } = await first.read(policy, undefined)
  assert.equal(revision(piece), 'signed-1')
  first.stop()
  // It is written beside its place first, and again for each answer of the server.
  const name = await eventually('it is alone in its place', async () => {
    const names = await readdir(path('kept/here'))
    return names.length === 1 ? names[0] : undefined
  })
  assert.match(name, /^[0-9a-f]{32}\.tar\.gz$/)

  host.answer = () => {}
  const second = open()
  const again = await second.read(policy, undefined)
  assert.equal(revision(again.piece), 'signed-1')
  second.stop()

  await writeFile(join(path('kept/here'), name), await sample())
  host.answer = (_, response) => response.writeHead(503).end()
  const third = await open().read(policy, undefined)
  assert.match(told(third), /the bundle is not signed/)
  assert.deepEqual([third.piece, third.pending], [undefined, true])
})

test('check asks the server, too, where a bundle was kept', async (t) => {
  const { host, open, path } = await served(t)
  const service = { ...SERVICE, ca: path('ca.pem'), persist: path('kept') }
  const policy = policyOf(host.url, { service })
  host.serve(await sample(), '"v1"')
  assert.ok((await open().read(policy, undefined)).piece)
  host.answer = (_, response) => void setTimeout(() => response.writeHead(404).end(), 50)
  const checked = await open({ patient: true }).read(policy, undefined)
  assert.ok(checked.piece)
  assert.match(told(checked), /answered 404/)
})

test('a bad bundle is never kept, and a directory that cannot be written to is a warning', async (t) => {
  const { host, open, path } = await served(t)
  await writeFile(path('file'), 'in the way')
  const service = { ...SERVICE, ca: path('ca.pem'), persist: path('file') }
  host.serve(await sample(), '"v1"')
  const { piece, problems } = await open().read(policyOf(host.url, { service }), undefined)
  assert.ok(piece)
  assert.deepEqual(
    problems.filter(({ severity }) => severity !== 'warning'),
    [],
  )
  const kept = { ...service, persist: path('kept') }
  host.serve(Buffer.from('no bundle'), '"bad"')
  const bad = await open().read(policyOf(host.url, { service: kept }), undefined)
  assert.equal(bad.piece, undefined)
  await assert.rejects(readdir(path('kept')), { code: 'ENOENT' })
})

test('the token is read for each request', async (t) => {
  const { host, open, path } = await served(t)
  await writeFile(path('token'), 'first\n')
  const service = { ...SERVICE, ca: path('ca.pem'), tokenFile: path('token') }
  host.serve(await sample(), '"v1"')
  await open().read(policyOf(host.url, { service }), undefined)
  assert.equal(host.requests[0]?.['authorization'], 'Bearer first')
  await writeFile(path('token'), 'second')
  const asked = (token: string) => () => host.requests.some((one) => one.authorization === token)
  await eventually('the second token', asked('Bearer second'))
})

test('a server that may hold requests is asked to, once something is in force', async (t) => {
  const { host, open, policy } = await served(t, { longPollMs: 200 })
  const bytes = await sample()
  const type = { 'content-type': 'application/vnd.openpolicyagent.bundles' }
  let held = 0
  host.answer = (request, response) => {
    if (request.headers['if-none-match'] !== '"v1"') {
      response.writeHead(200, { etag: '"v1"', ...type }).end(bytes)
      return
    }
    held++
    setTimeout(() => response.writeHead(304, type).end(), 150)
  }
  await open().read(policy, undefined)
  await eventually('three long polls', () => held >= 3)
  assert.ok(host.requests.some(({ prefer }) => prefer === 'modes=snapshot;wait=1'))
})

test('a bundle that the configuration no longer names is no longer fetched', async (t) => {
  const { host, open, path } = await served(t)
  host.serve(await sample(), '"v1"')
  const withToken = async (token: string) => {
    await writeFile(path(token), token)
    const bundles = open()
    const service = { ...SERVICE, ca: path('ca.pem'), tokenFile: path(token) }
    await bundles.read(policyOf(host.url, { service }), undefined)
    return bundles
  }
  const asked = (token: string) =>
    host.requests.filter(({ authorization }) => authorization === `Bearer ${token}`).length
  const bundles = await withToken('one')
  await withToken('two')
  assert.equal(bundles.status().length, 1)
  bundles.keep(undefined)
  assert.deepEqual(bundles.status(), [])
  const [one, two] = [asked('one'), asked('two')]
  await eventually('the other is fetched on', () => asked('two') > two + 10)
  // One may have been on its way.
  assert.ok(asked('one') <= one + 1)
})

test('files of bundles and keys are watched; addresses are not files', () => {
  const policy = policyOf('https://host/b', {
    data: ['/d.tar.gz', 'https://host/d'],
    ...signedBy({ k1: '/k1.pem', k2: '/k2.pem' }),
  })
  const identity = { kind: 'bundle', credentialBundle: '/id.pem' } as const
  const paths = watchedPaths({ identity, trust: { bundles: [], crls: [] }, policy } as never)
  assert.deepEqual(
    ['/d.tar.gz', '/k1.pem', '/k2.pem'].filter((path) => !paths.includes(path)),
    [],
  )
  assert.deepEqual(
    paths.filter((path) => path.includes('host')),
    [],
  )
})
