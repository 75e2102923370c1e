// `npm run build`: makes dist/, the program of the package and of the image. What a thread of `run`
// evaluates is in two or three files, because loading three hundred modules twice was a third of a
// start; what is loaded late is in files of its own. Names and lines stay, for stack traces. Takes
// types away unchecked: `npm run types` checks them.
import fs from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type CodeSplittingGroup, type OutputChunk, type Plugin, rolldown } from 'rolldown'

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url))
const SRC = join(REPOSITORY, 'src')

/**
 * Packages that go into dist/, because every start loads them. They stay dependencies all the same,
 * so that whoever looks for known flaws finds them.
 */
const BUNDLED = ['commander', 'pino', 'prom-client', 'yaml']

/**
 * What those load and nothing of ours comes to: pino's own destinations and redaction, the traces that
 * prom-client has for exemplars (which took half of its time and 2 MiB).
 */
const NEVER_USED = ['@opentelemetry/api', '@pinojs/redact', 'sonic-boom', 'thread-stream']

/** Modules that are found by their paths (see src/package.ts), beside the builtins of policies. */
const BY_PATH = [
  'main',
  'proxy/data-thread',
  'control/policy-thread',
  'config/yaml-library',
  'observe/prom-client',
]
const BUILTINS = 'policy/builtins'

/** What the threads of `run` evaluate: these, and all that they import. */
const CONTROL_THREAD = ['main.ts', 'cli/run.ts']
const DATA_THREAD = ['proxy/data-thread.ts']

/**
 * An import of a builtin module evaluates everything that it would make when it is asked for: standard
 * input, all public root certificates (1.5 MiB), web cryptography; 15 ms of a start. So each module of
 * ours takes the names that it uses, and no others.
 */
const namesOfBuiltins: Plugin = {
  name: 'names-of-builtins',
  resolveId: (id, importer, { kind }) =>
    // Of node:module is what loads CommonJS, before anything else.
    id.startsWith('node:') && id !== 'node:module' && kind === 'import-statement'
      ? { id: `\0${importer}/${id}`, moduleSideEffects: false }
      : undefined,
  load: (id) => {
    const name = /^\0.*\/(node:.*)$/.exec(id)?.[1]
    return name && builtinModule(name)
  },
}

function builtinModule(id: string): string {
  const whole = `/* @__PURE__ */ process.getBuiltinModule('${id}')`
  const names = Object.keys(process.getBuiltinModule(id) as object).filter(
    (name) => /^[a-z_$][\w$]*$/i.test(name) && name !== 'default',
  )
  const exports = names.map(
    (name) => `export const ${name} = /* @__PURE__ */ (() => ${whole}.${name})()`,
  )
  return [`export default ${whole}`, ...exports].join('\n')
}

/** Each of them is a class, as `instanceof` is asked about some. */
const neverUsed: Plugin = {
  name: 'never-used',
  resolveId: (id) => (NEVER_USED.includes(id) ? `\0${id}` : undefined),
  load: (id) =>
    NEVER_USED.includes(id.slice(1))
      ? `module.exports = class { constructor() { throw new Error('${id.slice(1)} is not in dist/') } }`
      : undefined,
}

/**
 * Files are read with the modules of yaml, of which what is not used can be left out: 3 MiB and 7 % of a
 * start. Policies are not: of a text in base64 that is wrong those say something else, as atob does.
 */
const yamlOfFiles: Plugin = {
  name: 'yaml-of-files',
  resolveId: (id, importer) =>
    id === 'yaml' && importer?.startsWith(join(SRC, 'config/'))
      ? join(REPOSITORY, 'node_modules/yaml/browser/index.js')
      : undefined,
}

/** One character beyond Latin-1 doubles what a file takes as text, in the memory of each thread. */
const asciiOnly: Plugin = {
  name: 'ascii-only',
  generateBundle: (_, files) => {
    for (const file of Object.values(files)) if (file.type === 'chunk') file.code = ascii(file.code)
  },
}

