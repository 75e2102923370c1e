// `npm run sbom`: what the image consists of, as CycloneDX JSON on standard output. From the lock file
// alone, so the same commit gives the same bytes: time and serial number come from what is listed.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

interface Component {
  readonly 'bom-ref': string
  readonly type: string
  readonly name: string
  readonly version?: string
  readonly scope?: string
}

interface Bom {
  serialNumber: string
  metadata: { timestamp?: string; component: { name: string; type: string } }
  components: Component[]
  dependencies: { readonly ref: string; readonly dependsOn: readonly string[] }[]
}

interface Locked {
  readonly version?: string
  readonly link?: true
  readonly dev?: true
  readonly optional?: true
}

const ROOT = new URL('../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8')

const npm = ['sbom', '--sbom-format', 'cyclonedx', '--package-lock-only']
const bom: Bom = JSON.parse(
  execFileSync('npm', npm, { cwd: fileURLToPath(ROOT), encoding: 'utf8', maxBuffer: 1 << 26 }),
)

// Not `--omit dev`: npm 11 then leaves out what a shipped package needs as well.
const shipped = new Set(
  Object.entries<Locked>(JSON.parse(read('package-lock.json')).packages)
    .filter(
      ([path, one]) => path.startsWith('node_modules/') && !one.link && !one.dev && !one.optional,
    )
    .map(
      ([path, { version }]) => `${path.slice(path.lastIndexOf('node_modules/') + 13)}@${version}`,
    ),
)
const manifest = JSON.parse(read('package.json'))
const direct = new Set(
  Object.entries(manifest.dependencies).map(([name, version]) => `${name}@${version}`),
)
bom.components = bom.components.filter((one) => shipped.has(one['bom-ref']))
bom.dependencies = bom.dependencies
  .filter(({ ref }) => shipped.has(ref) || ref.startsWith('postern@'))
  .map(({ ref, dependsOn }) => {
    const wanted = ref.startsWith('postern@') ? direct : shipped
    return { ref, dependsOn: dependsOn.filter((one) => wanted.has(one)) }
  })
// npm takes the name of the directory.
bom.metadata.component.name = manifest.name
bom.metadata.component.type = 'application'
bom.components.push(...bases(read('Dockerfile')))

const epoch = process.env['SOURCE_DATE_EPOCH']
if (epoch === undefined) delete bom.metadata.timestamp
else bom.metadata.timestamp = new Date(Number(epoch) * 1_000).toISOString()
bom.serialNumber = ''
const digest = createHash('sha256').update(JSON.stringify(bom)).digest('hex')
// A UUID of version 8: made of what it names.
bom.serialNumber = `urn:uuid:${digest.slice(0, 8)}-${digest.slice(8, 12)}-8${digest.slice(13, 16)}-8${digest.slice(17, 20)}-${digest.slice(20, 32)}`
console.log(JSON.stringify(bom, null, 2))

/** The images that the Dockerfile takes Node.js and the C library from. */
function bases(dockerfile: string): Component[] {
  return [...dockerfile.matchAll(/^FROM (\S+):(\S+)/gm)].map(([, name = '', version = '']) => ({
    'bom-ref': `${name}:${version}`,
    type: 'container',
    name,
    version,
    scope: 'required',
  }))
}
