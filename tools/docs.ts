// Writes the generated documents: the reference page and the JSON Schema of the configuration.
// `npm run docs` writes them; with `--check` nothing is written and a stale one is exit code 1.
import { readFileSync, writeFileSync } from 'node:fs'
import { renderConfigSchema } from './config-schema.ts'
import { renderReference } from './reference.ts'

/** Path from the top of the repository, and what belongs there. */
export const GENERATED: readonly (readonly [path: string, render: () => string])[] = [
  ['docs/reference.md', renderReference],
  ['docs/config.schema.json', renderConfigSchema],
]

const inRepository = (path: string): URL => new URL(`../${path}`, import.meta.url)

/** The generated documents that are not what the tables say now. */
export const staleDocuments = (): readonly string[] =>
  GENERATED.filter(([path, render]) => current(path) !== render()).map(([path]) => path)

function current(path: string): string | undefined {
  try {
    return readFileSync(inRepository(path), 'utf8')
  } catch {
    return undefined
  }
}

if (import.meta.main) {
  const stale = staleDocuments()
  if (process.argv.includes('--check')) {
    for (const path of stale) console.error(`${path} is not what the tables say: npm run docs`)
    process.exitCode = stale.length > 0 ? 1 : 0
  } else {
    for (const [path, render] of GENERATED) writeFileSync(inRepository(path), render())
    console.log(stale.length > 0 ? `written: ${stale.join(', ')}` : 'nothing has changed')
  }
}
