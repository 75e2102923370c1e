// What Postern is made of: few packages, each with its reason in the README, each pinned by a hash, none
// of which runs a program when it is installed.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'

interface Locked {
  readonly version?: string
  readonly license?: string
  readonly integrity?: string
  readonly resolved?: string
  readonly link?: true
  readonly dev?: true
  readonly optional?: true
  readonly hasInstallScript?: true
}

const ROOT = new URL('../../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8')
const manifest = JSON.parse(read('package.json'))
const locked: [string, Locked][] = Object.entries(
  (JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }).packages,
)
/** Not the root, nor the workspace that links the Node.js of a checkout. */
const packages = locked.filter(([path, one]) => path.startsWith('node_modules/') && !one.link)
const shipped = packages.filter(([, one]) => !one.dev && !one.optional)
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 13)

/** What may be shipped with a product under Apache-2.0, on the condition of naming it. */
const LICENCES = ['0BSD', 'Apache-2.0', 'BSD-3-Clause', 'ISC', 'MIT']

/** Install scripts that do nothing which is needed; with `ignore-scripts` they do not run either. */
const IDLE_SCRIPTS: Readonly<Record<string, string>> = {
  protobufjs: 'prints a warning about version schemes',
}

describe('the dependencies', () => {
  it('are in the table of the README, each once, and nothing else is', () => {
    const table = read('README.md').split(/^\| library .*$/m)[1] ?? ''
    const rows = table.trimStart().split(/\n\n/)[0]?.split('\n').slice(1) ?? []
    const named = rows.flatMap((row) => row.split('|')[1]?.replaceAll('`', '').split(',') ?? [])
    const names = named.map((name) => name.trim()).sort()
    assert.deepEqual(names, Object.keys(manifest.dependencies).sort())
    for (const row of rows)
      for (const cell of row.split('|').slice(1, -1)) assert.notEqual(cell.trim(), '')
  })

  it('are exact versions', () => {
    const { dependencies, devDependencies } = manifest
    for (const version of Object.values({ ...dependencies, ...devDependencies })) {
      assert.match(version as string, /^\d+\.\d+\.\d+$/)
    }
  })

  it('are pinned by hash, and come from the registry of the machine and nowhere else', () => {
    for (const [path, { integrity, resolved }] of packages) {
      assert.match(integrity ?? '', /^sha512-[A-Za-z0-9+/]{86}==$/, path)
      // With no address in the lock file npm asks the one registry that it is told of.
      assert.equal(resolved, undefined, path)
    }
  })

  it('run nothing when they are installed', () => {
    const scripts = packages.filter(([, one]) => one.hasInstallScript).map(([path]) => nameOf(path))
    assert.deepEqual(scripts, Object.keys(IDLE_SCRIPTS))
    assert.match(read('.npmrc'), /^ignore-scripts=true$/m)
    for (const install of read('Dockerfile').match(/npm ci.*/g) ?? []) {
      assert.match(install, /--ignore-scripts/)
    }
  })

  it('have licences that allow shipping them', () => {
    for (const [path, { license = '' }] of shipped) {
      const all = license.replaceAll(/[()]/g, '').split(' AND ')
      for (const one of all) assert.ok(LICENCES.includes(one), `${path}: ${license}`)
    }
  })
})

describe('npm run sbom', () => {
  const sbom = () =>
    execFileSync(process.execPath, ['tools/sbom.ts'], {
      cwd: fileURLToPath(ROOT),
      encoding: 'utf8',
    })

  it('lists every package that is shipped, with its hash, and the images below', () => {
    const { bomFormat, components, metadata } = JSON.parse(sbom())
    assert.equal(bomFormat, 'CycloneDX')
    assert.deepEqual(
      [metadata.component.name, metadata.component.version],
      ['postern', manifest.version],
    )
    const byType = (type: string) => components.filter((one: { type: string }) => one.type === type)
    const listed = byType('library').map(
      (one: { name: string; version: string; hashes: unknown[] }) => {
        assert.equal(one.hashes.length, 1, one.name)
        return `${one.name}@${one.version}`
      },
    )
    const wanted = shipped.map(([path, { version }]) => `${nameOf(path)}@${version}`)
    assert.deepEqual(listed.sort(), [...new Set(wanted)].sort())
    const images = [...read('Dockerfile').matchAll(/^FROM (\S+)/gm)].map(([, image]) => image)
    assert.deepEqual(
      byType('container').map((one: Record<string, string>) => one['bom-ref']),
      images,
    )
  })

  it('says the same about the same commit', () => {
    assert.equal(sbom(), sbom())
  })
})
