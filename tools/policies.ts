// Builds the policies that this repository carries: `policies/` into policies/bundle.tar.gz, and
// every directory of test/policy/rego into a bundle of the same name for the tests. With --check
// it builds to a temporary directory and says which committed bundles differ.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findOpa, run } from './opa.ts'

const SAMPLE = 'policies'
const TEST_SOURCES = 'test/policy/rego'
const TEST_BUNDLES = 'test/policy/bundles'

// Bundles carry the paths of their sources as they were given.
process.chdir(fileURLToPath(new URL('..', import.meta.url)))

const bundles = [
  { source: SAMPLE, bundle: join(SAMPLE, 'bundle.tar.gz') },
  ...readdirSync(TEST_SOURCES).map((name) => ({
    source: join(TEST_SOURCES, name),
    bundle: join(TEST_BUNDLES, `${name}.tar.gz`),
  })),
]

try {
  const opa = findOpa()
  run(opa, ['check', '--strict', '--bundle', SAMPLE])
  run(opa, ['test', '--bundle', SAMPLE])
  if (process.argv.includes('--check')) check(opa)
  else for (const { source, bundle } of bundles) build(opa, source, bundle)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}

function build(opa: string, source: string, bundle: string): void {
  mkdirSync(dirname(bundle), { recursive: true })
  run(opa, ['build', '-t', 'wasm', '--bundle', source, '--ignore', '*_test.rego', '-o', bundle])
}

function check(opa: string): void {
  const directory = mkdtempSync(join(tmpdir(), 'postern-policies-'))
  try {
    const stale = bundles.filter(({ source, bundle }) => {
      const fresh = join(directory, basename(bundle))
      build(opa, source, fresh)
      return !readFileSync(fresh).equals(readFileSync(bundle))
    })
    if (stale.length === 0) return
    const names = stale.map(({ bundle }) => bundle).join(', ')
    throw new Error(`not built from what is committed: ${names}; run \`npm run policies\``)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
