// Messages of a SPIFFE agent: read, or refused with a reason, and turned into files that the loader
// then reads like any other.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import { deliveredMaterials } from '../../../src/control/delivered-materials.ts'
import { type Delivery, readDelivery } from '../../../src/control/workload-api-messages.ts'
import { readPem } from '../../../src/identity/pem.ts'
import { parseTrustBundle } from '../../../src/identity/trust.ts'
import type { Target } from '../target.ts'

const AGENT = { kind: 'unix', path: '/run/agent.sock' } as const
const certificate = (name: string) =>
  readFileSync(new URL(`../corpus/certificate/${name}`, import.meta.url))
const ROOT = certificate('svid-root')
const GOOD: Delivery = {
  svids: [
    {
      ...{
        spiffeId: 'spiffe://example.org/ns/default/sa/web',
        key: Buffer.from('3003020100', 'hex'),
        hint: 'h',
      },
      ...{
        chain: Buffer.concat([certificate('svid-leaf'), certificate('svid-intermediate')]),
        bundle: ROOT,
      },
    },
  ],
  crls: [Buffer.from('3000', 'hex')],
  federated: new Map([['spiffe://partner.example', ROOT]]),
}

export const target: Target = {
  name: 'workload-api',
  runs: 2_000,
  seeds: () => [
    encoded(GOOD),
    encoded({ ...GOOD, svids: [...GOOD.svids, ...GOOD.svids], crls: [] }),
    encoded({ svids: [], crls: [], federated: new Map() }),
  ],
  dictionary: [
    '\x0a',
    '\x12',
    '\x1a',
    '\xff\xff\xff\xff\x0f',
    '\x0b',
    '\x0c',
    '\x08\x01',
    'spiffe://',
    '/../',
    '\x30\x80',
    '\xc0\x80',
  ],
  check: (input) => {
    let delivery: Delivery
    try {
      delivery = readDelivery(input)
    } catch (error) {
      assert.ok(error instanceof Error)
      return assert.ok(error.message.length < 300)
    }
    const again = readDelivery(encoded(delivery))
    assert.deepEqual(again, delivery)
    const { identity, bundles, crls } = deliveredMaterials(AGENT, undefined, delivery)
    assert.equal(crls.length, identity.kind === 'bytes' ? delivery.crls.length : 0)
    for (const { content, trustDomain } of bundles) {
      if (content.kind !== 'bytes') continue
      const { problems } = readPem(content.bytes.toString(), 'x')
      if (problems.length === 0) parseTrustBundle(content.bytes.toString(), 'x', trustDomain, 0)
    }
  },
}

function encoded({ svids, crls, federated }: Delivery): Buffer {
  const writer = new BinaryWriter()
  for (const { spiffeId, chain, key, bundle, hint } of svids) {
    writer.tag(1, 2).fork().tag(1, 2).string(spiffeId).tag(2, 2).bytes(chain)
    writer.tag(3, 2).bytes(key).tag(4, 2).bytes(bundle).tag(5, 2).string(hint).join()
  }
  for (const crl of crls) writer.tag(2, 2).bytes(crl)
  for (const [domain, bundle] of federated)
    writer.tag(3, 2).fork().tag(1, 2).string(domain).tag(2, 2).bytes(bundle).join()
  return Buffer.from(writer.finish())
}
