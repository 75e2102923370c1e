// Directories into which a program delivers an identity, under the names that such programs use.
import assert from 'node:assert/strict'
import { rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { MaterialsConfig } from '../../src/config/config.ts'
import { type Loaded, loadMaterials } from '../../src/control/loader.ts'
import { AtomicWriter } from '../support/atomic-writer.ts'
import { temporaryDirectory, testAuthority, writeFiles } from '../support/pki.ts'

const own = await testAuthority()
const partner = await testAuthority('partner.example')
const { chainPem, privateKeyPem } = await own.svid('orders')
const OWN_CA = own.root.certificatePem
const PARTNER_CA = partner.root.certificatePem

const load = (
  directory: string,
  bundles: MaterialsConfig['trust']['bundles'] = [],
  previous?: Loaded,
) =>
  loadMaterials(
    {
      identity: { kind: 'directory', directory },
      trust: { bundles, crls: [] },
    } as unknown as MaterialsConfig,
    Date.now(),
    previous,
  )

async function directoryWith(t: TestContext, files: Record<string, string>): Promise<string> {
  const directory = await temporaryDirectory(t)
  await writeFiles(directory, files)
  return directory
}

const domains = (loaded: Loaded | undefined) =>
  loaded?.trust.map(({ material }) => material.trustDomain)

describe('an identity directory', () => {
  const layouts: Record<string, readonly [Record<string, string>, readonly string[]]> = {
    'spiffe-helper': [
      { 'svid.pem': chainPem, 'svid_key.pem': privateKeyPem, 'svid_bundle.pem': OWN_CA },
      ['example.org'],
    ],
    'the CSI driver of cert-manager': [
      { 'tls.crt': chainPem, 'tls.key': privateKeyPem, 'ca.crt': OWN_CA },
      ['example.org'],
    ],
    'SPIFFE filesystem delivery': [
      {
        'credential-bundle.private-key.x509.pem': privateKeyPem + chainPem,
        'example.org.spiffe-trust-bundle.x509.pem': OWN_CA,
        'partner.example.spiffe-trust-bundle.x509.pem': PARTNER_CA,
        'hints.json': '[]',
      },
      ['example.org', 'partner.example'],
    ],
    'its first draft': [
      { 'credential-bundle.pem': privateKeyPem + chainPem, 'a.spiffe-trust-bundle.pem': OWN_CA },
      ['a'],
    ],
  }
  for (const [who, [files, trusted]] of Object.entries(layouts)) {
    it(`of ${who} brings identity and trust, each bundle for its domain alone`, async (t) => {
      const { loaded, problems } = await load(await directoryWith(t, files))
      assert.deepEqual(
        problems.filter(({ severity }) => severity !== 'warning'),
        [],
      )
      assert.equal(loaded?.identity.material.certificateChainPem, chainPem)
      assert.deepEqual(domains(loaded), trusted)
    })
  }

  it('is read as of one moment where it is a Kubernetes volume', async (t) => {
    const volume = new AtomicWriter(join(await temporaryDirectory(t), 'volume'))
    await volume.write({ 'tls.crt': chainPem, 'tls.key': privateKeyPem, 'ca.crt': OWN_CA })
    const first = await load(volume.directory)
    assert.deepEqual(domains(first.loaded), ['example.org'])
    const next = await own.svid('orders')
    await volume.write({
      'tls.crt': next.chainPem,
      'tls.key': next.privateKeyPem,
      'ca.crt': OWN_CA,
    })
    const second = await load(volume.directory, [], first.loaded)
    assert.equal(second.loaded?.identity.material.certificateChainPem, next.chainPem)
    assert.equal(second.loaded?.trust[0], first.loaded?.trust[0])
  })

  it('stands beside configured bundles, and a domain given twice is a problem', async (t) => {
    const directory = await directoryWith(t, {
      'svid.pem': chainPem,
      'svid_key.pem': privateKeyPem,
      'svid_bundle.pem': PARTNER_CA,
      'ca.pem': OWN_CA,
    })
    const file = join(directory, 'ca.pem')
    const beside = await load(directory, [{ trustDomain: 'other.example', file }])
    assert.deepEqual(domains(beside.loaded), ['other.example', 'example.org'])
    const twice = await load(directory, [{ trustDomain: 'example.org', file }])
    assert.equal(twice.perSource.trust, 'failed')
    const [problem] = twice.problems
    assert.match(
      problem?.what ?? '',
      /svid_bundle\.pem is a bundle for example\.org, which already/,
    )
    // Never a union: what the configuration names counts alone.
    assert.deepEqual(domains(twice.loaded), ['example.org'])
    assert.equal(twice.loaded?.trust[0]?.material.file, file)
  })

  it('forgets a domain whose bundle has gone, and keeps one whose bundle is broken', async (t) => {
    const directory = await directoryWith(t, layouts['SPIFFE filesystem delivery']?.[0] ?? {})
    const path = join(directory, 'partner.example.spiffe-trust-bundle.x509.pem')
    const first = await load(directory)
    await writeFile(path, 'broken')
    const broken = await load(directory, [], first.loaded)
    assert.equal(broken.perSource.trust, 'failed')
    assert.equal(broken.loaded?.trust[1], first.loaded?.trust[1])
    await rm(path)
    const gone = await load(directory, [], broken.loaded)
    assert.equal(gone.perSource.trust, 'changed')
    assert.deepEqual(domains(gone.loaded), ['example.org'])
  })

  it('says what is wrong with it', async (t) => {
    const both = { 'svid.pem': 'x', 'svid_key.pem': 'x', 'tls.crt': 'x', 'tls.key': 'x' }
    const locked = await temporaryDirectory(t)
    await symlink(locked, join(locked, 'loop'))
    for (const [directory, what] of [
      [join(locked, 'none'), /none does not exist/],
      [await directoryWith(t, { 'x.pem': chainPem }), /holds no identity under a known name/],
      [await directoryWith(t, both), /holds two identities/],
      [await directoryWith(t, { 'x.pem': chainPem }).then((d) => join(d, 'x.pem')), /ENOTDIR/],
    ] as const) {
      const { loaded, problems } = await load(directory, [{ file: '/dev/null' }])
      assert.equal(loaded, undefined)
      const problem = problems.find(({ where }) => where === 'identity.directory')
      assert.match(problem?.what ?? '', what)
      assert.ok(problem?.remedy)
    }
  })

  it('without any bundle is told when no other is configured', async (t) => {
    const directory = await directoryWith(t, { 'tls.crt': chainPem, 'tls.key': privateKeyPem })
    const { loaded, problems } = await load(directory)
    assert.equal(loaded, undefined)
    assert.match(problems[0]?.what ?? '', /no bundle came with the identity/)
  })
})
