// Whatever an archive holds: it is unpacked within its limits into plain names, or refused.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gunzipSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { ARCHIVE_LIMITS, unpackArchive } from '../../src/policy/bundle.ts'
import { SAMPLE_BUNDLE } from '../policy/support.ts'
import { fuzz } from './campaign.ts'
import { archive, pax, type TarHeader, tar } from './tar.ts'

const LIMITS = { fileBytes: 4_096, totalBytes: 64 * 1024, fileCount: 8 }

/** Gives the names, or undefined where the archive is refused. */
async function unpacked(bytes: Buffer, limits = LIMITS): Promise<readonly string[] | undefined> {
  const outcome = await unpackArchive(bytes, 'bundle.tar.gz', limits)
  if (outcome.kind === 'problems') {
    for (const { where, what, remedy } of outcome.problems) {
      assert.equal(where, 'bundle.tar.gz')
      assert.ok(what !== '' && remedy !== '')
      assert.doesNotMatch(what, /\p{Cc}/u)
      assert.ok(what.length < 500, what)
    }
    return undefined
  }
  const names = [...outcome.entries.keys()]
  assert.ok(names.length <= limits.fileCount)
  for (const [name, content] of outcome.entries) {
    assert.ok(content.length <= limits.fileBytes)
    assert.doesNotMatch(name, /\p{Cc}/u)
    assert.doesNotMatch(`/${name}/`, /\/\.{0,2}\//)
  }
  return names
}

const part = fc.oneof(
  fc.constantFrom(
    'a',
    'data.json',
    '.manifest',
    '..',
    '.',
    '',
    'policy.wasm',
    '__proto__',
    '\u0000',
    '\r\n',
    '\\',
    'x'.repeat(99),
  ),
  fc.string({ unit: 'binary', maxLength: 8 }),
)
const name = fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join('/'))
const size = fc.oneof(
  fc.constantFrom(
    '00000000000\0',
    '77777777777\0',
    '00000000001\0',
    '-0000000001\0',
    '            ',
    'not a number',
    '\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff',
  ),
  fc.nat(10_000).map((n) => `${n.toString(8).padStart(11, '0')}\0`),
)
const paxRecords = fc.dictionary(
  fc.constantFrom(
    'path',
    'linkpath',
    'size',
    'GNU.sparse.name',
    'GNU.sparse.realsize',
    '__proto__',
  ),
  fc.oneof(name, fc.constantFrom('0', '-1', '1e9', '99999999999999', 'NaN', '')),
  { maxKeys: 3 },
)
const header: fc.Arbitrary<TarHeader> = fc.oneof(
  fc.record(
    {
      name,
      type: fc.constantFrom('0', '0', '0', '\0', '1', '2', '3', '5', '7', 'K', 'L', 'S', 'V'),
      content: fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
      size,
      linkName: name,
      prefix: name,
      badChecksum: fc.boolean(),
    },
    { requiredKeys: ['name', 'type', 'content'] },
  ),
  fc.tuple(fc.constantFrom('x', 'g'), paxRecords).map(([type, records]) => {
    return { name: 'pax', type, content: pax(records) }
  }),
  fc.tuple(fc.constantFrom('L', 'K'), name).map(([type, long]) => {
    return { name: '././@LongLink', type, content: Buffer.from(`${long}\0`) }
  }),
)

fuzz(
  'archives of hostile headers are refused, or hold plain names within the limits',
  { runs: 1_000 },
  fc.asyncProperty(fc.array(header, { maxLength: 12 }), async (headers) => {
    await unpacked(archive(headers))
  }),
)

const sample = readFileSync(SAMPLE_BUNDLE)
const sampleTar = gunzipSync(sample)

fuzz(
  'a bundle with bytes changed, before or after compression, never ends in a fault',
  { runs: 300 },
  fc.asyncProperty(
    fc.boolean(),
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 20 }),
    async (inside, changes) => {
      const bytes = Buffer.from(inside ? sampleTar : sample)
      for (const [at, value] of changes) bytes[at % bytes.length] = value
      await unpacked(inside ? gzipSync(bytes, { level: 1 }) : bytes, ARCHIVE_LIMITS)
    },
  ),
)

fuzz(
  'a bundle that ends too early is refused',
  { runs: 100 },
  fc.asyncProperty(
    fc.boolean(),
    fc.double({ min: 0, max: 0.98, noNaN: true }),
    async (inside, share) => {
      const whole = inside ? sampleTar : sample
      // What follows the last file is padding and the two empty blocks of the end.
      const end = inside ? sampleTar.lastIndexOf('ustar') : whole.length
      const cut = whole.subarray(0, Math.floor(end * share))
      const names = await unpacked(inside ? gzipSync(cut, { level: 1 }) : cut, ARCHIVE_LIMITS)
      if (names !== undefined) {
        // Cut between two files it is an archive of its own, with fewer files.
        assert.ok(inside && cut.length % 512 === 0 && names.length < 3, `${names} of ${cut.length}`)
      }
    },
  ),
)

