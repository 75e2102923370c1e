// What comes with an identity, when the identity cannot be told for a moment: bundles and CRLs that
// were delivered before stay in force, beside those that the configuration names.
import assert from 'node:assert/strict'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { parseWorkloadApi } from '../../src/config/values.ts'
import { type Loaded, loadMaterials } from '../../src/control/loader.ts'
import { readDelivery } from '../../src/control/workload-api-messages.ts'
import { hasSerial } from '../../src/identity/serials.ts'
import { ORDERS, testAuthority } from '../support/pki.ts'
import { type Answer, encodeAnswer } from '../support/workload-api.ts'
import { type Materials, materials } from './materials.ts'

const domains = (loaded: Loaded | undefined) =>
  loaded?.trust.map(({ material }) => material.trustDomain ?? 'any')

const revokes = (loaded: Loaded | undefined, serial: string): boolean =>
  (loaded?.crls ?? []).some(({ material }) =>
    material.some(({ revokedSerials }) => hasSerial(revokedSerials, serial)),
  )

const derOf = (pem: string): Buffer =>
  Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')

/** A bundle of others is configured, and no CRL; the rest is to be delivered. */
async function scene(made: Materials, identity: Config['identity']): Promise<Config> {
  await writeFile(made.path('others.crt'), (await testAuthority('other.test')).root.certificatePem)
  const bundles = [{ file: made.path('others.crt'), trustDomain: 'other.test' }]
  return { ...made.config, identity, trust: { ...made.config.trust, bundles, crls: [] } }
}

test('a directory without an identity for a moment takes no trust away', async (t) => {
  const made = await materials(t)
  const directory = made.path('identity')
  await mkdir(directory)
  for (const name of ['tls.crt', 'tls.key', 'ca.crt']) {
    await rename(made.path(name), join(directory, name))
  }
  const config = await scene(made, { kind: 'directory', directory } as Config['identity'])
  const { loaded: before } = await loadMaterials(config, Date.now())
  assert.deepEqual(domains(before), ['other.test', 'example.org'])
  await rename(join(directory, 'tls.key'), made.path('elsewhere'))
  const { loaded, perSource } = await loadMaterials(config, Date.now(), before)
  assert.deepEqual(domains(loaded), ['other.test', 'example.org'])
  assert.deepEqual([perSource.identity, perSource.trust], ['failed', 'unchanged'])
  // What the configuration names changes all the same.
  const stranger = await testAuthority('other.test')
  await writeFile(made.path('others.crt'), stranger.root.certificatePem)
  const later = await loadMaterials(config, Date.now(), loaded)
  assert.equal(later.perSource.trust, 'changed')
  assert.equal(later.loaded?.trust[1], before?.trust[1])
  await rename(made.path('elsewhere'), join(directory, 'tls.key'))
  const last = await loadMaterials(config, Date.now(), later.loaded)
  assert.equal(last.perSource.identity, 'unchanged')
  assert.deepEqual(domains(last.loaded), ['other.test', 'example.org'])
})

