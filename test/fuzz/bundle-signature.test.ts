// A signature holds for exactly what was signed: whatever is changed afterwards is found, and whatever
// a signature file says, it ends in a verdict.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { readJson } from '../../src/policy/builtins/value.ts'
import { structuredHash } from '../../src/policy/bundle/structured-hash.ts'
import { secretKey, signatures, signed, signing, token, verdict } from '../policy/signed/support.ts'
import { fuzz } from './campaign.ts'

const BY = signing(secretKey())
const FILES = new Map<string, Buffer>([
  ['.manifest', Buffer.from('{"revision":"1","roots":[""]}')],
  ['data.json', Buffer.from('{"a":{"b":[1,2.50,1e3,"\u2028"]},"c":null}')],
  ['policy.wasm', Buffer.from('not read here')],
])
const SIGNED = signed(FILES)
const TOKEN = (
  JSON.parse(SIGNED.get('.signatures.json')?.toString() ?? '') as { signatures: string[] }
).signatures[0] as string

assert.equal(verdict(SIGNED, BY), 'verified')

fuzz(
  'a file that was changed anywhere is not what was signed',
  { runs: 2_000 },
  fc.property(
    fc.constantFrom(...FILES.keys()),
    fc.nat(),
    fc.nat(255),
    fc.constantFrom('replace', 'insert', 'remove'),
    (name, at, value, how) => {
      const before = FILES.get(name) as Buffer
      const place = at % before.length
      const rest = before.subarray(how === 'insert' ? place : place + 1)
      const middle = how === 'remove' ? [] : [Buffer.from([value])]
      const after = Buffer.concat([before.subarray(0, place), ...middle, rest])
      const said = verdict(new Map(SIGNED).set(name, after), BY)
      if (said === 'verified') assert.deepEqual(meaningOf(name, after), meaningOf(name, before))
    },
  ),
)

/** White space and the order of keys mean nothing in JSON. */
const meaningOf = (name: string, bytes: Buffer): unknown =>
  name === 'policy.wasm' ? bytes : structuredHash(readJson(bytes.toString()), 'sha512')

fuzz(
  'files that were added, taken away or renamed are found',
  { runs: 500 },
  fc.property(
    fc.constantFrom('add', 'remove', 'rename'),
    fc.constantFrom(...FILES.keys()),
    fc.string({ minLength: 1 }),
    (how, name, other) => {
      fc.pre(!SIGNED.has(other))
      const entries = new Map(SIGNED)
      const bytes = entries.get(name) as Buffer
      if (how !== 'add') entries.delete(name)
      if (how !== 'remove') entries.set(other, bytes)
      assert.notEqual(verdict(entries, BY), 'verified')
    },
  ),
)

fuzz(
  'a signature with one character changed is none',
  { runs: 2_000 },
  fc.property(
    fc.nat(),
    fc.string({ minLength: 0, maxLength: 1 }),
    fc.boolean(),
    (at, put, insert) => {
      const place = at % TOKEN.length
      const changed = TOKEN.slice(0, place) + put + TOKEN.slice(insert ? place : place + 1)
      fc.pre(changed !== TOKEN)
      const file = Buffer.from(JSON.stringify({ signatures: [changed] }))
      assert.notEqual(verdict(new Map(SIGNED).set('.signatures.json', file), BY), 'verified')
    },
  ),
)

const anything = fc.oneof(fc.jsonValue(), fc.constantFrom('HS256', 'none', 'k1', '', null, 0))

fuzz(
  'a header that was signed with the right key still has to say its algorithm and name',
  { runs: 1_000 },
  fc.property(
    fc.record(
      { alg: anything, kid: anything, crit: anything, b64: anything, jwk: anything },
      { requiredKeys: [] },
    ),
    (header) => {
      const payload = { files: [], keyid: 'k1' }
      const entries = new Map([['.signatures.json', signatures(payload, header)]])
      const fits = header.alg === 'HS256' && !('crit' in header) && (header.kid ?? 'k1') === 'k1'
      const said = verdict(entries, BY)
      assert.equal(
        said === 'verified',
        fits && header.kid !== null,
        `${JSON.stringify(header)}: ${said}`,
      )
    },
  ),
)

const listed = fc.oneof(
  fc.record(
    { name: anything, hash: anything, algorithm: fc.oneof(fc.constant('SHA-256'), anything) },
    { requiredKeys: [] },
  ),
  anything,
)

fuzz(
  'a payload that was signed with the right key lets no file through that it does not list',
  { runs: 1_000 },
  fc.property(
    fc.record(
      {
        files: fc.oneof(fc.array(listed, { maxLength: 4 }), anything),
        scope: anything,
        iat: anything,
        keyid: anything,
      },
      { requiredKeys: [] },
    ),
    (payload) => {
      const entries = new Map<string, Buffer>(FILES).set('.signatures.json', signatures(payload))
      assert.notEqual(verdict(entries, BY), 'verified')
    },
  ),
)

fuzz(
  'a signature file of any content ends in a verdict',
  { runs: 1_000 },
  fc.property(
    fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      fc
        .record(
          {
            signatures: fc.oneof(fc.array(fc.oneof(fc.constant(token({})), anything)), anything),
            plugin: anything,
          },
          { requiredKeys: [] },
        )
        .map((value) => Buffer.from(JSON.stringify(value))),
    ),
    (bytes) => {
      assert.notEqual(
        verdict(new Map<string, Buffer>(FILES).set('.signatures.json', bytes), BY),
        'verified',
      )
    },
  ),
)

fuzz(
  'the digest of data depends on what it says and not on how it is written',
  { runs: 1_000 },
  fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
    const digest = (text: string) => structuredHash(readJson(text), 'sha256')
    const text = JSON.stringify(one)
    assert.equal(digest(JSON.stringify(reversed(one), null, 3)), digest(text))
    const equal = canonical(one) === canonical(other)
    assert.equal(digest(JSON.stringify(other)) === digest(text), equal)
  }),
)

function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, one]) => [key, reversed(one)]),
  )
}

/** Another way to the same: nested pairs, sorted. Half surrogates are U+FFFD to a signer. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (typeof value === 'string') return JSON.stringify(value.toWellFormed())
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const pairs = Object.entries(value).map(
    ([key, one]) => [key.toWellFormed(), canonical(one)] as const,
  )
  return `{${[...new Map(pairs)]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map((pair) => pair.join(':'))
    .join()}}`
}
