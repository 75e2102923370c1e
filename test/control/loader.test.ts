import assert from 'node:assert/strict'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { type Loaded, type LoadOutcome, loadMaterials } from '../../src/control/loader.ts'
import { singleFileMounts } from '../../src/control/single-file-mounts.ts'
import { nextGeneration } from '../../src/control/snapshot-builder.ts'
import type { CrlMaterial } from '../../src/identity/material.ts'
import { hasSerial } from '../../src/identity/serials.ts'
import { testAuthority } from '../support/pki.ts'
import { type Materials, materials } from './materials.ts'

const UNCHANGED = {
  identity: 'unchanged',
  trust: 'unchanged',
  revocation: 'unchanged',
  policy: 'unchanged',
} as const

const load = (config: Config, previous?: Loaded) => loadMaterials(config, Date.now(), previous)

async function first({ config }: Materials): Promise<Loaded> {
  const { loaded, problems } = await load(config)
  assert.deepEqual(problems, [])
  assert.ok(loaded)
  return loaded
}

const revokes = (crls: readonly CrlMaterial[], serial: string) =>
  crls.some((crl) => hasSerial(crl.revokedSerials, serial))

const told = ({ problems }: LoadOutcome) =>
  problems.map(({ where, what }) => `${where}: ${what}`).join('\n')

test('tells the problems of all sources at once', async (t) => {
  const { config, path } = await materials(t)
  await rm(path('tls.key'))
  await writeFile(path('ca.crt'), 'nothing of the kind')
  await mkdir(path('ca.crl.d'))
  const outcome = await load({
    ...config,
    trust: { ...config.trust, crls: [path('ca.crl.d')] },
    policy: {
      bundle: path('absent.tar.gz'),
      data: [],
      memoryBytes: 1,
      fuel: 1,
      input: {
        body: { totalBytes: 32 << 20 },
        certificate: false,
        contextExtensions: [],
        v2: false,
      },
    } as unknown as NonNullable<Config['policy']>,
  })
  assert.equal(outcome.loaded, undefined)
  for (const expected of [
    /identity.privateKey: .*tls.key does not exist/,
    /ca.crt/,
    /trust.crls\[0\]: .*ca.crl.d is a directory/,
    /policy.bundle: .*absent.tar.gz does not exist/,
  ]) {
    assert.match(told(outcome), expected)
  }
})

test('loads nothing again that has not changed', async (t) => {
  const made = await materials(t)
  const before = await first(made)
  const { loaded, perSource } = await load(made.config, before)
  assert.deepEqual(perSource, UNCHANGED)
  assert.equal(loaded?.identity, before.identity)
  assert.equal(loaded?.trust[0], before.trust[0])
  assert.equal(loaded?.crls[0], before.crls[0])
})

test('takes a new certificate while trust is broken', async (t) => {
  const made = await materials(t)
  const before = await first(made)
  await writeFile(made.path('ca.crt'), '-----BEGIN CERTIFICATE-----\nAAAA\n')
  await made.rotate()
  const { loaded, perSource } = await load(made.config, before)
  assert.deepEqual(perSource, { ...UNCHANGED, identity: 'changed', trust: 'failed' })
  assert.notEqual(loaded?.identity, before.identity)
  assert.equal(loaded?.trust[0], before.trust[0])
})

test('keeps the old pair while only the key has been replaced', async (t) => {
  const made = await materials(t)
  const before = await first(made)
  const oldCertificate = await readFile(made.path('tls.crt'))
  await made.rotate()
  const newCertificate = await readFile(made.path('tls.crt'))
  await writeFile(made.path('tls.crt'), oldCertificate)
  const mismatched = await load(made.config, before)
  assert.equal(mismatched.perSource.identity, 'failed')
  assert.equal(mismatched.loaded?.identity, before.identity)
  assert.match(told(mismatched), /does not belong to the certificate/)
  await writeFile(made.path('tls.crt'), newCertificate)
  const healed = await load(made.config, mismatched.loaded)
  assert.deepEqual(healed.perSource, { ...UNCHANGED, identity: 'changed' })
})

test('keeps a valid certificate when its replacement is not valid yet', async (t) => {
  const made = await materials(t)
  const before = await first(made)
  await made.rotate({ notBefore: new Date(Date.now() + 60_000) })
  const outcome = await load(made.config, before)
  assert.equal(outcome.perSource.identity, 'failed')
  assert.equal(outcome.loaded?.identity, before.identity)
  assert.match(told(outcome), /valid from .* and it is /)
  const later = await loadMaterials(made.config, Date.now() + 61_000, outcome.loaded)
  assert.equal(later.perSource.identity, 'changed')
})

