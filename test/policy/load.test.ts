import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { ARCHIVE_LIMITS, readBundle, unpackArchive } from '../../src/policy/bundle.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import { SECTION, sectionsOf } from '../../src/policy/wasm-module.ts'
import { bundleUrl, FUEL, load, MEMORY_BYTES, SAMPLE_BUNDLE, unpackFile } from './support.ts'

type File = readonly [name: string, content: string | Buffer, more?: object]

async function archive(...files: readonly File[]): Promise<Buffer> {
  const tar = pack()
  for (const [name, content, more] of files) tar.entry({ name, ...more }, content as Buffer)
  tar.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of tar) chunks.push(chunk as Buffer)
  return gzipSync(Buffer.concat(chunks))
}

async function refusal(bytes: Buffer, limits = ARCHIVE_LIMITS): Promise<string> {
  const unpacked = await unpackArchive(bytes, 'bundle.tar.gz', limits)
  assert.equal(unpacked.kind, 'problems')
  return unpacked.kind === 'problems' ? unpacked.problems.map(({ what }) => what).join('; ') : ''
}

async function sampleWith(changes: Readonly<Record<string, string | undefined>>) {
  const entries = new Map(await unpackFile(SAMPLE_BUNDLE))
  for (const [name, content] of Object.entries(changes)) {
    if (content === undefined) entries.delete(name)
    else entries.set(name, Buffer.from(content))
  }
  return entries
}

async function problemsWith(
  changes: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  const read = readBundle(await sampleWith(changes), 'bundle')
  return read.kind === 'problems' ? read.problems.map(({ what }) => what).join('; ') : 'none'
}

test('names lose their leading slash, directories are passed over', async () => {
  const bytes = await archive(['/a/b.json', '{}'], ['./c', 'x'], ['d/', '', { type: 'directory' }])
  const unpacked = await unpackArchive(bytes, 'b')
  assert.deepEqual(unpacked.kind === 'entries' && [...unpacked.entries.keys()], ['a/b.json', 'c'])
})

test('an archive may not climb, link, repeat or be no archive', async () => {
  assert.match(await refusal(await archive(['../x', ''])), /plain path/)
  assert.match(await refusal(await archive(['a/../../x', ''])), /plain path/)
  assert.match(await refusal(await archive(['a//b', ''])), /plain path/)
  assert.match(
    await refusal(await archive(['x', '', { type: 'symlink', linkname: '/etc/passwd' }])),
    /is a symlink/,
  )
  assert.match(
    await refusal(await archive(['x', '', { type: 'link', linkname: 'y' }])),
    /is a link/,
  )
  assert.match(await refusal(await archive(['/x', 'a'], ['x', 'b'])), /occurs twice/)
  assert.match(await refusal(Buffer.from('not gzip')), /not a readable gzipped tar/)
  assert.match(await refusal(gzipSync(Buffer.alloc(1_000, 'x'))), /not a readable gzipped tar/)
  const whole = readFileSync(SAMPLE_BUNDLE)
  assert.match(await refusal(whole.subarray(0, whole.length / 2)), /not a readable gzipped tar/)
})

test('an archive may not be larger than the limits, also when it is small on disk', async () => {
  const limits = { fileBytes: 1_000, totalBytes: 20_000, fileCount: 3 }
  assert.match(await refusal(await archive(['a', Buffer.alloc(1_001)]), limits), /larger than 1000/)
  assert.match(await refusal(gzipSync(Buffer.alloc(1_000_000)), limits), /not a readable/)
  const four = await archive(['a', ''], ['b', ''], ['c', ''], ['d', ''])
  assert.match(await refusal(four, limits), /more files than 3/)
})

test('data stands at the path of its directory', async () => {
  const entries = await sampleWith({
    'data.json': '{"authz":{"roles":{}}}',
    'authz/callers/data.json': '{"a":1e3,"b":12345678901234567890}',
  })
  const read = readBundle(entries, 'b')
  assert.equal(read.kind, 'bundle')
  if (read.kind !== 'bundle') return
  assert.equal(
    read.bundle.dataJson,
    '{"authz":{"roles":{},"callers":{"a":1e3,"b":12345678901234567890}}}',
  )
  assert.equal(read.bundle.revision, 'sample')
  assert.deepEqual(read.bundle.entrypoints, ['envoy/authz/allow'])
})

test('a bundle that is not what the manifest says is refused', async () => {
  assert.match(await problemsWith({ 'authz/data.json': '{"roles":1}' }), /a second time/)
  assert.match(
    await problemsWith({ 'data.json': '{"other":1}' }),
    /data at other is not under a root/,
  )
  assert.match(await problemsWith({ 'data.json': '[1]' }), /not a JSON object/)
  assert.match(await problemsWith({ 'data.json': '{' }), /not JSON/)
  assert.match(await problemsWith({ 'authz/data.yaml': 'a: 1' }), /YAML/)
  assert.match(await problemsWith({ 'patch.json': '{}' }), /delta/)
  assert.match(await problemsWith({ '.signatures.json': '{}' }), /signed/)
  assert.match(await problemsWith({ 'policy.wasm': undefined }), /which is not there/)
  assert.match(
    await problemsWith({ 'policy.wasm': undefined, '.manifest': undefined }),
    /no WebAssembly module/,
  )
  assert.match(
    await problemsWith({ 'b.wasm': 'x', '.manifest': undefined }),
    /2 WebAssembly modules/,
  )
  assert.match(await problemsWith({ '.manifest': '{"roots":["a","a/b"]}' }), /overlaps/)
  assert.match(await problemsWith({ '.manifest': '{"roots":7}' }), /wrong type/)
  const manifest =
    '{"roots":["authz"],"wasm":[{"entrypoint":"envoy/authz/allow","module":"/policy.wasm"}]}'
  assert.match(
    await problemsWith({ '.manifest': manifest }),
    /entrypoint envoy\/authz\/allow is not under/,
  )
})

