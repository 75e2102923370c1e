// Whether we would be believed by ourselves; told with the load that made it so, and no obstacle.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { loadMaterials } from '../../src/control/loader.ts'
import { testAuthority } from '../support/pki.ts'
import { materials } from './materials.ts'

const told = (outcome: Awaited<ReturnType<typeof loadMaterials>>) => {
  assert.ok(outcome.loaded)
  assert.ok(outcome.problems.every(({ severity }) => severity === 'warning'))
  return outcome.problems.map(({ what }) => what).join('\n')
}

test('a certificate that our own trust accepts is nothing to talk about', async (t) => {
  const { config } = await materials(t)
  assert.equal(told(await loadMaterials(config, Date.now())), '')
})

test('a certificate of an authority that we do not believe is told', async (t) => {
  const made = await materials(t)
  const other = await testAuthority()
  await made.trust(other)
  const config = { ...made.config, trust: { ...made.config.trust, crls: [] } }
  assert.match(told(await loadMaterials(config, Date.now())), /leads to no certificate/)
})

test('a partner is believed for its own names: our certificate needs a bundle of our domain', async (t) => {
  const made = await materials(t)
  const bundles = [{ file: made.path('ca.crt'), trustDomain: 'partner.example' }]
  const config = { ...made.config, trust: { ...made.config.trust, bundles } }
  assert.match(told(await loadMaterials(config, Date.now())), /leads to no certificate/)
})

test('that we were revoked is told when the CRL says so, and again with each of its changes', async (t) => {
  const made = await materials(t)
  const first = await loadMaterials(made.config, Date.now())
  assert.equal(told(first), '')
  const serial = await made.rotate()
  await made.revoke(serial)
  const second = await loadMaterials(made.config, Date.now(), first.loaded)
  assert.match(told(second), new RegExp(`we would refuse: .*lists serial ${serial}`))
  assert.equal(told(await loadMaterials(made.config, Date.now(), second.loaded)), '')
})

test('a certificate for servers alone is nothing to talk about', async (t) => {
  const made = await materials(t)
  const leaf = await made.authority.svid('orders', { usages: ['serverAuth'] })
  await writeFile(made.path('tls.key'), leaf.privateKeyPem)
  await writeFile(made.path('tls.crt'), leaf.chainPem)
  assert.equal(told(await loadMaterials(made.config, Date.now())), '')
})