test('reads a credential bundle', async (t) => {
  const made = await materials(t)
  const leaf = await made.authority.svid('orders')
  await writeFile(made.path('bundle.pem'), leaf.privateKeyPem + leaf.chainPem)
  const { loaded, problems } = await load({
    ...made.config,
    identity: { kind: 'bundle', credentialBundle: made.path('bundle.pem') },
  })
  assert.deepEqual(problems, [])
  assert.match(loaded?.identity.material.uris[0] ?? '', /orders/)
})

test('a broken CRL file keeps what it said before and holds up no other', async (t) => {
  const made = await materials(t)
  const { root, intermediate } = made.authority
  const files = { root: made.path('root.crl'), leaves: made.path('leaves.crl') }
  const crls = Object.values(files)
  const config = { ...made.config, trust: { ...made.config.trust, crls } }
  await writeFile(files.root, await root.crl({ revoked: [{ serial: '0a' }] }))
  await writeFile(files.leaves, await intermediate.crl({ revoked: [] }))
  const { loaded: before } = await load(config)
  await writeFile(files.root, 'broken')
  await writeFile(files.leaves, await intermediate.crl({ revoked: [{ serial: '0b' }] }))
  const { loaded, perSource } = await load(config, before)
  assert.equal(perSource.revocation, 'failed')
  assert.deepEqual(
    loaded?.crls.map(({ material }) => ['a', 'b'].filter((serial) => revokes(material, serial))),
    [['a'], ['b']],
  )
})

test('keeps the CRL of an authority that is still trusted when its file holds another', async (t) => {
  const made = await materials(t)
  const { root, intermediate } = made.authority
  const files = [made.path('root.crl'), made.path('leaves.crl')] as const
  const config = { ...made.config, trust: { ...made.config.trust, crls: files } }
  await writeFile(files[0], await root.crl({ revoked: [{ serial: '0a' }] }))
  await writeFile(files[1], await intermediate.crl({ revoked: [] }))
  const before = (await load(config)).loaded
  // Only a warning where it was never otherwise: an authority may leave before its CRL does.
  const stranger = await testAuthority('stranger.example')
  const added = await intermediate.crl({ revoked: [{ serial: '0b' }] })
  await writeFile(files[0], (await stranger.root.crl({ revoked: [] })) + added)
  const { loaded, problems, perSource } = await load(config, before)
  assert.equal(perSource.revocation, 'changed')
  const warned = problems.find(({ what }) =>
    /no longer has the CRL of CN=example\.org root/.test(what),
  )
  assert.equal(warned?.severity, 'warning')
  for (const serial of ['a', 'b']) assert.ok(revokes(loaded?.crls[0]?.material ?? [], serial))
})