test('a message of a Workload API that cannot be used takes neither trust nor CRLs away', async (t) => {
  const made = await materials(t)
  const { authority } = made
  const address = parseWorkloadApi('unix:///run/agent.sock')
  assert.ok(address.kind === 'value')
  const config = await scene(made, { kind: 'workloadApi', workloadApi: address.value })
  const svid = {
    spiffeId: ORDERS,
    issued: await authority.svid('orders'),
    bundlePem: authority.root.certificatePem + authority.intermediate.certificatePem,
  }
  const crlOf = async (serial: string, number: number) =>
    derOf(await authority.intermediate.crl({ revoked: [{ serial }], number }))
  const rootCrl = derOf(await authority.root.crl({ revoked: [{ serial: '0d' }] }))
  const load = (answer: Answer, before?: Loaded) =>
    loadMaterials(config, Date.now(), before, readDelivery(encodeAnswer(answer)))

  const good = await load({ svids: [svid], crls: [await crlOf('0a', 1), rootCrl] })
  assert.deepEqual(good.problems, [])
  assert.ok(revokes(good.loaded, 'a') && revokes(good.loaded, 'd'))

  const nobody = await load({ svids: [{ ...svid, spiffeId: 'nobody' }] }, good.loaded)
  assert.equal(nobody.perSource.identity, 'failed')
  assert.deepEqual(domains(nobody.loaded), ['other.test', 'example.org'])
  assert.ok(revokes(nobody.loaded, 'a') && revokes(nobody.loaded, 'd'))

  // A CRL that cannot be read holds up no certificate, and stands for none that was there.
  const next = { ...svid, issued: await authority.svid('orders') }
  const garbage = Buffer.from('3003020101', 'hex')
  const broken = await load({ svids: [next], crls: [garbage, rootCrl, garbage] }, nobody.loaded)
  assert.equal(broken.perSource.revocation, 'failed')
  assert.equal(broken.loaded?.identity.material.facts.serial, next.issued.serial)
  assert.ok(revokes(broken.loaded, 'a') && revokes(broken.loaded, 'd'))
  const again = await load({ svids: [next], crls: [garbage, rootCrl, garbage] }, broken.loaded)
  assert.deepEqual(again.loaded?.crls, broken.loaded?.crls)

  // In another order nothing is lost, and none goes back.
  const older = await crlOf('0b', 0)
  const ordered = await load({ svids: [next], crls: [rootCrl, older] }, again.loaded)
  assert.equal(ordered.problems.length, 1)
  assert.match(ordered.problems[0]?.what ?? '', /is older than the one before/)
  assert.ok(revokes(ordered.loaded, 'a') && revokes(ordered.loaded, 'd'))

  // A message is all there is: what it leaves out is gone.
  const fewer = await load({ svids: [next], crls: [rootCrl] }, ordered.loaded)
  assert.deepEqual(fewer.problems, [])
  assert.equal(fewer.perSource.revocation, 'changed')
  assert.ok(!revokes(fewer.loaded, 'a') && revokes(fewer.loaded, 'd'))
})

test('a Workload API that names somebody else than its certificate is not believed', async (t) => {
  const made = await materials(t)
  const address = parseWorkloadApi('unix:///run/agent.sock')
  assert.ok(address.kind === 'value')
  const config = await scene(made, { kind: 'workloadApi', workloadApi: address.value })
  const partner = await testAuthority('partner.example')
  const svid = {
    spiffeId: ORDERS,
    issued: await partner.svid('orders'),
    bundlePem: partner.root.certificatePem,
  }
  const delivery = readDelivery(encodeAnswer({ svids: [svid] }))
  const { loaded, problems } = await loadMaterials(config, Date.now(), undefined, delivery)
  assert.equal(loaded, undefined)
  assert.match(problems[0]?.what ?? '', /spiffe:\/\/example\.org.*spiffe:\/\/partner\.example/)
})

test('a general bundle does not stand in for one that could never be read', async (t) => {
  const made = await materials(t)
  const address = parseWorkloadApi('unix:///run/agent.sock')
  assert.ok(address.kind === 'value')
  const config = await scene(made, { kind: 'workloadApi', workloadApi: address.value })
  const general = { file: made.path('others.crt') }
  const svid = { spiffeId: ORDERS, issued: await made.authority.svid('orders') }
  const load = (bundlePem: string, bundles: Config['trust']['bundles'], before?: Loaded) => {
    const delivery = readDelivery(encodeAnswer({ svids: [{ ...svid, bundlePem }] }))
    const changed = { ...config, trust: { ...config.trust, bundles } }
    return loadMaterials(changed, Date.now(), before, delivery)
  }
  const good = made.authority.root.certificatePem
  const { loaded, problems } = await load('', [general])
  assert.equal(loaded, undefined)
  assert.match(problems[0]?.what ?? '', /no PEM block/)
  const before = (await load(good, [general])).loaded
  assert.deepEqual(domains(before), ['any', 'example.org'])
  assert.deepEqual(domains((await load('', [general], before)).loaded), ['any', 'example.org'])
  // Where no bundle is general, nobody is believed in its place.
  const { bundles } = config.trust
  assert.deepEqual(domains((await load('', bundles)).loaded), ['other.test'])
})