fuzz(
  'bytes that are no archive are refused',
  { runs: 300 },
  fc.asyncProperty(fc.uint8Array({ maxLength: 2_000 }), fc.boolean(), async (bytes, gzipped) => {
    const given = Buffer.from(bytes)
    const names = await unpacked(gzipped ? gzipSync(given) : given)
    assert.deepEqual(names ?? [], [])
  }),
)

test('a bomb is refused before it has gone off', async () => {
  const before = process.memoryUsage().rss
  const bomb = gzipSync(Buffer.alloc(512 * 1024 * 1024), { level: 9 })
  assert.ok(bomb.length < 1024 * 1024)
  const outcome = await unpackArchive(bomb, 'bomb')
  assert.equal(outcome.kind, 'problems')
  const nested = gzipSync(bomb)
  assert.equal((await unpackArchive(nested, 'bomb')).kind, 'problems')
  assert.ok(process.memoryUsage().rss - before < 1024 * 1024 * 1024)
})

const file = (name: string, more: Partial<TarHeader> = {}): TarHeader => ({
  name,
  type: '0',
  content: Buffer.from('{}'),
  ...more,
})
const paxOf = (records: Readonly<Record<string, string>>): TarHeader => ({
  name: 'pax',
  type: 'x',
  content: pax(records),
})

for (const [what, headers] of [
  ['a climbing name', [file('../../etc/passwd')]],
  ['a name that climbs in the middle', [file('a/../../b')]],
  ['a climbing name of PAX', [paxOf({ path: '../x' }), file('x')]],
  ['a climbing prefix', [file('x', { prefix: '../..' })]],
  ['a climbing long name', [{ name: 'l', type: 'L', content: Buffer.from('../x\0') }, file('x')]],
  [
    'a symbolic link',
    [file('x', { type: '2', linkName: '/etc/passwd', content: Buffer.alloc(0) })],
  ],
  ['a hard link', [file('x', { type: '1', linkName: 'y', content: Buffer.alloc(0) })]],
  ['a device', [file('x', { type: '3', content: Buffer.alloc(0) })]],
  ['a name twice', [file('data.json'), file('/data.json')]],
  ['a name twice by PAX', [file('data.json'), paxOf({ path: 'data.json' }), file('y')]],
  ['a name of a kilobyte', [paxOf({ path: 'x'.repeat(1_025) }), file('y')]],
  ['a name with a control character', [paxOf({ path: 'a\u001b[2Jb' }), file('y')]],
  ['a name with DEL and a control character of C1', [paxOf({ path: 'a\u007f\u009bb' }), file('y')]],
  ['a name that is no UTF-8', [file('x', { name: '\ufffd' })]],
  ['a wrong checksum', [file('x', { badChecksum: true })]],
  ['a size beyond the archive', [file('x', { size: '00000007777\0' })]],
  ['a size of PAX beyond the archive', [paxOf({ size: '3000' }), file('y')]],
  ['a size of PAX that is none', [paxOf({ size: '-1' }), file('y')]],
  [
    'too many directories',
    Array.from({ length: 9 }, (_, at) => file(`d${at}/`, { type: '5', content: Buffer.alloc(0) })),
  ],
] as const satisfies readonly (readonly [string, readonly TarHeader[]])[]) {
  test(`refused: ${what}`, async () => {
    assert.equal(await unpacked(archive(headers)), undefined)
  })
}

test('long names of both kinds are read as they are meant', async () => {
  const long = `${'d/'.repeat(80)}data.json`
  const gnu = { name: '././@LongLink', type: 'L', content: Buffer.from(`${long}\0`) }
  assert.deepEqual(await unpacked(gzipSync(tar([gnu, file('cut')]))), [long])
  assert.deepEqual(await unpacked(gzipSync(tar([paxOf({ path: long }), file('cut')]))), [long])
})

test('what made the streaming reader wait for ever is refused at once', async () => {
  const inBase256 = '\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff'
  for (const header of [file('d', { type: '5' }), file('x', { size: inBase256 })]) {
    assert.equal(await unpacked(archive([header])), undefined)
  }
})

test('archives of the usual formats are read, and nothing may follow their end', async () => {
  for (const magic of ['ustar\x0000', 'ustar  \0']) {
    const names = await unpacked(archive([file('a/b', { magic }), file('./c', { magic })]))
    assert.deepEqual(names, ['a/b', 'c'], magic)
  }
  assert.equal(await unpacked(archive([file('a', { magic: '' })])), undefined)
  const whole = tar([file('a')])
  const after = Buffer.concat([whole, tar([file('b')])])
  assert.equal(await unpacked(gzipSync(after)), undefined)
  assert.equal(await unpacked(gzipSync(tar([file('a')], 0))), undefined)
  assert.deepEqual(await unpacked(gzipSync(tar([file('a')], 10_240))), ['a'])
})