const ascii = (code: string): string =>
  code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)

export async function build(directory: string): Promise<void> {
  const bundle = await rolldown({
    input: Object.fromEntries(entries().map((name) => [name, join(SRC, `${name}.ts`)])),
    platform: 'node',
    transform: { target: 'node24' },
    plugins: [namesOfBuiltins, neverUsed, yamlOfFiles, asciiOnly],
    external: packagesOutside().map((name) => new RegExp(`^${name}(/|$)`)),
  })
  fs.rmSync(directory, { recursive: true, force: true })
  const { output } = await bundle.write({
    dir: directory,
    format: 'esm',
    entryFileNames: '[name].js',
    // Beside main.js, from where src/package.ts counts.
    chunkFileNames: '[name].js',
    comments: { legal: true, annotation: false, jsdoc: false },
    codeSplitting: {
      // What a group imports goes into it, too, unless a group before has it.
      groups: [
        group('shared', true, true),
        group('control', true, false),
        group('data', false, true),
        { name: 'yaml-of-files', test: /node_modules\/yaml\/browser\// },
        { name: 'yaml', test: /node_modules\/yaml\// },
      ],
    },
  })
  await bundle.close()
  const modules = output
    .filter((one): one is OutputChunk => one.type === 'chunk')
    .flatMap(({ moduleIds }) => moduleIds)
  fs.writeFileSync(join(directory, 'LICENSES.txt'), licencesOf(modules))
}

function entries(): readonly string[] {
  const builtins = fs.readdirSync(join(SRC, BUILTINS)).map((file) => file.replace(/\.ts$/, ''))
  return [...BY_PATH, ...builtins.map((name) => `${BUILTINS}/${name}`)]
}

function packagesOutside(): readonly string[] {
  const file = fs.readFileSync(join(REPOSITORY, 'package.json'), 'utf8')
  return Object.keys(JSON.parse(file).dependencies).filter((name) => !BUNDLED.includes(name))
}

/** The modules that the control thread evaluates or not, and a data thread does or not. */
function group(name: string, control: boolean, data: boolean): CodeSplittingGroup {
  return {
    debugName: name,
    name: (module, graph) => {
      // Each of those runs by being loaded, which is for its own thread to do.
      if (graph.getModuleInfo(module)?.isEntry) return null
      const isNeededBy = (roots: readonly string[]): boolean =>
        reachable(roots, (id) => graph.getModuleInfo(id)?.importedIds ?? []).has(module)
      return isNeededBy(CONTROL_THREAD) === control && isNeededBy(DATA_THREAD) === data
        ? name
        : null
    },
  }
}

function reachable(
  roots: readonly string[],
  imports: (module: string) => readonly string[],
): ReadonlySet<string> {
  const found = new Set(roots.map((path) => join(SRC, path)))
  for (const module of found) for (const one of imports(module)) found.add(one)
  return found
}

/** Of the packages that these modules come from; each has to be shipped with its copy. */
function licencesOf(modules: readonly string[]): string {
  const directories = new Set(modules.flatMap((id) => PACKAGE_DIRECTORY.exec(id)?.[0] ?? []))
  return [...directories].sort().map(licenceOf).join('\n')
}

const PACKAGE_DIRECTORY = /^\/.*\/node_modules\/(?:@[^/]+\/)?[^/]+/

function licenceOf(directory: string): string {
  const { name, version } = JSON.parse(fs.readFileSync(join(directory, 'package.json'), 'utf8'))
  const file = fs.readdirSync(directory).find((one) => /^licen[cs]e/i.test(one))
  if (file === undefined) throw new Error(`${relative(REPOSITORY, directory)} has no licence`)
  return `${name} ${version}\n\n${fs.readFileSync(join(directory, file), 'utf8').trim()}\n`
}

if (import.meta.main) await build(join(REPOSITORY, 'dist'))