test('says everything that is wrong at once', async () => {
  assert.match(
    await problemsWith({ 'patch.json': '', 'data.yml': '', '.signatures.json': '' }),
    /delta.*YAML.*signed/,
  )
})

const whatOf = (loaded: Awaited<ReturnType<typeof load>>) =>
  loaded.kind === 'problems'
    ? loaded.problems.map(({ what, remedy }) => `${what} (${remedy})`).join('; ')
    : `loaded ${loaded.warnings.map(({ what }) => what).join('; ')}`

test('loads the sample policy, ready to decide', async () => {
  const loaded = await load(SAMPLE_BUNDLE)
  assert.equal(whatOf(loaded), 'loaded ')
  assert.ok(loaded.kind === 'policy')
  const { module, ...facts } = loaded.material
  assert.ok(module instanceof WebAssembly.Module)
  assert.equal(facts.entrypoint, 'envoy/authz/allow')
  assert.equal(facts.revision, 'sample')
})

test('an entrypoint that is not there is refused with those that are', async () => {
  assert.match(
    whatOf(await load(SAMPLE_BUNDLE, { entrypoint: 'a/b' })),
    /no entrypoint a\/b .*envoy\/authz\/allow/,
  )
})

test('unknown and refused builtins are named, all of them', async () => {
  // Every builtin of OPA is supplied or refused; a newer OPA may have others.
  const entries = new Map(await unpackFile(bundleUrl('unknown-builtin')))
  const wasm = (entries.get('policy.wasm') as Buffer).toString('latin1')
  const newer = wasm
    .replaceAll('semver.compare', 'semver.newname')
    .replaceAll('uuid.rfc4122', 'uuid.rfc9562')
  entries.set('policy.wasm', Buffer.from(newer, 'latin1'))
  const options = { entrypoint: undefined, fuel: FUEL, memoryBytes: MEMORY_BYTES }
  const unknown = whatOf(await loadPolicy({ file: 'b', entries, digest: 'd' }, options))
  assert.match(unknown, /semver\.newname, which Postern does not supply/)
  assert.match(unknown, /uuid\.rfc9562/)
  assert.match(
    whatOf(await load(bundleUrl('http-send'))),
    /http\.send, which is refused: a decision must not wait/,
  )
})

test('a policy that cannot answer a sample request is refused, a doubtful one gets a warning', async () => {
  assert.match(whatOf(await load(bundleUrl('wrong-type'))), /unusable answer/)
  assert.match(
    whatOf(await load(bundleUrl('undefined'))),
    /loaded .*undefined for a sample request/,
  )
  assert.match(whatOf(await load(bundleUrl('runaway'))), /loaded .*used up its (fuel|memory)/)
})

test('what is no module of opa build is refused', async () => {
  const wasm = (await unpackFile(SAMPLE_BUNDLE)).get('policy.wasm') as Buffer
  const answer = async (bytes: Buffer) => {
    const entries = new Map(await sampleWith({}))
    entries.set('policy.wasm', bytes)
    const options = { entrypoint: undefined, fuel: FUEL, memoryBytes: MEMORY_BYTES }
    return whatOf(await loadPolicy({ file: 'b', entries, digest: 'd' }, options))
  }
  assert.match(await answer(Buffer.from('x')), /not a WebAssembly module/)
  assert.match(await answer(wasm.subarray(0, 1_000)), /cannot be used/)
  // An instruction that no counter stops: memory.fill (0xfc 11) in the place of the last `end`.
  const section = sectionsOf(wasm).find(({ id }) => id === SECTION.code)
  assert.ok(section)
  const unmetered = Buffer.from(wasm)
  unmetered.set([0xfc, 0x0b, 0x00, 0x0b], section.end - 4)
  assert.match(await answer(unmetered), /instruction 0xfc 11 is not supported/)
  const empty = Buffer.from('0061736d01000000', 'hex')
  assert.match(await answer(empty), /cannot be used/)
})

test('bytes that were changed at random are refused or loaded, never a fault', async () => {
  const wasm = (await unpackFile(SAMPLE_BUNDLE)).get('policy.wasm') as Buffer
  const { meterModule } = await import('../../src/policy/rewrite.ts')
  for (let i = 0; i < 200; i++) {
    const changed = Buffer.from(wasm)
    // A fixed sequence, so that a failure can be repeated.
    for (let j = 0; j < 3; j++)
      changed[(i * 7_919 + j * 104_729 + 8) % wasm.length] = (i * 31 + j * 17) & 0xff
    const metered = meterModule(changed)
    assert.ok(metered.kind === 'refused' || metered.kind === 'rewritten')
  }
})

test('how much an evaluation may use is measured, unless it is configured', async () => {
  const measured = await load(SAMPLE_BUNDLE, { fuel: undefined })
  assert.equal(measured.kind, 'policy')
  if (measured.kind !== 'policy') return
  assert.ok(measured.material.fuel >= 1_000_000 && measured.material.fuel <= 20_000_000)
  const fixed = await load(SAMPLE_BUNDLE, { fuel: 123_456 })
  assert.equal(fixed.kind === 'policy' && fixed.material.fuel, 123_456)
})
