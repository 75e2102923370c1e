// Holds every import in src/ against the table of rooms. Data flows one way (configuration, identity,
// request, policy, forward, observe), and only the rooms named here touch the platform.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix, relative } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'

const SRC = fileURLToPath(new URL('../src', import.meta.url))

/** Modules that belong to no room: the tables and types that rooms share. */
const LEAVES = ['errors', 'field-names', 'metrics', 'package', 'pattern', 'threads', 'version']

/** For each room, the rooms whose code it may import, and those of which only types. */
const ROOMS: Readonly<
  Record<string, { readonly code: readonly string[]; readonly types?: readonly string[] }>
> = {
  config: { code: [] },
  identity: { code: [], types: ['config'] },
  http: { code: [], types: ['config'] },
  policy: { code: [], types: ['config', 'identity', 'http'] },
  proxy: { code: ['identity', 'http', 'policy'], types: ['config'] },
  control: { code: ['config', 'identity', 'policy'] },
  observe: { code: [], types: ['config'] },
  cli: { code: ['config', 'identity', 'http', 'policy', 'proxy', 'control', 'observe'] },
}

/** Platform modules and the only places that may use them, each with its reason. */
const PLATFORM: Readonly<Record<string, readonly (readonly [path: RegExp, why: string])[]>> = {
  'node:tls': [
    [/^proxy\//, 'the data path'],
    [/^cli\/(call|demo)/, 'clients of their own'],
  ],
  'node:net': [
    [/^proxy\//, 'the data path'],
    [/^observe\/server\.ts$/, 'is somebody listening on this UNIX socket?'],
    [/^observe\/line-writer\.ts$/, 'standard output may be a pipe or a socket'],
    [/^cli\//, 'free ports for the demo, isIP'],
  ],
  // Ours is in http/h2/ and proxy/; node:http2 is for tests and benchmarks.
  'node:http2': [],
  'node:http': [
    [/^control\/bundle-download\.ts$/, 'asks bundle servers; the control thread only'],
    [/^proxy\/probes\.ts$/, 'the probe listener is a small server of the control thread'],
    [/^observe\/server\.ts$/, 'the admin and metrics servers'],
    [/^cli\/(call|demo)/, 'clients and workload of the demo'],
    [/^cli\/explain/, 'asks the admin server, which may be a UNIX socket'],
    [/^cli\/decision-server\.ts$/, 'uploads decisions'],
  ],
  'node:https': [
    [/^control\/bundle-download\.ts$/, 'asks bundle servers; the control thread only'],
    [/^cli\/(call|demo)/, 'clients of their own'],
    [/^cli\/decision-server\.ts$/, 'uploads decisions'],
  ],
  'node:fs': [
    [/^(control|cli)\//, 'sources and commands'],
    [/^config\/load\.ts$/, 'the configuration file'],
    [/^observe\/(line-writer|server)\.ts$/, 'log files, and the UNIX sockets of the small servers'],
  ],
  'node:worker_threads': [
    [/^control\/data-thread\.ts$/, 'starts data threads'],
    [/^control\/policy-(aside|thread)\.ts$/, 'reads large bundles aside'],
    [/^proxy\/data-thread\.ts$/, 'is one'],
  ],
}
const FS_VARIANTS = ['node:fs', 'node:fs/promises']

interface Import {
  readonly from: string
  readonly to: string
  readonly typeOnly: boolean
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
  .map((name) => name.split(/[\\/]/).join('/'))

const imports = files.flatMap(importsOf)

describe('the rooms of src/', () => {
  it('are all in the table, and so is every leaf', () => {
    const places = new Set(files.map(roomOf))
    assert.deepEqual(
      [...places].filter(
        (place) => !(place in ROOMS) && !LEAVES.includes(place) && place !== 'main',
      ),
      [],
    )
  })

  it('are read: static, type-only and dynamic imports are all found', () => {
    const has = (one: Import) =>
      imports.some((other) => JSON.stringify(other) === JSON.stringify(one))
    assert.ok(has({ from: 'cli/commands.ts', to: 'cli/run.ts', typeOnly: false }))
    assert.ok(has({ from: 'proxy/exchange.ts', to: 'policy/permit.ts', typeOnly: true }))
    assert.ok(has({ from: 'proxy/upstream.ts', to: 'node:net', typeOnly: false }))
  })

  it('import only the rooms that the table allows', () => {
    const wrong = imports.filter(({ from, to, typeOnly }) => {
      if (to.startsWith('node:') || !to.includes('.ts')) return false
      const [own, other] = [roomOf(from), roomOf(to)]
      if (own === other || own === 'main' || LEAVES.includes(other)) return false
      if (LEAVES.includes(own)) return !typeOnly
      const room = ROOMS[own]
      return !(room?.code.includes(other) || (typeOnly && room?.types?.includes(other)))
    })
    assert.deepEqual(wrong, [])
  })

  it('touch the platform only where the table says why', () => {
    const wrong = imports.filter(({ from, to, typeOnly }) => {
      if (typeOnly) return false
      const module = FS_VARIANTS.includes(to) ? 'node:fs' : to
      const places = PLATFORM[module]
      return places !== undefined && !places.some(([path]) => path.test(from))
    })
    assert.deepEqual(wrong, [])
  })

  it('read the environment in main.ts and config/load.ts only', () => {
    const wrong = files.filter(
      (file) =>
        /process\.env\b/.test(source(file)) && !['main.ts', 'config/load.ts'].includes(file),
    )
    assert.deepEqual(wrong, [])
  })

  it('read the clock where it is made, not where it is used', () => {
    const allowed = /^(proxy\/clock|cli\/|observe\/|proxy\/probes|main)/
    const wrong = files.filter(
      (file) => /\bDate\.now\(\)/.test(source(file)) && !allowed.test(file),
    )
    assert.deepEqual(wrong, [])
  })

  it('keep the two proofs: nobody outside makes a Permit or a VerifiedPeer', () => {
    const makers = { issuePermit: 'policy', admitPeer: 'identity' }
    for (const [maker, room] of Object.entries(makers)) {
      const users = files.filter((file) =>
        new RegExp(`import[^;]*\\b${maker}\\b[^;]*from '\\.\\./${room}/`).test(source(file)),
      )
      assert.deepEqual(users, [], `${maker} is for ${room}/ alone`)
    }
    const casts = files.filter((file) =>
      /\bas (unknown as )?(Permit|VerifiedPeer)\b/.test(source(file)),
    )
    assert.deepEqual(casts, [])
  })
})

function source(file: string): string {
  return readFileSync(join(SRC, file), 'utf8')
}

function roomOf(file: string): string {
  const [first = '', second] = file.split('/')
  return second === undefined ? first.replace(/\.ts$/, '') : first
}

/** Static imports and re-exports, dynamic imports, and built-ins fetched by name. */
function importsOf(file: string): Import[] {
  const text = source(file)
  const found: Import[] = []
  for (const [, kind, names, target] of text.matchAll(
    /^(?:import|export)\s+(type\s+)?([^'"();]*?)\s*(?:from\s+)?'([^']+)'/gm,
  )) {
    const named = /^\{([\s\S]*)\}$/.exec((names ?? '').trim())?.[1]
    const allTypes = named?.split(',').every((name) => /^\s*(type\s|$)/.test(name)) ?? false
    const typeOnly = kind !== undefined || allTypes
    found.push({ from: file, to: resolved(file, target as string), typeOnly })
  }
  for (const [, target] of text.matchAll(/(?:import|getBuiltinModule)\(\s*'([^']+)'\s*\)/g)) {
    found.push({ from: file, to: resolved(file, target as string), typeOnly: false })
  }
  return found
}

function resolved(file: string, target: string): string {
  if (!target.startsWith('.')) return target
  return posix.normalize(posix.join(dirname(file), target)).replace(relative(SRC, SRC), '')
}