test('an older CRL does not take the place of a newer one', async (t) => {
  const made = await materials(t)
  const { intermediate } = made.authority
  const config = { ...made.config, trust: { ...made.config.trust, crls: [made.path('one.crl')] } }
  const publish = async (number: number, ...serials: readonly string[]) =>
    writeFile(
      made.path('one.crl'),
      await intermediate.crl({ revoked: serials.map((serial) => ({ serial })), number }),
    )
  await publish(7, '0a')
  const before = (await load(config)).loaded
  await publish(6)
  const outcome = await load(config, before)
  assert.ok(revokes(outcome.loaded?.crls[0]?.material ?? [], 'a'))
  const [problem] = outcome.problems
  assert.equal(problem?.severity, 'warning')
  assert.match(problem?.what ?? '', /\(number 6 of .*\) is older than the one before \(number 7 of/)
  // Nor under other trust, where the file is read again.
  await made.trust(made.authority, await testAuthority('other.example'))
  const later = await load(config, outcome.loaded)
  assert.ok(revokes(later.loaded?.crls[0]?.material ?? [], 'a'))
  await publish(8, '0b')
  const newer = await load(config, later.loaded)
  assert.deepEqual(newer.problems, [])
  assert.ok(revokes(newer.loaded?.crls[0]?.material ?? [], 'b'))
})

test('a deny list is in force, kept when it breaks, and its own kind of change', async (t) => {
  const made = await materials(t)
  const revoked = made.path('revoked.yaml')
  const config = { ...made.config, trust: { ...made.config.trust, revoked } }
  assert.match(told(await load(config)), /revoked\.yaml.* does not exist/)
  await writeFile(revoked, '- spiffeId: spiffe://example.org/a')
  const { loaded: before } = await load(config)
  assert.ok(before)
  const one = nextGeneration(config, before, Date.now())
  assert.equal(one.snapshot.trust.denied[0]?.where, `${revoked}:1`)
  await writeFile(revoked, '- spiffeId: nonsense')
  const broken = await load(config, before)
  assert.equal(broken.perSource.revocation, 'failed')
  assert.equal(broken.loaded?.denied, before.denied)
  await writeFile(revoked, '- { issuer: "CN=example.org  Root", serial: ab }')
  assert.deepEqual((await load(config, before)).problems, [])
  await writeFile(revoked, '- { issuer: "CN=exmaple.org root", serial: ab }')
  const { problems } = await load(config, before)
  assert.equal(problems[0]?.severity, 'warning')
  assert.match(problems[0]?.what ?? '', /no authority .* is called CN=exmaple\.org root/)
  await writeFile(revoked, '[]')
  const { loaded: after, perSource } = await load(config, broken.loaded)
  assert.ok(after)
  assert.deepEqual(perSource, { ...UNCHANGED, revocation: 'changed' })
  const { trust } = nextGeneration(config, after, Date.now(), one).snapshot
  assert.deepEqual([trust.generation, trust.bundleGeneration, trust.denied], [2, 1, []])
})

test('denies whoever has no CRL when the CRLs belong to an authority that is gone', async (t) => {
  const made = await materials(t)
  await made.revoke('0a')
  const before = await first(made)
  await made.trust(await testAuthority('other.example'))
  const { loaded, perSource } = await load(made.config, before)
  assert.deepEqual(perSource, { ...UNCHANGED, trust: 'changed', revocation: 'changed' })
  assert.ok(loaded)
  const { trust } = nextGeneration(made.config, loaded, Date.now()).snapshot
  assert.equal(trust.revocation.required, true)
  assert.deepEqual(trust.crls, [])
})

test('checks CRLs again when only trust has changed', async (t) => {
  const made = await materials(t)
  await made.revoke('0a')
  const before = await first(made)
  await made.trust(made.authority, await testAuthority('other.example'))
  const { loaded, perSource } = await load(made.config, before)
  assert.equal(perSource.trust, 'changed')
  assert.notEqual(loaded?.crls[0], before.crls[0])
  assert.ok(revokes(loaded?.crls[0]?.material ?? [], 'a'))
})

test('numbers generations by what has changed', async (t) => {
  const made = await materials(t)
  const numbers = (generation: ReturnType<typeof nextGeneration>) => [
    generation.snapshot.generation,
    generation.snapshot.trust.generation,
  ]
  const again = async (previous: ReturnType<typeof nextGeneration>) => {
    const { loaded } = await load(made.config, previous.loaded)
    assert.ok(loaded)
    return nextGeneration(made.config, loaded, Date.now(), previous)
  }
  const one = nextGeneration(made.config, await first(made), Date.now())
  assert.deepEqual(numbers(one), [1, 1])
  assert.equal(await again(one), one)
  await made.rotate()
  const two = await again(one)
  assert.deepEqual(numbers(two), [2, 1])
  await made.revoke('0a')
  const three = await again(two)
  assert.deepEqual(numbers(three), [3, 2])
  await made.trust(made.authority, await testAuthority('other.example'))
  assert.deepEqual(numbers(await again(three)), [4, 3])
})

test('seals a snapshot all the way down and keeps it fit for a structured clone', async (t) => {
  const made = await materials(t)
  const { snapshot } = nextGeneration(made.config, await first(made), Date.now())
  assert.throws(() => Object.assign(snapshot.identity.facts, { file: 'x' }), TypeError)
  assert.throws(() => (snapshot.trust.crls as unknown[]).push(1), TypeError)
  assert.deepEqual(structuredClone(snapshot), snapshot)
})

test('warns of a file that is a mount of its own', () => {
  const mountInfo = [
    '36 35 98:0 / / rw - ext4 /dev/root rw',
    '99 36 0:50 /..data/tls.crt /run/my\\040pod/tls.crt ro - tmpfs tmpfs rw',
    '98 36 0:50 / /run/whole ro - tmpfs tmpfs rw',
  ].join('\n')
  const files = ['/run/my pod/tls.crt', '/run/whole/tls.key'].map((path) => ({
    path,
    where: 'identity',
    maxBytes: 1,
  }))
  const problems = singleFileMounts(mountInfo, files)
  assert.deepEqual(
    problems.map(({ what, severity }) => [what.split(' is ')[0], severity]),
    [['/run/my pod/tls.crt', 'warning']],
  )
})
