// Whether we would be believed by ourselves: warnings, and no obstacle.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { crossCheck } from '../../src/control/cross-check.ts'
import { loadMaterials } from '../../src/control/loader.ts'
import { testAuthority } from '../support/pki.ts'
import { materials } from './materials.ts'

async function told(config: Config): Promise<string> {
  const { loaded } = await loadMaterials(config, Date.now())
  assert.ok(loaded)
  const problems = crossCheck(loaded, Date.now())
  assert.ok(problems.every(({ severity, remedy }) => severity === 'warning' && remedy))
  return problems.map(({ what }) => what).join('\n')
}

test('a certificate that our own trust accepts is nothing to talk about', async (t) => {
  assert.equal(await told((await materials(t)).config), '')
})

test('a certificate of an authority that we do not believe is told', async (t) => {
  const made = await materials(t)
  await made.trust(await testAuthority())
  const config = { ...made.config, trust: { ...made.config.trust, crls: [] } }
  assert.match(await told(config), /leads to no certificate/)
})

test('a partner is believed for its own names: our certificate needs a bundle of our domain', async (t) => {
  const made = await materials(t)
  const bundles = [{ file: made.path('ca.crt'), trustDomain: 'partner.example' }]
  const config = { ...made.config, trust: { ...made.config.trust, bundles } }
  assert.match(await told(config), /leads to no certificate/)
})

test('that we were revoked is told', async (t) => {
  const made = await materials(t)
  const serial = await made.rotate()
  await made.revoke(serial)
  assert.match(await told(made.config), new RegExp(`we would refuse: .*lists serial ${serial}`))
})

test('that our own key is on the deny list is told', async (t) => {
  const made = await materials(t)
  const leaf = await made.authority.svid('orders')
  await writeFile(made.path('tls.key'), leaf.privateKeyPem)
  await writeFile(made.path('tls.crt'), leaf.chainPem)
  await writeFile(made.path('revoked.yaml'), '- spiffeId: spiffe://example.org/ns/**\n')
  const trust = { ...made.config.trust, revoked: made.path('revoked.yaml') }
  assert.match(await told({ ...made.config, trust }), /we would refuse: /)
})

test('a certificate for servers alone is nothing to talk about', async (t) => {
  const made = await materials(t)
  const leaf = await made.authority.svid('orders', { usages: ['serverAuth'] })
  await writeFile(made.path('tls.key'), leaf.privateKeyPem)
  await writeFile(made.path('tls.crt'), leaf.chainPem)
  assert.equal(await told(made.config), '')
})
