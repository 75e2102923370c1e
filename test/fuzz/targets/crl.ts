// Revocation lists: the signed part is the input, and is signed here, so that what is wrong with it is
// not hidden by its signature. What is accepted names the serials that @peculiar/x509 finds in it.
import 'reflect-metadata'
import assert from 'node:assert/strict'
import { createPrivateKey, sign } from 'node:crypto'
import * as peculiar from '@peculiar/x509'
import { parseCrl } from '../../../src/identity/crl.ts'
import { hasSerial, SERIAL_BYTES } from '../../../src/identity/serials.ts'
import {
  bits,
  boolean,
  CA,
  commonName,
  der,
  extension,
  forge,
  integer,
  octets,
  oid,
  revoked,
  sequence,
  text,
  time,
} from '../../identity/forge.ts'
import { bundleOf } from '../../identity/trust-material.ts'
import { derMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

/** Always the same key, and nobody's: 32 bytes of zero. */
const KEY = createPrivateKey({
  key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.alloc(32)]),
  format: 'der',
  type: 'pkcs8',
})
const ED25519 = sequence(oid('1.3.101.112'))
const signature = (tbs: Buffer): Buffer => sign(null, tbs, KEY)
const ROOT = forge({
  key: KEY,
  subject: commonName('root'),
  algorithm: ED25519,
  sign: signature,
  extensions: [CA],
})
const TRUST = [bundleOf([ROOT])]
const NOW_MS = Date.UTC(2026, 10, 22)

const start = (version = [integer('01')]) => [
  ...version,
  ED25519,
  ROOT.subject,
  time(new Date(Date.UTC(2026, 0, 1))),
]
/** Of lists that do not name everybody: deltas, and those of a distribution point. */
const PARTIAL = ['2.5.29.27', '2.5.29.28']
const UNTIL = time(new Date(Date.UTC(2040, 0, 1)))
const number = extension('2.5.29.20', integer('2a'))
const wrapped = (...extensions: Buffer[]) => der(0xa0, sequence(...extensions))

export const target: Target = {
  name: 'crl',
  runs: 1_500,
  seeds: () => [
    sequence(...start()),
    sequence(...start([]), time(new Date(Date.UTC(2030, 0, 1)))),
    sequence(
      ...start(),
      UNTIL,
      sequence(revoked('ff01'), revoked('12'), revoked('00ab')),
      wrapped(number),
    ),
    sequence(
      ...start(),
      time(new Date(Date.UTC(2055, 0, 1))),
      sequence(revoked('7f'.repeat(20), extension('2.5.29.21', der(0x0a, Buffer.from([1]))))),
      wrapped(number, extension('2.5.29.35', sequence(text(0x80, 'abc')))),
    ),
    // Partial, indirect and delta lists: refused.
    sequence(...start(), UNTIL, wrapped(number, extension('2.5.29.27', integer('01')))),
    sequence(...start(), wrapped(extension('2.5.29.28', sequence(boolean(true))))),
    sequence(...start(), UNTIL, sequence(revoked('01', extension('2.5.29.29', octets())))),
  ],
  dictionary: [
    '\x02\x01\x80',
    '\x02\x01\x00',
    '\x06\x03\x55\x1d\x1b',
    '\x06\x03\x55\x1d\x1c',
    '\x01\x01\xff',
  ],
  mutators: [derMutator],
  check: (input) => {
    const list = sequence(input, ED25519, bits(signature(input)))
    const { crls, problems } = parseCrl(list, 'ca.crl', TRUST, NOW_MS)
    for (const { what } of problems) {
      assert.ok(what.length < 2_000)
      assert.doesNotMatch(what, /\p{Cc}/u)
    }
    const [crl] = crls
    if (crl === undefined) return assert.ok(problems.length > 0)
    const other = byPeculiar(list)
    // Without nextUpdate @peculiar/x509 2.2.0 finds no entries.
    if (other === undefined || crl.nextUpdateMs === undefined) return
    for (const { type } of other.extensions) assert.ok(!PARTIAL.includes(type), type)
    assert.equal(other.thisUpdate.getTime(), crl.thisUpdateMs)
    assert.equal(other.nextUpdate?.getTime(), crl.nextUpdateMs)
    const serials = other.entries.map(({ serialNumber }) => serialNumber.toLowerCase())
    const positive = serials.filter((serial) => !/^[89a-f]/.test(serial) || serial.length % 2 === 1)
    for (const serial of positive) {
      const plain = serial.replace(/^0+(?=.)/, '')
      if (plain.length <= 2 * SERIAL_BYTES) assert.ok(hasSerial(crl.revokedSerials, plain), plain)
    }
    assert.ok(crl.revokedSerials.length <= serials.length * SERIAL_BYTES)
  },
}

function byPeculiar(list: Buffer): peculiar.X509Crl | undefined {
  try {
    const crl = new peculiar.X509Crl(list)
    // It reads them when they are first asked for.
    return crl.extensions.length >= 0 ? crl : undefined
  } catch {
    return undefined
  }
}
